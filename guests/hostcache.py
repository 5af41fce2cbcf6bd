"""A disk behind a cache of the host's: what Avi Kivity proposed in place of tmem (12 and 13 July 2009).

    read     looks in the cache first; what is not there is read from the disk, and entered
    write    through: to the disk, and into the cache
    trim     blocks that nobody will read before they are written: dropped from the cache where `trims` is on

The cache is an ephemeral pool of the hypervisor's, under the same budget as guests' memory.  It is a shared pool with
one member, since a get leaves the page there: what the guest caches itself is cached twice, which is the point (E14).
Each of the guest's disks is an object of that pool.

Guests with one base image share its cache where the host knows that it is one image (Anthony Liguori, 13 July 2009):
they name it by a secret, as a shared pool is named.  What they write lies on other disks.

A host that serves its guests' disks itself would look, read and enter at one exit.  Here looking is a hypercall, and
pages on their way into the cache are put together, AT_ONCE of them: until then they lie here, beside the budget, as
pages in a transfer buffer do, and are found here.

Rule 1: the cache never differs from the disk.  A write that failed flushes its blocks; a put that was refused leaves
        nothing under its handle, as any pool's.
Rule 2: a cache that others use too is one of disks that nobody writes to.
Rule 3: without `trims` the host does not know which blocks are dead (E16).  `dead` counts those that may still lie
        there: too many rather than too few, since the host evicts and does not say so.
"""

from collections.abc import Sequence
from uuid import uuid4

import numpy as np

from guests.disk import Disk
from guests.pool import Pool
from guests.tmem import Secret, TmemClient
from shm.abi import PAGE_SIZE
from shm.counters import Count

FEATURE = "host-cache"
AT_ONCE = 32


class HostCaches:
    """The caches of one guest's disks, in one pool: its own, or that of all who know the secret `shared`.

    The n-th disk of each of those must be the same.
    """

    def __init__(self, tmem: TmemClient, counters: np.ndarray, trims: bool = False,
                 shared: Secret | None = None) -> None:
        self._pool = tmem.new_pool(persistent=False, shared=uuid4() if shared is None else shared)
        self._counters, self._trims, self._disks, self._own = counters, trims, 0, shared is None

    def front(self, disk: Disk) -> "HostCache":
        """Put a cache before a disk.  ValueError for one that can be written, where others use the cache too."""
        if disk.writable and not self._own:
            raise ValueError("the cache is other guests' too: open the disk for reading only")
        self._disks += 1
        return HostCache(disk, self._pool, self._disks, self._counters, self._trims)


class HostCache(Disk):
    """A disk and its cache; closing it closes the disk.  The only writer of the HOST_CACHE counters."""

    def __init__(self, disk: Disk, pool: Pool, number: int, counters: np.ndarray, trims: bool = False) -> None:
        super().__init__(disk.fileno(), disk.pages, counters, writable=disk.writable)
        self.device = disk.device
        self._disk, self._pool, self._object, self._trims = disk, pool, number, trims
        self._waiting: dict[int, np.ndarray] = {}            # pages on their way into the cache
        self._there = np.zeros(disk.pages, bool)             # may be in the cache, or on the way
        self._dead = np.zeros(disk.pages, bool)              # of these: nobody will read it before it is written

    def trim(self, blocks: np.ndarray) -> None:
        """Note that blocks are dead; drop them from the cache, if it is told."""
        blocks = blocks[self._there[blocks]]
        if self._trims:
            self._flush(blocks)
            self._counters[Count.HOST_CACHE_TRIMMED] += len(blocks)
        else:
            self._mark_dead(blocks, True)

    def close(self) -> None:
        self._disk.close()

    def _read(self, pieces: Sequence[tuple[int, int]], count: int) -> np.ndarray:
        blocks = self._blocks(pieces)
        if not count:
            return np.empty((0, PAGE_SIZE), np.uint8)
        hit, pages = self._look(blocks)
        self._counters[Count.HOST_CACHE_GETS] += count
        self._counters[Count.HOST_CACHE_HITS] += int(np.count_nonzero(hit))
        if not hit.all():
            missing = blocks[~hit]
            pages[~hit] = fresh = self._disk.read_many(missing)
            self._enter(missing, fresh)
        return pages

    def _write(self, pieces: Sequence[tuple[int, int]], pages: np.ndarray) -> None:
        blocks, pages = self._blocks(pieces), np.ascontiguousarray(pages, dtype=np.uint8).reshape(-1, PAGE_SIZE)
        try:
            self._disk.write_many(blocks, pages)
        except OSError:                          # some may have been written
            self._flush(blocks)
            raise
        self._enter(blocks, pages)

    def _look(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which blocks are in the cache or on the way (bool), and their pages (n, 4096)."""
        near = np.array([block in self._waiting for block in blocks.tolist()])
        if not near.any():
            return self._get(blocks)
        hit, pages = near.copy(), np.empty((len(blocks), PAGE_SIZE), np.uint8)
        pages[near] = [self._waiting[block] for block in blocks[near].tolist()]
        if not near.all():
            hit[~near], pages[~near] = self._get(blocks[~near])
        return hit, pages

    def _get(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(blocks) > 1:
            return self._pool.get_many(self._object, blocks)
        page = self._pool.get(self._object, int(blocks[0]))
        pages = np.zeros((1, PAGE_SIZE), np.uint8)
        if page is not None:
            pages[0] = np.frombuffer(page, np.uint8)
        return np.array([page is not None]), pages

    def _blocks(self, pieces: Sequence[tuple[int, int]]) -> np.ndarray:
        for first, length in pieces:
            self._check(first, length)
        return np.concatenate([np.arange(first, first + length) for first, length in pieces] or [np.empty(0, np.int64)])

    def _enter(self, blocks: np.ndarray, pages: np.ndarray) -> None:
        """Send pages into the cache: the last of a block that comes twice, as on the disk."""
        if not len(blocks):
            return
        self._waiting.update(zip(blocks.tolist(), pages.copy(), strict=True))
        self._there[blocks] = True
        self._mark_dead(blocks, False)
        if len(self._waiting) >= AT_ONCE:
            self._put_waiting()

    def _put_waiting(self) -> None:
        blocks = np.fromiter(self._waiting, np.int64, len(self._waiting))
        stored = self._pool.put_many(self._object, blocks, np.stack(list(self._waiting.values())))
        self._waiting.clear()
        self._counters[Count.HOST_CACHE_PUTS] += len(blocks)
        self._there[blocks] = stored
        self._mark_dead(blocks[~stored], False)

    def _flush(self, blocks: np.ndarray) -> None:
        """Drop blocks from the cache, also those on the way."""
        if len(blocks):
            for block in blocks.tolist():
                self._waiting.pop(block, None)
            self._pool.flush_many(self._object, blocks)
            self._there[blocks] = False
            self._mark_dead(blocks, False)

    def _mark_dead(self, blocks: np.ndarray, dead: bool) -> None:
        changed = int(np.count_nonzero(self._dead[np.unique(blocks)] != dead))
        self._dead[blocks] = dead
        if changed:
            now = int(self._counters[Count.HOST_CACHE_DEAD]) + (changed if dead else -changed)
            self._counters[Count.HOST_CACHE_DEAD] = now
