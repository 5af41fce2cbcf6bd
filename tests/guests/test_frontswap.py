"""Frontswap: the handle map, and slots that are in the pool or on the disk, never half."""

import random

import numpy as np
import pytest
from fakes import FakeTmem, block_contents
from hypothesis import given
from hypothesis import strategies as st

from guests.frontswap import Frontswap, handle_of, slot_of
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


def test_closing_destroys_the_pool(frontswap, tmem):
    frontswap.store(slots(3), block_contents([3]))
    frontswap.close()
    assert tmem.pools[0].destroyed and not frontswap.holds(slots(3)).any()
