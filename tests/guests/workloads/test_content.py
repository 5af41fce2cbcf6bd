"""Computable content: one page as many, and no two pages alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.workloads.content import MASK, Content, mix, mix_many
from shm.abi import PAGE_SIZE

NUMBERS = st.integers(0, (1 << 32) - 1)


@given(st.lists(st.integers(0, MASK), min_size=1))
def test_mixing_one_is_mixing_many(values: list[int]) -> None:
    assert mix_many(np.array(values, np.uint64)).tolist() == [mix(value) for value in values]


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20), st.integers(0, 1 << 70))
def test_a_page_is_its_row_of_pages(keys: list[tuple[int, int]], seed: int) -> None:
    content = Content(seed)
    blocks, versions = (np.array(column) for column in zip(*keys, strict=True))
    pages = content.pages(blocks, versions)
    assert pages.shape == (len(keys), PAGE_SIZE)
    assert [page.tobytes() for page in pages] == [content.page(*key) for key in keys]


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=2, unique=True))
def test_two_pages_differ_in_every_word(keys: list[tuple[int, int]]) -> None:
    content = Content(1)
    one, other = (np.frombuffer(content.page(*key), np.uint64) for key in keys)
    assert (one != other).all()


def test_words_of_a_page_differ_from_one_another() -> None:
    words = np.frombuffer(Content(7).page(3, 2), np.uint64)
    assert len(np.unique(words)) == len(words)


@pytest.mark.parametrize("other", [0, 2, 1 << 32, (1 << 64) - 1])
def test_another_seed_is_another_content(other: int) -> None:
    assert Content(1).page(0) != Content(other).page(0)


def test_the_version_defaults_to_the_first() -> None:
    content = Content(5)
    assert content.page(9) == content.page(9, 0) == content.pages(np.array([9]))[0].tobytes()
