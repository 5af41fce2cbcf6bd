"""A guest's counters of tmem under the names that Linux gives them.  Pure: a page of counters in, numbers by name out.

    cleancache/, frontswap/     as below /sys/kernel/debug
    selfballoon/                the intervals that were looked at, pages of the balloon and its target, and what
                                self-shrinking has taken out of frontswap; Linux shows part of it below /sys
"""

import numpy as np

from shm.counters import Count

NAMES: dict[str, Count] = {
    "cleancache/succ_gets": Count.CLEANCACHE_HITS,
    "cleancache/puts": Count.CLEANCACHE_PUTS,
    "cleancache/invalidates": Count.CLEANCACHE_INVALIDATES,
    "frontswap/loads": Count.FRONTSWAP_LOADS,
    "frontswap/succ_stores": Count.FRONTSWAP_STORES,
    "frontswap/failed_stores": Count.FRONTSWAP_FAILED,
    "frontswap/invalidates": Count.FRONTSWAP_INVALIDATES,
    "selfballoon/intervals": Count.SELFBALLOON_INTERVALS,
    "selfballoon/target_pages": Count.BALLOON_TARGET,
    "selfballoon/balloon_pages": Count.BALLOON_PAGES,
    "selfballoon/frontswap_shrunk": Count.FRONTSWAP_SHRUNK,
}


def linux_names(counters: np.ndarray) -> dict[str, int]:
    """Return the counters of one guest under Linux's names, sorted by them."""
    shown = {name: int(counters[count]) for name, count in NAMES.items()}
    shown["cleancache/failed_gets"] = int(counters[Count.CLEANCACHE_GETS]) - shown["cleancache/succ_gets"]
    return dict(sorted(shown.items()))
