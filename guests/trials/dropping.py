"""A pool of which entries vanish at random, and what that does to the guest (E30).

Between the guest's kernel and its ephemeral pools stands one who, of the pages that were just put, flushes each with
the probability `rate`, and before a get of several the same of those.  The guest reads and writes files that are larger
than its memory; every page is compared.  The disk has a model, so that what a miss costs is in the guest's clock.
"""

from collections.abc import Mapping, Sequence
from random import Random
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from guests.device import Device
from guests.guest import Guest
from guests.kernel import Kernel
from guests.trials.known import Pools, Since, disk_of, page_of
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.diskcost import model_named

if TYPE_CHECKING:
    from guests.kernel.file import File
    from guests.pool import Oid, Pool

RAM, FILE = 256, 768             # pages
VERSIONS = 1 << 20               # numbers of pages between two versions of one


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"rows": [worked(cluster, rate, options["operations"]) for rate in options["rates"]]}


def worked(cluster: str, rate: float, operations: int) -> dict[str, Any]:
    """Return what the work came to with entries dropped at one rate."""
    with Guest.connect(cluster, f"rate-{rate}", RAM * PAGE_SIZE) as guest, disk_of(guest, FILE) as disk:
        device = Device.of(guest.counters, model_named("ssd"), "virtual")
        disk.behind(device)
        droppers: list[Dropping] = []
        guest.tmem = Pools(guest.tmem, lambda pool: droppers.append(Dropping(pool, rate)) or droppers[-1])   # type: ignore
        with Kernel(guest) as kernel:
            program = Program(kernel.open(disk))
            program.work(FILE)
            since, began, ahead = Since(guest), monotonic_ns(), device.virtual_ns()
            program.work(operations)
            clock = monotonic_ns() - began + device.virtual_ns() - ahead
            return {"rate": rate, "operations": operations, "clock_ns": clock, "wrong": program.wrong,
                    "dropped": sum(dropper.dropped for dropper in droppers),
                    **since.counts(disk_reads=Count.GUEST_DISK_READS, gets=Count.CLEANCACHE_GETS,
                                   hits=Count.CLEANCACHE_HITS)}


class Program:
    """Reads pages of a file at random, writes one in ten anew, and cuts nothing: each page has a version."""

    def __init__(self, file: "File") -> None:
        self.wrong = 0
        self._file, self._versions, self._random = file, np.zeros(FILE, np.int64), Random(1)

    def work(self, operations: int) -> None:
        for _ in range(operations):
            index = self._random.randrange(FILE)
            if self._random.random() < 0.1:
                self._versions[index] += 1
                self._file.overwrite(index, self._page(index))
            else:
                self.wrong += self._file.page(index) != self._page(index)

    def _page(self, index: int) -> bytes:
        return page_of(index + VERSIONS * int(self._versions[index]))


class Dropping:
    """A pool that loses pages.  What it does not alter is the pool's own."""

    def __init__(self, pool: "Pool", rate: float) -> None:
        self.dropped = 0
        self._pool, self._rate, self._random = pool, rate, Random(2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def put(self, oid: "Oid", index: int, page: bytes | np.ndarray) -> bool:
        stored = self._pool.put(oid, index, page)
        self._drop([oid], [index])
        return stored

    def put_many(self, oids: "Oid | np.ndarray", indexes: Sequence[int], pages: np.ndarray) -> np.ndarray:
        stored = self._pool.put_many(oids, indexes, pages)
        self._drop(list(oids) if isinstance(oids, np.ndarray) and oids.ndim > 1 else [oids] * len(indexes), indexes)
        return stored

    def get_many(self, oid: "Oid", indexes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        self._drop([oid] * len(indexes), indexes)
        return self._pool.get_many(oid, indexes)

    def _drop(self, oids: Sequence["Oid | np.ndarray"], indexes: Sequence[int]) -> None:
        for oid, index in zip(oids, indexes, strict=True):
            if self._random.random() < self._rate:
                self.dropped += 1
                self._pool.flush(tuple(int(word) for word in oid) if isinstance(oid, np.ndarray) else oid, int(index))
