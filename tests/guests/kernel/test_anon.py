"""Anonymous memory and its swap."""

import numpy as np
import pytest
from fakes import ALL, HINTS, FakeGuest, block_contents

from guests.disk import Disk
from guests.kernel import Kernel
from guests.volatility import SWAP_CACHE
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import BrokenInvariant, OutOfMemory
from shm.pagestate import Essa, Sr, Vr

SLOTS = 512


@pytest.fixture
def build(new_disk):
    """Makes a guest of 128 pages with a swap disk; returns (guest, kernel, swap disk)."""
    def new(features=HINTS, slots=SLOTS, pages=128, **options) -> tuple[FakeGuest, Kernel, Disk]:
        guest = FakeGuest(pages, features, **options)
        swap = new_disk(slots, guest.counters, reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)
        return guest, Kernel(guest, swap), swap
    return new


def contents(*indexes: int) -> np.ndarray:
    return block_contents(indexes)


def fill(anon, count: int) -> None:
    anon.write_many(np.arange(count), contents(*range(count)))


def evict_all(kernel) -> int:
    return kernel.core.allocator.reclaim(1000)


def test_pages_read_zero_until_they_are_stored_to_and_cost_nothing(build):
    _, kernel, _ = build()
    anon = kernel.anon(50)
    before = kernel.free_pages
    assert anon.read(3) == bytes(PAGE_SIZE) and not anon.read_many(range(50)).any()
    assert kernel.free_pages == before
    anon.write(3, contents(3)[0].tobytes())
    assert anon.read(3) == contents(3)[0].tobytes() and anon.read(4) == bytes(PAGE_SIZE)
    kernel.check()


def test_an_access_in_memory_costs_no_essa(build):
    guest, kernel, _ = build()
    anon = kernel.anon(50)
    fill(anon, 50)
    guest.orders.clear()
    anon.read(3)
    anon.write(3, bytes(PAGE_SIZE))
    anon.read_many(range(50))
    anon.write_many([4, 9], contents(1, 2))
    assert guest.orders == []


@pytest.mark.parametrize("read", [lambda anon: anon.read(0), lambda anon: anon.read_many([0])])
def test_a_page_stored_and_read_is_used_twice_and_outlives_others(build, read):
    guest, kernel, _ = build()
    anon = kernel.anon(50)
    fill(anon, 50)
    read(anon)
    kernel.core.allocator.reclaim(45)
    swapped_in = int(guest.counters[Count.GUEST_SWAP_READS])
    anon.read(0)
    assert guest.counters[Count.GUEST_SWAP_READS] == swapped_in


def test_batches_keep_their_order_and_may_repeat(build):
    _, kernel, _ = build()
    anon = kernel.anon(50)
    fill(anon, 20)
    wanted = [7, 3, 7, 30, 0]
    assert np.array_equal(anon.read_many(wanted)[[0, 1, 2, 4]], contents(7, 3, 7, 0))
    assert not anon.read_many(wanted)[3].any()
    anon.write_many([9, 2], contents(100, 101))
    assert np.array_equal(anon.read_many([2, 9]), contents(101, 100))
    with pytest.raises(ValueError, match="twice"):
        anon.write_many([9, 9], contents(1, 2))


@pytest.mark.parametrize("index", [-1, 50])
def test_outside_the_region(build, index):
    _, kernel, _ = build()
    anon = kernel.anon(50)
    for act in (lambda: anon.read(index), lambda: anon.write(index, bytes(PAGE_SIZE)),
                lambda: anon.read_many([0, index]), lambda: anon.write_many([index], contents(1))):
        with pytest.raises(IndexError, match="region of 50 pages"):
            act()


def test_more_than_memory_swaps_in_batches_and_loses_nothing(build):
    guest, kernel, _ = build()
    anon = kernel.anon(400)
    fill(anon, 400)
    assert guest.counters[Count.GUEST_SWAP_WRITES] >= 400 - 128
    assert np.array_equal(anon.read_many(range(400)), contents(*range(400)))
    assert anon.read(0) == contents(0)[0].tobytes()
    kernel.check()


def test_swap_out_is_one_run_of_slots(build, monkeypatch):
    _, kernel, swap = build()
    anon, batches, write = kernel.anon(50), [], swap.write_many
    monkeypatch.setattr(swap, "write_many", lambda slots, pages: batches.append(list(slots)) or write(slots, pages))
    fill(anon, 50)
    assert evict_all(kernel) == 50
    assert batches == [list(range(50))]
    assert kernel.free_pages == 128


