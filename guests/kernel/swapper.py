"""Anonymous pages on their way between memory and swap.

A page of a region is in one of four places:

    nowhere      gfn -1, slot -1     never stored: reads zero
    memory       gfn,    slot -1     no copy anywhere else
    swap         gfn -1, slot
    swap cache   gfn,    slot        in memory and clean, the slot holds the same bytes: may be volatile (R38)

Rule 1: a region's `gfn` and `slot` arrays are written here alone, and so is SWAP_CACHE.
Rule 2: a page of the swap cache is made stable before its slot is freed, and its slot is freed before it is stored to.
        Stores are whole pages: of one that was discarded meanwhile nothing is missed.
Rule 3: going out, a page of the swap cache costs nothing, whether the host has taken it or not; the others are stored
        in one batch.  A batch that cannot be stored stays in memory.
"""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from guests.kernel.core import Core
from guests.kernel.lists import ActiveInactive
from guests.kernel.swap import SwapSpace
from guests.volatility import ANONYMOUS, SHARED, SWAP_CACHE
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import BrokenInvariant, DiscardFault, OutOfMemory

CHUNK = 64                   # pages that leave frontswap in one batch


class Places:
    """Where the pages of one anonymous region are; `shared`: several users have it, by name."""

    def __init__(self, pages: int, shared: bool = False) -> None:
        self.facts = ANONYMOUS | (SHARED if shared else 0)
        self.users = 0
        self.gfn = np.full(pages, -1, np.int64)
        self.slot = np.full(pages, -1, np.int64)


