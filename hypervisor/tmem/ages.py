"""The age order of stored pages: one queue, oldest first (T56).

A page joins at the young end with a stamp, and leaves from anywhere by forgetting its stamp: the queue's stale entries
are stepped over when they come to the old end, and swept out when they outnumber the live ones.  So everything is bulk
work on arrays, and no list is threaded through the pages.

Each page has an owner, whose oldest pages are found in the same queue: from a mark of the owner's, before which it has
none, so that all searches together step over an entry once an owner.
"""

from typing import Any

import numpy as np

from hypervisor.tmem.numbers import longer

_FIRST = 1024


class Ages:
    """Ages of ids.  Stamp 0 is that of an id that is not in the queue."""

    def __init__(self) -> None:
        self.stamps = np.zeros(0, np.uint64)     # by id
        self.owners = np.zeros(0, np.uint32)     # by id; means something while it is in the queue
        self.count = 0                           # ids in the queue
        self.aged = 0                            # of these, with a stamp up to the mark
        self._mark = 0                           # the newest stamp when the clock's hand last passed
        self._clock = 0                          # the newest stamp given
        self._ids = np.zeros(_FIRST, np.uint32)
        self._given = np.zeros(_FIRST, np.uint64)
        self._head = self._tail = 0
        self._from: dict[tuple[int, bool], int] = {}         # owner, others -> where the search for the oldest begins

        self._view()

    def _view(self) -> None:
        self._words: tuple[memoryview[Any], ...] = (
            self.stamps.data, self.owners.data, self._ids.data, self._given.data)

    @property
    def nbytes(self) -> int:
        return self.stamps.nbytes + self.owners.nbytes + self._ids.nbytes + self._given.nbytes

    def cover(self, capacity: int) -> None:
        """Make room for ids below `capacity`."""
        if capacity > len(self.stamps):
            self.stamps, self.owners = longer(self.stamps, capacity), longer(self.owners, capacity)
            self._view()

    def join(self, ids: np.ndarray, owner: int) -> None:
        """Add `ids` of one owner, none of which is in the queue, at the young end, in their order."""
        self._make_room(len(ids))
        stamps = np.arange(self._clock + 1, self._clock + len(ids) + 1, dtype=np.uint64)
        self._clock += len(ids)
        self._ids[self._tail:self._tail + len(ids)] = ids
        self._given[self._tail:self._tail + len(ids)] = stamps
        self._tail += len(ids)
        self.stamps[ids] = stamps
        self.owners[ids] = owner
        self.count += len(ids)

    def join_one(self, number: int, owner: int) -> None:
        self._make_room(1)
        self._clock += 1
        stamps, owners, ids, given = self._words
        ids[self._tail], given[self._tail] = number, self._clock
        self._tail += 1
        stamps[number] = self._clock
        owners[number] = owner
        self.count += 1

    def leave(self, ids: np.ndarray) -> None:
        """Take those of `ids` that are in the queue out of it."""
        stamps = self.stamps[ids]
        there = int(np.count_nonzero(stamps))
        if self.aged:
            self.aged -= int(np.count_nonzero(stamps <= self._mark)) - (len(ids) - there)
        self.count -= there
        self.stamps[ids] = 0

    def leave_one(self, number: int) -> None:
        stamps = self._words[0]
        stamp = stamps[number]
        if stamp:
            self.aged -= stamp <= self._mark
            self.count -= 1
            stamps[number] = 0

    def refresh(self, ids: np.ndarray) -> None:
        """Make `ids` of one owner, all in the queue, the youngest (T57)."""
        if len(ids):
            owner = int(self.owners[ids[0]])
            self.leave(ids)
            self.join(ids, owner)

    def hand_over(self, ids: np.ndarray, owner: int) -> None:
        """Make `owner` the owner of `ids`; their ages stay."""
        self.owners[ids] = owner
        self._from.clear()

    def oldest(self, count: int) -> np.ndarray:
        """Return up to `count` of the oldest ids, oldest first; they stay in the queue."""
        found, at, missing = [], self._head, min(count, self.count)
        while missing > 0:
            stop = min(self._tail, at + 2 * missing + 64)
            live = at + np.flatnonzero(self._live(at, stop))[:missing]
            found.append(self._ids[live])
            missing -= len(live)
            if len(live) == 0 and at == self._head:
                self._head = stop                # all stale: never look at them again
            at = stop
        return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)

    def oldest_of(self, owner: int, count: int) -> np.ndarray:
        """Return up to `count` of an owner's oldest ids, oldest first; they stay in the queue."""
        return self._search(owner, count, others=False)

    def oldest_of_others(self, owner: int, count: int) -> np.ndarray:
        """Return up to `count` of the oldest ids that are not this owner's, oldest first; they stay in the queue."""
        return self._search(owner, count, others=True)

    def _search(self, owner: int, count: int, others: bool) -> np.ndarray:
        found, missing = list[np.ndarray](), count
        at = max(self._head, self._from.get((owner, others), 0))
        while missing > 0 and at < self._tail:
            stop = min(self._tail, at + 2 * missing + 1024)
            wanted = self._live(at, stop) & ((self.owners[self._ids[at:stop]] == owner) != others)
            here = at + np.flatnonzero(wanted)[:missing]
            if not found:                        # none before here: never look there again
                self._from[owner, others] = int(here[0]) if len(here) else stop
            if len(here):
                found.append(self._ids[here])
                missing -= len(here)
            at = stop
        return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)

    def pass_hand(self) -> None:
        """Note that the clock's hand has passed: all that is here now is aged."""
        self._mark, self.aged = self._clock, self.count

    def forget(self, owner: int) -> None:
        """Note that an owner, which has nothing here, is gone."""
        for others in (False, True):
            self._from.pop((owner, others), None)

    def _live(self, start: int, stop: int) -> np.ndarray:
        return self.stamps[self._ids[start:stop]] == self._given[start:stop]

    def _make_room(self, count: int) -> None:
        if self._tail + count <= len(self._ids):
            return
        live = self._head + np.flatnonzero(self._live(self._head, self._tail))
        size = max(_FIRST, 2 * (len(live) + count))
        self._ids, self._given = longer(self._ids[live], size), longer(self._given[live], size)
        self._head, self._tail = 0, len(live)
        self._view()
        self._from.clear()

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        live = int(np.count_nonzero(self._live(self._head, self._tail)))
        aged = int(np.count_nonzero((self.stamps > 0) & (self.stamps <= self._mark)))
        problems = [f"ages: {self.count} ids counted, {live} in the queue"] if live != self.count else []
        return problems + ([f"ages: {self.aged} aged counted, {aged} found"] if aged != self.aged else [])
