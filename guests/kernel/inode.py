"""A file as the page cache sees it: a window of a disk, and what of it is in memory.

    cached   index -> gfn: the page cache of this file            written by PageCache
    dirty    gfns newer than their blocks, oldest first           written by Writeback
    holes    indexes that read zero whatever their block holds    made by File, ended by Writeback
    size     in bytes; nothing of the file lies beyond            written by File
    areas    the parts of it that programs have mapped            written by Mapping
    mlocked  it was mlocked once, and that stays so               written by PageCache

Rule 1: bytes of a cached page beyond `size` are zero, so that growing a file needs no look at its old end.  The one
        exception is `raw_tail`: the last block of a file opened as it lay on its disk has not been cleared yet.
Rule 2: an inode number is used once in the life of a kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guests.cleancache import Cleancache
from guests.disk import Disk
from shm.abi import PAGE_SIZE


def pages_of(size: int) -> int:
    """Return how many pages `size` bytes begin."""
    return -(-size // PAGE_SIZE)


@dataclass(eq=False, slots=True)
class Area:
    """Pages `first` to `end` of a file, mapped by one program."""

    first: int
    end: int
    writable: bool
    kept: bool = False       # its pages stay where they are: mlocked, or the program has their addresses

    def __contains__(self, index: int) -> bool:
        return self.first <= index < self.end


class Inode:
    """One file's record: blocks `start` to `start + limit` of `disk`."""

    __slots__ = ("areas", "cached", "cleancache", "dirty", "disk", "holes", "limit", "mlocked", "number", "raw_tail",
                 "size", "start")

    def __init__(self, number: int, disk: Disk, start: int, limit: int, size: int, cleancache: Cleancache) -> None:
        self.number = number
        self.disk = disk
        self.start = start
        self.limit = limit
        self.size = size
        self.cleancache = cleancache
        self.raw_tail = bool(size % PAGE_SIZE)
        self.cached: dict[int, int] = {}
        self.dirty: dict[int, None] = {}
        self.holes: set[int] = set()
        self.areas: list[Area] = []
        self.mlocked = False

    @property
    def pages(self) -> int:
        return pages_of(self.size)

    def read_disk(self, indexes: Sequence[int]) -> np.ndarray:
        """Return pages of the file as the disk has them, (n, 4096): holes and the bytes beyond the end are zero."""
        solid = [at for at, index in enumerate(indexes) if index not in self.holes] if self.holes else ()
        if not self.holes or len(solid) == len(indexes):
            pages = self.disk.read_many([self.start + index for index in indexes])
        else:
            pages = np.zeros((len(indexes), PAGE_SIZE), np.uint8)
            if solid:
                pages[list(solid)] = self.disk.read_many([self.start + indexes[at] for at in solid])
        if self.raw_tail and self.pages - 1 in indexes:
            pages[list(indexes).index(self.pages - 1), self.size % PAGE_SIZE:] = 0
        return pages
