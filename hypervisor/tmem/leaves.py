"""Leaves: LEAF neighbouring indexes of one object each, as the lowest nodes of Xen's radix tree were.

    key        object number << 29 | index / LEAF -> row
    numbers    int32 (rows, LEAF): 1 + page number of each index, 0: no page.  Row 0 is the leaf that is not there
    used       how many of a row's are pages

A *position* is row * LEAF + the index's place in the leaf.  So a batch of neighbours costs one look for each LEAF of
them, and a page alone costs a leaf.  Some 60 bytes a leaf.

Rule 1: an emptied leaf is kept for a while, for what is got is often put again: KEPT of them at most, the one emptied
        last goes last.  It counts nowhere but here, and in its object's leaves.
Rule 2: `_recent` remembers rows of leaves found lately, and `_last` the last run: a put looks for its pages and then
        enters them.  Both forget a leaf when it goes.

One writer, the catalogue.
"""

from typing import Any

import numpy as np

from hypervisor.tmem.index import NONE, Index
from hypervisor.tmem.numbers import longer
from hypervisor.tmem.objects import Objects

SHIFT = 3
LEAF = 1 << SHIFT
LEAF_BITS = 32 - SHIFT       # of an index / LEAF
KEPT = 256
_LOW = LEAF - 1
_LEAF_MASK = (1 << LEAF_BITS) - 1
_PLACES = np.arange(LEAF)
_ONE = np.uint8(1)           # of the type of `used`: `at` is five times slower with another
_RECENT = 4 * KEPT


