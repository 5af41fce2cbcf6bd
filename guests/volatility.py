"""What forbids make_volatile, from what the guest kernel knows of a page.  Pure: no page is touched, no hint is sent.

Rule 1: make_volatile is a wish.  It is refused when any row below holds, and a refused wish costs no ESSA (R32).
Rule 2: make_stable is a duty and asks nobody: there is no table for it.
Rule 3: a page that a program may store to through a mapping is never volatile.  With dirty bits a page it may be
        potentially volatile, since the host can test the same bit; with dirty bits a mapping it stays stable (R37).

The rows are the eleven conditions of the CMM2 patches (v7, `page_make_volatile`) and the two beside them, 12 for an
address space that was ever mlocked and 13 for shared anonymous memory in the swap cache.  `terms` has what depends on
how a kernel was built.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

# Facts of a page, one bit each.  The writer of each stands beside it.
MAPPED = 0x00001             # it belongs to a file, an anonymous or a rebuildable region   Pages
ANONYMOUS = 0x00002          # no file behind it, and nobody who could compute it again     Pages
UPTODATE = 0x00004           # its content is valid                                         Pages
LOCKED = 0x00008             # it is being filled                                           Pages
HELD = 0x00010               # a counted reference beyond the cache's and the mappings'     Pages
LISTED = 0x00020             # on a list; off it while isolated by reclaim                  the lists
DIRTY = 0x00040              # newer than its disk                                          Writeback
WRITEBACK = 0x00080          # its write to the disk is under way                           Writeback
SWAP_CACHE = 0x00100         # anonymous and clean: its swap slot holds the same bytes      AnonMemory
RESERVED = 0x00200           # the kernel keeps it from everybody: in the balloon           Balloon
PRIVATE = 0x00400            # buffers are attached to it                                   Buffers
DISCARDED = 0x00800          # somebody has begun to take it out: the host discarded it     Pages
MLOCKED = 0x01000            # of a file that was mlocked once                              PageCache
SHARED = 0x02000             # anonymous, of a region that several users share              Swapper
# Facts that refuse nothing.
VOLATILE = 0x04000           # hinted volatile or P; it may have been discarded since       Hints
REFERENCED = 0x08000         # touched since it came to its place on the list               the lists
ACTIVE = 0x10000             # on the active list                                           the lists
WRITABLE = 0x20000           # a mapping may store to it; until the last mapping is gone    Mappings
KEPT = 0x40000               # it stays at its gfn: mlocked, or a program has its address   Mappings
RESTORABLE = 0x80000         # where its bytes can be had again is known outside too        Restorable
FACTS = 20                   # bits


class Refusal(NamedTuple):
    """One condition: it holds where `facts & mask == value`.  `number` is the condition's in reference 2.3."""

    number: int
    reason: str
    mask: int
    value: int


REFUSALS = (
    Refusal(1, "reserved", RESERVED, RESERVED),
    Refusal(2, "dirty", DIRTY, DIRTY),
    Refusal(3, "under write-back", WRITEBACK, WRITEBACK),
    Refusal(4, "locked", LOCKED, LOCKED),
    Refusal(5, "anonymous and not in the swap cache", ANONYMOUS | SWAP_CACHE, ANONYMOUS),
    Refusal(6, "no mapping", MAPPED, 0),
    Refusal(7, "not up to date", UPTODATE, 0),
    Refusal(8, "private data", PRIVATE, PRIVATE),
    Refusal(9, "discarded already", DISCARDED, DISCARDED),
    Refusal(10, "not on an LRU list", LISTED, 0),
    Refusal(11, "held by somebody", HELD, HELD),
    Refusal(12, "of a file that was mlocked", MLOCKED, MLOCKED),
    Refusal(13, "shared memory in the swap cache", SHARED | SWAP_CACHE, SHARED | SWAP_CACHE),
)


@cache
def refusal(facts: int) -> Refusal | None:
    """Return the first condition that forbids make_volatile for a page with these facts, or None."""
    return next((row for row in REFUSALS if facts & row.mask == row.value), None)


def willing(facts: np.ndarray) -> np.ndarray:
    """Say of each page whether it may be made volatile: `refusal` over an array (uint32 -> bool)."""
    refused = np.zeros(len(facts), bool)
    for row in REFUSALS:
        refused |= (facts & row.mask) == row.value
    return ~refused


class Terms(NamedTuple):
    """What a kernel asks beside the rows: `facts & mask == value`."""

    mask: int
    value: int


def terms(page_dirty_bits: bool, sources: bool) -> Terms:
    """Return the terms of a kernel.

    `page_dirty_bits`: a page that may be stored to may be P (order 4), else it stays stable (R37).
    `sources`: somebody outside the kernel restores discarded pages, so it must be known how.
    """
    return Terms((0 if page_dirty_bits else WRITABLE) | (RESTORABLE if sources else 0), RESTORABLE if sources else 0)
