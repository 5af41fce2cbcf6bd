"""Deduplication: one frame for equal pages of ephemeral pools, with a count of its users (T94, T95).

A page is looked up by its fingerprint (xxh3, 64 bits), and shared only when all its bytes are equal.  A page with the
fingerprint of another but other bytes gets no record: its caller keeps it raw.

Pages are shared inside a group, a group being one owner's.  Across groups they are shared only where that was asked
for: how long a put takes then tells a guest whether another guest holds the same page, which is why Xen gave
deduplication up in 2016.

One writer, the storage.
"""

import numpy as np
import xxhash

from hypervisor.tmem.heap import Heap
from hypervisor.tmem.index import NONE, Index
from shm.errors import BrokenInvariant

ALL = 0                      # the group of every page that is shared across groups


class Shared:
    """Records of shared frames; a record's number is what a page's place says."""

    def __init__(self, heap: Heap, across: bool = False) -> None:
        self.heap = heap
        self.across = across
        self.records = Index(words=2)                        # (group, fingerprint)
        self.frames = np.zeros(self.records.capacity, np.int64)
        self.users = np.zeros(self.records.capacity, np.int64)
        self.puts = 0                                        # pages that found their frame already there

    def __len__(self) -> int:
        return len(self.records)

    @property
    def nbytes(self) -> int:
        return self.records.nbytes + self.frames.nbytes + self.users.nbytes

    @property
    def pages(self) -> int:
        return int(self.users.sum())

    def key(self, group: int, page: np.ndarray) -> tuple[int, int]:
        return ALL if self.across else group, fingerprint(page)

    def join(self, key: tuple[int, int], page: np.ndarray) -> int | None:
        """Become a user of the frame that holds just this page; return its record, or None when there is none."""
        number = self.records.find(key)
        if number == NONE or not np.array_equal(self.heap.pages[self.frames[number]], page):
            return None
        self.users[number] += 1
        self.puts += 1
        return number

    def add(self, key: tuple[int, int], frame: int) -> int | None:
        """Make a record of a frame, for one user; None: another page has this fingerprint."""
        if self.records.find(key) != NONE:
            return None
        number = self.records.insert(key)
        self._cover()
        self.frames[number], self.users[number] = frame, 1
        return number

    def _cover(self) -> None:
        missing = self.records.capacity - len(self.users)
        if missing:
            self.frames = np.concatenate((self.frames, np.zeros(missing, np.int64)))
            self.users = np.concatenate((self.users, np.zeros(missing, np.int64)))

    def leave(self, numbers: np.ndarray) -> None:
        """Take one user away for each number given; frames without users go back to the heap."""
        np.subtract.at(self.users, numbers, 1)
        if (self.users[numbers] < 0).any():
            raise BrokenInvariant(f"shared frames freed too often: among records {numbers[:4]}")
        unused = np.unique(numbers[self.users[numbers] == 0])
        if len(unused):
            self.records.remove_many(unused)
            self.heap.give(self.frames[unused].tolist())

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        used = np.flatnonzero(self.users)
        problems = [f"dedup: {len(self.records)} records, {len(used)} with users"] if len(used) != len(self) else []
        if (self.users < 0).any() or len(np.unique(self.frames[used])) != len(used):
            problems.append("dedup: a frame in two records, or fewer than no users")
        return problems


def fingerprint(page: np.ndarray) -> int:
    return xxhash.xxh3_64_intdigest(page.data)