class Leaves:
    """(object number, index) -> page number."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.index = Index(words=1, first=1)
        self.numbers = np.zeros((self.index.capacity, LEAF), np.int32)
        self.used = np.zeros(self.index.capacity, np.uint8)
        self.kept: dict[int, None] = {}         # rows of emptied leaves, in the order of emptying; some in use again
        self._recent: dict[int, int] = {}        # key -> row
        self._last = (NONE, 0, 0)                # the last run asked for, all of whose leaves are there
        self._last_positions = np.zeros(0, np.int64)
        self._view()

    def _view(self) -> None:
        self._words: memoryview[Any] = self.numbers.reshape(-1).data
        self._used: memoryview[Any] = self.used.data

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + self.numbers.nbytes + self.used.nbytes

    # one

    def _row(self, key: int) -> int:
        row = self._recent.get(key)
        if row is None:
            row = self.index.find((key,))
            if row == NONE:
                return 0
            self._remember(key, row)
        return row

    def _remember(self, key: int, row: int) -> None:
        if len(self._recent) >= _RECENT:
            self._recent.clear()
        self._recent[key] = row

    def find(self, number: int, index: int) -> int:
        """Return the page of one index of an object, or NONE."""
        return self._words[self._row(number << LEAF_BITS | index >> SHIFT) << SHIFT | index & _LOW] - 1

    def add(self, number: int, index: int, page: int) -> int:
        """Enter a page under an index that has none; return its position."""
        key = number << LEAF_BITS | index >> SHIFT
        row = self._row(key) or self._make(np.array([key], np.uint64))[0]
        position = row << SHIFT | index & _LOW
        self._words[position] = page + 1
        self._used[row] += 1
        return position

    def remove(self, position: int) -> int:
        """Take the page at a position out; return its object's number."""
        row = position >> SHIFT
        self._words[position] = 0
        self._used[row] -= 1
        number: int = self.index.words_of[row] >> LEAF_BITS
        if not self._used[row]:
            self._keep([row])
        return number

    def pages_of(self, number: int) -> np.ndarray:
        """Return the pages (int64) of one object, by a look at every leaf."""
        own = (self.index.keys[:, 0] >> np.uint64(LEAF_BITS) == number) & (self.used > 0)
        there = self.numbers[np.flatnonzero(own)].reshape(-1).astype(np.int64)
        return there[there > 0] - 1

    # neighbours: `count` indexes of one object from `first` on

    def positions_of_run(self, number: int, first: int, count: int, make: bool) -> np.ndarray:
        """Return the positions of a run, in rows that are made where `make` says so, else in row 0.

        The array is not to be changed: it may be asked for again.
        """
        if self._last == (number, first, count):
            return self._last_positions
        base = number << LEAF_BITS
        keys = range(base | first >> SHIFT, (base | first + count - 1 >> SHIFT) + 1)
        recent = self._recent
        try:
            rows = [recent[key] for key in keys]
        except KeyError:
            rows = self._look_up(keys, make)
        at = first & _LOW
        positions = ((np.array(rows) << SHIFT)[:, None] + _PLACES).reshape(-1)[at:at + count]
        if all(rows):
            self._last, self._last_positions = (number, first, count), positions
        return positions

    def _look_up(self, keys: range, make: bool) -> list[int]:
        wanted = np.arange(keys.start, keys.stop, dtype=np.uint64)
        rows = self._rows(wanted, make)
        for key, row in zip(keys, found := rows.tolist(), strict=True):
            if row:
                self._remember(key, row)
        return found

    def enter(self, positions: np.ndarray, pages: np.ndarray) -> None:
        """Enter pages at positions that hold none."""
        self.numbers.reshape(-1)[positions] = pages + 1
        np.add.at(self.used, positions >> SHIFT, _ONE)

    # many

    def positions(self, numbers: np.ndarray, indexes: np.ndarray, make: bool) -> np.ndarray:
        """Return the positions (int64) of `indexes` of objects `numbers`, as `positions_of_run` does."""
        keys = (numbers.astype(np.uint64) << np.uint64(LEAF_BITS)) | indexes >> np.uint64(SHIFT)
        return self._rows(keys, make) << SHIFT | (indexes & np.uint64(_LOW)).astype(np.int64)

    def _rows(self, keys: np.ndarray, make: bool) -> np.ndarray:
        """Return the rows (int64) of leaves, 0 for one that is not there."""
        rows = self.index.find_many(keys.reshape(-1, 1))
        missing = rows == NONE
        if not missing.any():
            return rows
        if not make:
            rows[missing] = 0
            return rows
        made, back = np.unique(keys[missing], return_inverse=True)
        rows[missing] = np.array(self._make(made))[back]
        return rows

    def _make(self, keys: np.ndarray) -> list[int]:
        """Make leaves of new keys, all different; return their rows."""
        rows = self.index.insert_many(keys.reshape(-1, 1))
        if self.index.capacity > len(self.numbers):
            self.numbers, self.used = longer(self.numbers, self.index.capacity), longer(self.used, self.index.capacity)
            self._view()
        self.objects.more_leaves((keys >> np.uint64(LEAF_BITS)).astype(np.int64))
        return rows.tolist()

    def pages_at(self, positions: np.ndarray) -> np.ndarray:
        """Return the pages (int64) at positions, NONE where there is none."""
        return np.subtract(self.numbers.reshape(-1)[positions], 1, dtype=np.int64)

    def remove_many(self, positions: np.ndarray) -> np.ndarray:
        """Take the pages at positions, all different, out; return their objects' numbers (int64)."""
        self.numbers.reshape(-1)[positions] = 0
        rows = positions >> SHIFT
        np.subtract.at(self.used, rows, _ONE)
        numbers = self.numbers_of(positions)
        empty = rows[self.used[rows] == 0]
        if len(empty):
            self._keep(dict.fromkeys(empty.tolist()))
        return numbers

    def numbers_of(self, positions: np.ndarray) -> np.ndarray:
        """Return the object numbers (int64) of positions in leaves that are there."""
        return (self.index.keys[positions >> SHIFT, 0] >> np.uint64(LEAF_BITS)).view(np.int64)

    def indexes_of(self, positions: np.ndarray) -> np.ndarray:
        """Return the indexes (uint64) of positions in leaves that are there."""
        high = (self.index.keys[positions >> SHIFT, 0] & np.uint64(_LEAF_MASK)) << np.uint64(SHIFT)
        return high | (positions & _LOW).astype(np.uint64)

    # emptied leaves

    def _keep(self, rows: dict[int, None] | list[int]) -> None:
        """Keep emptied leaves; beyond KEPT, the half emptied longest ago goes."""
        for row in rows:
            self.kept.pop(row, None)
            self.kept[row] = None
        if len(self.kept) > KEPT:
            self.forget_empty(len(self.kept) - KEPT // 2)

    def forget_empty(self, count: int) -> None:
        """Remove up to `count` emptied leaves."""
        oldest = [row for row, _ in zip(self.kept, range(count), strict=False)]
        for row in oldest:
            del self.kept[row]
        gone = np.array([row for row in oldest if not self._used[row]], np.int64)
        if not len(gone):
            return
        keys = self.index.keys[gone, 0]
        for key in keys.tolist():
            self._recent.pop(key, None)
        self._last = (NONE, 0, 0)
        self.objects.fewer_leaves((keys >> np.uint64(LEAF_BITS)).astype(np.int64))
        self.index.remove_many(gone)

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        rows = self.index.ids()
        filled = np.count_nonzero(self.numbers, axis=1)
        empty = set(rows[filled[rows] == 0].tolist())
        sound = {
            "pages in a leaf": (filled == self.used).all(),
            "the leaf that is not there": not filled[0],
            "empty leaves": empty <= set(self.kept) and len(self.kept) <= KEPT,
            "leaves of an object": (np.bincount(
                (self.index.keys[rows, 0] >> np.uint64(LEAF_BITS)).astype(np.int64),
                minlength=len(self.objects.leaves)) == self.objects.leaves).all(),
            "recent leaves": all(self.index.words_of[row] == key for key, row in self._recent.items()),
        }
        return [f"leaves: {what} do not add up" for what, holds in sound.items() if not holds]
