"""Where a pager finds the bytes of discarded pages: the first that knows the page.

    a function for a range of pages     `guest.array(..., rebuild=f)`: a copy of f, called here
    the table of sources                a block of a guest's disk, or zeros; kept by the guest kernel
    a function for every page           `guest.on_discard(handler)`

Rule 1: pages are put together by where their bytes lie, and not by where they lie in memory.  A file's neighbouring
        blocks are in whatever frames were free; one request of the disk has them all.
Rule 2: nothing is made up.  What nobody knows is Unrestorable, with the why.

As small as the pager: no numpy, no msgpack.
"""

import mmap
import os
import signal
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from shm import paging
from shm.paging import PAGE

HANGING_S = 60               # a restore function that runs so long is of a guest that was ended: SIGALRM ends the pager
# Count.PAGER_DISK_READS, PAGER_DISK_REQUESTS: written by the pager alone
_READ_WORD, _REQUESTS_WORD = 36, 37
NANO = 1_000_000_000

Restore = Callable[[int, int], bytes]        # (gfn, pages) -> their bytes
LAST_RESORT, ZEROS, BLOCKS, TAIL = -1, -2, -3, -4            # who has the bytes, where it is no function for a range


class Unrestorable(Exception):
    """A page whose bytes cannot be had; the line says why."""


class Part(NamedTuple):
    """Pages whose bytes lie one behind the other: page gfns[n] is number + n of whose they are.

    `whose`: the index of a function for a range, or one of the above; `number`: its page, or its entry of the table.
    """

    whose: int
    number: int
    gfns: list[int]

    def cut(self, start: int, most: int | None = None) -> "Part":
        """Return what is left from page `start` of it on, up to `most` pages."""
        if not start and (most is None or len(self.gfns) <= most):
            return self
        return Part(self.whose, self.number + start, self.gfns[start:][:most])


class Sources:
    """All that may know a page's bytes."""

    def __init__(self, table: memoryview, counters: memoryview) -> None:
        self._table, self._counters = table, counters
        self._block = memoryview(mmap.mmap(-1, paging.PAGES_AT_ONCE * PAGE))     # on pages: a disk's file may be direct
        self.disks: dict[int, int] = {}
        self.costs: dict[int, tuple[int, int]] = {}          # of a disk: ns to sleep for a request, and for each block
        self.ranges: list[tuple[int, int, Restore]] = []     # first, pages; the latest first
        self.last_resort: Restore | None = None              # for pages that nobody else knows

    def parts(self, gfns: Collection[int]) -> list[Part]:
        """Return pages in as few parts as there can be, each of which one request has."""
        if len(gfns) == 1:                                   # the usual case, and somebody stands at it
            return [Part(*self._place(gfn), [gfn]) for gfn in gfns]
        parts: list[Part] = []
        whose, following = ZEROS, -1
        for place, gfn in sorted((self._place(gfn), gfn) for gfn in gfns):
            if place == (whose, following) and whose != TAIL:
                parts[-1].gfns.append(gfn)
            else:
                parts.append(Part(*place, [gfn]))
            whose, following = place[0], place[1] + 1
        return parts

    def _place(self, gfn: int) -> tuple[int, int]:
        """Return whose the bytes of a page are, and which of them."""
        for at, (first, pages, _) in enumerate(self.ranges):
            if first <= gfn < first + pages:
                return at, gfn
        entry = self._table[gfn]
        if entry == paging.NOBODY:
            return LAST_RESORT, gfn
        if entry == paging.ZEROS:
            return ZEROS, gfn
        return TAIL if entry >> paging.TAIL_SHIFT else BLOCKS, entry

    def bytes_of(self, part: Part) -> bytes:
        """Return the bytes of up to PAGES_AT_ONCE pages; Unrestorable or OSError when one of them cannot be had."""
        if part.whose >= 0:
            return _checked(self.ranges[part.whose][2], part)
        if part.whose == ZEROS:
            return bytes(len(part.gfns) * PAGE)
        if part.whose != LAST_RESORT:
            return self._read(part)
        if self.last_resort is None:
            raise Unrestorable(f"nothing can restore page {part.gfns[0]}: it was made volatile without a source")
        return _checked(self.last_resort, part)

    def _read(self, part: Part) -> bytes:
        """Read the blocks of a part in one request."""
        tail, entry = divmod(part.number, 1 << paging.TAIL_SHIFT)
        disk, block = divmod(entry - paging.FIRST_BLOCK, 1 << paging.DISK_SHIFT)
        count = len(part.gfns)
        if disk not in self.disks:
            raise Unrestorable(f"page {part.gfns[0]} is on disk {disk}, which was never named")
        read = os.preadv(self.disks[disk], [self._block[:count * PAGE]], block * PAGE)
        data = bytes(self._block[:read])
        if len(data) <= (count - 1) * PAGE:                  # the last block of an image may be cut: zeros follow
            raise Unrestorable(f"disk {disk} ends before block {block + count - 1}")
        self._counters[_READ_WORD] += count
        self._counters[_REQUESTS_WORD] += 1
        latency, transfer = self.costs.get(disk, (0, 0))
        if latency:
            time.sleep((latency + count * transfer) / NANO)
        return (data[:tail] if tail else data).ljust(count * PAGE, b"\0")

    def add(self, first: int, pages: int, restore: Restore) -> None:
        """Take a restore function over, in place of those whose pages it all knows."""
        if pages == len(self._table):
            self.last_resort = restore
            return
        self.forget(first, pages)
        self.ranges.insert(0, (first, pages, restore))

    def forget(self, first: int, pages: int) -> None:
        """Drop the functions all of whose pages these are."""
        if pages == len(self._table):
            self.last_resort = None
        self.ranges = [known for known in self.ranges if not first <= known[0] <= known[0] + known[1] <= first + pages]


def _checked(restore: Restore, part: Part) -> bytes:
    """Call a restore function for pages that are neighbours."""
    gfn, pages = part.gfns[0], len(part.gfns)
    signal.alarm(HANGING_S)
    try:
        data = restore(gfn, pages)
        found = memoryview(data).nbytes
    except (Exception, SystemExit) as error:
        raise Unrestorable(f"the restore function failed for page {gfn}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
    if found != pages * PAGE:
        raise Unrestorable(f"the restore function gave {found} bytes for page {gfn}, not {pages * PAGE}")
    return data
