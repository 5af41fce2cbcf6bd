"""Actors of the stress workload: each uses one thing that a guest has, at random, beside a model in ordinary memory.

    act      one deed; what it reads must be what the model says
    finish   everything once more

What an actor does next depends on its random numbers and its model alone, never on what came back.
"""

from random import Random
from typing import TYPE_CHECKING, Protocol

import numpy as np

from guests.disk import Disk
from guests.workloads.content import Content
from guests.workloads.proof import Proof
from shm.abi import PAGE_SIZE
from shm.errors import TmemRefused

if TYPE_CHECKING:
    from guests.kernel import Kernel
    from guests.tmem import Pool

ZEROS = bytes(PAGE_SIZE)
MANY = 24                        # pages of one deed at most
LONG = 3 * PAGE_SIZE             # bytes of one read or write at most


class Actor(Protocol):
    def act(self) -> None: ...
    def finish(self) -> None: ...


class FileActor:
    """A file that is read, written, cut and synced at any offset; the model is its bytes."""

    def __init__(self, kernel: "Kernel", proof: Proof, random: Random, disk: Disk) -> None:
        self._file = kernel.open(disk, size=0)
        self._most, self._proof, self._random = disk.pages * PAGE_SIZE, proof, random
        self._model = bytearray()
        self._deeds = (self._read, self._read, self._map, self._map, self._page, self._write, self._write,
                       self._overwrite, self._truncate, self._sync)

    def act(self) -> None:
        self._random.choice(self._deeds)()

    def finish(self) -> None:
        self._compare(self._file.read(0, len(self._model) + 1), 0, len(self._model) + 1)
        self._proof.holds(self._file.size == len(self._model), f"file: it has {self._file.size} bytes, not "
                                                               f"{len(self._model)}")

    def _compare(self, found: bytes, offset: int, length: int) -> None:
        """Compare the bytes of a read, which ends at the end of the file."""
        expected = bytes(self._model[offset:offset + length])
        pages = -(-len(expected) // PAGE_SIZE)
        self._proof.verified(pages, None if found == expected else f"wrong page: file of {len(self._model)} bytes: "
                                                                   f"{length} bytes at {offset} are not as written")

    def _padded(self, index: int, count: int) -> np.ndarray:
        part = self._model[index * PAGE_SIZE:(index + count) * PAGE_SIZE]
        return np.frombuffer(part.ljust(count * PAGE_SIZE, b"\0"), np.uint8).reshape(count, PAGE_SIZE)

    def _range(self) -> tuple[int, int]:
        """Return a random range of pages of the file (none if it is empty)."""
        pages = -(-len(self._model) // PAGE_SIZE)
        index = self._random.randrange(pages) if pages else 0
        return index, min(self._random.randint(1, MANY), pages - index)

    def _read(self) -> None:
        offset, length = self._random.randint(0, len(self._model)), self._random.randint(0, LONG)
        self._compare(self._file.read(offset, length), offset, length)

    def _page(self) -> None:
        index, count = self._range()
        if count:
            self._proof.page(self._file.page(index), self._padded(index, 1).tobytes(), "file", index)

    def _map(self) -> None:
        index, count = self._range()
        if count:
            self._proof.pages(self._file.map(index, count), self._padded(index, count), "file", index)

    def _write(self) -> None:
        length = self._random.randint(1, LONG)
        self._put(self._random.randint(0, self._most - length), self._random.randbytes(length))

    def _overwrite(self) -> None:
        index, page = self._random.randrange(self._most // PAGE_SIZE), self._random.randbytes(PAGE_SIZE)
        self._file.overwrite(index, page)
        self._note(index * PAGE_SIZE, page)

    def _put(self, offset: int, data: bytes) -> None:
        self._file.write(offset, data)
        self._note(offset, data)

    def _note(self, offset: int, data: bytes) -> None:
        if offset > len(self._model):
            self._model.extend(bytes(offset - len(self._model)))
        self._model[offset:offset + len(data)] = data

    def _truncate(self) -> None:
        """Cut it, seldom by much; or make it longer, with zeros."""
        size = min(self._most, int(len(self._model) * self._random.choice((0.0, 0.5, 0.9, 0.97, 1.0, 1.1))))
        self._file.truncate(size)
        del self._model[size:]
        self._model.extend(bytes(size - len(self._model)))

    def _sync(self) -> None:
        self._file.sync()


class AnonActor:
    """Anonymous regions that come, are stored to, read and freed; the model is a version a page, 0 for zeros."""

    def __init__(self, kernel: "Kernel", proof: Proof, random: Random, pages: int) -> None:
        self._kernel, self._proof, self._random, self._pages = kernel, proof, random, pages
        self._content = Content(random.getrandbits(32))
        self._stores = 0
        self._renew()

    def _renew(self) -> None:
        self._region = self._kernel.anon(self._pages)
        self._versions = np.zeros(self._pages, np.int64)

    def act(self) -> None:
        deed = self._random.random()
        if deed < 0.5:
            self._load(self._some())
        elif deed < 0.6:
            index = self._random.randrange(self._pages)
            expected = self._expected(np.array([index]))[0].tobytes()
            self._proof.page(self._region.read(index), expected, "anonymous", index)
        elif deed < 0.995:
            self._store(self._some())
        else:
            self._region.free()
            self._renew()

    def finish(self) -> None:
        self._load(np.arange(self._pages))
        self._region.free()

    def _some(self) -> np.ndarray:
        return np.array(self._random.sample(range(self._pages), self._random.randint(1, min(MANY, self._pages))))

    def _expected(self, indexes: np.ndarray) -> np.ndarray:
        versions = self._versions[indexes]
        return self._content.pages(indexes, versions) * (versions > 0)[:, None].astype(np.uint8)

    def _load(self, indexes: np.ndarray) -> None:
        self._proof.pages(self._region.read_many(indexes), self._expected(indexes), "anonymous", indexes)

    def _store(self, indexes: np.ndarray) -> None:
        self._stores += 1
        self._versions[indexes] = self._stores
        if len(indexes) == 1:
            self._region.write(int(indexes[0]), self._expected(indexes)[0].tobytes())
        else:
            self._region.write_many(indexes, self._expected(indexes))


class RebuildableActor:
    """A region that is volatile while idle; its pages are computed, so the model is the computation."""

    def __init__(self, kernel: "Kernel", proof: Proof, random: Random, pages: int) -> None:
        self._proof, self._random, self._pages = proof, random, pages
        self._content = Content(random.getrandbits(32))
        self._region = kernel.rebuildable(pages, lambda indexes: self._content.pages(np.asarray(indexes)))

    def act(self) -> None:
        self._look(np.array(self._random.sample(range(self._pages), self._random.randint(1, min(MANY, self._pages)))))

    def finish(self) -> None:
        self._look(np.arange(self._pages))

    def _look(self, indexes: np.ndarray) -> None:
        with self._region.pinned():
            found = self._region.read_many(indexes)
        self._proof.pages(found, self._content.pages(indexes), "rebuildable", indexes)


class PoolActor:
    """A tmem pool used directly; the model is the latest page that a put stored under each handle.

    A get from an ephemeral pool may miss, and takes the page out; one from a persistent pool must hit.  A put that is
    refused leaves nothing under its handle.  Without tmem the actor makes the same choices, and does nothing.
    """

    def __init__(self, kernel: "Kernel", proof: Proof, random: Random, persistent: bool, handles: int) -> None:
        self._proof, self._random, self._persistent = proof, random, persistent
        self._objects, self._indexes = 4, max(1, handles // 4)
        self._content = Content(random.getrandbits(32))
        self._stored: dict[tuple[int, int], int] = {}        # handle -> version
        self._puts = 0
        self._pool = self._new_pool(kernel)

    def _new_pool(self, kernel: "Kernel") -> "Pool | None":
        try:
            return kernel.guest.tmem.new_pool(persistent=self._persistent)
        except TmemRefused:
            return None

    def act(self) -> None:
        deed, oid = self._random.random(), self._random.randrange(1, self._objects + 1)
        index, count = self._random.randrange(self._indexes), self._random.randint(1, MANY)
        if deed < 0.3:
            self._put(oid, [index])
        elif deed < 0.5:
            self._put(oid, self._run(index, count))
        elif deed < 0.7:
            self._get(oid, [index])
        elif deed < 0.9:
            self._get(oid, self._run(index, count))
        elif deed < 0.99:
            self._flush(oid, index)
        else:
            self._flush_object(oid)

    def finish(self) -> None:
        for oid in range(1, self._objects + 1):
            self._get(oid, list(range(self._indexes)))
        if self._pool is not None:
            self._pool.destroy()
        self._pool = None

    def _run(self, index: int, count: int) -> list[int]:
        return list(range(index, min(index + count, self._indexes)))

    def _page(self, oid: int, index: int, version: int) -> bytes:
        return self._content.page(oid << 16 | index, version)

    def _put(self, oid: int, indexes: list[int]) -> None:
        self._puts += 1
        if self._pool is None:
            return
        pages = [self._page(oid, index, self._puts) for index in indexes]
        if len(indexes) == 1:
            stored = [self._pool.put(oid, indexes[0], pages[0])]
        else:
            table = np.frombuffer(b"".join(pages), np.uint8).reshape(-1, PAGE_SIZE)
            stored = self._pool.put_many(oid, indexes, table).tolist()
        for index, kept in zip(indexes, stored, strict=True):
            self._stored.pop((oid, index), None)
            if kept:
                self._stored[oid, index] = self._puts

    def _get(self, oid: int, indexes: list[int]) -> None:
        if self._pool is None:
            return
        if len(indexes) == 1:
            found = [self._pool.get(oid, indexes[0])]
        else:
            hit, pages = self._pool.get_many(oid, indexes)
            found = [page.tobytes() if was else None for was, page in zip(hit.tolist(), pages, strict=True)]
        for index, page in zip(indexes, found, strict=True):
            self._check(oid, index, page)

    def _check(self, oid: int, index: int, page: bytes | None) -> None:
        kind = "persistent" if self._persistent else "ephemeral"
        version = self._stored.get((oid, index))
        if page is None:
            self._proof.holds(version is None or not self._persistent,
                              f"{kind} pool: object {oid}, index {index} was put and is a miss")
        elif version is None:
            self._proof.wrong(f"{kind} pool: object {oid}, index {index} is a hit, and nothing is there")
        else:
            self._proof.page(page, self._page(oid, index, version), f"{kind} pool, object {oid}", index)
        if not self._persistent:
            self._stored.pop((oid, index), None)             # taken out, or lost for ever

    def _flush(self, oid: int, index: int) -> None:
        self._stored.pop((oid, index), None)
        if self._pool is not None:
            self._pool.flush(oid, index)

    def _flush_object(self, oid: int) -> None:
        self._stored = {handle: version for handle, version in self._stored.items() if handle[0] != oid}
        if self._pool is not None:
            self._pool.flush_object(oid)
