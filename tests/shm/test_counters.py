"""Counters: their numbers are for ever, and what one side writes the other reads."""

import numpy as np
import pytest

from shm.abi import PAGE_SIZE
from shm.counters import Count, HostCount, attach_counters, named

GUEST = [
    "OPERATIONS", "PAGES_VERIFIED", "MISMATCHES", "GUEST_DISK_READS", "GUEST_DISK_WRITES", "GUEST_SWAP_READS",
    "GUEST_SWAP_WRITES", "DISCARD_FAULTS", "STABLE_FAILURES", "HYPERCALLS", "MULTICALLS", "ESSA", "WAIT_FAULT_NS",
    "WAIT_TMEM_NS", "WAIT_LOCK_NS", "WAIT_DISK_NS", "CLEANCACHE_PUTS", "CLEANCACHE_GETS", "CLEANCACHE_HITS",
    "CLEANCACHE_INVALIDATES", "FRONTSWAP_STORES", "FRONTSWAP_LOADS", "FRONTSWAP_FAILED", "FRONTSWAP_INVALIDATES",
    "PAGE_CACHE_HITS", "PAGE_CACHE_MISSES", "RECLAIMED_PAGES", "WRITEBACK_PAGES",
]
HOST = [
    "HYPERCALLS", "MULTICALLS", "ERRORS", "DISCARDS", "FREED_UNUSED", "SWAP_OUT", "SWAP_IN", "VOLATILE_SWAP_WRITES",
    "RELEASED", "ZERO_FILLS", "REFUSED_FAULTS", "SWAP_RETRIES", "SWAP_FULL", "TMEM_PUTS", "TMEM_PUTS_STORED",
    "TMEM_GETS", "TMEM_HITS", "TMEM_EVICTIONS", "TMEM_FLUSHES",
]


@pytest.mark.parametrize(("numbers", "frozen"), [(Count, GUEST), (HostCount, HOST)], ids=["guest", "host"])
def test_numbers_are_for_ever_and_dense(numbers, frozen):
    assert [numbers(n).name for n in range(len(frozen))] == frozen
    assert sorted(numbers) == list(range(len(numbers)))


def test_a_page_holds_all_and_both_sides_see_it():
    page = np.zeros(PAGE_SIZE, np.uint8)
    mine, theirs = attach_counters(page.data), attach_counters(page.data)
    assert mine.dtype == np.uint64 and len(mine) == 512 >= len(Count)
    mine[Count.ESSA] += 3
    mine[Count.WAIT_FAULT_NS] += 1 << 40
    shown = named(theirs, Count)
    assert (shown["essa"], shown["wait_fault_ns"]) == (3, 1 << 40)
    assert sum(shown.values()) == 3 + (1 << 40)
    assert list(shown) == [count.name.lower() for count in Count]
