"""The target's place: behind the content of every page, and in the same object."""

import numpy as np
import pytest

from shm.abi import PAGE_SIZE
from shm.target import content_pages, target_word


@pytest.mark.parametrize(("pages", "size"), [
    (1, 1), (PAGE_SIZE - 9, 1), (PAGE_SIZE - 8, 1), (PAGE_SIZE - 7, 2), (PAGE_SIZE, 2), (2 * PAGE_SIZE - 8, 2)])
def test_the_word_lies_behind_the_last_page(pages, size):
    assert content_pages(pages) == size
    content = np.zeros(size * PAGE_SIZE, np.uint8)
    target_word(content)[0] = (1 << 64) - 1
    assert not content[:pages].any()
    assert content.sum() == 8 * 255
    assert target_word(content).tolist() == [(1 << 64) - 1]


def test_who_maps_it_read_only_writes_nothing():
    content = np.zeros(PAGE_SIZE, np.uint8)
    content.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        target_word(content)[0] = 1
