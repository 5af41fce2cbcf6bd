"""Where the bytes of a page can be had again, told to whoever restores pages outside the kernel.

In hardware mode a discarded page that is touched as it lies is restored by another process from the guest's disks:
`guests.sources` holds, page by page, from where.  In software mode there is no such table, and nothing here happens.

Rule 1: a page is noted before it is made volatile, and while it is noted its bytes are those of the disk.  The note
        ends when it becomes dirty, leaves its slot, or is freed.
Rule 2: a page that nobody could restore has no RESTORABLE, and `guests.volatility.terms` keeps it stable: a page of
        the swap cache whose slot is in frontswap.  Of the raw tail of a file, whose block holds more than the page, it
        is noted how much counts.
Rule 3: RESTORABLE is written here alone; pages of rebuildable regions are born with it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guests.disk import Disk
from guests.kernel.inode import Inode
from guests.kernel.pages import Pages
from guests.volatility import RESTORABLE
from shm.abi import PAGE_SIZE

if TYPE_CHECKING:
    from guests.memory import Memory
    from guests.sources import Sources


class Restorable:
    """What of a guest's memory can be restored; `on` is False in software mode.

    `restores_p`: a page that was potentially volatile is so again when it was restored.  One that comes back volatile
    would lose what a program then stores to it, so without that no page that may be stored to is made P.
    """

    def __init__(self, memory: "Memory", pages: Pages) -> None:
        self._sources: Sources | None = getattr(memory, "sources", None)
        self.on = self._sources is not None
        self.restores_p = getattr(self._sources, "restores_p", False)
        self._pages = pages

    def file_pages(self, inode: Inode, gfns: Sequence[int]) -> None:
        """Note clean pages of one file, in the cache."""
        if not self.on:
            return
        index = self._pages.index
        raw = inode.pages - 1 if inode.raw_tail else -1
        zeros = [gfn for gfn in gfns if index[gfn] in inode.holes and index[gfn] != raw]
        solid = [gfn for gfn in gfns if index[gfn] not in inode.holes and index[gfn] != raw]
        self._note_zeros(zeros)
        self._note(solid, inode.disk, [inode.start + index[gfn] for gfn in solid])
        for gfn in gfns if inode.raw_tail else ():
            if index[gfn] == raw:
                self._note_tail(gfn, inode)

    def slots(self, gfns: Sequence[int], disk: Disk, slots: np.ndarray) -> None:
        """Note pages of the swap cache whose slots the swap disk holds."""
        if self.on:
            self._note(gfns, disk, slots.tolist())

    def forget(self, gfns: Sequence[int]) -> None:
        """End the notes of some pages."""
        if self._sources is None:
            return
        noted = self._pages.having(gfns, RESTORABLE)
        if noted:
            self._sources.clear(noted)
            self._pages.clear(noted, RESTORABLE)

    def _note(self, gfns: Sequence[int], disk: Disk, blocks: Sequence[int]) -> None:
        if self._sources is not None and gfns:
            self._sources.set(gfns, self._sources.register(disk), blocks)
            self._pages.set(gfns, RESTORABLE)

    def _note_tail(self, gfn: int, inode: Inode) -> None:
        if self._sources is not None:
            block = inode.start + inode.pages - 1
            self._sources.tail(gfn, self._sources.register(inode.disk), block, inode.size % PAGE_SIZE)
            self._pages.set([gfn], RESTORABLE)

    def _note_zeros(self, gfns: Sequence[int]) -> None:
        if self._sources is not None and gfns:
            self._sources.zero(gfns)
            self._pages.set(gfns, RESTORABLE)
