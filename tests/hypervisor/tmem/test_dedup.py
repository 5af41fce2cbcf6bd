"""Deduplication: a frame for equal pages, counted by its users (T94)."""

import numpy as np
import pytest
from stores import a_heap, page

from hypervisor.tmem.dedup import Shared
from shm.errors import BrokenInvariant


def share(shared: Shared, content: np.ndarray, group: int = 1) -> int | None:
    """Share a page; its record, or None where it must be kept raw."""
    key = shared.key(group, content)
    number = shared.join(key, content)
    if number is None:
        [frame] = shared.heap.take(1)
        shared.heap.pages[frame] = content
        number = shared.add(key, frame)
    return number


def test_a_frame_is_freed_at_its_last_user():
    with a_heap() as heap:
        shared = Shared(heap)
        numbers = [share(shared, page(1)) for _ in range(5)]
        assert (heap.in_use, len(shared), shared.pages, shared.puts) == (1, 1, 5, 4)
        shared.leave(np.array(numbers[:4]))
        assert (heap.in_use, shared.pages) == (1, 1)
        assert shared.audit() == []
        shared.leave(np.array(numbers[4:]))
        assert (heap.in_use, len(shared), shared.pages) == (0, 0, 0)
        assert shared.audit() == []


def test_many_records_and_their_numbers_are_used_again():
    with a_heap(2000) as heap:
        shared = Shared(heap)
        for _ in range(3):
            numbers = [share(shared, page(content)) for content in range(600) for _ in range(2)]
            assert (heap.in_use, shared.pages) == (600, 1200)
            assert shared.audit() == []
            shared.leave(np.array(numbers))
            assert heap.in_use == 0
        assert shared.records.capacity < 3 * 600


def test_a_page_that_differs_in_its_last_byte_is_not_shared():
    with a_heap() as heap:
        shared, other = Shared(heap), page(1).copy()
        other[-1] ^= 1
        assert share(shared, page(1)) != share(shared, other)


def test_a_user_that_never_was_does_not_leave():
    with a_heap() as heap:
        shared = Shared(heap)
        number = share(shared, page(1))
        with pytest.raises(BrokenInvariant, match="too often"):
            shared.leave(np.array([number, number]))


@pytest.mark.parametrize("wrong", [0, -1, 7])
def test_an_audit_finds_records_without_users(wrong):
    with a_heap() as heap:
        shared = Shared(heap)
        numbers = [share(shared, page(1)), share(shared, page(2))]
        shared.users[numbers[0]] = wrong
        shared.frames[numbers[0]] = shared.frames[numbers[1]]
        assert shared.audit() != []
