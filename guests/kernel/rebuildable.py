"""Rebuildable memory: anonymous pages whose owner can compute them again, volatile while nobody uses them.

Rule 1: the region is used only while pinned.  Pinning makes its pages stable; those that were lost are rebuilt at once.
Rule 2: the last unpin makes all of them volatile: the host may discard them, and owes no notice.  Not those of a slab
        (`hinted` false), as Linux's dentries and inodes: a page holds many objects, and only the kernel can drop them.
Rule 3: the guest's own reclaim purges idle regions, never pinned ones.  Where a pinned region finds no page for what it
        rebuilds, it purges its own pages that are not being read: a region larger than memory is slow, and works.
Rule 4: `gfn`, and HELD and LISTED of these pages, are written here alone: the region is their list.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from guests.kernel.core import Core
from guests.kernel.file import CHUNK
from guests.volatility import HELD, LISTED, RESTORABLE
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import BrokenInvariant, OutOfMemory

Rebuild = Callable[[np.ndarray], np.ndarray]


class Rebuildable:
    """One region.  Made by `Kernel.rebuildable`; `rebuild(indexes) -> (n, 4096)` must give the same bytes each time."""

    def __init__(self, core: Core, pages: int, rebuild: Rebuild, hinted: bool = True) -> None:
        self.pages, self.hinted = pages, hinted
        self.pins = 0
        self.gfn = np.full(pages, -1, np.int64)
        self._built = np.zeros(pages, bool)          # was built once: missing again, it was purged
        self._rebuild = rebuild
        self._core = core

    @property
    def resident(self) -> int:
        """Pages that have memory, discarded or not."""
        return int(np.count_nonzero(self.gfn >= 0))

    @contextmanager
    def pinned(self) -> Iterator[int]:
        """Use the region; gives how many of its pages had been purged since it was used last.  Nests."""
        if not self.pins:
            self._make_stable()
        self.pins += 1
        try:
            yield self._rebuild_missing()
        finally:
            self.pins -= 1
            if not self.pins:
                self._make_volatile()

    def read(self, index: int) -> bytes:
        """Return one page."""
        return self.read_many([index])[0].tobytes()

    def read_many(self, indexes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return pages (n, 4096) uint8 in the order asked for; a page may be asked for twice."""
        if not self.pins:
            raise BrokenInvariant("a rebuildable region was read while it was not pinned")
        numbers, order = np.unique(np.asarray(indexes, np.int64).reshape(-1), return_inverse=True)
        if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < self.pages:
            raise IndexError(f"pages {numbers[0]} to {numbers[-1]} are not all in a region of {self.pages} pages")
        pages = np.empty((len(numbers), PAGE_SIZE), np.uint8)
        for at in range(0, len(numbers), CHUNK):
            self._read(numbers[at:at + CHUNK], pages[at:at + CHUNK])
        return pages if np.array_equal(order, np.arange(len(order))) else pages[order]

    def purge(self, wanted: int) -> int:
        """Give up to `wanted` pages up; return how many.  For reclaim, which asks idle regions only."""
        indexes = np.flatnonzero(self.gfn >= 0)[:wanted]
        self._drop(indexes)
        return len(indexes)

    def _make_stable(self) -> None:
        """Make every page stable, and hold those that are still there."""
        gfns = self.gfn[self.gfn >= 0].tolist()
        lost = self._core.hints.make_stable(gfns)
        self._drop(np.array([self._core.pages.index[gfn] for gfn in lost], np.int64))
        self._core.pages.array[self.gfn[self.gfn >= 0]] |= HELD

    def _make_volatile(self) -> None:
        gfns = self.gfn[self.gfn >= 0]
        self._core.pages.array[gfns] &= 0xFFFFFFFF ^ HELD
        if self.hinted:
            self._core.hints.make_volatile(gfns.tolist())

    def _rebuild_missing(self) -> int:
        """Rebuild what is missing while there is room; return how much of it had been purged."""
        missing = np.flatnonzero(self.gfn < 0)
        purged = int(np.count_nonzero(self._built[missing]))
        with suppress(OutOfMemory):                  # the rest is rebuilt as it is read
            for at in range(0, len(missing), CHUNK):
                part = missing[at:at + CHUNK]
                self._keep(part, self._computed(part))
        return purged

    def _read(self, indexes: np.ndarray, out: np.ndarray) -> None:
        there = self.gfn[indexes] >= 0
        gfns = self.gfn[indexes[there]].tolist()
        if gfns:
            out[there] = self._core.allocator.with_room(gfns, self._core.memory.read_many, gfns)
        missing = indexes[~there]
        if len(missing):
            out[~there] = pages = self._computed(missing)
            self._keep_somehow(missing, pages)

    def _keep_somehow(self, indexes: np.ndarray, pages: np.ndarray) -> None:
        """Keep rebuilt pages, at the price of others of the region where there is no room."""
        try:
            self._keep(indexes, pages)
        except OutOfMemory:
            if not self.purge(len(indexes)):
                raise
            self._keep(indexes, pages)

    def _computed(self, indexes: np.ndarray) -> np.ndarray:
        pages = self._rebuild(indexes)
        if pages.shape != (len(indexes), PAGE_SIZE):
            raise ValueError(f"{len(indexes)} pages were to be rebuilt, and {pages.shape} came")
        return pages

    def _keep(self, indexes: np.ndarray, pages: np.ndarray) -> None:
        """Let rebuilt pages enter memory."""
        core = self._core
        gfns = core.allocator.alloc(len(indexes))
        try:
            core.allocator.with_room(gfns, core.memory.write_many, gfns, pages, True)
        except BaseException:
            core.allocator.free(gfns)
            raise
        # Nobody touches these pages while they are volatile (rule 1), so nobody outside need know how to restore them.
        core.pages.claim(gfns, self, indexes.tolist(), HELD | LISTED | RESTORABLE)
        self.gfn[indexes] = gfns
        core.counters[Count.REBUILT_PAGES] += int(np.count_nonzero(self._built[indexes]))
        self._built[indexes] = True

    def _drop(self, indexes: np.ndarray) -> None:
        gfns = self.gfn[indexes].tolist()
        self.gfn[indexes] = -1
        self._core.allocator.free(gfns)
