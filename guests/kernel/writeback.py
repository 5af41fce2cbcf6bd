"""Dirty pages, and their way to the disk.

Rule 1: a dirty page is stable from the moment it is marked until its write has ended (refusals 2 and 3).
Rule 2: the change bit, which the host sees too, is handed over in this order: tested, the page made stable and marked
        dirty here, and only then cleared (R36).  Cleared first, a page that is potentially volatile would look clean to
        the host, which might drop it.  It is cleared before the bytes are taken: a store that comes later counts anew.
Rule 3: after the write the page may be made volatile again, and it is tried at once (2.3: end of write-back).

A batch is sorted by block, so that neighbours become one write.  One that fails (ENOSPC, EIO) leaves its pages dirty.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import numpy as np

from guests.kernel.buffers import Buffers
from guests.kernel.core import Core
from guests.kernel.inode import Inode
from guests.volatility import DIRTY, VOLATILE, WRITABLE, WRITEBACK
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import BrokenInvariant

BATCH = 256                  # pages of one write-back
DIRTY_SHARE = 5              # one page in so many may be dirty before writers write back (Linux: dirty_ratio 20 %)


class Writeback:
    """The dirty pages of all files.  The only writer of DIRTY, WRITEBACK and `Inode.dirty`."""

    def __init__(self, core: Core, buffers: Buffers | None = None) -> None:
        self.buffers = buffers
        self._core = core
        self._limit = max(1, core.pages.count // DIRTY_SHARE)
        self._count = 0
        self._inodes: dict[Inode, None] = {}         # those with dirty pages, in the order they became so

    def mark(self, inode: Inode, gfns: Sequence[int]) -> None:
        """Note that stable pages are about to become newer than the disk."""
        self._core.restorable.forget(gfns)
        facts = self._core.pages.facts
        for gfn in gfns:
            if not facts[gfn] & DIRTY:
                facts[gfn] |= DIRTY
                inode.dirty[gfn] = None
                self._count += 1
        if gfns:
            self._inodes[inode] = None

    def forget(self, inode: Inode, gfns: Sequence[int]) -> None:
        """Note that pages are not to be written any more: truncated, or written."""
        facts = self._core.pages.facts
        for gfn in gfns:
            if facts[gfn] & DIRTY:
                facts[gfn] &= ~DIRTY
                del inode.dirty[gfn]
                self._count -= 1
        if not inode.dirty:
            self._inodes.pop(inode, None)

    def collect(self, gfns: Sequence[int]) -> None:
        """Take note of which pages programs have stored to through mappings."""
        writable = self._core.pages.having(gfns, WRITABLE)
        if not writable:
            return
        changed = np.asarray(writable)[self._core.memory.dirty(writable)].tolist()
        for inode, group in groupby(sorted(changed, key=self._place), key=self._inode):
            self._hand_over(inode, list(group))

    def _hand_over(self, inode: Inode, gfns: list[int]) -> None:
        """Take over the change bits of pages that were found changed: make stable, mark, clear (R36)."""
        if lost := self._core.hints.make_stable(gfns):
            raise BrokenInvariant(f"pages {sorted(lost)[:4]} were stored to, and the host has dropped them (R36)")
        self.mark(inode, gfns)
        self._core.memory.clear_dirty(gfns)
        self._clear_behind_the_end(inode)

    def _clear_behind_the_end(self, inode: Inode) -> None:
        """Clear what a program may have stored behind the end of the file, in its last page (rule 1 of `inode`)."""
        used, gfn = inode.size % PAGE_SIZE, inode.cached.get(inode.pages - 1)
        if used and gfn is not None and self._core.pages.facts[gfn] & DIRTY:
            self._core.memory.write_part(gfn, used, bytes(PAGE_SIZE - used))

    def throttle(self) -> None:
        """Write the oldest dirty pages back when too many are dirty: down to half of what is allowed."""
        if self._count <= self._limit:
            return
        for inode in list(self._inodes):
            excess = self._count - self._limit // 2
            if excess <= 0:
                return
            self.clean(list(inode.dirty)[:excess])

    def sync(self, inode: Inode) -> None:
        """Write back what is dirty of one file, and zeros for its holes: the disk then holds the file."""
        if inode.areas:
            self.collect(list(inode.cached.values()))
        self.clean(list(inode.dirty))
        holes = sorted(inode.holes)
        for at in range(0, len(holes), BATCH):
            part = holes[at:at + BATCH]
            inode.disk.write_many([inode.start + index for index in part], np.zeros((len(part), PAGE_SIZE), np.uint8))
            inode.cleancache.written(inode.number, part)
            inode.holes.difference_update(part)

    def clean(self, gfns: Sequence[int]) -> None:
        """Write dirty pages back, whatever their files; then try to make them volatile."""
        for _, group in groupby(sorted(gfns, key=self._place), key=lambda gfn: self._place(gfn)[0]):
            batch = list(group)
            for at in range(0, len(batch), BATCH):
                self._write(batch[at:at + BATCH])

    def check(self) -> None:
        """Raise BrokenInvariant unless the records of dirty pages agree with one another."""
        facts, owner = self._core.pages.array, self._core.pages.owner
        recorded = [gfn for inode in self._inodes for gfn in inode.dirty]
        if sorted(recorded) != np.flatnonzero(facts & DIRTY).tolist() or len(recorded) != self._count:
            raise BrokenInvariant(f"{self._count} pages counted dirty, {len(recorded)} recorded, "
                                  f"{np.count_nonzero(facts & DIRTY)} marked")
        if any(owner[gfn] is not inode for inode in self._inodes for gfn in inode.dirty):
            raise BrokenInvariant("a page is recorded dirty in a file that does not own it")
        if self.buffers:
            self.buffers.check()
        if (facts & WRITEBACK).any() or (facts & (DIRTY | VOLATILE) == DIRTY | VOLATILE).any():
            raise BrokenInvariant("a page is left under write-back, or is dirty and volatile")

    def _place(self, gfn: int) -> tuple[int, int]:
        inode = self._inode(gfn)
        return id(inode.disk), inode.start + self._core.pages.index[gfn]

    def _inode(self, gfn: int) -> Inode:
        inode = self._core.pages.owner[gfn]
        if not isinstance(inode, Inode):
            raise BrokenInvariant(f"page {gfn} is dirty and belongs to no file")
        return inode

    def _write(self, gfns: list[int]) -> None:
        """Write one batch of one disk, sorted by block."""
        core, disk = self._core, self._inode(gfns[0]).disk
        with self._under_way(gfns):
            core.memory.clear_dirty(gfns)
            pages = core.allocator.with_room(gfns, core.memory.read_many, gfns)
            disk.write_many([self._place(gfn)[1] for gfn in gfns], pages)
        for inode, group in groupby(gfns, key=self._inode):
            inode.cleancache.written(inode.number, [core.pages.index[gfn] for gfn in group])
        for gfn in gfns:
            inode = self._inode(gfn)
            inode.holes.discard(core.pages.index[gfn])
            self.forget(inode, [gfn])
            if core.restorable.on:
                core.restorable.file_pages(inode, [gfn])
        if self.buffers:
            self.buffers.written(gfns)
        core.counters[Count.WRITEBACK_PAGES] += len(gfns)
        core.hints.make_volatile(gfns)

    @contextmanager
    def _under_way(self, gfns: Sequence[int]) -> Iterator[None]:
        facts = self._core.pages.facts
        for gfn in gfns:
            facts[gfn] |= WRITEBACK
        try:
            yield
        finally:
            for gfn in gfns:
                facts[gfn] &= ~WRITEBACK
