"""The guest's own reclaim: takes a census, has a plan made, carries it out until enough pages are free.

It runs inside an allocation that found the free list short, or where the host had no frame.  It needs no page itself,
and takes none that is held.  What falls short is the allocator's to report.
"""

from collections.abc import Callable, Sequence

from guests.kernel.balance import Census, Source, plan_reclaim
from guests.kernel.cache import PageCache
from guests.kernel.core import Core
from guests.kernel.rebuildable import Rebuildable
from guests.kernel.swapper import Swapper
from shm.counters import Count


class Reclaim:
    """Reclaim over the page cache, idle rebuildable regions and anonymous memory."""

    def __init__(self, core: Core, cache: PageCache, swapper: Swapper, regions: Sequence[Rebuildable]) -> None:
        self._core = core
        self._cache = cache
        self._swapper = swapper
        self._regions = regions                      # the kernel's list of all regions
        self._take: dict[Source, Callable[[int], int]] = {
            Source.FILE: cache.evict,
            Source.IDLE: self._purge,
            Source.ANONYMOUS: swapper.evict,
        }

    def free_pages(self, wanted: int) -> int:
        """Free `wanted` pages, or as many as can be had; return how many."""
        freed = 0
        for source, pages in plan_reclaim(self._census(), wanted):
            freed += self._take[source](min(pages, wanted - freed))
            if freed >= wanted:
                break
        self._core.counters[Count.RECLAIMED_PAGES] += freed
        return freed

    def _census(self) -> Census:
        idle = sum(region.resident for region in self._regions if not region.pins)
        return Census(file=len(self._cache.lists), idle=idle, anonymous=self._swapper.evictable,
                      total=self._core.pages.count)

    def _purge(self, wanted: int) -> int:
        freed = 0
        for region in self._regions:
            if not region.pins and freed < wanted:
                freed += region.purge(wanted - freed)
        return freed
