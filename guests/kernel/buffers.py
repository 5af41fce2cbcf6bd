"""Buffers of cached pages: which parts of a page are newer than the disk, finer than the page (Linux: buffer heads).

Rule 1: buffers are attached by a write of part of a page, and stay attached when the page is written back.
Rule 2: a page with buffers is not volatile (refusal 8).  So they are stripped as the page grows inactive, when the disk
        has all of them: else what was ever written with write(2) would be stable for ever (reference 2.5).
Rule 3: PRIVATE, and what is attached, are written here alone.
"""

from collections.abc import Sequence

from guests.kernel.pages import Pages
from guests.volatility import PRIVATE
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant

BUFFER = 512                 # bytes: a sector


class Buffers:
    """The buffers of all pages: gfn -> a bit for each buffer that is newer than the disk."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._newer: dict[int, int] = {}

    @property
    def dirty_bytes(self) -> int:
        """How much of the pages that have buffers is newer than the disk."""
        return BUFFER * sum(newer.bit_count() for newer in self._newer.values())

    def wrote(self, gfn: int, offset: int, length: int) -> None:
        """Note a write; of a whole page only where buffers are attached already."""
        if gfn not in self._newer and length == PAGE_SIZE:
            return
        first, end = offset // BUFFER, -(-(offset + length) // BUFFER)
        self._newer[gfn] = self._newer.get(gfn, 0) | (1 << end) - (1 << first)
        self._pages.set([gfn], PRIVATE)

    def written(self, gfns: Sequence[int]) -> None:
        """Note that the disk has all of these pages."""
        for gfn in self._pages.having(gfns, PRIVATE):
            self._newer[gfn] = 0

    def strip(self, gfns: Sequence[int]) -> None:
        """Take the buffers off pages of which the disk has all."""
        for gfn in self._pages.having(gfns, PRIVATE):
            if not self._newer[gfn]:
                self.forget([gfn])

    def forget(self, gfns: Sequence[int]) -> None:
        """Take the buffers off pages, whatever they say."""
        for gfn in self._pages.having(gfns, PRIVATE):
            del self._newer[gfn]
            self._pages.clear([gfn], PRIVATE)

    def check(self) -> None:
        """Raise BrokenInvariant unless the pages with buffers are those that are marked so."""
        marked = [gfn for gfn in range(self._pages.count) if self._pages.facts[gfn] & PRIVATE]
        if marked != sorted(self._newer):
            raise BrokenInvariant(f"{len(marked)} pages are marked as having buffers, {len(self._newer)} have")
