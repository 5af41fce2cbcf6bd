"""Counters under Linux's names."""

import numpy as np

from guests.debugfs import linux_names
from shm.counters import Count


def test_each_name_shows_its_counter():
    counters = np.zeros(512, np.uint64)
    counters[:len(Count)] = np.arange(100, 100 + len(Count))
    counters[Count.CLEANCACHE_GETS], counters[Count.CLEANCACHE_HITS] = 50, 20
    assert linux_names(counters) == {
        "cleancache/failed_gets": 30,
        "cleancache/invalidates": 100 + Count.CLEANCACHE_INVALIDATES,
        "cleancache/puts": 100 + Count.CLEANCACHE_PUTS,
        "cleancache/succ_gets": 20,
        "frontswap/failed_stores": 100 + Count.FRONTSWAP_FAILED,
        "frontswap/invalidates": 100 + Count.FRONTSWAP_INVALIDATES,
        "frontswap/loads": 100 + Count.FRONTSWAP_LOADS,
        "frontswap/succ_stores": 100 + Count.FRONTSWAP_STORES,
        "selfballoon/balloon_pages": 100 + Count.BALLOON_PAGES,
        "selfballoon/frontswap_shrunk": 100 + Count.FRONTSWAP_SHRUNK,
        "selfballoon/intervals": 100 + Count.SELFBALLOON_INTERVALS,
        "selfballoon/target_pages": 100 + Count.BALLOON_TARGET,
    }
    assert list(linux_names(counters)) == sorted(linux_names(counters))
