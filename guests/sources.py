"""Where the bytes of each page can be had again: a table that the guest kernel keeps and its pager reads.

    disk and block    the page equals that block
    zeros             the page reads zero
    nobody            nothing can restore it: it must not be volatile

Rule 1: an entry is set before its page is made volatile, and holds as long as the page may be.
Rule 2: one writer, the guest; the pager maps the table read-only.  It looks only while the touching thread stands, so
        no entry of a touched page changes under it.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np

from guests.disk import Disk
from shm import paging
from shm.arena import SharedObject

PAGE = paging.PAGE


class Sources:
    """The table of one guest; `name_disk(number, fd, cost)` tells the pager of a disk.

    A page that was potentially volatile when it was discarded is so again when it was restored (`restores_p`).
    """

    restores_p = True

    def __init__(self, pages: int, name_disk: Callable[[int, int, tuple[int, ...]], None]) -> None:
        self.object = SharedObject(os.memfd_create("memcommons-sources", os.MFD_CLOEXEC))
        os.ftruncate(self.object.fd, pages * 8)
        self.object.pages = -(-pages * 8 // PAGE)
        os.ftruncate(self.object.fd, self.object.pages * PAGE)
        self._table = self.object.map().view(np.int64)[:pages]
        self._entries = self._table.data
        self._name_disk = name_disk
        self._numbers: dict[Disk, int] = {}

    def register(self, disk: Disk) -> int:
        """Return the number of a disk; the pager is told of it the first time."""
        if disk not in self._numbers:
            self._name_disk(len(self._numbers), disk.fileno(), disk.device.pager_words if disk.device else ())
            self._numbers[disk] = len(self._numbers)
        return self._numbers[disk]

    def set(self, gfns: Sequence[int] | np.ndarray, number: int, blocks: Sequence[int] | np.ndarray) -> None:
        """Note that each page equals a block of a disk."""
        first = (number << paging.DISK_SHIFT) + paging.FIRST_BLOCK
        if len(gfns) == 1:
            self._entries[gfns[0]] = first + int(blocks[0])
        else:
            self._table[gfns] = np.asarray(blocks, np.int64) + first

    def tail(self, gfn: int, number: int, block: int, length: int) -> None:
        """Note that a page equals the first `length` bytes of a block, and zeros behind them."""
        self.set([gfn], number, [block])
        self._entries[gfn] |= length << paging.TAIL_SHIFT

    def zero(self, gfns: Sequence[int] | np.ndarray) -> None:
        """Note that pages read zero."""
        self._table[gfns] = paging.ZEROS

    def clear(self, gfns: Sequence[int] | np.ndarray) -> None:
        """Note that nobody can restore these pages."""
        self._table[gfns] = paging.NOBODY

    def known(self, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Say which pages can be restored (bool)."""
        return self._table[gfns] != paging.NOBODY

    def close(self) -> None:
        self.object.close()
