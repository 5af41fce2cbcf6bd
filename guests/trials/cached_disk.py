"""The same operations over tmem and over a disk that the host caches, counted one by one (E14).

    first-read    a file is read for the first time          read-again    it is read while the guest has it cached
    read-back     it is read after the guest evicted it      write         pages are written, and synced
    write-back    they are read after the guest evicted them
    swap-out      anonymous pages are written, more than there is room for        swap-in     some are read back

At the end the pages that lie twice, in the guest's page cache and in the host's, are counted by asking for them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guests.disk import Disk
from guests.guest import Guest
from guests.hostcache import FEATURE, HostCaches
from guests.kernel import Kernel
from guests.trials.known import Pools, Reader, Since, disk_of, filled, holds, page_of, pages_of, swap_disk
from shm.abi import PAGE_SIZE
from shm.counters import Count

if TYPE_CHECKING:
    from guests.kernel.anon import Anon
    from guests.kernel.file import File

RAM, FILLER, REGION = 256, 512, 384          # pages: of the guest, of the file that evicts, of anonymous memory
WRITTEN = 1 << 20                            # the number of the first page that is written
COUNTED = {"disk_reads": Count.GUEST_DISK_READS, "disk_writes": Count.GUEST_DISK_WRITES,
           "swap_reads": Count.GUEST_SWAP_READS, "swap_writes": Count.GUEST_SWAP_WRITES,
           "hypercalls": Count.HYPERCALLS}


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    pages = options["pages"]
    with Guest.connect(cluster, "one", RAM * PAGE_SIZE, 8 * RAM * PAGE_SIZE) as guest, \
            disk_of(guest, pages + FILLER) as disk, swap_disk(guest, 4 * REGION) as swap:
        guest.tmem = pools = Pools(guest.tmem)       # type: ignore[assignment]
        caches = HostCaches(guest.tmem, guest.counters) if FEATURE in guest.features else None
        files, slots = (caches.front(each) if caches else each for each in (disk, swap))
        with Kernel(guest, slots) as kernel:
            operations = Operations(guest, kernel, files, pages)
            return operations.all() | {"doubled": doubled(pools, operations.files, caches is not None)}


class Operations:
    """One guest's file of `pages` pages, the file behind it, and anonymous memory."""

    def __init__(self, guest: Guest, kernel: Kernel, disk: Disk, pages: int) -> None:
        self._guest, self._kernel, self._pages = guest, kernel, pages
        self._file = Reader(kernel.open(disk, 0, pages))
        self._filler = Reader(kernel.open(disk, pages, FILLER), pages)
        self._rows: list[dict[str, Any]] = []
        self._wrong = 0

    @property
    def files(self) -> "list[File]":
        return [self._file.file, self._filler.file]

    def all(self) -> dict[str, Any]:
        everything = range(self._pages)
        self._count("first-read", lambda: self._file.read(everything))
        self._count("read-again", lambda: self._file.read(everything))
        self._evict()
        self._count("read-back", lambda: self._file.read(everything))
        self._count("write", self._write)
        self._evict()
        self._count("write-back", self._read_written)
        region = self._kernel.anon(REGION)
        self._count("swap-out", lambda: filled(region), REGION)
        self._count("swap-in", lambda: self._read_region(region), REGION)
        region.free()
        self._filler.read(range(RAM // 2))
        return {"rows": self._rows, "wrong": self._wrong + self._file.wrong + self._filler.wrong}

    def _count(self, name: str, work: Callable[[], object], pages: int = 0) -> None:
        since = Since(self._guest)
        work()
        self._rows.append({"operation": name, "pages": pages or self._pages, **since.counts(**COUNTED)})

    def _evict(self) -> None:
        for _ in range(2):
            self._filler.read(range(FILLER))

    def _write(self) -> None:
        for index in range(self._pages):
            self._file.file.overwrite(index, page_of(WRITTEN + index))
        self._file.file.sync()

    def _read_written(self) -> None:
        self._wrong += sum(self._file.file.page(index) != page_of(WRITTEN + index) for index in range(self._pages))

    def _read_region(self, region: "Anon") -> None:
        found = region.read_many(range(REGION))
        self._wrong += int((found != pages_of(range(REGION))).any(axis=1).sum())


def doubled(pools: Pools, files: "Sequence[File]", by_block: bool) -> dict[str, int]:
    """Return how many pages of files are in the guest's memory, and how many of those in the host's too."""
    cached = twice = 0
    for inode in (file.inode for file in files):
        indexes = sorted(inode.cached)
        cached += len(indexes)
        if by_block:                                 # one pool, an object a disk
            twice += holds(pools.made[0], 1, [inode.start + index for index in indexes])
        else:
            twice += sum(holds(pool, inode.number, indexes) for pool in pools.made if not pool.persistent)
    return {"cached": cached, "twice": twice}
