"""Cleancache: one disk's client of tmem.  Clean pages that leave the page cache go to an ephemeral pool.

Of a private pool:

Rule 1: a page is in the page cache or in the pool, never in both: a put follows its leaving, a get takes it out of the
        pool (it is exclusive), and whoever makes a page without a get invalidates its handle first (T103, T104).
Rule 2: nobody hears of a refused put: the page is read from the disk again, that is all (T102).
Rule 3: the handle of a page is (inode number, index of the page in its file).  Inode numbers are never used twice, and
        an index beyond 32 bits is never stored.

`_there` says which handles may be in the pool, so that an invalidate that would find nothing costs no hypercall.  It
says too much rather than too little: the host forgets pages and does not say so.

What a pool that several guests share does otherwise stands at `SharedCleancache`.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shm.abi import PAGE_SIZE, U32
from shm.counters import Count

if TYPE_CHECKING:
    from guests.pool import Pool

Words = tuple[int, int, int]


class Cleancache:
    """The cleancache of one disk.  Without a pool it misses every get and lets every put fall."""

    def __init__(self, pool: "Pool | None", counters: memoryview) -> None:
        self._pool = pool
        self._counters = counters
        self._there: dict[int, set[int]] = {}        # inode -> indexes that may be in the pool

    @property
    def on(self) -> bool:
        return self._pool is not None

    def opened(self, inode: int, window: Words) -> None:
        """Note that an inode stands for a window of the disk: start, blocks, size in bytes."""

    def get(self, inode: int, index: int) -> bytes | None:
        """Return one page of the pool, or miss; a private pool has it no more then."""
        oid = self._oid(inode)
        if self._pool is None or oid is None or index > U32:
            return None
        page = self._pool.get(oid, index)
        self._counters[Count.CLEANCACHE_GETS] += 1
        self._counters[Count.CLEANCACHE_HITS] += page is not None
        self._note_gets(inode, [index])
        return page

    def get_many(self, inode: int, indexes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return pages of one file: (hit, pages), (n,) bool and (n, 4096) uint8; `indexes` ascend."""
        oid = self._oid(inode)
        if self._pool is None or oid is None or indexes[-1] > U32:
            return np.zeros(len(indexes), bool), np.empty((len(indexes), PAGE_SIZE), np.uint8)
        hit, pages = self._pool.get_many(oid, indexes)
        self._counters[Count.CLEANCACHE_GETS] += len(indexes)
        self._counters[Count.CLEANCACHE_HITS] += int(np.count_nonzero(hit))
        self._note_gets(inode, indexes)
        return hit, pages

    def put_many(self, handles: Sequence[tuple[int, int]], pages: np.ndarray) -> None:
        """Offer clean pages (n, 4096) under their handles (inode, index), in one batch whatever their files."""
        if self._pool is None:
            return
        fits = [at for at, (inode, index) in enumerate(handles) if index <= U32 and self._oid(inode) is not None]
        stored = self._put(self._pool, [handles[at] for at in fits], pages[fits])
        self._counters[Count.CLEANCACHE_PUTS] += len(fits)
        self._note_puts([handles[at] for at, kept in zip(fits, stored, strict=True) if kept])

    def invalidate(self, inode: int, indexes: Iterable[int]) -> None:
        """Make sure that gets of these pages miss (T103)."""
        stale, oid = self._possibly_there(inode, indexes), self._oid(inode)
        if not stale or self._pool is None or oid is None:
            return
        self._pool.flush_many(oid, stale)
        self._counters[Count.CLEANCACHE_INVALIDATES] += len(stale)
        self._note_gets(inode, stale)

    def written(self, inode: int, indexes: Iterable[int]) -> None:
        """Note that the disk has newer pages now.  They are cached, so a private pool has none of them (rule 1)."""

    def invalidate_from(self, inode: int, index: int) -> None:
        """Make sure that gets of this page and all after it miss; from 0 on it is one flush of the object (T104)."""
        there = self._there.get(inode)
        if not there or self._pool is None:
            return
        if index:
            self.invalidate(inode, [other for other in there if other >= index])
            return
        self._pool.flush_object(inode)
        self._counters[Count.CLEANCACHE_INVALIDATES] += 1
        there.clear()

    def close(self) -> None:
        """Destroy the pool, and with it every page (Linux: invalidate_fs); leave it, where it is shared."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.destroy()

    def _put(self, pool: "Pool", handles: list[tuple[int, int]], pages: np.ndarray) -> Sequence[bool] | np.ndarray:
        oids = [self._oid(inode) or 0 for inode, _ in handles]
        if len(handles) == 1:
            return [pool.put(oids[0], handles[0][1], pages[0])]
        words = [(oid, 0, 0) if isinstance(oid, int) else oid for oid in oids]
        return pool.put_many(np.array(words, np.uint64).reshape(-1, 3), [index for _, index in handles], pages)

    def _oid(self, inode: int) -> int | Words | None:
        """Return what the pool calls an inode; None for one that does not use the pool."""
        return inode

    def _note_gets(self, inode: int, indexes: Sequence[int]) -> None:
        self._there.setdefault(inode, set()).difference_update(indexes)

    def _note_puts(self, handles: Sequence[tuple[int, int]]) -> None:
        for inode, index in handles:
            self._there.setdefault(inode, set()).add(index)

    def _possibly_there(self, inode: int, indexes: Iterable[int]) -> list[int]:
        return sorted(self._there.get(inode, set()).intersection(indexes))


class SharedCleancache(Cleancache):
    """The cleancache of a disk that several guests have, over one pool (Linux: init_shared_fs, as OCFS2 used it).

    Rule 1: a get leaves the page in the pool, for the others: it may be there and in page caches at once.  Any member
            may put, replace or flush it, so nothing is known of the pool, and every invalidate is sent.
    Rule 2: members have no inode numbers in common.  A file is known by its window: where it starts on the disk, how
            many blocks it may have, its size when it was opened.
    Rule 3: the pool holds nothing older than the disk: whoever has written a page to the disk flushes it then.
    Rule 4: a file that was cut has left the pool for good: its holes read zero, whatever others put (T104).

    What other members' page caches hold is no business of tmem.  Guests that write to a shared disk need a lock among
    themselves (OCFS2 has one); without it, share disks that nobody writes to.
    """

    def __init__(self, pool: "Pool | None", counters: memoryview) -> None:
        super().__init__(pool, counters)
        self._windows: dict[int, Words] = {}         # of the inodes that use the pool

    def opened(self, inode: int, window: Words) -> None:
        self._windows[inode] = window

    def written(self, inode: int, indexes: Iterable[int]) -> None:
        """Flush pages of which the disk has newer ones now."""
        self.invalidate(inode, indexes)

    def invalidate_from(self, inode: int, index: int) -> None:  # noqa: ARG002
        """Flush the whole object, and do without the pool from now on."""
        window = self._windows.pop(inode, None)
        if self._pool is not None and window is not None:
            self._pool.flush_object(window)
            self._counters[Count.CLEANCACHE_INVALIDATES] += 1

    def _oid(self, inode: int) -> Words | None:
        return self._windows.get(inode)

    def _note_gets(self, inode: int, indexes: Sequence[int]) -> None:
        pass

    def _note_puts(self, handles: Sequence[tuple[int, int]]) -> None:
        pass

    def _possibly_there(self, inode: int, indexes: Iterable[int]) -> list[int]:  # noqa: ARG002
        return sorted(index for index in indexes if index <= U32)
