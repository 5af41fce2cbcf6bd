"""What the tmem bench times: our pools, LMDB in process, and the limits, all behind one face.

A peer has a `name`, the `pid` of its server or None, `load(pages, size)` to prepare batches, and `pair(batch)`, which
puts a batch of pages and gets it back; it returns the pages as got, (size, 4096), so that a run can be checked.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Protocol

import numpy as np
from cluster import guest, hypervisor
from pages import PAGE

from guests.tmem import Pool
from hypervisor.machine import Settings

BUDGET = 128 << 20


class Peer(Protocol):
    name: str
    pid: int | None

    def load(self, pages: np.ndarray, size: int) -> None: ...

    def pair(self, batch: int) -> np.ndarray: ...


class Batches:
    """Pages in batches of one size."""

    pid: int | None = None

    def load(self, pages: np.ndarray, size: int) -> None:
        self.size = size
        self.batches = [pages[at:at + size] for at in range(0, len(pages) - size + 1, size)]
        self.numbers = [np.arange(at, at + size) for at in range(0, len(pages) - size + 1, size)]
        self.out = np.zeros((size, PAGE), np.uint8)
        self.ready()

    def ready(self) -> None:
        """Prepare what else a peer needs."""


class Ours(Batches):
    """An ephemeral pool of one guest: a get removes the page, so each put is a new one."""

    def __init__(self, form: str, pid: int, pool: Pool) -> None:
        self.name, self.pid, self.pool = form, pid, pool

    def pair(self, batch: int) -> np.ndarray:
        if self.size == 1:
            self.pool.put(1, batch, self.batches[batch][0])
            page = self.pool.get(1, batch)
            return np.frombuffer(page or b"", np.uint8).reshape(-1, PAGE)
        self.pool.put_many(1, self.numbers[batch], self.batches[batch])
        return self.pool.get_many(1, self.numbers[batch])[1]


class Lmdb(Batches):
    """LMDB in this process, on tmpfs, without any syncing: a transaction to put a batch, one to get it."""

    name = "lmdb (in process)"

    def __init__(self, folder: str) -> None:
        import lmdb

        self.env = lmdb.open(folder, map_size=BUDGET, writemap=True, sync=False, metasync=False, lock=False)

    def ready(self) -> None:
        self.keys = [[b"p%07d" % number for number in numbers] for numbers in self.numbers]
        self.values = [[memoryview(page) for page in pages] for pages in self.batches]

    def pair(self, batch: int) -> np.ndarray:
        keys, out = self.keys[batch], self.out
        with self.env.begin(write=True) as transaction:
            for key, page in zip(keys, self.values[batch], strict=True):
                transaction.put(key, page)
        with self.env.begin(buffers=True) as transaction:
            for row, key in enumerate(keys):
                out[row] = transaction.get(key)  # type: ignore[assignment]
        return out


class Copy(Batches):
    """The limit: pages copied to scattered frames and back, in one process."""

    name = "bare numpy copy"

    def ready(self) -> None:
        count = self.size * len(self.batches)
        self.heap = np.zeros((4 * count, PAGE), np.uint8)
        order = np.random.default_rng(3).permutation(4 * count)[:count]
        self.frames = [order[numbers] for numbers in self.numbers]

    def pair(self, batch: int) -> np.ndarray:
        frames = self.frames[batch]
        if self.size == 1:
            frame = self.heap[frames[0]]
            frame[:] = self.batches[batch][0]
            self.out[0] = frame
        else:
            self.heap[frames] = self.batches[batch]
            np.take(self.heap, frames, axis=0, out=self.out, mode="clip")
        return self.out


class Lz4(Batches):
    """The limit of the compressed form: lz4 of each page and back, in one process."""

    name = "bare lz4"

    def __init__(self) -> None:
        from lz4 import block

        self.compress, self.decompress = block.compress, block.decompress

    def pair(self, batch: int) -> np.ndarray:
        stored = [self.compress(page, store_size=False) for page in self.batches[batch]]
        for row, data in enumerate(stored):
            self.out[row] = np.frombuffer(self.decompress(data, uncompressed_size=PAGE), np.uint8)
        return self.out


def knows_forms() -> bool:
    """Say whether this hypervisor has storage forms; without them every page is stored raw."""
    return any(field.name == "form" for field in fields(Settings))


@contextmanager
def pool_of(form: str, cluster: str) -> Iterator[Ours]:
    """Run a hypervisor that stores in `form`, and one guest in this process with an ephemeral pool."""
    with hypervisor(cluster, BUDGET, form=form) as pid, guest(cluster, "1MiB") as attached:
        yield Ours(form, pid, attached.tmem.new_pool(persistent=False))


@contextmanager
def lmdb_on_tmpfs() -> Iterator[Lmdb]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as folder:
        peer = Lmdb(folder)
        try:
            yield peer
        finally:
            peer.env.close()
