"""Ranges of a guest's pages, for who uses them without a guest kernel: first fit, and given back as a whole.

Rule 1: a range is handed out once until it is given back; what is given back and touches a free range becomes one with
        it, so that a guest that has given all back has one free range again.
Rule 2: numbers only: what the pages hold, and what their states are, is their owner's affair.

Whoever takes pages here knows nothing of a guest kernel, which takes all pages of its guest.
"""

from bisect import insort

from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem


class PageRanges:
    """The free pages of one guest.  One thread at a time."""

    def __init__(self, pages: int) -> None:
        self._free = [(0, pages)]                            # (first, count), sorted, no two of them neighbours

    @property
    def free(self) -> int:
        """Pages that are free, in whatever ranges."""
        return sum(count for _, count in self._free)

    def take(self, pages: int) -> int:
        """Return the first of `pages` free pages in a row; UsageProblem when there is no such range."""
        for at, (first, count) in enumerate(self._free):
            if count >= pages:
                self._free[at:at + 1] = [(first + pages, count - pages)] if count > pages else []
                return first
        largest = max((count for _, count in self._free), default=0)
        raise UsageProblem(f"{pages * PAGE_SIZE >> 10} KiB are asked for, and the guest's largest free range has "
                           f"{largest * PAGE_SIZE >> 10} KiB of {self.free * PAGE_SIZE >> 10} KiB that are free: "
                           f"release an array, or connect with more ram")

    def give_back(self, first: int, pages: int) -> None:
        """Let a range be free again that was taken."""
        if any(first < begin + count and begin < first + pages for begin, count in self._free):
            raise ValueError(f"pages {first} to {first + pages} are free already, some or all")
        insort(self._free, (first, pages))
        joined: list[tuple[int, int]] = []
        for begin, count in self._free:
            if joined and sum(joined[-1]) == begin:
                joined[-1] = joined[-1][0], joined[-1][1] + count
            else:
                joined.append((begin, count))
        self._free = joined
