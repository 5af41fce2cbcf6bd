"""The comparison of what was read with what was written there.

Rule 1: pages are compared whole, never sampled; each compared page counts in PAGES_VERIFIED, right or wrong.
Rule 2: each wrong page counts in MISMATCHES, then WrongContent is raised: nobody may go on with it.
"""

import numpy as np

from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import MemcommonsError


class WrongContent(MemcommonsError):
    """A page, or what was computed from pages, is not what was written there."""


class Proof:
    """Writer of PAGES_VERIFIED and MISMATCHES of one guest."""

    def __init__(self, counters: np.ndarray) -> None:
        self._counters = counters.data

    def page(self, found: bytes, expected: bytes, what: str, index: int) -> None:
        """Compare one page; `what` and `index` name it in the complaint."""
        self._counters[Count.PAGES_VERIFIED] += 1
        if found != expected:
            self._wrong(np.frombuffer(found, np.uint8).reshape(1, -1), np.frombuffer(expected, np.uint8).reshape(1, -1),
                        what, [index])

    def pages(self, found: np.ndarray, expected: np.ndarray, what: str, first: int | np.ndarray) -> None:
        """Compare pages (n, 4096) uint8; `first`: the number of the first, or of each."""
        self._counters[Count.PAGES_VERIFIED] += len(expected)
        if found.shape != expected.shape or not np.array_equal(found.view(np.uint64), expected.view(np.uint64)):
            self._wrong(found, expected, what, first)

    def verified(self, pages: int, wrong: str | None = None) -> None:
        """Count pages that the caller compared itself; `wrong` says what was wrong with the last."""
        self._counters[Count.PAGES_VERIFIED] += pages
        if wrong is not None:
            self.wrong(wrong)

    def holds(self, right: bool, complaint: str) -> None:
        """Take the result of a comparison that is not about pages: an invariant, a sum."""
        if not right:
            self.wrong(complaint)

    def wrong(self, complaint: str, pages: int = 1) -> None:
        """Count mismatches and say so."""
        self._counters[Count.MISMATCHES] += pages
        raise WrongContent(complaint)

    def _wrong(self, found: np.ndarray, expected: np.ndarray, what: str, first: "int | list[int] | np.ndarray") -> None:
        if found.shape != expected.shape:
            self.wrong(f"wrong page: {what}: {found.size} bytes came where {expected.size} were expected")
        bad = np.flatnonzero((found != expected).any(axis=1))
        row = int(bad[0])
        byte = int(np.flatnonzero(found[row] != expected[row])[0])
        page = first + row if isinstance(first, int) else int(first[row])
        more = f", and {len(bad) - 1} more pages" if len(bad) > 1 else ""
        self.wrong(f"wrong page: {what}, page {page}: byte {byte} of {PAGE_SIZE} is {found[row, byte]:#04x} where "
                   f"{expected[row, byte]:#04x} was written{more}", len(bad))
