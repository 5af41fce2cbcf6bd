"""Pages that the host has swapped are left alone by the guest's reclaim, while there are others (Dave Hansen, 2009)."""

import numpy as np
from hosts import PreservingGuest

from guests.kernel import Kernel
from guests.kernel.lists import ActiveInactive
from guests.kernel.pages import Pages
from guests.volatility import HELD
from shm.abi import PAGE_SIZE
from shm.counters import Count


def listed(count: int, spared: set[int]) -> ActiveInactive:
    lists = ActiveInactive(Pages(count), lambda gfns: np.array([gfn in spared for gfn in gfns], bool))
    lists.add(range(count))
    return lists


def test_the_oldest_that_are_not_spared_go_first():
    lists = listed(8, {0, 1, 3})
    assert lists.take(3) == [2, 4, 5]
    assert list(lists) == [0, 1, 3, 6, 7]


def test_spared_ones_go_when_there_are_no_others():
    lists = listed(4, {0, 1, 3})
    assert lists.take(3) == [2, 0, 1]


def test_active_pages_go_before_spared_ones():
    lists = listed(4, {0, 1, 2})
    lists.touch_many([3, 3])
    assert lists.take(1) == [3]


def test_a_held_page_is_passed_over_whatever_it_is():
    lists = listed(4, {0})
    lists._facts[1] |= HELD
    assert lists.take(4) == [2, 3, 0]


def test_looks_are_counted_and_without_sparing_there_are_none():
    lists = listed(6, {0, 1})
    lists.take(2)
    assert lists.looks == 4
    plain = ActiveInactive(Pages(6))
    plain.add(range(6))
    assert plain.take(2) == [0, 1] and plain.looks == 0


def swapping(new_disk, spare: bool):
    """A guest of 64 anonymous pages, half of which the host has; it then wants 20 out."""
    guest = PreservingGuest(128)
    swap = new_disk(256, guest.counters, reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)
    kernel = Kernel(guest, swap, spare_evicted=spare)
    anon = kernel.anon(64)
    anon.write_many(range(64), np.ones((64, PAGE_SIZE), np.uint8))
    guest.evict(anon.gfns[:32])
    kernel.core.allocator.reclaim(20)
    kernel.check()
    assert (anon.read_many(range(64)) == 1).all()
    return guest.counters, kernel


def test_swapping_what_the_host_has_is_counted(new_disk):
    counters, kernel = swapping(new_disk, spare=False)
    assert counters[Count.DOUBLE_PAGED] == counters[Count.GUEST_SWAP_WRITES] == 20
    assert kernel.looks == 0


def test_a_kernel_that_spares_them_swaps_others(new_disk):
    counters, kernel = swapping(new_disk, spare=True)
    assert counters[Count.DOUBLE_PAGED] == 0 and counters[Count.GUEST_SWAP_WRITES] == 20
    assert kernel.looks >= 52
