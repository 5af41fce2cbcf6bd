"""One guest of a trial: a kernel on all of its memory, a disk of known content, a swap disk, and the host at hand.

The host's choice is played (`evict` names the pages, as no policy would), its deeds are real: what the states allow,
on the hypervisor's own swap disk.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import numpy as np

from guests.disk import Disk
from guests.guest import Guest
from guests.kernel import Kernel
from guests.mappings.operator import Operator
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.counters import Count
from shm.errors import BrokenInvariant

FILL = 512                       # blocks of a disk that are written at a time


class Transfers(NamedTuple):
    """Pages that crossed, each way: between a guest and its disks (F of the ledger), the host and its own (H)."""

    file_reads: int = 0
    file_writes: int = 0
    swap_reads: int = 0
    swap_writes: int = 0
    host_reads: int = 0
    host_writes: int = 0

    @property
    def total(self) -> int:
        return sum(self)

    def since(self, before: "Transfers") -> "Transfers":
        return Transfers(*(now - then for now, then in zip(self, before, strict=True)))


def block(number: int, version: int = 0) -> np.ndarray:
    """Return what a block of the disk holds, (4096,) uint8; a page of any memory can be told by it."""
    return np.full(PAGE_SIZE // 8, (version << 32) + number + 1, np.uint64).view(np.uint8)


def blocks(numbers: Iterable[int], version: int = 0) -> np.ndarray:
    """Return several of them, (n, 4096)."""
    return np.stack([block(number, version) for number in numbers])


class Vm:
    """A guest of `pages` pages whose file is the whole of a disk.  A context manager; `options` are the kernel's."""

    def __init__(self, operator: Operator, pages: int, file_pages: int, slots: int, name: str = "vm",
                 faults: str = "software", **options: Any) -> None:
        self.operator, self.name = operator, name
        with ExitStack() as undo:
            self.guest = Guest.connect(operator.cluster, name, pages * PAGE_SIZE, 2 * pages * PAGE_SIZE, faults=faults)
            undo.callback(self.guest.close)
            counters = self.guest.counters
            self.disk = undo.enter_context(Disk.create(file_pages, counters))
            self.swap = undo.enter_context(Disk.create(slots, counters, reads=Count.GUEST_SWAP_READS,
                                                       writes=Count.GUEST_SWAP_WRITES))
            for first in range(0, file_pages, FILL):
                self.disk.write(first, blocks(range(first, min(first + FILL, file_pages))))
            self.kernel = Kernel(self.guest, self.swap, **options)
            self.file = self.kernel.open(self.disk)
            self._close = undo.pop_all()

    def cached(self) -> list[int]:
        """Return the pages that hold the file."""
        return list(self.file.inode.cached.values())

    def evict(self, gfns: Iterable[int]) -> int:
        """Have the host take the frames of some pages, as their states allow; return how many it took."""
        numbers = np.array(sorted({int(gfn) for gfn in gfns}), np.int64)
        return sum(int(self.operator.order("discard", name=self.name, first=int(first), count=int(count))["frames"])
                   for first, count in runs(numbers))

    def reclaim(self) -> None:
        """Have the guest's own reclaim take all it can."""
        self.kernel.core.allocator.reclaim(self.guest.pages)

    def squeeze(self) -> None:
        """Have its balloon take all it can, and let it have everything back."""
        self.kernel.balloon.set_target(0)
        self.kernel.balloon.set_target(self.guest.pages)

    def expect(self, found: np.ndarray | bytes, expected: np.ndarray) -> None:
        """Raise BrokenInvariant unless pages hold what they should."""
        if not np.array_equal(np.frombuffer(found, np.uint8), expected.reshape(-1)):
            raise BrokenInvariant(f"guest {self.name!r} read what was not written there")

    def count(self, which: Count) -> int:
        return int(self.guest.counters[which])

    def hosts(self) -> dict[str, int]:
        """Return what the host counted of this guest."""
        counters: dict[str, int] = self.operator.row(self.guest)["host_counters"]
        return counters

    def transfers(self) -> Transfers:
        """Return what has crossed so far; what the guest's pager read is the guest's."""
        host = self.hosts()
        return Transfers(self.count(Count.GUEST_DISK_READS) + self.count(Count.PAGER_DISK_READS),
                         self.count(Count.GUEST_DISK_WRITES), self.count(Count.GUEST_SWAP_READS),
                         self.count(Count.GUEST_SWAP_WRITES), host["swap_in"], host["swap_out"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close.close()
