"""Objects of the catalogue: (pool serial, oid x 3) -> object number; what is known of each.

    pages     how many pages it has; an object with none does not count as one
    leaves    how many leaves it has (`leaves`); with the last of them its number is given back
    toucher   who touched it last

The object asked for last is remembered: calls come in rows for one file.  One writer, the catalogue.
"""

from collections.abc import Sequence

import numpy as np

from hypervisor.tmem.index import NONE, Index
from hypervisor.tmem.numbers import longer

_ONE = np.uint32(1)          # of the type of what it is added to: `at` is five times slower with another
Oid = Sequence[int]


class Objects:
    """All objects that have pages, and those whose empty leaves are kept."""

    def __init__(self) -> None:
        self.index = Index(words=4)
        self.pages = np.zeros(self.index.capacity, np.uint32)
        self.leaves = np.zeros(self.index.capacity, np.uint32)
        self.touchers = np.zeros(self.index.capacity, np.uint32)
        self._live = 0                           # objects with pages
        self._last: tuple[int, ...] = ()
        self._last_number = NONE
        self._page_words = self.pages.data

    def __len__(self) -> int:
        return self._live

    @property
    def keys(self) -> np.ndarray:
        return self.index.keys

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + self.pages.nbytes + self.leaves.nbytes + self.touchers.nbytes

    def find(self, serial: int, oid: Oid) -> int:
        """Return the number of an object, or NONE."""
        key = (serial, *oid)
        if key == self._last:
            return self._last_number
        number = self.index.find(key)
        if number != NONE:
            self._last, self._last_number = key, number
        return number

    def number_for(self, serial: int, oid: Oid) -> int:
        """Return the number of an object, a new one if it has none."""
        number = self.find(serial, oid)
        if number == NONE:
            number = self.index.insert((serial, *oid))
            self._cover()
        return number

    def find_many(self, serial: int, oids: np.ndarray) -> np.ndarray:
        return self.index.find_many(_keys(serial, oids))

    def numbers_for(self, serial: int, oids: np.ndarray) -> np.ndarray:
        """Return the numbers of objects, giving numbers to those that have none."""
        keys = _keys(serial, oids)
        numbers = self.index.find_many(keys)
        unknown = numbers == NONE
        if not unknown.any():
            return numbers
        self.index.insert_many(np.unique(keys[unknown], axis=0))
        self._cover()
        return self.index.find_many(keys)

    def _cover(self) -> None:
        if self.index.capacity > len(self.pages):
            self.pages, self.leaves, self.touchers = (
                longer(array, self.index.capacity) for array in (self.pages, self.leaves, self.touchers))
            self._page_words = self.pages.data

    def more_pages(self, number: int, count: int) -> None:
        before = self._page_words[number]
        self._page_words[number] = before + count
        self._live += not before

    def fewer_pages(self, number: int, count: int) -> None:
        self._page_words[number] -= count
        self._live -= not self._page_words[number]

    def more_pages_each(self, numbers: np.ndarray) -> None:
        """Count a page more for each of `numbers`, which may repeat."""
        found, counts = np.unique(numbers, return_counts=True)
        self._live += int(np.count_nonzero(self.pages[found] == 0))
        self.pages[found] += counts.astype(np.uint32)

    def fewer_pages_each(self, numbers: np.ndarray) -> None:
        found, counts = np.unique(numbers, return_counts=True)
        self.pages[found] -= counts.astype(np.uint32)
        self._live -= int(np.count_nonzero(self.pages[found] == 0))

    def more_leaves(self, numbers: np.ndarray) -> None:
        np.add.at(self.leaves, numbers, _ONE)

    def fewer_leaves(self, numbers: np.ndarray) -> None:
        """Count a leaf less for each of `numbers`, which may repeat; with the last one an object goes."""
        np.subtract.at(self.leaves, numbers, _ONE)
        gone = numbers[self.leaves[numbers] == 0]
        if len(gone):
            self.index.remove_many(np.unique(gone))
            self._last, self._last_number = (), NONE

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        live, known = np.count_nonzero(self.pages), np.count_nonzero(self.leaves)
        if live != self._live or known != len(self.index):
            return [f"objects: {self._live} counted, {live} have pages; {len(self.index)} known, {known} have leaves"]
        return []


def _keys(serial: int, oids: np.ndarray) -> np.ndarray:
    return np.column_stack((np.full(len(oids), serial, np.uint64), oids))
