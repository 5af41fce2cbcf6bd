"""Cleancache: one disk's client of tmem.  Clean pages that leave the page cache go to an ephemeral private pool.

Rule 1: a page is in the page cache or in the pool, never in both: a put follows its leaving, a get takes it out of the
        pool (it is exclusive), and whoever makes a page without a get invalidates its handle first (T103, T104).
Rule 2: nobody hears of a refused put: the page is read from the disk again, that is all (T102).
Rule 3: the handle of a page is (inode number, index of the page in its file).  Inode numbers are never used twice, and
        an index beyond 32 bits is never stored.

`_there` says which handles may be in the pool, so that an invalidate that would find nothing costs no hypercall.  It
says too much rather than too little: the host forgets pages and does not say so.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shm.abi import PAGE_SIZE, U32
from shm.counters import Count

if TYPE_CHECKING:
    from guests.tmem import Pool


class Cleancache:
    """The cleancache of one disk.  Without a pool it misses every get and lets every put fall."""

    def __init__(self, pool: "Pool | None", counters: memoryview) -> None:
        self._pool = pool
        self._counters = counters
        self._there: dict[int, set[int]] = {}        # inode -> indexes that may be in the pool

    @property
    def on(self) -> bool:
        return self._pool is not None

    def get(self, inode: int, index: int) -> bytes | None:
        """Take one page out of the pool, or miss."""
        if self._pool is None or index > U32:
            return None
        page = self._pool.get(inode, index)
        self._counters[Count.CLEANCACHE_GETS] += 1
        self._counters[Count.CLEANCACHE_HITS] += page is not None
        self._there_of(inode).discard(index)
        return page

    def get_many(self, inode: int, indexes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Take pages of one file out of the pool: (hit, pages), (n,) bool and (n, 4096) uint8; `indexes` ascend."""
        if self._pool is None or indexes[-1] > U32:
            return np.zeros(len(indexes), bool), np.empty((len(indexes), PAGE_SIZE), np.uint8)
        hit, pages = self._pool.get_many(inode, indexes)
        self._counters[Count.CLEANCACHE_GETS] += len(indexes)
        self._counters[Count.CLEANCACHE_HITS] += int(np.count_nonzero(hit))
        self._there_of(inode).difference_update(indexes)
        return hit, pages

    def put_many(self, handles: Sequence[tuple[int, int]], pages: np.ndarray) -> None:
        """Offer clean pages (n, 4096) under their handles (inode, index), in one batch whatever their files."""
        if self._pool is None:
            return
        fits = [at for at, (_, index) in enumerate(handles) if index <= U32]
        stored = self._put(self._pool, [handles[at] for at in fits], pages[fits])
        self._counters[Count.CLEANCACHE_PUTS] += len(fits)
        for at, kept in zip(fits, stored, strict=True):
            if kept:
                self._there_of(handles[at][0]).add(handles[at][1])

    def invalidate(self, inode: int, indexes: Iterable[int]) -> None:
        """Make sure that gets of these pages miss (T103)."""
        there = self._there_of(inode)
        stale = sorted(there.intersection(indexes))
        if not stale or self._pool is None:
            return
        self._pool.flush_many(inode, stale)
        self._counters[Count.CLEANCACHE_INVALIDATES] += len(stale)
        there.difference_update(stale)

    def invalidate_from(self, inode: int, index: int) -> None:
        """Make sure that gets of this page and all after it miss; from 0 on it is one flush of the object (T104)."""
        there = self._there_of(inode)
        if not there or self._pool is None:
            return
        if index:
            self.invalidate(inode, [other for other in there if other >= index])
            return
        self._pool.flush_object(inode)
        self._counters[Count.CLEANCACHE_INVALIDATES] += 1
        there.clear()

    def close(self) -> None:
        """Destroy the pool, and with it every page."""
        if self._pool is not None:
            self._pool.destroy()
        self._pool = None

    def _put(self, pool: "Pool", handles: list[tuple[int, int]], pages: np.ndarray) -> Sequence[bool] | np.ndarray:
        if len(handles) == 1:
            (inode, index), = handles
            return [pool.put(inode, index, pages[0])]
        oids = np.zeros((len(handles), 3), np.uint64)
        oids[:, 0] = [inode for inode, _ in handles]
        return pool.put_many(oids, [index for _, index in handles], pages)

    def _there_of(self, inode: int) -> set[int]:
        return self._there.setdefault(inode, set())
