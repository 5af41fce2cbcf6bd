"""Tmem as a guest calls it: pools, put, get, flush; single, or many as one multicall.

A put may be refused at any time, and a page put into an ephemeral pool may be gone at the next get: callers cope.  A
get from an ephemeral pool removes the page.  Object ids are 3 x 64 bits (an int stands for (id, 0, 0)), indexes 32.
"""

from collections.abc import Sequence
from time import monotonic_ns

import numpy as np

from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, TMEM_VERSION, U32, U64, VERSION_SHIFT, Op, PoolFlag, Reply, Status
from shm.channel import GuestEnd
from shm.counters import Count
from shm.errors import TmemRefused
from shm.transfer import Transfer

Oid = int | Sequence[int]


def _words(oid: Oid) -> tuple[int, int, int]:
    words = (int(oid), 0, 0) if isinstance(oid, int | np.integer) else tuple(int(word) for word in oid)
    if len(words) != 3 or not all(0 <= word <= U64 for word in words):
        raise ValueError(f"object id {oid!r}: use one number from 0 to 2^64 - 1, or three")
    return words


def _index(index: int) -> int:
    if not 0 <= index <= U32:
        raise ValueError(f"index {index}: use 0 to 2^32 - 1")
    return int(index)


class TmemClient:
    """The tmem calls of one guest."""

    def __init__(self, channel: GuestEnd, transfer: Transfer, counters: np.ndarray) -> None:
        self.channel = channel
        self.transfer = transfer
        self.counters = counters

    def call(self, op: Op, *arguments: int) -> Reply:
        start = monotonic_ns()
        reply = self.channel.call(op, *arguments)
        self.counters[Count.HYPERCALLS] += 1
        self.counters[Count.WAIT_TMEM_NS] += monotonic_ns() - start
        return reply

    def new_pool(self, persistent: bool, shared: object = None) -> "Pool":
        """Make a pool (16 at most); TmemRefused when there are no more, or the cluster's scheme has no tmem."""
        if shared is not None:
            raise TmemRefused("shared pools are not offered by this release; use private ones")
        reply = self.call(Op.NEW_POOL, TMEM_VERSION << VERSION_SHIFT | (PoolFlag.PERSIST if persistent else 0))
        if reply.status != Status.OK:
            raise TmemRefused(f"no pool: {Status(reply.status).name} "
                              f"({'the scheme has no tmem' if reply.status == Status.ENODEV else '16 pools at most'})")
        return Pool(self, reply.value, persistent)


class Pool:
    """One pool of one guest."""

    def __init__(self, client: TmemClient, number: int, persistent: bool) -> None:
        self.client = client
        self.number = number
        self.persistent = persistent

    def put(self, oid: Oid, index: int, page: bytes | np.ndarray) -> bool:
        """Store a copy of `page` (4096 bytes); False when refused, and then nothing is stored under the handle."""
        if len(page) != PAGE_SIZE:
            raise ValueError(f"a page is {PAGE_SIZE} bytes, not {len(page)}")
        words, index = _words(oid), _index(index)
        self.client.transfer.first[:] = memoryview(page)     # type: ignore[arg-type]  # an array has a buffer
        return self._checked(self.client.call(Op.PUT_PAGE, self.number, *words, index)) == Status.OK

    def get(self, oid: Oid, index: int) -> bytes | None:
        """Return the page last put under the handle, or None."""
        reply = self.client.call(Op.GET_PAGE, self.number, *_words(oid), _index(index))
        return bytes(self.client.transfer.first) if self._checked(reply) == Status.OK else None

    def flush(self, oid: Oid, index: int) -> None:
        """Make sure that the next get of the handle misses."""
        self._checked(self.client.call(Op.FLUSH_PAGE, self.number, *_words(oid), _index(index)))

    def flush_object(self, oid: Oid) -> None:
        """Flush every index of one object."""
        self._checked(self.client.call(Op.FLUSH_OBJECT, self.number, *_words(oid)))

    def destroy(self) -> None:
        """Flush all and give the pool's number back."""
        self.client.call(Op.DESTROY_POOL, self.number)

    def _checked(self, reply: Reply) -> int:
        if reply.status == Status.ENODEV:
            raise TmemRefused(f"pool {self.number} does not exist (destroyed?)")
        return reply.status

    # many: at most MULTICALL_LIMIT pages a hypercall

    def put_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray, pages: np.ndarray) -> np.ndarray:
        """Store copies of `pages` (n, 4096) under one object id, or under n (n, 3); return which were stored (bool)."""
        words, numbers = _handles(oids, indexes)
        if pages.shape != (len(numbers), PAGE_SIZE):
            raise ValueError(f"{len(numbers)} pages are an array of {(len(numbers), PAGE_SIZE)}, not {pages.shape}")
        stored = np.zeros(len(numbers), bool)
        for part in _parts(len(numbers)):
            count = part.stop - part.start
            self.client.transfer.pages[:count] = pages[part]
            stored[part] = self._multicall(Op.PUT_PAGE, words[part], numbers[part]) == Status.OK
        return stored

    def get_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which handles hit (bool) and the pages (n, 4096); rows of misses are zero."""
        words, numbers = _handles(oids, indexes)
        hits, pages = np.zeros(len(numbers), bool), np.empty((len(numbers), PAGE_SIZE), np.uint8)
        for part in _parts(len(numbers)):
            hits[part] = self._multicall(Op.GET_PAGE, words[part], numbers[part]) == Status.OK
            pages[part] = self.client.transfer.pages[:part.stop - part.start]
        pages[~hits] = 0
        return hits, pages

    def flush_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> None:
        """Make sure that the next get of each handle misses."""
        words, numbers = _handles(oids, indexes)
        for part in _parts(len(numbers)):
            self._multicall(Op.FLUSH_PAGE, words[part], numbers[part])

    def _multicall(self, op: Op, words: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        entries = self.client.transfer.entries[:len(numbers)]
        entries["op"], entries["pool"], entries["oid"], entries["index"] = op, self.number, words, numbers
        entries["slot"] = np.arange(len(numbers))
        self.client.call(Op.MULTICALL, len(numbers))
        self.client.counters[Count.MULTICALLS] += 1
        statuses = entries["status"].copy()
        if (statuses == Status.ENODEV).any():
            raise TmemRefused(f"pool {self.number} does not exist (destroyed?)")
        return statuses


def _handles(oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.asarray(indexes, dtype=np.int64).reshape(-1)
    if len(numbers) and (numbers.min() < 0 or numbers.max() > U32):
        raise ValueError("indexes: use 0 to 2^32 - 1")
    one = isinstance(oids, int | np.integer) or np.ndim(oids) == 1
    words = np.array([_words(oids)], np.uint64) if one else np.asarray(oids, np.uint64)  # type: ignore[arg-type]
    if one:
        words = np.broadcast_to(words, (len(numbers), 3))
    if words.shape != (len(numbers), 3):
        raise ValueError(f"object ids: use one, or an array of {(len(numbers), 3)}, not {words.shape}")
    return words, numbers.astype(np.uint64)


def _parts(count: int) -> list[slice]:
    return [slice(at, min(at + MULTICALL_LIMIT, count)) for at in range(0, count, MULTICALL_LIMIT)]
