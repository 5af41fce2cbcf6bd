"""The page cache: file pages in memory, keyed by (inode, index).

Three ways to a cached page, and what each does about hints:

    copied    read(2), write(2): make_stable before the use, make_volatile after it; a page that was discarded is a
              miss, and no fault is taken (R33, R34)
    mapped    mmap: cached pages are touched as they are, no ESSA at all (R41); the touch of discarded ones is a discard
              fault: they leave the cache and are read again (R28); without that optimisation it is as if copied
    evicted   by reclaim: written back if dirty, offered to cleancache if still there, freed

Rule 1: `Inode.cached`, `Inode.mlocked`, and who owns a file page, are written here alone.
Rule 2: content comes in one order: cleancache, then the disk, then a page is allocated for it.  So a get comes before
        the put of the page that makes room, and what was read is at hand whatever reclaim does meanwhile.
Rule 3: a page enters the cache filled, and leaves it in one step with being freed.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from guests.cleancache import Cleancache
from guests.kernel.core import Core
from guests.kernel.inode import Inode
from guests.kernel.lists import ActiveInactive, Lists
from guests.kernel.writeback import Writeback
from guests.volatility import DIRTY, MLOCKED
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import BrokenInvariant, DiscardFault, OutOfMemory

ReadAhead = Callable[[Sequence[int]], Sequence[int]]      # missing indexes -> those to read along with them
_HITS, _MISSES = int(Count.PAGE_CACHE_HITS), int(Count.PAGE_CACHE_MISSES)


class PageCache:
    """All cached file pages.

    `limit`: evict one's own oldest rather than hold more pages.  `stable_minor_faults`: a mapped touch is not spared.
    """

    def __init__(self, core: Core, lists: Lists, writeback: Writeback, limit: int | None = None,
                 stable_minor_faults: bool = False) -> None:
        self.lists = lists
        self.limit = limit
        self.stable_minor_faults = stable_minor_faults
        self._buffers = writeback.buffers
        self._core = core
        self._writeback = writeback
        self._with_room = core.allocator.with_room
        if self._buffers and isinstance(lists, ActiveInactive):
            lists.grown_inactive = self._grown_inactive

    # one cached page, copied

    def find(self, inode: Inode, index: int) -> int | None:
        """Look a page up and make it stable; None when it is not there (any more).  End the use with `release`."""
        gfn = inode.cached.get(index)
        if gfn is not None and not self._core.hints.make_stable_one(gfn):
            self.drop([gfn])
            gfn = None
        if gfn is not None:
            self._core.counters[_HITS] += 1
        return gfn

    def release(self, gfn: int, again: bool = False) -> None:
        """End the use of a page that was found; `again`: it was also used last, so this is no further touch."""
        if not again:
            self.lists.touch(gfn)
        self._core.hints.make_volatile_one(gfn)

    # many pages of one file

    def read(self, inode: Inode, indexes: Sequence[int], ahead: ReadAhead, mapped: bool) -> np.ndarray:
        """Return pages (n, 4096); those missing are read in one batch with what `ahead` adds to them."""
        load = self._touch if mapped and not self.stable_minor_faults else self._copy
        pages = None
        while pages is None:                         # each time round, the cache has lost some of them
            gfns = [gfn for gfn in map(inode.cached.get, indexes) if gfn is not None]
            if not gfns:
                return self.fill(inode, indexes, ahead(indexes))
            pages = load(gfns)
        self.lists.touch_many(gfns)
        self._core.counters[_HITS] += len(gfns)
        return pages if len(gfns) == len(indexes) else self._fill_gaps(inode, indexes, ahead, pages)

    def _fill_gaps(self, inode: Inode, indexes: Sequence[int], ahead: ReadAhead, found: np.ndarray) -> np.ndarray:
        """Put the pages found together with those that were not."""
        missing = [at for at, index in enumerate(indexes) if index not in inode.cached]
        wanted = [indexes[at] for at in missing]
        out = np.empty((len(indexes), PAGE_SIZE), np.uint8)
        there = np.ones(len(indexes), bool)
        there[missing] = False
        out[there] = found
        out[missing] = self.fill(inode, wanted, ahead(wanted))
        return out

    def _copy(self, gfns: Sequence[int]) -> np.ndarray | None:
        hints = self._core.hints
        if lost := hints.make_stable(gfns):
            self.drop(list(lost))
            return None
        pages = self._with_room(gfns, self._core.memory.read_many, gfns)
        hints.make_volatile(gfns)
        return pages

    def _touch(self, gfns: Sequence[int]) -> np.ndarray | None:
        try:
            return self._with_room(gfns, self._core.memory.read_many, gfns)
        except DiscardFault as fault:
            self._core.discards.fault(fault.gfns.tolist())
            return None

    # in

    def fill(self, inode: Inode, wanted: Sequence[int], ahead: Sequence[int] = ()) -> np.ndarray:
        """Bring missing pages in, and those `ahead` with them; return the wanted ones (n, 4096)."""
        indexes = [*wanted, *ahead]
        pages = self.fetch(inode, indexes)
        gfns = self._allocate(len(indexes))
        self._insert(inode, indexes, gfns, pages, clean=True)
        self.lists.touch_many(gfns[:len(wanted)])
        self._core.hints.make_volatile(gfns)
        self._core.counters[_MISSES] += len(wanted)
        return pages[:len(wanted)]

    def fetch(self, inode: Inode, indexes: Sequence[int]) -> np.ndarray:
        """Return pages that are not cached (n, 4096), without caching them; a private pool has them no more."""
        if not inode.cleancache.on:
            return inode.read_disk(indexes)
        if len(indexes) == 1:
            page = inode.cleancache.get(inode.number, indexes[0])
            return inode.read_disk(indexes) if page is None else np.frombuffer(page, np.uint8).reshape(1, PAGE_SIZE)
        hit, pages = inode.cleancache.get_many(inode.number, indexes)
        missed = np.flatnonzero(~hit)
        if len(missed):
            pages[missed] = inode.read_disk([indexes[at] for at in missed.tolist()])
        return pages

    def write(self, inode: Inode, indexes: Sequence[int], pages: np.ndarray) -> None:
        """Store whole pages (n, 4096): make those cached stable, make the others anew without reading them."""
        cached = self.stable(inode, indexes)
        missing = [at for at, index in enumerate(indexes) if index not in cached]
        if cached:
            self._overwrite(inode, cached, pages, missing)
        if missing:
            self._write_new(inode, [indexes[at] for at in missing], pages[missing])
        else:
            self._writeback.throttle()

    def stable(self, inode: Inode, indexes: Sequence[int]) -> dict[int, int]:
        """Return index -> gfn of those cached, stable; those that were discarded leave the cache."""
        cached = {index: gfn for index in indexes if (gfn := inode.cached.get(index)) is not None}
        lost = self._core.hints.make_stable(list(cached.values()))
        self.drop(list(lost))
        return {index: gfn for index, gfn in cached.items() if gfn not in lost} if lost else cached

    def _overwrite(self, inode: Inode, cached: dict[int, int], pages: np.ndarray, missing: Sequence[int]) -> None:
        gfns = list(cached.values())
        self._mark(inode, gfns, (0, PAGE_SIZE))
        self._write_memory(gfns, np.delete(pages, missing, axis=0) if missing else pages, clean=False)
        self.lists.touch_many(gfns)

    def _write_new(self, inode: Inode, indexes: Sequence[int], pages: np.ndarray,
                   part: tuple[int, int] = (0, PAGE_SIZE)) -> None:
        """Let pages enter the cache dirty; `part` of them, offset and length, is newer than the disk."""
        inode.cleancache.invalidate(inode.number, indexes)
        gfns = self._allocate(len(indexes))
        self._insert(inode, indexes, gfns, pages, clean=False)
        self._mark(inode, gfns, part)
        self.lists.touch_many(gfns)
        self._writeback.throttle()

    def write_part(self, inode: Inode, index: int, offset: int, data: np.ndarray) -> None:
        """Store `data` (uint8) into one page; a page that is not cached is read first, unless it is stored whole."""
        gfn = self.find(inode, index)
        if gfn is None:
            self._write_new(inode, [index], self._patched(inode, index, offset, data), (offset, len(data)))
            return
        self._mark(inode, [gfn], (offset, len(data)))
        self._with_room((gfn,), self._core.memory.write_part, gfn, offset, data)
        self.lists.touch(gfn)
        self._writeback.throttle()

    def _mark(self, inode: Inode, gfns: Sequence[int], part: tuple[int, int]) -> None:
        """Note that `part` (offset, length) of each of some stable pages is about to be newer than the disk."""
        self._writeback.mark(inode, gfns)
        if self._buffers:
            for gfn in gfns:
                self._buffers.wrote(gfn, *part)

    def _patched(self, inode: Inode, index: int, offset: int, data: np.ndarray) -> np.ndarray:
        """Return a page that is not cached as it will be with `data` in it, (1, 4096)."""
        if len(data) == PAGE_SIZE:
            return data.reshape(1, PAGE_SIZE)
        self._core.counters[_MISSES] += 1
        page = np.zeros((1, PAGE_SIZE), np.uint8) if index in inode.holes else self.fetch(inode, [index]).copy()
        page[0, offset:offset + len(data)] = data
        return page

    def _allocate(self, count: int) -> list[int]:
        """Return pages to fill, after the oldest of ours made way where the cache is limited."""
        if self.limit is not None and (over := len(self.lists) + count - self.limit) > 0:
            self.evict(over)
        return self._core.allocator.alloc(count)

    def _insert(self, inode: Inode, indexes: Sequence[int], gfns: list[int], pages: np.ndarray, clean: bool) -> None:
        """Fill allocated pages and let them enter the cache; give them back if they cannot be filled."""
        try:
            self._write_memory(gfns, pages, clean)
        except BaseException:
            self._core.allocator.free(gfns)
            raise
        inode.cached.update(zip(indexes, gfns, strict=True))
        self._core.pages.claim(gfns, inode, indexes, MLOCKED if inode.mlocked else 0)
        if clean:
            self._core.restorable.file_pages(inode, gfns)
        self.lists.add(gfns)

    def _write_memory(self, gfns: Sequence[int], pages: np.ndarray, clean: bool) -> None:
        memory = self._core.memory
        if len(gfns) == 1:
            self._with_room(gfns, memory.write, gfns[0], pages[0], clean)
        else:
            self._with_room(gfns, memory.write_many, gfns, pages, clean)

    # out

    def evict(self, wanted: int) -> int:
        """Let up to `wanted` of the oldest pages go; return how many did."""
        gfns = self.lists.take(wanted)
        try:
            self._writeback.collect(gfns)
            self._writeback.clean(self._core.pages.having(gfns, DIRTY))
        except BaseException:
            self.lists.add(gfns)
            raise
        self._offer(gfns)
        self._free(gfns)
        return len(gfns)

    def drop(self, gfns: Sequence[int]) -> None:
        """Take pages out of the cache that have no content any more, or must not be used again."""
        self.lists.remove(gfns)
        self._free(gfns)

    def truncate(self, inode: Inode, pages: int) -> None:
        """Forget everything of a file from page `pages` on: cached, dirty, in cleancache."""
        gfns = [gfn for index, gfn in inode.cached.items() if index >= pages]
        self._writeback.forget(inode, gfns)
        self.drop(gfns)
        inode.cleancache.invalidate_from(inode.number, pages)

    def mlock(self, inode: Inode) -> None:
        """Let no page of a file be volatile again; those that were discarded leave the cache (R39)."""
        inode.mlocked = True
        self._core.pages.set(list(self.stable(inode, list(inode.cached)).values()), MLOCKED)

    def _grown_inactive(self, gfns: Sequence[int]) -> None:
        """Take the buffers off pages that grew inactive, and try to make them volatile (2.3, 2.5)."""
        assert self._buffers is not None
        self._buffers.strip(gfns)
        self._core.hints.make_volatile(gfns)

    def _offer(self, gfns: Sequence[int]) -> None:
        """Put clean pages on their way out into cleancache: those that are still there, one batch a disk."""
        by_cache: dict[Cleancache, list[int]] = {}
        for gfn in gfns:
            by_cache.setdefault(self._inode(gfn).cleancache, []).append(gfn)
        for cleancache, group in by_cache.items():
            if cleancache.on:
                self._put(cleancache, group)

    def _put(self, cleancache: Cleancache, gfns: Sequence[int]) -> None:
        lost = self._core.hints.make_stable(gfns)
        there = [gfn for gfn in gfns if gfn not in lost]
        if not there:
            return
        with suppress(OutOfMemory):                  # the host is so full that it cannot page one in: let them go
            cleancache.put_many([self._handle(gfn) for gfn in there], self._core.memory.read_many(there))

    def _free(self, gfns: Sequence[int]) -> None:
        if self._buffers:
            self._buffers.forget(gfns)
        for gfn in gfns:
            del self._inode(gfn).cached[self._core.pages.index[gfn]]
        self._core.allocator.free(gfns)

    def _handle(self, gfn: int) -> tuple[int, int]:
        return self._inode(gfn).number, self._core.pages.index[gfn]

    def _inode(self, gfn: int) -> Inode:
        inode = self._core.pages.owner[gfn]
        if not isinstance(inode, Inode):
            raise BrokenInvariant(f"page {gfn} is on the page cache's lists and belongs to no file")
        return inode
