"""The heap of frames: the ledger, the kernel and its own lists say the same, whatever is asked of it."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import a_heap

from hypervisor.ledger import HEAP
from hypervisor.tmem.heap import SPARE_LIMIT

BUDGET = 40
STEPS = st.lists(st.one_of(
    st.tuples(st.just("take"), st.integers(0, 50)),
    st.tuples(st.just("give"), st.integers(0, 50)),
    st.tuples(st.just("trim"), st.integers(0, 50)),
    st.tuples(st.just("others"), st.integers(0, BUDGET)),    # frames that guests hold
), max_size=40)


def prove_sound(heap):
    assert heap.audit() == []
    assert heap.object.resident() == heap.ledger.held.get(HEAP, 0) == heap.in_use + heap.spare


def the_disk_is_full(monkeypatch, after=0):
    """Let `after` more allocations succeed, then none."""
    real, calls = os.posix_fallocate, iter(range(after))

    def refuse(*arguments):
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", refuse)


@given(STEPS)
def test_ledger_and_kernel_agree_after_every_step(steps):
    with a_heap(BUDGET, pages=64) as heap:
        held: list[int] = []
        for what, count in steps:
            if what == "take":
                room = heap.ledger.free + heap.spare
                got = heap.take(count)
                assert len(got) == min(count, room), "as many as asked for, or all there are"
                assert not set(got) & set(held), "one frame was given twice"
                held += got
            elif what == "give":
                heap.give(held[:count])
                del held[:count]
            elif what == "trim":
                spare = heap.spare
                assert heap.trim(count) == min(count, spare)
            else:
                heap.ledger.forget(7)
                heap.ledger.reserve(7, min(count, heap.ledger.free))
            assert heap.in_use == len(held)
            prove_sound(heap)


def test_a_frame_keeps_its_page_until_it_is_given_back():
    with a_heap() as heap:
        frames = heap.take(20)
        heap.pages[frames] = np.arange(20, dtype=np.uint8).reshape(-1, 1)
        heap.give(frames[::2])
        heap.take(5)
        heap.trim(99)
        assert (heap.pages[frames[1::2]] == np.arange(1, 20, 2, dtype=np.uint8).reshape(-1, 1)).all()


def test_frames_that_go_back_to_the_machine_come_again_as_zeros():
    """T50: what one pool left is not what another finds, once the frame has left the heap."""
    with a_heap() as heap:
        frames = heap.take(8)
        heap.pages[frames] = 0xAA
        heap.give(frames)
        heap.trim(heap.spare)
        assert heap.object.resident() == 0
        again = heap.take(8)
        assert sorted(again) == sorted(frames), "holes are used again before fresh frames"
        assert not heap.pages[again].any()


def test_many_spare_frames_go_back_by_themselves():
    with a_heap(4000) as heap:
        heap.give(heap.take(2 * SPARE_LIMIT + 100))
        assert heap.spare == SPARE_LIMIT
        prove_sound(heap)


def test_room_that_is_refused_gives_what_there_is():
    with a_heap(budget=3) as heap:
        assert len(heap.take(5)) == 3
        assert heap.take(1) == []
        prove_sound(heap)


def test_spare_frames_are_not_reclaimed_to_make_room_for_themselves():
    """Reclaim trims the heap's own spare frames first; a batch that already counts on them must not lose them."""
    with a_heap(budget=10) as heap:
        plain = heap.room

        def room(frames):
            if frames > heap.ledger.free:
                heap.trim(2 * frames)
            return plain(frames)

        heap.room = room
        heap.give(heap.take(6))
        heap.ledger.reserve(7, 2)
        assert len(heap.take(9)) == 8, "budget 10, of which another holds 2"
        prove_sound(heap)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_full_dev_shm_is_as_good_as_no_room(monkeypatch, after):
    """ENOSPC at the first run of frames, or in the middle: none stays allocated, none stays reserved."""
    with a_heap() as heap:
        frames = heap.take(64)
        heap.give(frames[::2])
        heap.trim(99)                                        # holes, each a run of its own
        held = heap.in_use
        the_disk_is_full(monkeypatch, after)
        assert heap.take(10) == []
        assert (heap.in_use, heap.spare) == (held, 0)
        prove_sound(heap)
        monkeypatch.undo()
        assert len(heap.take(10)) == 10
        prove_sound(heap)


def test_the_object_is_never_outgrown():
    with a_heap(budget=100, pages=16) as heap:
        assert sorted(heap.take(50)) == list(range(16))
        prove_sound(heap)


def test_an_audit_finds_a_frame_that_the_ledger_does_not_know():
    with a_heap() as heap:
        heap.take(1)
        heap.ledger.release(HEAP, 1)
        assert any("the ledger says" in problem for problem in heap.audit())
