"""Messages of pagers: what is sent arrives, and whatever else arrives is a message or Malformed, and nothing worse."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shm import paging
from shm.paging import Malformed, Message, decode, encode

KINDS = (paging.RESTORE, paging.FAILED, paging.DISK, paging.FUNCTION, paging.MOVED, paging.DONE)
words = st.lists(st.integers(0, (1 << 64) - 1), max_size=paging.MOST_WORDS)


@given(st.sampled_from(KINDS), words, st.text(max_size=100))
def test_what_is_sent_arrives(kind, words, text):
    assert decode(encode(kind, words, text), (kind,)) == Message(kind, tuple(words), text)


@given(st.binary(max_size=paging.MESSAGE_LIMIT + paging.TEXT_LIMIT + 8))
@example(b"")
@example(struct.pack("<II", paging.FAILED, 0xFFFFFFFF))
@example(struct.pack("<II", paging.FAILED, 0) + b"\xff" * paging.TEXT_LIMIT)
def test_any_bytes_are_a_message_or_malformed(data):
    try:
        message = decode(data, KINDS)
    except Malformed:
        return
    assert message.kind in KINDS
    assert len(message.words) <= paging.MOST_WORDS
    assert all(0 <= word < 1 << 64 for word in message.words)


@given(st.sampled_from(KINDS), words, st.binary(max_size=40))
def test_what_begins_like_a_message_is_read_by_its_own_count(kind, words, tail):
    """The tail is text then, whatever it is."""
    message = decode(encode(kind, words) + tail, KINDS)
    assert (message.kind, message.words, message.text) == (kind, tuple(words), tail.decode(errors="replace"))


@pytest.mark.parametrize(("data", "said"), [
    (b"", "a message of 0 bytes"), (b"1234567", "a message of 7 bytes"),
    (encode(paging.RESTORE, (1, 1)), "a message of kind 1"), (encode(0), "a message of kind 0"),
    (struct.pack("<IIQ", paging.FAILED, 2, 5), "says 2 words and has 8 bytes"),
    (struct.pack("<II", paging.FAILED, paging.MOST_WORDS + 1) + bytes(8 * (paging.MOST_WORDS + 1)), "words and has"),
    (encode(paging.FAILED) + b"x" * (paging.TEXT_LIMIT + 1), f"a text of {paging.TEXT_LIMIT + 1} bytes"),
])
def test_what_is_no_message_is_said(data, said):
    with pytest.raises(Malformed, match=said):
        decode(data, (paging.FAILED,))


@given(st.text(min_size=paging.TEXT_LIMIT // 4, max_size=2 * paging.TEXT_LIMIT))
def test_a_long_text_is_cut_and_still_a_message(text):
    """Perhaps within a character, which then reads as another."""
    data = encode(paging.FAILED, (4096,), text)
    assert len(data) <= 16 + paging.TEXT_LIMIT
    found = decode(data, (paging.FAILED,)).text
    assert found == text or text.startswith(found.rstrip("\N{REPLACEMENT CHARACTER}"))


@given(st.integers(0, (1 << 64) - 1))
def test_the_usual_message_is_one_like_any(word):
    assert paging.restore_one(word) == encode(paging.RESTORE, (word, 1))


def test_every_message_fits():
    assert len(encode(paging.RESTORE, [0] * paging.MOST_WORDS)) == paging.MESSAGE_LIMIT
