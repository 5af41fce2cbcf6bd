"""Files mapped into programs: loads, stores, user copies and mlock on the pages of the cache, as they lie.

    with file.mmap(0, 16, writable=True) as mapping:
        mapping.store(3, 100, b"...")        # page 3 of the mapping, byte 100
        mapping.load(3, 100, 3)

Rule 1: a mapping keeps no entry of its own: each access looks its page up, and a page that left the cache, by reclaim
        or by a discard, is brought in again.  So a discarded page is unmapped everywhere as it is dropped (R28).
Rule 2: before the first store a page becomes WRITABLE: it is made stable first, and never volatile again until the last
        mapping of it is gone.  With dirty bits a page it is potentially volatile meanwhile (R37).
Rule 3: a page that is mlocked, or whose address a program has, keeps its place (KEPT).  A file that was mlocked once
        has no volatile page again (R39).
Rule 4: WRITABLE, KEPT and `Inode.areas` are written here alone.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from guests.kernel.cache import PageCache
from guests.kernel.core import Core
from guests.kernel.inode import Area, Inode
from guests.kernel.writeback import Writeback
from guests.volatility import KEPT, WRITABLE
from shm.abi import PAGE_SIZE
from shm.errors import DiscardFault, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 64                   # pages brought in at a time


class Mapping:
    """Pages of a file, mapped.  Made by `File.mmap`; `unmap` it, or use it as a context manager."""

    def __init__(self, core: Core, cache: PageCache, writeback: Writeback, inode: Inode, area: Area) -> None:
        self._core, self._cache, self._writeback, self._inode, self._area = core, cache, writeback, inode, area
        self._held: set[int] = set()                 # pages that a minor fault made stable, where that is not spared
        inode.areas.append(area)

    # loads and stores

    def load(self, page: int, offset: int = 0, length: int = PAGE_SIZE) -> bytes:
        """Return bytes of one page of the mapping; IndexError outside it, or behind the end of the file."""
        index, core = self._index(page, offset, length), self._core
        while True:
            gfn = self._present(index)
            with self._faults():
                data: bytes = core.allocator.with_room((gfn,), core.memory.read_part, gfn, offset, length)
                self._cache.lists.touch(gfn)
                return data

    def store(self, page: int, offset: int, data: bytes) -> None:
        """Store into one page of the mapping; the page becomes dirty, and is written back by a sync or by reclaim."""
        index, core = self._index(page, offset, len(data)), self._core
        if not self._area.writable:
            raise PermissionError("the mapping is read-only: map the file with writable=True to store to it")
        if index * PAGE_SIZE + offset + len(data) > self._inode.size:
            raise IndexError(f"the file ends at byte {self._inode.size}: nothing can be stored behind it")
        while True:
            gfn = self._writable(index)
            with self._faults():
                core.allocator.with_room((gfn,), core.memory.write_part, gfn, offset, data)
                self._cache.lists.touch(gfn)
                return

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the mapping from `offset` on: a user copy, which stops short at a fault and goes on."""
        parts: list[bytes] = []
        while (done := sum(map(len, parts))) < length:
            parts += self._copy(offset + done, length - done)
        return b"".join(parts)

    def _copy(self, offset: int, length: int) -> list[bytes]:
        """Copy from the mapping until all is there or a touch is a discard fault (R29: the exception fixup)."""
        parts: list[bytes] = []
        core, end = self._core, offset + length
        with self._faults():
            while offset < end:
                page, start = divmod(offset, PAGE_SIZE)
                count = min(PAGE_SIZE - start, end - offset)
                gfn = self._present(self._index(page, start, count))
                parts.append(core.allocator.with_room((gfn,), core.memory.read_part, gfn, start, count))
                offset += count
        return parts

    # write back, mlock, addresses, unmap

    def sync(self) -> None:
        """Write back what was stored (msync)."""
        gfns = self._cached()
        self._writeback.collect(gfns)
        self._writeback.clean([gfn for gfn in gfns if gfn in self._inode.dirty])

    def lock(self) -> None:
        """Bring all pages in, stable, and keep them (mlock).  No page of the file is ever volatile again (R39)."""
        self._cache.mlock(self._inode)
        self._keep()

    def unlock(self) -> None:
        """Let reclaim have the pages (munlock); volatile they never are again."""
        self._area.kept = False
        self._let_go()

    @property
    def pages(self) -> list[np.ndarray]:
        """The pages as they lie in memory, (4096,) uint8 each, until `unmap`; in hardware mode only."""
        view = getattr(self._core.memory, "view", None)
        if view is None:
            raise UsageProblem("memory has addresses in hardware mode only: use load and store, or faults = hardware")
        self._keep()
        if self._area.writable:
            for index in range(self._area.first, self._area.end):
                self._writable(index)
        return [view[self._inode.cached[index]] for index in range(self._area.first, self._area.end)]

    def unmap(self) -> None:
        """End the mapping; what was stored through it is dirty now.  Twice is harmless."""
        if self._area not in self._inode.areas:
            return
        gfns = self._cached()
        self._writeback.collect(gfns)
        self._inode.areas.remove(self._area)
        self._let_go()
        self._end_writing(gfns)
        self._core.hints.make_volatile([gfn for gfn in self._held if self._core.pages.owner[gfn] is self._inode])
        self._held.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.unmap()

    # pages

    def _index(self, page: int, offset: int, length: int) -> int:
        index = self._area.first + page
        if self._area not in self._inode.areas:
            raise ValueError("the mapping was unmapped")
        if page < 0 or index not in self._area or index >= self._inode.pages:
            raise IndexError(f"page {page} is not in a mapping of {self._area.end - self._area.first} pages, or lies "
                             f"behind the end of the file")
        if offset < 0 or length < 0 or offset + length > PAGE_SIZE:
            raise IndexError(f"bytes {offset} to {offset + length} do not lie in a page of {PAGE_SIZE}")
        return index

    def _present(self, index: int) -> int:
        """Return the page, which may be volatile; a minor fault costs no ESSA where that is spared (R41)."""
        gfn = self._inode.cached.get(index)
        if gfn is None:
            self._cache.fill(self._inode, [index])
            return self._present(index)
        if self._cache.stable_minor_faults and gfn not in self._held:
            found = self._cache.find(self._inode, index)
            if found is None:
                return self._present(index)
            self._held.add(found)
        return gfn

    def _writable(self, index: int) -> int:
        """Return the page, which may be stored to: stable first, then potentially volatile, if that."""
        pages, hints = self._core.pages, self._core.hints
        gfn = self._inode.cached.get(index)
        if gfn is not None and pages.facts[gfn] & WRITABLE:
            return gfn
        while (gfn := self._cache.find(self._inode, index)) is None:
            self._cache.fill(self._inode, [index])
        pages.set([gfn], WRITABLE)
        hints.make_volatile_one(gfn)
        return gfn

    @contextmanager
    def _faults(self) -> "Iterator[None]":
        """Handle a discard fault of the access inside, which is then tried again by the caller's loop."""
        try:
            yield
        except DiscardFault as fault:
            self._core.discards.fault(fault.gfns.tolist())

    def _cached(self) -> list[int]:
        return [gfn for index, gfn in self._inode.cached.items() if index in self._area]

    def _keep(self) -> None:
        """Bring all pages in, and let them stay where they are."""
        self._area.kept = True
        try:
            for at in range(self._area.first, self._area.end, CHUNK):
                self._keep_chunk(range(at, min(at + CHUNK, self._area.end)))
        except BaseException:
            self.unlock()
            raise

    def _keep_chunk(self, indexes: Sequence[int]) -> None:
        # Those that are there first: what is brought in for the others may push them out.
        self._mark_kept(indexes)
        missing = [index for index in indexes if index not in self._inode.cached]
        if missing:
            self._cache.fill(self._inode, missing)
            self._mark_kept(missing)

    def _mark_kept(self, indexes: Sequence[int]) -> None:
        there = [index for index in indexes if index in self._inode.cached]
        gfns = list(self._cache.stable(self._inode, there).values())
        self._core.pages.set(gfns, KEPT)
        self._core.hints.make_volatile(gfns)

    def _let_go(self) -> None:
        """Let pages leave their place that no other mapping keeps."""
        areas = [area for area in self._inode.areas if area.kept]
        pages = self._core.pages
        pages.clear([gfn for gfn in pages.having(self._cached(), KEPT)
                     if not any(pages.index[gfn] in area for area in areas)], KEPT)

    def _end_writing(self, gfns: Sequence[int]) -> None:
        """End WRITABLE on pages that no mapping has any more; they may be volatile then."""
        pages, areas = self._core.pages, self._inode.areas
        free = [gfn for gfn in pages.having(gfns, WRITABLE) if not any(pages.index[gfn] in area for area in areas)]
        lost = self._core.hints.make_stable(free)
        self._cache.drop(list(lost))
        free = [gfn for gfn in free if gfn not in lost]
        pages.clear(free, WRITABLE)
        self._core.hints.make_volatile(free)