def test_a_page_read_back_is_volatile_and_goes_again_for_nothing(build):
    """R38 and row 4 of table 2.7: clean in the swap cache."""
    guest, kernel, _ = build()
    anon = kernel.anon(50)
    fill(anon, 50)
    evict_all(kernel)
    anon.read_many(range(10))
    states = {guest.states[gfn] for gfn in range(128) if kernel.core.pages.facts[gfn] & SWAP_CACHE}
    assert states == {Vr}
    writes = int(guest.counters[Count.GUEST_SWAP_WRITES])
    assert evict_all(kernel) == 10
    assert guest.counters[Count.GUEST_SWAP_WRITES] == writes
    assert np.array_equal(anon.read_many(range(50)), contents(*range(50)))


def test_a_discarded_page_of_the_swap_cache_comes_back_from_its_slot(build):
    guest, kernel, _ = build()
    anon = kernel.anon(50)
    fill(anon, 50)
    evict_all(kernel)
    anon.read_many(range(10))
    assert len(guest.discard(range(128))) >= 10
    assert anon.read(3) == contents(3)[0].tobytes()
    assert np.array_equal(anon.read_many(range(10)), contents(*range(10)))
    assert guest.counters[Count.DISCARD_FAULTS] == 10
    kernel.check()


@pytest.mark.parametrize("discarded", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_a_store_makes_stable_first_and_frees_the_slot(build, discarded, many):
    """R38: make stable, free the slot, store; no fault, and the new content survives everything."""
    guest, kernel, _ = build()
    anon = kernel.anon(50)
    fill(anon, 50)
    evict_all(kernel)
    anon.read(3)
    if discarded:
        guest.discard(range(128))
    guest.orders.clear()
    if many:
        anon.write_many([3, 20], contents(300, 301))
    else:
        anon.write(3, contents(300)[0].tobytes())
    assert guest.orders[0][0] == Essa.SET_STABLE_IF_NOT_DISCARDED
    assert guest.counters[Count.DISCARD_FAULTS] == 0
    kernel.check()
    guest.discard(range(128))
    evict_all(kernel)
    assert anon.read(3) == contents(300)[0].tobytes() and anon.read(4) == contents(4)[0].tobytes()


def test_a_crowded_swap_space_keeps_no_swap_cache(build):
    guest, kernel, _ = build(slots=80)
    anon = kernel.anon(60)
    fill(anon, 60)
    evict_all(kernel)
    anon.read_many(range(50))
    kernel.check()
    cached = [gfn for gfn in range(128) if kernel.core.pages.facts[gfn] & SWAP_CACHE]
    assert cached == [], "60 of 80 slots are taken"
    assert {guest.states[gfn] for gfn in range(128) if kernel.core.pages.owner[gfn]} == {Sr}
    assert evict_all(kernel) == 50
    assert np.array_equal(anon.read_many(range(60)), contents(*range(60)))


@pytest.mark.parametrize("slots", [0, 30])
def test_when_swap_is_full_the_guest_is_out_of_memory_and_keeps_what_it_has(build, slots):
    _, kernel, _ = build(slots=slots)
    spare, anon, stored = kernel.anon(40), kernel.anon(400), []

    def store_until_it_fails() -> None:
        for index in range(400):
            anon.write(index, contents(index)[0].tobytes())
            stored.append(index)

    fill(spare, 40)
    with pytest.raises(OutOfMemory, match="no page left"):
        store_until_it_fails()
    assert len(stored) == 128 - 40 - kernel.core.allocator.marks.min + slots
    kernel.check()
    spare.free()
    assert np.array_equal(anon.read_many(stored), contents(*stored))


def test_without_a_swap_disk(new_disk):
    kernel = Kernel(FakeGuest(128, ALL))
    anon = kernel.anon(50)
    fill(anon, 50)
    assert evict_all(kernel) == 0
    assert kernel.guest.tmem.pools == []
    kernel.check()


def test_a_swap_disk_that_fails_loses_nothing(build, monkeypatch):
    _, kernel, swap = build()
    anon = kernel.anon(50)
    fill(anon, 50)

    def broken(slots, pages):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(swap, "write_many", broken)
        with pytest.raises(OSError, match="Input"):
            evict_all(kernel)
    kernel.check()
    assert np.array_equal(anon.read_many(range(50)), contents(*range(50)))


def test_a_host_that_cannot_page_in_gets_no_swap_out(build, monkeypatch):
    guest, kernel, _ = build()
    anon = kernel.anon(50)
    fill(anon, 50)

    def full(gfns):
        raise OutOfMemory("full")

    with monkeypatch.context() as failing:
        failing.setattr(guest.memory, "read_many", full)
        assert evict_all(kernel) == 0
    kernel.check()


def test_a_freed_region_gives_everything_back(build):
    guest, kernel, _ = build(ALL)
    anon = kernel.anon(60)
    fill(anon, 60)
    evict_all(kernel)
    anon.read_many(range(20))
    guest.discard(range(128))
    guest.orders.clear()
    anon.free()
    assert guest.orders[0][0] == Essa.SET_STABLE_IF_NOT_DISCARDED, "before the slots are freed (R38)"
    anon.free()
    kernel.check()
    assert kernel.free_pages == 128
    assert not guest.tmem.handles(persistent=True) and kernel._swapper.swap.free_slots == SLOTS
    with pytest.raises(IndexError):
        anon.read(0)


# frontswap

def test_frontswap_is_asked_first_and_the_disk_is_not(build):
    guest, kernel, _ = build(ALL)
    anon = kernel.anon(60)
    fill(anon, 60)
    evict_all(kernel)
    assert (guest.counters[Count.FRONTSWAP_STORES], guest.counters[Count.GUEST_SWAP_WRITES]) == (60, 0)
    assert np.array_equal(anon.read_many(range(60)), contents(*range(60)))
    assert (guest.counters[Count.FRONTSWAP_LOADS], guest.counters[Count.GUEST_SWAP_READS]) == (60, 0)
    assert len(guest.tmem.handles(persistent=True)) == 60, "T105: a load does not remove"
    anon.write_many(range(60), contents(*range(100, 160)))
    assert not guest.tmem.handles(persistent=True)
    assert guest.counters[Count.FRONTSWAP_INVALIDATES] == 60
    kernel.check()


@pytest.mark.parametrize("refuse", [0.3, 1.0])
def test_what_frontswap_refuses_goes_to_the_disk(build, refuse):
    guest, kernel, _ = build(ALL, refuse=refuse, seed=5)
    anon, rng = kernel.anon(300), np.random.default_rng(1)
    fill(anon, 300)
    model = contents(*range(300))
    for step in range(40):
        indexes = rng.choice(300, 20, replace=False)
        assert np.array_equal(anon.read_many(indexes), model[indexes])
        model[indexes[:5]] = contents(*range(1000 + 5 * step, 1005 + 5 * step))
        anon.write_many(indexes[:5], model[indexes[:5]])
    assert np.array_equal(anon.read_many(range(300)), model)
    assert guest.counters[Count.FRONTSWAP_FAILED] > 0 and guest.counters[Count.GUEST_SWAP_WRITES] > 0
    assert (guest.counters[Count.FRONTSWAP_STORES] == 0) == (refuse == 1.0)
    kernel.check()


def test_closing_destroys_the_pool(build):
    guest, kernel, _ = build(ALL)
    kernel.close()
    assert [pool.destroyed for pool in guest.tmem.pools if pool.persistent] == [True]


@pytest.mark.parametrize("seed", range(8))
def test_hints_discards_and_refusals_change_cost_only(build, seed):
    """R42 and T110 for anonymous memory."""
    _, kernel, _ = build(ALL, seed=seed, mischief=0.3, refuse=seed / 8,
                         drop={Essa.SET_VOLATILE: seed / 10, Essa.SET_UNUSED: seed / 10})
    anon, rng, model = kernel.anon(250), np.random.default_rng(seed), np.zeros((250, PAGE_SIZE), np.uint8)
    for step in range(120):
        index = int(rng.integers(0, 230))
        indexes = np.arange(index, index + int(rng.integers(1, 20)))
        match step % 4:
            case 0:
                model[indexes] = contents(*(indexes + 1000 * step))
                anon.write_many(indexes, model[indexes])
            case 1:
                model[index] = contents(step + 7)[0]
                anon.write(index, model[index].tobytes())
            case 2:
                assert np.array_equal(anon.read_many(indexes), model[indexes])
            case 3:
                assert anon.read(index) == model[index].tobytes()
    assert np.array_equal(anon.read_many(range(250)), model)
    kernel.check()


def test_a_slot_is_freed_once(build):
    _, kernel, _ = build()
    swap = kernel._swapper.swap
    slots = swap.allocate(3)
    swap.release(slots)
    with pytest.raises(BrokenInvariant, match="freed twice"):
        swap.release(slots[:1])


def test_slots_are_neighbours_where_they_can_be(build):
    _, kernel, _ = build(slots=20)
    swap = kernel._swapper.swap
    first, second = swap.allocate(8), swap.allocate(8)
    swap.release(first[2:5])
    assert second.tolist() == list(range(8, 16))
    assert swap.allocate(4).tolist() == [16, 17, 18, 19]
    assert swap.allocate(9).tolist() == [2, 3, 4]
    assert swap.free_slots == 0 and len(swap.allocate(1)) == 0
