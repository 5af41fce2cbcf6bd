"""A compact hash index: keys of `words` 64-bit words -> small numbers (ids), open addressing with linear probing.

    keys     (capacity, words) uint64, by id: 8 bytes a word
    slot_of  uint32, by id: where it stands in the table
    table    uint32, id or EMPTY or DELETED, at most two thirds full, deleted ones included: 8 bytes an id or so

Ids are dense and reused (`numbers`), so that callers keep what they know of an id in arrays of the same length, and
lengthen these when `capacity` has grown.  Ids begin at `first`.  Multipliers of the hash are drawn at random, so that a
guest cannot choose keys that collide.

Every call has a scalar and a bulk form with the same meaning; bulk keys must be all different.
"""

import secrets
from collections.abc import Sequence

import numpy as np

from hypervisor.tmem.numbers import Numbers, longer
from shm.errors import BrokenInvariant

EMPTY, DELETED = 0xFFFFFFFF, 0xFFFFFFFE
NONE = -1
_MASK64 = (1 << 64) - 1
_WINDOW, _FEW = 8, 4096      # slots a round, for up to so many keys at once; so many are placed at once


class Index:
    """Ids of keys.  One writer, the event loop."""

    def __init__(self, words: int, first: int = 0) -> None:
        self.words = words
        self._factors = [secrets.randbits(64) | 1 for _ in range(words)]
        self._vector = np.array(self._factors, np.uint64)
        self._ids = Numbers(first)
        self._used_slots = 0                                                     # ids and DELETED in the table
        self.keys = np.zeros((self._ids.capacity, words), np.uint64)
        self.slot_of = np.zeros(self._ids.capacity, np.uint32)
        self._set_table(np.full(4 * self._ids.capacity, EMPTY, np.uint32))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def capacity(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.table.nbytes + self._ids.nbytes + self.slot_of.nbytes

    def _set_table(self, table: np.ndarray) -> None:
        self.table = table
        self._slots = table.data
        self.words_of, self._slot_words = self.keys.reshape(-1).data, self.slot_of.data
        self._shift = 64 - (len(table).bit_length() - 1)

    def ids(self) -> np.ndarray:
        """Return all ids in use (int64)."""
        return self.table[self.table < DELETED].astype(np.int64)

    # scalar

    def _home(self, key: Sequence[int]) -> int:
        mixed, first = 0, self._factors[0]
        for word, factor in zip(key, self._factors, strict=False):
            mixed ^= word * factor & _MASK64
            mixed = (mixed >> 29 ^ mixed) * first & _MASK64
        return mixed >> self._shift

    def find(self, key: Sequence[int]) -> int:
        """Return the id of `key`, or NONE."""
        slots, words, width, mask = self._slots, self.words_of, self.words, len(self.table) - 1
        at = self._home(key)
        while True:
            number = slots[at]
            if number == EMPTY:
                return NONE
            if number != DELETED:
                base = number * width
                if words[base] == key[0] and (width == 1 or tuple(words[base:base + width]) == tuple(key)):
                    return number
            at = at + 1 & mask

    def insert(self, key: Sequence[int]) -> int:
        """Add `key`, which must be new, and return its id."""
        self._make_room(1)
        number = self._ids.take_one()
        base, words = number * self.words, self.words_of
        for word in key:
            words[base] = word
            base += 1
        slots, mask, at = self._slots, len(self.table) - 1, self._home(key)
        while slots[at] < DELETED:
            at = at + 1 & mask
        self._used_slots += slots[at] == EMPTY
        slots[at] = number
        self._slot_words[number] = at
        return number

    def remove(self, number: int) -> None:
        """Take the key of id `number` out; the id may be given again."""
        slot = self._slot_words[number]
        if self._slots[slot] != number:
            raise BrokenInvariant(f"index: id {number} is not in its slot")
        self._slots[slot] = DELETED
        self._ids.give_one(number)

    # bulk

    def _homes(self, keys: np.ndarray) -> np.ndarray:
        mixed = np.zeros(len(keys), np.uint64)
        for word in range(self.words):
            mixed ^= keys[:, word] * self._vector[word]
            mixed = (mixed >> np.uint64(29) ^ mixed) * self._vector[0]
        return (mixed >> np.uint64(self._shift)).astype(np.int64)

    def find_many(self, keys: np.ndarray) -> np.ndarray:
        """Return the ids (int64) of `keys` (n, words), NONE where there is none."""
        at = self._homes(keys)
        numbers = self.table[at]
        hit = self._same(numbers, keys)
        if hit.all():                            # the usual batch: all known, and in their homes
            return numbers.astype(np.int64)
        ids = np.where(hit, numbers.astype(np.int64), NONE)
        open_ = (~hit & (numbers != EMPTY)).nonzero()[0]
        if len(open_):
            self._probe(keys, at, open_, ids)
        return ids

    def _probe(self, keys: np.ndarray, at: np.ndarray, open_: np.ndarray, ids: np.ndarray) -> None:
        """Look on, from the slots after their homes, for the keys `open_`; every round looks at a window of slots.

        A key is never behind an EMPTY slot, so a hit anywhere in the window is the hit.
        """
        mask, width = len(self.table) - 1, self._width(len(open_))
        window, base = np.arange(1, width + 1), at[open_]
        while len(open_):
            numbers = self.table[base[:, None] + window & mask]
            hit = self._same(numbers, keys[open_][:, None])
            rows, columns = hit.nonzero()
            ids[open_[rows]] = numbers[rows, columns]
            on = ~(hit | (numbers == EMPTY)).any(axis=1)
            open_, base = open_[on], base[on] + width

    @staticmethod
    def _width(count: int) -> int:
        """Return how many slots to look at in one round: rounds cost more than slots, unless keys are many."""
        return _WINDOW if count <= _FEW else 1

    def _same(self, numbers: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return which slots' contents are ids of just these keys (bool)."""
        there = self.keys[np.minimum(numbers, len(self.keys) - 1)] == keys
        return (there[..., 0] if self.words == 1 else there.all(axis=-1)) & (numbers < DELETED)

    def insert_many(self, keys: np.ndarray) -> np.ndarray:
        """Add `keys` (n, words), all new and all different; return their ids (int64)."""
        self._make_room(len(keys))
        numbers = self._ids.take(len(keys))
        self.keys[numbers] = keys
        self._place(numbers, self._homes(keys))
        return numbers

    def _place(self, numbers: np.ndarray, at: np.ndarray) -> None:
        """Write ids into the first free slots from their homes on; of those that meet at one slot the last wins."""
        mask, open_, width = len(self.table) - 1, np.arange(len(numbers)), self._width(len(numbers))
        window = np.arange(width)
        while len(open_):
            slots = at[open_, None] + window & mask
            free = self.table[slots] >= DELETED
            there = free.any(axis=1)
            at[open_[~there]] += width
            rows = there.nonzero()[0]
            chosen, placed = slots[rows, free[rows].argmax(axis=1)], numbers[open_[rows]]
            was_empty = self.table[chosen] == EMPTY
            self.table[chosen] = placed
            won = self.table[chosen] == placed
            self._used_slots += int(np.count_nonzero(was_empty & won))
            self.slot_of[placed[won]] = chosen[won]
            there[rows[~won]] = False
            open_ = open_[~there]

    def remove_many(self, numbers: np.ndarray) -> None:
        """Take the keys of ids `numbers`, all different, out."""
        slots = self.slot_of[numbers]
        if (self.table[slots] != numbers).any():
            raise BrokenInvariant("index: some ids are not in their slots")
        self.table[slots] = DELETED
        self._ids.give(numbers)

    # room

    def _make_room(self, count: int) -> None:
        if self._ids.make_room(count):
            self.keys = longer(self.keys, self._ids.capacity)
            self.slot_of = longer(self.slot_of, self._ids.capacity)
            self.words_of, self._slot_words = self.keys.reshape(-1).data, self.slot_of.data
        if (self._used_slots + count) * 3 > len(self.table) * 2:
            self._rebuild(count)

    def _rebuild(self, count: int) -> None:
        """Drop the DELETED marks, and lengthen the table when ids, with `count` new ones, would fill half of it."""
        live = self.table[self.table < DELETED]
        size = len(self.table)
        while 2 * (len(live) + count) > size:
            size *= 2
        self._used_slots = 0
        self._set_table(np.full(size, EMPTY, np.uint32))
        for first in range(0, len(live), _FEW):
            part = live[first:first + _FEW]
            self._place(part, self._homes(self.keys[part]))
