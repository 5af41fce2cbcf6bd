"""What trials stand on: disks whose every page is known, a guest with a kernel on them, counters read twice.

    pages_of(numbers)      the pages of some numbers, (n, 4096) uint8: no two are equal, none is zeros
    disk_of(guest, n)      a disk of n blocks, block i holding page i (`first` + i)
    Reader                 a file read page by page; `wrong` counts pages that were not what they must be
    Since                  how far a guest's counters went since it was made
    Pools                  stands in for a guest's tmem client, and knows which pools its kernel has made
    filled                 anonymous memory with known pages
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from guests.disk import Disk
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import OutOfMemory

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.kernel.anon import Anon
    from guests.kernel.file import File
    from guests.pool import Pool
    from guests.tmem import Oid, TmemClient

CHUNK = 256                  # pages made, written and put together
_WORDS = np.arange(1, PAGE_SIZE // 8 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xD1B54A32D192ED03)


def pages_of(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the pages of some numbers."""
    seeds = (np.asarray(numbers, np.uint64) + np.uint64(1)) * _SPREAD
    return (seeds[:, None] ^ _WORDS[None, :]).view(np.uint8)


def page_of(number: int) -> bytes:
    return pages_of([number]).tobytes()


def disk_of(guest: "Guest", pages: int, first: int = 0) -> Disk:
    """Return a disk whose block i holds the page of number `first` + i.  The caller closes it."""
    disk = Disk.create(pages, guest.counters)
    for at in range(0, pages, CHUNK):
        count = min(CHUNK, pages - at)
        disk.write(at, pages_of(np.arange(first + at, first + at + count)))
    return disk


def swap_disk(guest: "Guest", pages: int) -> Disk:
    """Return an empty swap disk.  The caller closes it."""
    return Disk.create(pages, guest.counters, reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)


class Since:
    """What a guest has counted since this was made."""

    def __init__(self, guest: "Guest") -> None:
        self._counters = guest.counters
        self._before = guest.counters.copy()

    def __getitem__(self, which: Count) -> int:
        return int(self._counters[which]) - int(self._before[which])

    def counts(self, **names: Count) -> dict[str, int]:
        """Return some of them under names of one's own."""
        return {name: self[which] for name, which in names.items()}


class Reader:
    """A file of a known disk."""

    def __init__(self, file: "File", first: int = 0) -> None:
        self.file, self.wrong = file, 0
        self._first = first

    def read(self, indexes: Iterable[int]) -> None:
        """Read pages, and compare each with what was written there."""
        for index in indexes:
            self.wrong += self.file.page(index) != page_of(self._first + index)

    def read_run(self, index: int, count: int) -> None:
        """Read neighbours in one request, as a program that maps them."""
        right = pages_of(np.arange(self._first + index, self._first + index + count))
        self.wrong += int((self.file.map(index, count) != right).any(axis=1).sum())

    @property
    def cached(self) -> list[int]:
        """Return the indexes that are in the page cache now."""
        return sorted(self.file.inode.cached)


class Pools:
    """Makes pools as the client does, and remembers them; `wrap` may put something before each."""

    def __init__(self, client: "TmemClient", wrap: Callable[["Pool"], Any] = lambda pool: pool) -> None:
        self._client, self._wrap = client, wrap
        self.made: list[Pool] = []

    def new_pool(self, *arguments: Any, **options: Any) -> Any:
        pool = self._client.new_pool(*arguments, **options)
        self.made.append(pool)
        return self._wrap(pool)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def holds(pool: "Pool", oid: "Oid", indexes: Sequence[int]) -> int:
    """Return how many handles a pool has; a private ephemeral one has them no more then."""
    return int(np.count_nonzero(pool.get_many(oid, indexes)[0])) if len(indexes) else 0


def fill(pool: "Pool", pages: int, first: int = 0, oid: int = 1) -> int:
    """Put pages under indexes 0 and on, until one is refused; return how many were stored."""
    stored = 0
    for at in range(0, pages, CHUNK):
        numbers = np.arange(at, min(at + CHUNK, pages))
        taken = int(np.count_nonzero(pool.put_many(oid, numbers, pages_of(first + numbers))))
        stored += taken
        if taken < len(numbers):
            break
    return stored


def filled(anon: "Anon", first: int = 0) -> "Anon":
    """Write known pages to all of an anonymous region, and return it."""
    for at in range(0, anon.pages, CHUNK):
        numbers = np.arange(at, min(at + CHUNK, anon.pages))
        anon.write_many(numbers, pages_of(first + numbers))
    return anon


def had(guest: "Guest", pages: int) -> int:
    """Store to a guest's first pages, one after the other; return how many frames it had before there was none."""
    done = 0
    with suppress(OutOfMemory):
        while done < pages:
            guest.memory.write(done, page_of(done))
            done += 1
    return done
