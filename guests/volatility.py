"""What forbids make_volatile, from what the guest kernel knows of a page.  Pure: no page is touched, no hint is sent.

Rule 1: make_volatile is a wish.  It is refused when any row below holds, and a refused wish costs no ESSA (R32).
Rule 2: make_stable is a duty and asks nobody: there is no table for it.
Rule 3: P is not used.  No page of this kernel has a writable mapping: a page is dirtied through the kernel alone, which
        makes it stable first, so V is safe wherever no row refuses (R37).

Of the eleven conditions of the CMM2 patches (v7, `page_make_volatile`) and the two beside them, five cannot arise here
and have no row: reserved pages, private buffer heads, mlocked files and shmem in the swap cache do not exist in this
kernel, and a page found discarded leaves the cache in the same step, so that none is left marked so.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

# Facts of a page, one bit each.  The writer of each stands beside it.
MAPPED = 0x001               # it belongs to a file, an anonymous or a rebuildable region   Pages
ANONYMOUS = 0x002            # no file behind it, and nobody who could compute it again     Pages
UPTODATE = 0x004             # its content is valid                                         Pages
LOCKED = 0x008               # it is being filled                                           Pages
HELD = 0x010                 # somebody counts on it beyond the cache and its mapping       Pages
LISTED = 0x020               # on a list; off it while isolated by reclaim                  the lists
DIRTY = 0x040                # newer than its disk                                          Writeback
WRITEBACK = 0x080            # its write to the disk is under way                           Writeback
SWAP_CACHE = 0x100           # anonymous and clean: its swap slot holds the same bytes      AnonMemory
# Facts that refuse nothing.
VOLATILE = 0x200             # hinted volatile; it may have been discarded since            Hints
REFERENCED = 0x400           # touched since it came to its place on the list               the lists
ACTIVE = 0x800               # on the active list                                           the lists


class Refusal(NamedTuple):
    """One condition: it holds where `facts & mask == value`.  `number` is the condition's in reference 2.3."""

    number: int
    reason: str
    mask: int
    value: int


REFUSALS = (
    Refusal(2, "dirty", DIRTY, DIRTY),
    Refusal(3, "under write-back", WRITEBACK, WRITEBACK),
    Refusal(4, "locked", LOCKED, LOCKED),
    Refusal(5, "anonymous and not in the swap cache", ANONYMOUS | SWAP_CACHE, ANONYMOUS),
    Refusal(6, "no mapping", MAPPED, 0),
    Refusal(7, "not up to date", UPTODATE, 0),
    Refusal(10, "not on an LRU list", LISTED, 0),
    Refusal(11, "held by somebody", HELD, HELD),
)


@cache
def refusal(facts: int) -> Refusal | None:
    """Return the first condition that forbids make_volatile for a page with these facts, or None."""
    return next((row for row in REFUSALS if facts & row.mask == row.value), None)


def willing(facts: np.ndarray) -> np.ndarray:
    """Say of each page whether it may be made volatile: `refusal` over an array (uint16 -> bool)."""
    refused = np.zeros(len(facts), bool)
    for row in REFUSALS:
        refused |= (facts & row.mask) == row.value
    return ~refused
