"""What the kernel knows of each page of its memory: facts, owner, place in the owner (Linux: struct page).

    facts   one uint32 a page; what each bit means and who writes it stands in `guests.volatility`
    owner   the inode or region that the page belongs to; None while it is free or being filled
    index   the page's place in its owner

Written by the part that the bit or the page belongs to, never by two at once: one thread of control owns a kernel.
`facts` is the same memory as `array`; an item of a memoryview costs a third of numpy's.
"""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from guests.volatility import DISCARDED, HELD, LOCKED, MAPPED, UPTODATE, VOLATILE


class Pages:
    """The table of all pages of a guest."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.array = np.zeros(count, np.uint32)
        self.facts = self.array.data
        self.owner: list[object | None] = [None] * count
        self.index = array("q", bytes(8 * count))

    def locked(self, gfns: Sequence[int]) -> None:
        """Note that pages were allocated, and are to be filled by whoever did so."""
        for gfn in gfns:
            self.facts[gfn] = LOCKED

    def claim(self, gfns: Sequence[int], owner: object, indexes: Sequence[int], more: int = 0) -> None:
        """Note that filled pages belong to `owner` from now on, with `more` facts."""
        facts = MAPPED | UPTODATE | more
        for gfn, index in zip(gfns, indexes, strict=True):
            self.facts[gfn] = facts
            self.owner[gfn] = owner
            self.index[gfn] = index

    def forget(self, gfns: Sequence[int]) -> None:
        """Note that pages belong to nobody."""
        for gfn in gfns:
            self.facts[gfn] = 0
            self.owner[gfn] = None

    def set(self, gfns: Sequence[int], bits: int) -> None:
        """Set facts of pages; the caller is their writer."""
        for gfn in gfns:
            self.facts[gfn] |= bits

    def clear(self, gfns: Sequence[int], bits: int) -> None:
        """Clear facts of pages; the caller is their writer."""
        for gfn in gfns:
            self.facts[gfn] &= ~bits

    def discarded(self, gfns: Sequence[int]) -> list[int]:
        """Test and set DISCARDED; return the pages that the caller is the first to find, and shall take out (R30)."""
        first = [gfn for gfn in gfns if self.owner[gfn] is not None and not self.facts[gfn] & DISCARDED]
        self.set(first, DISCARDED)
        return first

    def retire(self, gfns: Sequence[int]) -> None:
        """Note that pages wait on the discard list: they belong to nobody, and are not free."""
        for gfn in gfns:
            self.facts[gfn] = DISCARDED | VOLATILE
            self.owner[gfn] = None

    def having(self, gfns: Sequence[int], bit: int) -> list[int]:
        """Return those of the pages that have a fact."""
        facts = self.facts
        return [gfn for gfn in gfns if facts[gfn] & bit]

    @contextmanager
    def held(self, gfns: Sequence[int]) -> Iterator[None]:
        """Keep pages from being reclaimed or made volatile, as a reference would; nests."""
        facts = self.facts
        mine = [gfn for gfn in gfns if not facts[gfn] & HELD]
        for gfn in mine:
            facts[gfn] |= HELD
        try:
            yield
        finally:
            for gfn in mine:
                facts[gfn] &= ~HELD
