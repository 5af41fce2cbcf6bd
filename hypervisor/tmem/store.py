"""The tmem store: what put, get and flush mean (Xen 4.2; the rules are numbered in the reference, T12 and on).

    put      copies; a new handle needs a frame, a known one is replaced, and a replacement that fails leaves nothing
    get      copies; on an ephemeral pool it removes the page (exclusive), on a persistent one it does not
    flush    removes; there is no failure

Rule 1: find room, copy, publish, in this order: a put that fails has nothing to undo, and finding room may evict.
Rule 2: ephemeral pages may vanish whenever the event loop evicts, oldest first over all guests; persistent ones never.
Rule 3: nothing here trusts a caller's numbers: pools are looked up under the caller, and widths were checked before.

Answers are statuses of the ABI.  One writer, the event loop.
"""

from collections.abc import Callable

import numpy as np

from hypervisor.tmem.catalogue import Catalogue, Oid
from hypervisor.tmem.heap import Heap
from hypervisor.tmem.index import NONE
from hypervisor.tmem.pools import Pool, PoolCount, Pools, flags_status
from shm.abi import PoolFlag, Status

NO_CAP = 0


class Store:
    """All stored pages of all guests.

    `ephemeral_cap` bounds the ephemeral pages (NO_CAP: the budget alone does); `allowance(owner)` says how many more
    persistent pages a guest may hold now (its max_mem less what it holds; T67).
    """

    def __init__(self, heap: Heap, ephemeral_cap: int, allowance: Callable[[int], int]) -> None:
        self.heap = heap
        self.ephemeral_cap = ephemeral_cap
        self.allowance = allowance
        self.catalogue = Catalogue()
        self.pools = Pools()
        self.evictions = 0                                   # pages evicted so far: page numbers found before are stale

    @property
    def ephemeral(self) -> int:
        return self.catalogue.ages.count

    @property
    def persistent(self) -> int:
        return len(self.catalogue) - self.ephemeral

    def pages_of(self, owner: int, persistent: bool) -> int:
        return sum(pool.pages for pool in self.pools.of(owner) if pool.persistent == persistent)

    # pools

    def create_pool(self, owner: int, flags: int) -> tuple[Status, int]:
        """Make a pool; return OK and its number, or why not (T1-T6).  Shared pools are not offered yet: EPERM."""
        status = flags_status(flags)
        if status != Status.OK or flags & PoolFlag.SHARED:
            return Status.EPERM, 0
        number = self.pools.create(owner, bool(flags & PoolFlag.PERSIST))
        return (Status.EPERM, 0) if number is None else (Status.OK, number)

    def destroy_pool(self, owner: int, number: int) -> Status:
        """Flush and free a pool: OK, or NO where there is none (T10)."""
        pool = self.pools.get(owner, number)
        if pool is None:
            return Status.NO
        self._drop_from(pool, self.catalogue.of_pool(pool.serial))
        self.pools.remove(pool)
        return Status.OK

    def forget(self, owner: int) -> None:
        """Drop all pools of a guest that left or died (T83)."""
        for pool in self.pools.of(owner):
            self._drop_from(pool, self.catalogue.of_pool(pool.serial))
            self.pools.remove(pool)

    # one page

    def put(self, owner: int, number: int, oid: Oid, index: int, page: np.ndarray | None) -> Status:
        """Store a copy of `page` (4096,); None is a bad source: EFAULT, and an old copy is gone (T37)."""
        pool = self.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        pool.counts[PoolCount.PT] += 1
        found = self.catalogue.find(pool.serial, oid, index)
        if found != NONE:
            return self._replace(pool, found, page)
        frame = self._room(pool, 1) if page is not None else []
        if not frame:
            pool.counts[PoolCount.PX] += 1
            return Status.EFAULT if page is None else Status.ENOMEM
        self.heap.pages[frame[0]] = page
        self.catalogue.add(pool.serial, oid, index, frame[0], not pool.persistent)
        pool.pages += 1
        pool.counts[PoolCount.PS] += 1
        return Status.OK

    def _replace(self, pool: Pool, found: int, page: np.ndarray | None) -> Status:
        """Put over a known handle: replaced, its age unchanged (T35, T36), or failed and flushed (T33, T34)."""
        frame = self.heap.renew(int(self.catalogue.frames[found])) if page is not None else None
        if frame is None or page is None:
            self._drop(pool, found)
            pool.counts[PoolCount.PD] += 1
            return Status.EFAULT if page is None else Status.ENOSPC
        self.heap.pages[frame] = page
        self.catalogue.frames[found] = frame
        pool.counts[PoolCount.PR] += 1
        pool.counts[PoolCount.PS] += 1
        return Status.OK

    def _room(self, pool: Pool, count: int) -> list[int]:
        """Return frames for up to `count` new pages of `pool`, within its limits.  May evict."""
        if pool.persistent:
            return self.heap.take(max(0, min(count, self.allowance(pool.owner))))
        if self.ephemeral_cap:
            count = min(count, self.ephemeral_cap)
            self.evict(self.ephemeral + count - self.ephemeral_cap)
        return self.heap.take(count)

    def get(self, owner: int, number: int, oid: Oid, index: int, out: np.ndarray) -> Status:
        """Copy a page to `out`: OK, NO (a miss; `out` untouched, T20), EEMPTY (nothing in the pool, T18), ENODEV."""
        pool = self.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        if not pool.pages:
            return Status.EEMPTY
        pool.counts[PoolCount.GT] += 1
        found = self.catalogue.find(pool.serial, oid, index)
        if found == NONE:
            return Status.NO
        out[:] = self.heap.pages[self.catalogue.frames[found]]
        pool.counts[PoolCount.GS] += 1
        if not pool.persistent:
            self._drop(pool, found)
        return Status.OK

    def flush_page(self, owner: int, number: int, oid: Oid, index: int) -> Status:
        """Drop one page if it is there: OK either way (T22), or ENODEV."""
        pool = self.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        pool.counts[PoolCount.FT] += 1
        found = self.catalogue.find(pool.serial, oid, index)
        if found != NONE:
            self._drop(pool, found)
            pool.counts[PoolCount.FS] += 1
        return Status.OK

    def flush_object(self, owner: int, number: int, oid: Oid) -> Status:
        """Drop all pages of one object: OK, there or not (T23), or ENODEV."""
        pool = self.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        pool.counts[PoolCount.OT] += 1
        pages = self.catalogue.of_object(pool.serial, oid)
        self._drop_from(pool, pages)
        pool.counts[PoolCount.OS] += bool(len(pages))
        return Status.OK

    def _drop(self, pool: Pool, page: int) -> None:
        self.heap.give([self.catalogue.drop(page)])
        pool.pages -= 1

    # many pages of one pool, their handles all different

    def put_many(self, owner: int, number: int, oids: np.ndarray, indexes: np.ndarray,
                 pages: np.ndarray) -> np.ndarray:
        """Store copies of `pages` (n, 4096); return statuses (int32), as `put` would have given one after the other."""
        pool = self.pools.get(owner, number)
        if pool is None:
            return np.full(len(oids), Status.ENODEV, np.int32)
        found = self.catalogue.find_many(pool.serial, oids, indexes)
        known, new = np.flatnonzero(found != NONE), np.flatnonzero(found == NONE)
        if len(known) and len(new) and not pool.persistent:  # making room for the new may evict the known
            return self._put_each(pool, number, oids, indexes, pages)
        statuses = np.full(len(oids), Status.OK, np.int32)
        if len(known):
            statuses[known] = self._replace_many(pool, found[known], pages, known)
        frames = self._room(pool, len(new)) if len(new) else []
        stored, rest = new[:len(frames)], new[len(frames):]
        if len(stored):
            self.heap.pages[frames] = pages if len(stored) == len(pages) else pages[stored]
            self.catalogue.add_many(pool.serial, oids[stored], indexes[stored], np.array(frames), not pool.persistent)
        pool.pages += len(stored)
        pool.counts[PoolCount.PT] += len(known) + len(stored)
        pool.counts[PoolCount.PS] += len(stored)
        if len(rest):                                        # what finds no room now may evict the first of this batch
            statuses[rest] = self._put_each(pool, number, oids[rest], indexes[rest], pages[rest])
        return statuses

    def _replace_many(self, pool: Pool, found: np.ndarray, pages: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Put rows of `pages` over known handles, as `_replace` does."""
        frames = self.heap.renew_many(self.catalogue.frames[found])
        if frames is None:
            return np.array([self._replace(pool, *pair) for pair in zip(found.tolist(), pages[rows], strict=True)])
        self.heap.pages[frames] = pages if len(rows) == len(pages) else pages[rows]
        self.catalogue.frames[found] = frames
        pool.counts[PoolCount.PR] += len(rows)
        pool.counts[PoolCount.PS] += len(rows)
        return np.full(len(rows), Status.OK, np.int32)

    def _put_each(self, pool: Pool, number: int, oids: np.ndarray, indexes: np.ndarray,
                  pages: np.ndarray) -> np.ndarray:
        """Put one after the other; after one that found no room nobody looks for room again."""
        statuses = np.full(len(oids), Status.ENOMEM, np.int32)
        hopeless = False
        for row, (oid, index) in enumerate(zip(oids.tolist(), indexes.tolist(), strict=True)):
            if hopeless and self.catalogue.find(pool.serial, oid, index) == NONE:
                pool.counts[[PoolCount.PT, PoolCount.PX]] += 1
            else:
                statuses[row] = self.put(pool.owner, number, oid, index, pages[row])
                hopeless |= statuses[row] == Status.ENOMEM
        return statuses

    def get_many(self, owner: int, number: int, oids: np.ndarray, indexes: np.ndarray, out: np.ndarray,
                 slots: np.ndarray) -> np.ndarray:
        """Copy pages to rows `slots` of `out`; return statuses (int32), as `get` would have given."""
        pool = self.pools.get(owner, number)
        if pool is None or not pool.pages:
            return np.full(len(oids), Status.ENODEV if pool is None else Status.EEMPTY, np.int32)
        found = self.catalogue.find_many(pool.serial, oids, indexes)
        hits = np.flatnonzero(found != NONE)
        pages = found[hits]
        _gather(self.heap.pages, self.catalogue.frames[pages], out, slots if len(hits) == len(oids) else slots[hits])
        statuses = np.full(len(oids), Status.NO, np.int32)
        statuses[hits] = Status.OK
        asked = len(oids)
        if not pool.persistent and len(hits):
            if len(hits) == pool.pages:                      # what follows the last hit finds the pool empty (T18)
                statuses[hits[-1] + 1:] = Status.EEMPTY
                asked = int(hits[-1]) + 1
            self._drop_from(pool, pages)
        pool.counts[PoolCount.GT] += asked
        pool.counts[PoolCount.GS] += len(hits)
        return statuses

    def flush_many(self, owner: int, number: int, oids: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        """Drop pages where they are there; return statuses (int32)."""
        pool = self.pools.get(owner, number)
        if pool is None:
            return np.full(len(oids), Status.ENODEV, np.int32)
        found = self.catalogue.find_many(pool.serial, oids, indexes)
        pages = found[found != NONE]
        self._drop_from(pool, pages)
        pool.counts[PoolCount.FT] += len(oids)
        pool.counts[PoolCount.FS] += len(pages)
        return np.full(len(oids), Status.OK, np.int32)

    def _drop_from(self, pool: Pool, pages: np.ndarray) -> None:
        """Drop pages of one pool."""
        if len(pages):
            pool.pages -= len(pages)
            self.heap.give(self.catalogue.drop_many(pages))

    def _drop_many(self, pages: np.ndarray) -> None:
        """Drop pages of whatever pools."""
        if not len(pages):
            return
        serials, counts = np.unique(self.catalogue.serials_of(pages), return_counts=True)
        for serial, count in zip(serials.tolist(), counts.tolist(), strict=True):
            self.pools.by_serial(serial).pages -= count
        self.heap.give(self.catalogue.drop_many(pages))

    # pressure

    def evict(self, count: int) -> int:
        """Evict up to `count` of the oldest ephemeral pages of all guests (T56); return how many."""
        if count <= 0:
            return 0
        pages = self.catalogue.ages.oldest(count)
        self._drop_many(pages)
        self.evictions += len(pages)
        return len(pages)

    def pass_hand(self) -> None:
        """Note that the clock's hand has passed over the store."""
        self.catalogue.ages.pass_hand()

    def audit(self) -> list[str]:
        """Recount everything; return what does not add up (T99)."""
        problems = self.catalogue.audit() + self.heap.audit()
        if len(self.catalogue) != self.heap.in_use:
            problems.append(f"store: {len(self.catalogue)} pages in {self.heap.in_use} frames")
        for pool in self.pools.all():
            stored = len(self.catalogue.of_pool(pool.serial))
            if stored != pool.pages:
                problems.append(f"store: pool {pool.serial} counts {pool.pages} pages, has {stored}")
        return problems


def _gather(source: np.ndarray, frames: np.ndarray, out: np.ndarray, slots: np.ndarray) -> None:
    """Copy rows `frames` of `source` to rows `slots` of `out`: in one pass where the slots are neighbours."""
    first, count = int(slots[0]) if len(slots) else 0, len(slots)
    if count and (slots[1:] - slots[:-1] == 1).all():
        np.take(source, frames, axis=0, out=out[first:first + count], mode="clip")
    else:
        out[slots] = source[frames]
