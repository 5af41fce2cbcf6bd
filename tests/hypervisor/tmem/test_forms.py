"""Forms: what is packed comes back, one by one and many at once; a place says what it was made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.tmem.forms import (
    EMPTY_PLACE,
    RAW_LIMIT,
    ZERO_PLACE,
    Form,
    Kind,
    ats_of,
    kinds_of,
    lengths_of,
    pack,
    pack_one,
    places_of,
    unpack,
)
from shm.abi import PAGE_SIZE

KINDS = {Form.LZ4: Kind.LZ4, Form.TZE: Kind.TZE}
PIECES = st.lists(st.tuples(st.integers(0, PAGE_SIZE - 1), st.binary(min_size=1, max_size=300)), max_size=6)


def page_of(pieces):
    made = np.zeros(PAGE_SIZE + 300, np.uint8)
    for at, data in pieces:
        made[at:at + len(data)] = np.frombuffer(data, np.uint8)
    return made[:PAGE_SIZE].copy()


@pytest.mark.parametrize("form", KINDS)
@given(st.lists(PIECES, min_size=1, max_size=4))
def test_what_is_packed_comes_back(form, many):
    pages = np.array([page_of(pieces) for pieces in many])
    data, lengths = pack(form, pages)
    for content, packed, length in zip(pages, data, lengths.tolist(), strict=True):
        out = np.full(PAGE_SIZE, 0xDB, np.uint8)
        assert (length == 0) == (not content.any())
        assert len(pack_one(form, content)) == length
        unpack(KINDS[form], memoryview(packed)[:length] if length else memoryview(packed), out.data)
        assert (out == content).all()


@pytest.mark.parametrize(("last", "length"), [(0, 8), (7, 8), (8, 16), (4031, 4032), (4032, 4040), (4095, 4096)])
def test_trailing_zero_words_are_cut(last, length):
    """T93: in whole words."""
    content = np.zeros((1, PAGE_SIZE), np.uint8)
    content[0, last] = 1
    data, lengths = pack(Form.TZE, content)
    assert lengths.tolist() == [length]
    assert bytes(data[0]) == bytes(pack_one(Form.TZE, content[0])) == content[0, :length].tobytes()


def test_a_place_says_what_it_was_made_of():
    raw, swapped = places_of(Kind.RAW, np.array([0, 7])), places_of(Kind.SWAPPED, np.array([0, 9]))
    assert raw.tolist() == [0, 7], "a raw place is its frame"
    assert kinds_of(swapped).tolist() == [Kind.SWAPPED] * 2
    assert ats_of(swapped).tolist() == [0, 9]
    assert lengths_of(np.array([ZERO_PLACE], np.uint64)).tolist() == [0]
    assert raw.max() < RAW_LIMIT <= ZERO_PLACE < swapped.min() < EMPTY_PLACE
