"""Counters in shared memory: one page a guest, written by that guest alone, read by anybody who holds it.

The hypervisor's own counters are private arrays of the same shape, never in shared memory.  Numbers are for ever.
A guest may scribble on its own page: the figures are shown, and nothing is decided by them.
"""

from enum import IntEnum

import numpy as np

from shm.abi import PAGE_SIZE


class Count(IntEnum):
    """What a guest counts of itself.  Pages unless the name says otherwise."""

    OPERATIONS = 0
    PAGES_VERIFIED = 1
    MISMATCHES = 2
    GUEST_DISK_READS = 3
    GUEST_DISK_WRITES = 4
    GUEST_SWAP_READS = 5
    GUEST_SWAP_WRITES = 6
    DISCARD_FAULTS = 7           # synchronous, on an access (R26)
    STABLE_FAILURES = 8          # make stable found the page discarded (R34)
    HYPERCALLS = 9
    MULTICALLS = 10
    ESSA = 11                    # pages hinted
    WAIT_FAULT_NS = 12           # time waited for the hypervisor: granting and paging in
    WAIT_TMEM_NS = 13            # ... tmem calls
    WAIT_LOCK_NS = 14            # ... the state lock
    WAIT_DISK_NS = 15            # time waited for the guest's own disks
    CLEANCACHE_PUTS = 16
    CLEANCACHE_GETS = 17
    CLEANCACHE_HITS = 18
    CLEANCACHE_INVALIDATES = 19
    FRONTSWAP_STORES = 20
    FRONTSWAP_LOADS = 21
    FRONTSWAP_FAILED = 22
    FRONTSWAP_INVALIDATES = 23
    PAGE_CACHE_HITS = 24
    PAGE_CACHE_MISSES = 25
    RECLAIMED_PAGES = 26         # by the guest's own reclaim
    WRITEBACK_PAGES = 27
    FAULTS = 28                  # pages asked of the hypervisor: zero pages and page-ins
    REBUILT_PAGES = 29           # purged pages that their owner computed again
    WAIT_OTHER_NS = 30           # time waited in hypercalls that are neither faults nor tmem
    BALLOON_PAGES = 31           # in the balloon now
    BALLOON_TARGET = 32          # that the guest shall have, when it was last told
    SELFBALLOON_INTERVALS = 33   # times that the guest looked at its own size
    FRONTSWAP_SHRUNK = 34        # that self-shrinking took out of frontswap
    PAGER_RESTORED = 35          # hardware mode: discarded pages filled again; this and the next are the pager's
    PAGER_DISK_READS = 36        # blocks of the guest's disks that it read for that
    PAGER_DISK_REQUESTS = 37     # ... in so many requests; the pager's too
    VIRTUAL_DISK_NS = 38         # what requests of the guest's disks cost by the model, where nothing slept for it
    VIRTUAL_SWAP_NS = 39         # the same of the hypervisor's swap disk; the hypervisor writes this one
    HOST_CACHE_GETS = 40         # blocks looked for in the host's cache of the guest's disks
    HOST_CACHE_HITS = 41
    HOST_CACHE_PUTS = 42         # entered: read from the disk, or written through
    HOST_CACHE_TRIMMED = 43      # dead ones dropped
    HOST_CACHE_DEAD = 44         # now there, or evicted since: nobody will read them before they are written
    DOUBLE_PAGED = 45            # written to the guest's swap when the host had them on its own: read back for that


class HostCount(IntEnum):
    """What the hypervisor counts of a guest, and in sum of all that ever were."""

    HYPERCALLS = 0
    MULTICALLS = 1               # hypercalls that carried several operations
    ERRORS = 2                   # calls answered with a negative status
    DISCARDS = 3                 # Vr or clean Pr -> Vz
    FREED_UNUSED = 4             # Ur -> Uz
    SWAP_OUT = 5
    SWAP_IN = 6
    VOLATILE_SWAP_WRITES = 7     # must stay 0 (E10)
    RELEASED = 8                 # preserved copies that the guest declared void
    ZERO_FILLS = 9
    REFUSED_FAULTS = 10          # no frame, even after reclaim
    SWAP_RETRIES = 11            # stores between copy and settlement: the eviction was given up (R19)
    SWAP_FULL = 12
    TMEM_PUTS = 13               # asked
    TMEM_PUTS_STORED = 14
    TMEM_GETS = 15
    TMEM_HITS = 16
    TMEM_EVICTIONS = 17
    TMEM_FLUSHES = 18
    DIRECT_RECLAIMS = 19         # times that a guest had to wait for reclaim
    BACKGROUND_RECLAIMS = 20
    LOCK_PASSED_BY = 21          # times that the state lock was held too long
    HARDWARE_FAULTS = 22         # touches of missing pages that the kernel reported
    WRITE_FAULTS = 23            # stores to write-protected pages, the same
    DISCARD_FAULTS = 24          # of the hardware faults: delivered to the guest's pager (R26)
    PREFETCHED = 25              # pages granted beside one that was touched
    SWAP_WAIT_NS = 26            # what the guest waited for the swap disk, by the model: page-ins, and page-outs for it
    SWAP_BUSY_NS = 27            # what requests of the swap disk cost in all, nobody's too


def attach_counters(buffer: memoryview) -> np.ndarray:
    """Return the counters that live in `buffer`, a page of shared memory: uint64, one a number of `Count`."""
    return np.frombuffer(buffer, dtype=np.uint64, count=PAGE_SIZE // 8)


def named(values: np.ndarray, names: type[Count] | type[HostCount]) -> dict[str, int]:
    """Return the counters under their names in lower case, as the summary shows them."""
    return {name.name.lower(): int(values[name]) for name in names}
