"""Anonymous memory shared by name."""

import numpy as np
import pytest
from fakes import HINTS, FakeGuest, block_contents

from guests.kernel import Kernel
from guests.volatility import SHARED, SWAP_CACHE
from shm.counters import Count
from shm.pagestate import Essa, Sr, Vr


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest(128, HINTS)


@pytest.fixture
def kernel(guest, new_disk):
    kernel = Kernel(guest, new_disk(256, guest.counters))
    yield kernel
    kernel.check()


def test_what_one_user_stores_the_other_reads(kernel):
    one, other = kernel.shared_anon("board", 20), kernel.shared_anon("board", 20)
    one.write_many(range(20), block_contents(range(20)))
    kernel.core.allocator.reclaim(100)
    assert np.array_equal(other.read_many(range(20)), block_contents(range(20)))
    assert kernel.committed_pages == 20


def test_the_last_user_frees_it(kernel):
    one, other = kernel.shared_anon("board", 20), kernel.shared_anon("board", 20)
    free = kernel.free_pages
    one.write_many(range(20), block_contents(range(20)))
    one.free()
    one.free()
    assert other.read(3) == block_contents([3]).tobytes()
    other.free()
    assert kernel.free_pages == free
    assert kernel.shared_anon("board", 5).read(3) == bytes(4096), "a new region of that name"


def test_a_name_has_one_size(kernel):
    kernel.shared_anon("board", 20)
    with pytest.raises(ValueError, match="'board' has 20 pages, not 21"):
        kernel.shared_anon("board", 21)


@pytest.mark.parametrize(("make", "state"), [(lambda kernel: kernel.anon(20), Vr),
                                             (lambda kernel: kernel.shared_anon("board", 20), Sr)])
def test_shared_memory_in_the_swap_cache_is_not_volatile(kernel, guest, make, state):
    """R32, condition 13: others name its slot too; private memory there is volatile."""
    region = make(kernel)
    region.write_many(range(20), block_contents(range(20)))
    kernel.core.allocator.reclaim(100)
    guest.orders.clear()
    region.read_many(range(20))
    gfns = region._places.gfn.tolist()
    assert all(kernel.core.pages.facts[gfn] & SWAP_CACHE for gfn in gfns)
    assert {guest.states[gfn] for gfn in gfns} == {state}
    assert bool(guest.ordered(Essa.SET_VOLATILE)) == (state == Vr)
    assert all(bool(kernel.core.pages.facts[gfn] & SHARED) == (state == Sr) for gfn in gfns)
    guest.discard(range(128))
    assert np.array_equal(region.read_many(range(20)), block_contents(range(20)))
    assert bool(guest.counters[Count.DISCARD_FAULTS]) == (state == Vr)
