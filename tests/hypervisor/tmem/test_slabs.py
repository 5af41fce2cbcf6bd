"""Slabs: slots are whose they are, partial slabs are filled first, empty ones go back."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import a_heap

from hypervisor.ledger import HEAP
from hypervisor.tmem.forms import Kind, ats_of
from hypervisor.tmem.heap import RUN, SPARE_RUNS
from hypervisor.tmem.slabs import CLASS_OF, CLASSES, LONGEST, PAYING, SLAB_BYTES, SLOT_BYTES, TAG_BYTES, Slabs
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant

LENGTH = 1000                # of data in the tests below: all of one class
SLOTS = SLAB_BYTES // int(SLOT_BYTES[CLASS_OF[LENGTH]])


def store(slabs, lengths):
    """Store data of these lengths; return the places, or None when there is no room for all."""
    lengths = np.array(lengths)
    classes = slabs.reserve(lengths)
    data = [bytes([1 + i % 255]) * length for i, length in enumerate(lengths.tolist())]
    return None if classes is None else slabs.fill(Kind.LZ4, classes, lengths, data)


def slabs_of(places):
    return set((ats_of(places) // SLAB_BYTES).tolist())


BUDGET, PAGES = 48, 56
RUN_STEPS = st.lists(st.tuples(st.sampled_from(["take", "give", "take_run", "give_runs", "trim", "others"]),
                               st.integers(0, 24), st.integers(0, 7)), max_size=60)


@given(RUN_STEPS)
def test_runs_and_single_frames_live_beside_each_other(steps):
    """Neither is refused while there is room, but for a run in an object whose free frames are all scattered."""
    with a_heap(BUDGET, PAGES) as heap:
        singles, firsts = [], []
        for what, count, seed in steps:
            free = heap.ledger.free + heap.spare
            if what == "take":
                got = heap.take(count)
                assert len(got) == min(count, free)
                singles += got
            elif what == "give":
                heap.give(singles[seed:seed + count])
                del singles[seed:seed + count]
            elif what == "take_run":
                first = heap.take_run()
                firsts += [] if first is None else [first]
                taken = {frame // RUN for frame in singles} | {other // RUN for other in firsts if other != first}
                assert (first is not None) == (free >= RUN and len(taken) < PAGES // RUN)
            elif what == "give_runs":
                heap.give_runs(firsts[seed:])
                del firsts[seed:]
            elif what == "trim":
                spare = heap.spare
                assert heap.trim(count) == min(count, spare)
            else:
                heap.ledger.forget(7)
                heap.ledger.reserve(7, min(count, heap.ledger.free))
            held = singles + [frame for first in firsts for frame in range(first, first + RUN)]
            assert len(set(held)) == len(held) == heap.in_use
            assert all(first % RUN == 0 for first in firsts)
            assert heap.audit() == []
            assert heap.object.resident() == heap.ledger.held.get(HEAP, 0)


def test_spare_single_frames_are_exchanged_for_a_run():
    with a_heap(budget=RUN) as heap:
        heap.give(heap.take(RUN))
        heap.room = lambda frames: frames <= heap.ledger.free and heap.ledger.reserve(HEAP, frames)
        assert heap.take_run() is not None


def test_holes_of_single_frames_become_a_run_again():
    with a_heap(budget=16, pages=16) as heap:
        heap.give(heap.take(16))
        heap.trim(16)
        assert [heap.take_run() for _ in range(4)].count(None) == 0
        assert heap.take_run() is None


def test_holes_of_runs_become_single_frames_again():
    with a_heap(budget=16, pages=16) as heap:
        heap.give_runs([heap.take_run() for _ in range(4)])
        assert heap.spare == min(4, SPARE_RUNS) * RUN
        assert len(heap.take(17)) == 16


def test_a_run_in_an_object_of_scattered_frames_is_refused_and_costs_nothing():
    with a_heap(budget=16, pages=16) as heap:
        frames = heap.take(16)
        heap.give(frames[::2])
        heap.trim(8)
        assert heap.take_run() is None
        assert heap.ledger.used == heap.in_use == heap.object.resident() == 8


def test_a_full_dev_shm_has_no_run(monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with a_heap() as heap:
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", refuse)
            assert heap.take_run() is None
        assert heap.ledger.used == heap.object.resident() == 0
        assert heap.audit() == []
        assert heap.take_run() is not None


def test_slots_fit_their_slab_and_the_largest_is_a_frame():
    assert (np.diff(SLOT_BYTES) > 0).all()
    assert (SLOT_BYTES % TAG_BYTES == 0).all()
    assert SLOT_BYTES[-1] == PAGE_SIZE
    assert PAYING < LONGEST < PAGE_SIZE


@pytest.mark.parametrize("length", [0, 1, 62, 63, 1000, PAYING, PAYING + 1, LONGEST])
def test_the_class_of_a_length_is_the_smallest_that_holds_it(length):
    class_ = int(CLASS_OF[length])
    assert SLOT_BYTES[class_] >= length + TAG_BYTES
    assert class_ == 0 or SLOT_BYTES[class_ - 1] < length + TAG_BYTES


def test_every_length_has_a_slot_that_keeps_its_data():
    with a_heap(4000, 8000) as heap:
        slabs, lengths = Slabs(heap), list(range(1, LONGEST + 1, 7))
        places = store(slabs, lengths)
        memory = heap.pages.reshape(-1)
        for i, (at, length) in enumerate(zip(ats_of(places).tolist(), lengths, strict=True)):
            assert (memory[at + TAG_BYTES:at + TAG_BYTES + length] == 1 + i % 255).all()
        assert slabs.audit() == []
        assert sorted(slabs.places().tolist()) == sorted(places.tolist())
        slabs.free(places)
        assert heap.in_use == slabs.frames == 0
        assert slabs.audit() == []


def test_partial_slabs_are_filled_before_new_ones_are_made():
    with a_heap() as heap:
        slabs = Slabs(heap)
        places = store(slabs, [LENGTH] * 3 * SLOTS)
        assert slabs.frames == 3 * RUN
        slabs.free(places[::3])
        again = store(slabs, [LENGTH] * len(places[::3]))
        assert slabs.frames == 3 * RUN
        assert sorted(again.tolist()) == sorted(places[::3].tolist())


def test_one_and_many_mean_the_same():
    with a_heap() as heap:
        slabs = Slabs(heap)
        class_ = slabs.find_class(LENGTH)
        one = slabs.fill_one(Kind.TZE, class_, b"x" * LENGTH)
        assert slabs.pages[Kind.TZE] == 1
        assert slabs.data_bytes[Kind.TZE] == LENGTH
        assert slabs.audit() == []
        slabs.free_one(one)
        assert slabs.audit() == []
        assert heap.in_use == 0


@pytest.mark.parametrize("many", [False, True])
def test_a_slot_is_freed_once(many):
    with a_heap() as heap:
        slabs = Slabs(heap)
        places = store(slabs, [LENGTH] * 2)
        slabs.free_one(int(places[0]))
        with pytest.raises(BrokenInvariant):
            slabs.free(places[:1]) if many else slabs.free_one(int(places[0]))


def test_an_empty_slab_goes_back_to_the_heap_and_can_be_trimmed():
    with a_heap() as heap:
        slabs = Slabs(heap)
        places = store(slabs, [LENGTH] * 2 * SLOTS)
        slabs.free(places[:SLOTS])
        assert (slabs.frames, heap.in_use, heap.spare) == (RUN, RUN, RUN)
        assert heap.trim(RUN) == RUN
        assert heap.object.resident() == heap.ledger.used == RUN


def test_a_slab_is_made_of_frames_that_hold_old_data():
    with a_heap(budget=RUN) as heap:
        slabs = Slabs(heap)
        first = heap.take_run()
        heap.pages[first:first + RUN] = 0xAA
        heap.give_runs([first])
        assert len(store(slabs, [LENGTH] * 2)) == 2
        assert slabs.audit() == []
        assert len(store(slabs, [LENGTH] * (SLOTS - 2))) == SLOTS - 2, "what was there before takes no slot"
        assert slabs.audit() == []


def test_a_slab_made_in_vain_is_given_back():
    """Evictions made room in a slab that was there, while a new one was looked for."""
    with a_heap() as heap:
        slabs = Slabs(heap)
        full, plain = store(slabs, [LENGTH] * SLOTS), heap.room
        heap.room = lambda frames: slabs.free(full[:2]) or plain(frames)
        classes = slabs.reserve(np.array([LENGTH]))
        assert heap.in_use == 2 * RUN
        slabs.fill(Kind.LZ4, classes, np.array([LENGTH]), [b"x" * LENGTH])
        assert heap.in_use == RUN
        assert slabs.audit() == []


def test_what_eviction_frees_is_enough_when_there_is_no_run():
    with a_heap(budget=RUN) as heap:
        slabs = Slabs(heap)
        full = store(slabs, [LENGTH] * SLOTS)
        heap.room = lambda frames: bool(slabs.free(full[:1]))
        assert slabs.find_class(LENGTH) == CLASS_OF[LENGTH]


def test_without_room_for_all_nothing_is_kept():
    with a_heap(budget=2 * RUN) as heap:
        slabs = Slabs(heap)
        assert store(slabs, [100, 1000, 2000]) is None
        assert (heap.in_use, slabs.frames) == (0, 0)
        assert slabs.audit() == []


def test_a_larger_slot_serves_when_there_is_no_run():
    with a_heap(budget=RUN) as heap:
        slabs = Slabs(heap)
        store(slabs, [LENGTH] * (SLOTS - 1))
        assert store(slabs, [100]) is None
        assert slabs.find_class(100) == CLASS_OF[LENGTH]
        slabs.fill_one(Kind.LZ4, CLASS_OF[LENGTH], b"x" * 100)
        assert slabs.find_class(100) is None
        assert slabs.find_class(LENGTH + 1000) is None
        assert slabs.audit() == []


def sparse(slabs, count=8, kept=2):
    """Fill `count` slabs and free all but `kept` slots of each; return what is left, as places."""
    places = store(slabs, [LENGTH] * count * SLOTS)
    leaving = np.arange(len(places)) % SLOTS >= kept
    slabs.free(places[leaving])
    return places[~leaving]


def test_compaction_empties_the_sparsest_slabs():
    with a_heap() as heap:
        slabs = Slabs(heap)
        left = sparse(slabs)
        contents = {int(place): heap.pages.reshape(-1)[int(at) + TAG_BYTES] for place, at
                    in zip(left, ats_of(left), strict=True)}
        moves = slabs.compact(1000)
        assert len(slabs_of(left)) == 8
        assert slabs.frames == heap.in_use == RUN, f"{len(left)} pieces of data fit one slab"
        assert len(set(moves[:, 0].tolist()) & set(moves[:, 1].tolist())) == 0, "nothing is moved twice"
        assert set(moves[:, 0].tolist()) <= set(left.tolist())
        for old, new in moves.tolist():
            assert heap.pages.reshape(-1)[int(ats_of(np.uint64(new))) + TAG_BYTES] == contents[old]
        assert slabs.audit() == []


def test_compaction_moves_the_few_to_the_many():
    with a_heap() as heap:
        slabs = Slabs(heap)
        places = store(slabs, [LENGTH] * 2 * SLOTS)
        slabs.free(np.concatenate((places[2:SLOTS], places[SLOTS + 7:])))
        moves = slabs.compact(1000)
        assert sorted(moves[:, 0].tolist()) == sorted(places[:2].tolist())


@pytest.mark.parametrize(("limit", "moved"), [(0, 0), (1, 0), (2, 2), (5, 4)])
def test_compaction_keeps_to_its_limit(limit, moved):
    with a_heap() as heap:
        slabs = Slabs(heap)
        sparse(slabs)
        assert len(slabs.compact(limit)) == moved
        assert slabs.audit() == []


def test_compaction_leaves_well_filled_slabs_alone():
    with a_heap() as heap:
        slabs = Slabs(heap)
        sparse(slabs, kept=SLOTS - 2)
        assert len(slabs.compact(1000)) == 0


def test_compaction_waits_while_a_write_looks_for_room():
    """A slab that was made for the write is not taken away again."""
    with a_heap() as heap:
        slabs, moves = Slabs(heap), []
        sparse(slabs)
        plain = heap.room
        heap.room = lambda frames: moves.append(len(slabs.compact(2))) or plain(frames)
        assert len(store(slabs, [100] * 300 + [300] * 60)) == 360
        assert moves[0] == 2, "nothing was made yet"
        assert moves[1:] and not any(moves[1:])
        assert slabs.audit() == []


@pytest.mark.parametrize("spoil", [
    lambda slabs, at: slabs.used.__setitem__(CLASS_OF[LENGTH], 9),
    lambda slabs, at: slabs.pages.__setitem__(Kind.TZE, 1),
    lambda slabs, at: slabs.data_bytes.__setitem__(Kind.LZ4, 1),
    lambda slabs, at: slabs.count.__setitem__(CLASSES - 1, 1),
    lambda slabs, at: slabs.heap.pages.reshape(-1)[at:at + TAG_BYTES].fill(0),
    lambda slabs, at: slabs._partial[CLASS_OF[LENGTH]].clear(),
])
def test_an_audit_finds_what_is_not_so(spoil):
    with a_heap() as heap:
        slabs = Slabs(heap)
        places = store(slabs, [LENGTH] * 2)
        assert slabs.audit() == []
        spoil(slabs, int(ats_of(places)[0]))
        assert slabs.audit() != []
