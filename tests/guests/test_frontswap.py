"""Frontswap: the handle map, and slots that are in the pool or on the disk, never half."""

import random

import numpy as np
import pytest
from fakes import FakeTmem, block_contents
from hypothesis import given
from hypothesis import strategies as st

from guests.frontswap import XEN_BITS, ZCACHE_BITS, Frontswap, handle_of, slot_of
from shm.counters import Count
from shm.errors import BrokenInvariant


@pytest.fixture
def counters() -> np.ndarray:
    return np.zeros(512, np.uint64)


@pytest.fixture
def tmem() -> FakeTmem:
    return FakeTmem(random.Random(1), capacity=0, refuse=0, forget=1.0, pools=16)


@pytest.fixture
def frontswap(tmem, counters) -> Frontswap:
    return Frontswap(tmem.new_pool(persistent=True), 100, counters.data)


def slots(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@pytest.mark.parametrize("bits", [4, 27])
@given(slot=st.integers(0, (1 << 36) - 1), swap_type=st.integers(0, 31))
def test_the_handle_map_is_a_bijection(bits, slot, swap_type):
    """T107, both ways; every slot of a full-sized swap disk fits an index of 32 bits."""
    oid, index = handle_of(slot, swap_type, bits)
    assert slot_of(oid, index, bits) == (slot, swap_type)
    assert handle_of(*slot_of(oid, index, bits), bits) == (oid, index)
    assert 0 <= index < 1 << 32


@pytest.mark.parametrize(("slot", "swap_type", "handle"), [
    (0, 0, (0, 0)), (15, 0, (15, 0)), (16, 0, (0, 1)), (0x123, 2, (0x23, 0x12)),
])
def test_handles_by_hand(slot, swap_type, handle):
    assert handle_of(slot, swap_type) == handle


def test_the_pool_is_asked_for_the_handles_of_the_map(frontswap, tmem):
    frontswap.store(slots(0, 17, 99), block_contents([0, 17, 99]))
    assert tmem.handles(persistent=True) == {handle_of(slot) for slot in (0, 17, 99)}


def test_a_load_gives_what_was_stored_and_leaves_it(frontswap, counters):
    assert frontswap.store(slots(3, 4, 20), block_contents([3, 4, 20])).all()
    for _ in range(2):
        assert np.array_equal(frontswap.load(slots(20, 3)), block_contents([20, 3]))
    assert (counters[Count.FRONTSWAP_STORES], counters[Count.FRONTSWAP_LOADS]) == (3, 4)


def test_a_refused_store_is_the_disks(frontswap, tmem, counters):
    tmem.refuse = 1.0
    assert not frontswap.store(slots(3), block_contents([3])).any()
    assert not frontswap.holds(slots(3)).any()
    assert (counters[Count.FRONTSWAP_STORES], counters[Count.FRONTSWAP_FAILED]) == (0, 1)


def test_a_refused_store_over_an_older_one_leaves_neither(frontswap, tmem, counters):
    """T106: the bit is cleared and the handle flushed; never old data."""
    frontswap.store(slots(3, 4), block_contents([3, 4]))
    tmem.refuse = 1.0
    flushed = []
    pool = tmem.pools[0]
    pool.flush, real = lambda oid, index: flushed.append(slot_of(int(np.ravel(oid)[0]), int(index))[0]), pool.flush
    frontswap.store(slots(3), block_contents([50]))
    pool.flush = real
    assert flushed == [3]
    assert frontswap.holds(slots(3, 4)).tolist() == [False, True]
    assert counters[Count.FRONTSWAP_INVALIDATES] == 1


def test_a_freed_slot_is_flushed_once_and_one_on_the_disk_never(frontswap, tmem, counters):
    frontswap.store(slots(3, 4), block_contents([3, 4]))
    frontswap.invalidate(slots(2, 3))
    frontswap.invalidate(slots(3))
    assert tmem.handles(persistent=True) == {handle_of(4)}
    assert counters[Count.FRONTSWAP_INVALIDATES] == 1


def test_a_pool_that_lost_a_page_broke_its_promise(frontswap, tmem):
    frontswap.store(slots(3, 4), block_contents([3, 4]))
    del tmem.pools[0].pages[handle_of(4)]
    with pytest.raises(BrokenInvariant, match="lost swap slot 4"):
        frontswap.load(slots(3, 4))


def test_a_store_that_fails_over_nothing_flushes_nothing(frontswap, tmem, monkeypatch):
    tmem.refuse = 1.0
    monkeypatch.setattr(tmem.pools[0], "flush_many", lambda *_: pytest.fail("nothing was stored"))
    frontswap.store(slots(3, 4), block_contents([3, 4]))


@pytest.mark.parametrize("bits", [XEN_BITS, ZCACHE_BITS])
def test_two_swap_disks_in_one_pool(tmem, counters, bits):
    """T108: the same slots of two types are different pages, and swapoff of one leaves the other alone."""
    pool = tmem.new_pool(persistent=True)
    disks = [Frontswap(pool, 100, counters.data, swap_type, bits) for swap_type in (0, 1)]
    for swap_type, disk in enumerate(disks):
        assert disk.store(slots(3, 20), block_contents([swap_type + 50, swap_type + 60])).all()
    assert tmem.handles(persistent=True) == {handle_of(slot, kind, bits) for slot in (3, 20) for kind in (0, 1)}
    disks[0].invalidate_area()
    assert (disks[0].pages, disks[1].pages) == (0, 2)
    assert tmem.handles(persistent=True) == {handle_of(slot, 1, bits) for slot in (3, 20)}
    assert np.array_equal(disks[1].load(slots(20, 3)), block_contents([61, 51]))


@pytest.mark.parametrize(("count", "found"), [(-5, []), (0, []), (2, [3, 4]), (99, [3, 4, 20])])
def test_the_first_slots_that_are_there(frontswap, count, found):
    frontswap.store(slots(20, 4, 3), block_contents([20, 4, 3]))
    assert frontswap.first(count).tolist() == found and frontswap.pages == 3


def test_closing_destroys_the_pool(frontswap, tmem):
    frontswap.store(slots(3), block_contents([3]))
    frontswap.close()
    assert tmem.pools[0].destroyed and not frontswap.holds(slots(3)).any()
