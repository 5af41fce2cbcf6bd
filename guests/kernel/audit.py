"""The kernel's own audit: recounts from the ground truth, for tests and for the end of a run.

    conservation   every page is free, in the balloon, cached, anonymous or rebuildable, and only one of these
    lists          what is listed is owned, what is owned is listed once
    hints          no page in use is unused (R40), no page is volatile that the kernel believes stable, none that is
                   dirty may be discarded, none that may be stored to is volatile (R37) or of a file that was mlocked
                   (R39), none that may be volatile has its change bit set (R36; in hardware mode that bit may say so
                   of a clean page too)

A free page may be in any state, and a page that the kernel believes volatile may be stable: hints are optional (R42).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from guests.kernel.core import Core
from guests.kernel.inode import Inode
from guests.kernel.rebuildable import Rebuildable
from guests.kernel.swapper import Swapper
from guests.volatility import DIRTY, HELD, KEPT, LISTED, LOCKED, MLOCKED, VOLATILE, WRITABLE, willing
from shm.errors import BrokenInvariant
from shm.pagestate import POT_VOLATILE as P
from shm.pagestate import UNUSED, USAGE_MASK, Essa, was_discarded
from shm.pagestate import VOLATILE as V

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.kernel.cache import PageCache


def check_pages(core: Core, balloon: Sequence[int], inodes: Iterable[Inode], swapper: Swapper,
                regions: Iterable[Rebuildable]) -> None:
    """Raise BrokenInvariant unless each page is in exactly one place, and owner and place agree."""
    places = [*core.allocator.free_list(), *balloon]
    for inode in inodes:
        places += inode.cached.values()
        if any(core.pages.owner[gfn] is not inode or core.pages.index[gfn] != index
               for index, gfn in inode.cached.items()):
            raise BrokenInvariant(f"inode {inode.number} caches a page that is not its own")
        if inode.cached and max(inode.cached) >= inode.pages:
            raise BrokenInvariant(f"inode {inode.number} caches page {max(inode.cached)} of {inode.pages}")
    for gfns in [*(region.gfn for region in swapper.regions), *(region.gfn for region in regions)]:
        places += gfns[gfns >= 0].tolist()
    if sorted(places) != list(range(core.pages.count)):
        raise BrokenInvariant(f"{len(places)} places ({len(set(places))} different) for {core.pages.count} pages")


def check_lists(core: Core, balloon: Sequence[int], cache: "PageCache", swapper: Swapper,
                regions: Iterable[Rebuildable]) -> None:
    """Raise BrokenInvariant unless every page in use is listed once, by the lists of its kind, and at rest."""
    listed = [*cache.lists, *swapper.lists]
    for region in regions:
        listed += region.gfn[region.gfn >= 0].tolist()
    if sorted(listed) != np.flatnonzero(core.pages.array & LISTED).tolist():
        raise BrokenInvariant(f"{len(listed)} pages on lists, {np.count_nonzero(core.pages.array & LISTED)} marked so")
    in_use = core.pages.count - len(core.allocator.free_list()) - len(balloon)
    if len(listed) != in_use:
        raise BrokenInvariant(f"{in_use} pages are in use and {len(listed)} are listed")
    pinned = sum(region.resident for region in regions if region.pins)
    if (core.pages.array & LOCKED).any() or np.count_nonzero(core.pages.array & HELD) != pinned:
        raise BrokenInvariant("a page is left locked, or held by nobody")
    for gfn in np.flatnonzero(core.pages.array & (KEPT | WRITABLE)).tolist():
        owner, index = core.pages.owner[gfn], core.pages.index[gfn]
        if not isinstance(owner, Inode) or not any(index in area for area in owner.areas):
            raise BrokenInvariant(f"page {gfn} is kept or may be stored to, and no program has it mapped")


def check_hints(core: Core, balloon: Sequence[int], guest: "Guest") -> None:
    """Raise BrokenInvariant where the state of a page in use contradicts what the kernel believes."""
    states = np.asarray(guest.essa(Essa.GET_STATE, np.arange(core.pages.count)))
    usage = states & USAGE_MASK
    facts = core.pages.array
    in_use = np.ones(len(facts), bool)
    in_use[[*core.allocator.free_list(), *balloon]] = False
    changed = core.memory.dirty(np.arange(core.pages.count)) & (not core.restorable.on)
    loose, there = in_use & ((usage == V) | (usage == P)), ~np.asarray(was_discarded(states))
    for wrong, what in (
        (in_use & (usage == UNUSED), "is in use and unused (R40)"),
        (loose & (facts & VOLATILE == 0), "is volatile and believed stable (R33)"),
        (loose & (facts & DIRTY != 0), "is dirty and volatile"),
        (loose & there & (usage == V) & (facts & WRITABLE != 0), "may be stored to and is volatile (R37)"),
        (loose & (facts & MLOCKED != 0), "is of a file that was mlocked, and volatile (R39)"),
        (willing(facts) & (facts & WRITABLE == 0) & changed, "is clean, and its change bit is set (R36)"),
    ):
        if wrong.any():
            raise BrokenInvariant(f"page {np.flatnonzero(wrong)[0]} {what}")