class Swapper:
    """All anonymous pages of the guest."""

    def __init__(self, core: Core, swap: SwapSpace, spare_evicted: bool = False) -> None:
        self.lists = ActiveInactive(core.pages, core.memory.evicted if spare_evicted else None)
        self.swap = swap
        self.regions: dict[Places, None] = {}
        self._core = core
        self._with_room = core.allocator.with_room

    @property
    def evictable(self) -> int:
        """How many pages reclaim may hope for."""
        return len(self.lists) if self.swap.slots else 0

    def read(self, region: Places, indexes: np.ndarray) -> np.ndarray:
        """Return pages (n, 4096), all different, wherever they are; touches what is in memory as it lies there."""
        out = np.zeros((len(indexes), PAGE_SIZE), np.uint8)
        self._read_memory(region, indexes, out)
        swapped = np.flatnonzero((region.gfn[indexes] < 0) & (region.slot[indexes] >= 0))
        if len(swapped):
            out[swapped] = self.load(region, indexes[swapped])
        return out

    def _read_memory(self, region: Places, indexes: np.ndarray, out: np.ndarray) -> None:
        """Copy those in memory; the touch of discarded ones is a fault, and the rest is tried again."""
        while len(there := np.flatnonzero(region.gfn[indexes] >= 0)):
            gfns = region.gfn[indexes[there]].tolist()
            try:
                out[there] = self._with_room(gfns, self._core.memory.read_many, gfns)
            except DiscardFault as fault:
                self._core.discards.fault(fault.gfns.tolist())
                continue
            self.lists.touch_many(gfns)
            return

    def load(self, region: Places, indexes: np.ndarray) -> np.ndarray:
        """Bring pages in from their slots and return them (n, 4096).  They stay in the swap cache while it has room.

        With exclusive gets those that came from frontswap do not: memory has the only copy then, which is dirty (T105).
        """
        slots = region.slot[indexes]
        pages = self.swap.load(slots)
        gfns = self._new(region, indexes, pages, clean=True)
        leaving = self.swap.leaves(slots) | self.swap.crowded
        self._release(region, indexes[leaving])
        kept = [gfn for gfn, leaves in zip(gfns, leaving.tolist(), strict=True) if not leaves]
        self._core.pages.set(kept, SWAP_CACHE)
        if self._core.restorable.on:
            self._note(region, indexes[~leaving])
        self._core.hints.make_volatile(kept)
        return pages

    def _note(self, region: Places, indexes: np.ndarray) -> None:
        """Say of pages of the swap cache where they can be had again, as far as the swap disk has them."""
        indexes = indexes[self.swap.on_disk(region.slot[indexes])]
        self._core.restorable.slots(region.gfn[indexes].tolist(), self.swap.disk, region.slot[indexes])

    def store(self, region: Places, indexes: np.ndarray, pages: np.ndarray) -> None:
        """Store whole pages (n, 4096), all different."""
        self._make_stable(region, indexes)
        there = region.gfn[indexes] >= 0
        old = region.gfn[indexes[there]].tolist()
        if old:
            self._release(region, indexes[there])
            self._with_room(old, self._core.memory.write_many, old, pages[there])
            self.lists.touch_many(old)
        if len(old) < len(indexes):
            self._new(region, indexes[~there], pages[~there], clean=False)
            self._release(region, indexes[~there])

    def drop(self, gfns: Sequence[int]) -> None:
        """Take pages out of the swap cache that the host has discarded."""
        self.lists.remove(gfns)
        self._leave(gfns)

    def evict(self, wanted: int) -> int:
        """Swap up to `wanted` of the oldest pages out; return how many went."""
        gfns = self.lists.take(wanted)
        clean = self._core.pages.having(gfns, SWAP_CACHE)
        self._leave(clean)
        return len(clean) + self._swap_out([gfn for gfn in gfns if self._core.pages.owner[gfn] is not None])

    def shrink_frontswap(self, goal: int) -> int:
        """Leave at most `goal` pages in frontswap; return how many left (T109: a partial swapoff).

        Pages come back to memory while some is free without reclaim; the others go to the swap disk, in their slots.
        """
        before = self.swap.near
        self._bring_back(self.swap.first_near(before - goal))
        while (excess := self.swap.near - goal) > 0:
            self.swap.send_to_disk(self.swap.first_near(min(excess, CHUNK)))
        return before - self.swap.near

    def _bring_back(self, slots: np.ndarray) -> None:
        """Let pages have their only copy in memory: those that are there, and more while memory is free."""
        allocator = self._core.allocator
        for region in self.regions:
            indexes = np.flatnonzero(np.isin(region.slot, slots))
            self._make_stable(region, indexes)
            self._release(region, indexes[region.gfn[indexes] >= 0])
            away = indexes[region.gfn[indexes] < 0]
            while len(away) and (room := allocator.free_pages - allocator.marks.high) > 0:
                part, away = away[:min(room, CHUNK)], away[min(room, CHUNK):]
                with suppress(OutOfMemory):          # the host has no frame: the disk takes them
                    self._new(region, part, self.swap.load(region.slot[part]), clean=False)
                    self._release(region, part)

    def free(self, region: Places) -> None:
        """Give all of a region back: its slots (made stable before, R38) and its memory."""
        everything = np.arange(len(region.gfn))
        self._make_stable(region, everything)
        self._release(region, everything)
        gfns = region.gfn[region.gfn >= 0].tolist()
        self.lists.remove(gfns)
        self._leave(gfns)
        del self.regions[region]

    def _make_stable(self, region: Places, indexes: np.ndarray) -> None:
        gfns = region.gfn[indexes]
        self.drop(list(self._core.hints.make_stable(gfns[gfns >= 0].tolist())))

    def _new(self, region: Places, indexes: np.ndarray, pages: np.ndarray, clean: bool) -> list[int]:
        """Let pages enter memory, filled."""
        core = self._core
        gfns = core.allocator.alloc(len(indexes))
        try:
            self._with_room(gfns, core.memory.write_many, gfns, pages, clean)
        except BaseException:
            core.allocator.free(gfns)
            raise
        region.gfn[indexes] = gfns
        core.pages.claim(gfns, region, indexes.tolist(), region.facts)
        self.lists.add(gfns)
        self.lists.touch_many(gfns)
        return gfns

    def _swap_out(self, gfns: Sequence[int]) -> int:
        """Store isolated pages in slots and let them go; those for which there is no slot are listed again."""
        slots = self.swap.allocate(len(gfns))
        going, staying = gfns[:len(slots)], gfns[len(slots):]
        self.lists.add(staying)
        if not going:
            return 0
        away = int(np.count_nonzero(self._core.memory.evicted(going)))
        try:
            self.swap.store(slots, self._core.memory.read_many(going))
        except BaseException as error:
            self.swap.release(slots)
            self.lists.add(going)
            if isinstance(error, OutOfMemory):       # the host cannot even page one in: others must give
                return 0
            raise
        for gfn, slot in zip(going, slots.tolist(), strict=True):
            self._region(gfn).slot[self._core.pages.index[gfn]] = slot
        self._leave(going)
        self._core.counters[Count.DOUBLE_PAGED] += away
        return len(going)

    def _leave(self, gfns: Sequence[int]) -> None:
        """Take pages out of memory; what they held is in their slots, or wanted no more."""
        for gfn in gfns:
            self._region(gfn).gfn[self._core.pages.index[gfn]] = -1
        self._core.allocator.free(gfns)

    def _release(self, region: Places, indexes: np.ndarray) -> None:
        """Free the slots of some pages that have any; those in memory are stable, and leave the swap cache."""
        having = indexes[region.slot[indexes] >= 0]
        if not len(having):
            return
        self.swap.release(region.slot[having])
        region.slot[having] = -1
        for gfn in region.gfn[having].tolist():
            if gfn >= 0:
                self._core.pages.facts[gfn] &= ~SWAP_CACHE
                self._core.restorable.forget([gfn])

    def _region(self, gfn: int) -> Places:
        region = self._core.pages.owner[gfn]
        if not isinstance(region, Places):
            raise BrokenInvariant(f"page {gfn} is on the anonymous lists and belongs to no region")
        return region

    def check(self) -> None:
        """Raise BrokenInvariant unless regions, pages and slots agree with one another."""
        facts, owner = self._core.pages.facts, self._core.pages.owner
        taken = 0
        for region in self.regions:
            for index in np.flatnonzero(region.gfn >= 0).tolist():
                gfn = int(region.gfn[index])
                if owner[gfn] is not region or self._core.pages.index[gfn] != index:
                    raise BrokenInvariant(f"anonymous page {index} claims page {gfn}, which is not its own")
                if bool(facts[gfn] & SWAP_CACHE) != bool(region.slot[index] >= 0):
                    raise BrokenInvariant(f"page {gfn}: its slot and the swap cache disagree")
            taken += int(np.count_nonzero(region.slot >= 0))
        if taken != self.swap.slots - self.swap.free_slots:
            raise BrokenInvariant(f"{taken} swap slots in use, {self.swap.slots - self.swap.free_slots} taken")
