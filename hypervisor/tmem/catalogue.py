"""Where each stored page is: handle -> page number -> place; the only file that knows how that is kept.

    objects   (pool serial, oid x 3) -> object number (`objects`)
    leaves    (object number, index) -> page number (`leaves`)
    pages     page number -> its position in the leaves, its place (`forms`), and its age, if that is kept

Some 50 bytes a page of a file and 100 a page alone, all in arrays.  The pages of an object or a pool are found by one
vectorised scan: no list is threaded through them, because flushing whole objects is rare beside put and get.

A page number is good until the page is dropped.  Scalar and bulk forms mean the same.
"""

from typing import Any

import numpy as np

from hypervisor.tmem.ages import Ages
from hypervisor.tmem.index import NONE
from hypervisor.tmem.leaves import Leaves
from hypervisor.tmem.numbers import Numbers, are_rising, longer
from hypervisor.tmem.objects import Objects, Oid

__all__ = ["Catalogue", "Oid"]


class Catalogue:
    """All stored pages.  One writer, the store.  `lasting`: ages of persistent pages are kept too."""

    def __init__(self, lasting: bool = False) -> None:
        self.objects = Objects()
        self.leaves = Leaves(self.objects)
        self.pages = Numbers()
        self.ages = Ages()                                   # of ephemeral pages
        self.lasting = Ages() if lasting else None           # of persistent pages
        self._queues = [self.ages, self.lasting] if self.lasting is not None else [self.ages]
        self.places = np.zeros(0, np.uint64)
        self.positions = np.zeros(0, np.uint32)              # 0: no page
        self._cover()

    def __len__(self) -> int:
        return len(self.pages)

    @property
    def nbytes(self) -> int:
        arrays = self.positions.nbytes + self.places.nbytes + self.pages.nbytes
        return arrays + self.objects.nbytes + self.leaves.nbytes + sum(queue.nbytes for queue in self._queues)

    def _queue(self, ephemeral: bool) -> Ages | None:
        return self.ages if ephemeral else self.lasting

    def _make_room(self, count: int) -> None:
        if self.pages.make_room(count):
            self._cover()

    def _cover(self) -> None:
        """Lengthen what is kept by number to what may be given out."""
        self.places = longer(self.places, self.pages.capacity)
        self.positions = longer(self.positions, self.pages.capacity)
        self._place_words: memoryview[Any] = self.places.data
        self._position_words: memoryview[Any] = self.positions.data
        for queue in self._queues:
            queue.cover(self.pages.capacity)

    # scalar

    def find(self, serial: int, oid: Oid, index: int) -> int:
        """Return the number of the page with this handle, or NONE."""
        number = self.objects.find(serial, oid)
        return NONE if number == NONE else self.leaves.find(number, index)

    def add(self, serial: int, oid: Oid, index: int, place: int, ephemeral: bool, owner: int) -> int:
        """Enter a page with a new handle, as the youngest of its owner's."""
        self._make_room(1)
        number, page = self.objects.number_for(serial, oid), self.pages.take_one()
        self._position_words[page] = self.leaves.add(number, index, page)
        self._place_words[page] = place
        self.objects.more_pages(number, 1)
        queue = self._queue(ephemeral)
        if queue is not None:
            queue.join_one(page, owner)
        return page

    def drop(self, page: int) -> int:
        """Take a page out and return its place."""
        self.objects.fewer_pages(self.leaves.remove(self._position_words[page]), 1)
        self._position_words[page] = 0
        for queue in self._queues:
            queue.leave_one(page)
        self.pages.give_one(page)
        return self._place_words[page]

    def place_of(self, page: int) -> int:
        return self._place_words[page]

    def move(self, page: int, place: int, owner: int) -> None:
        """Note that a page has new data, at `place`: one that had been written back is in memory again."""
        self.places[page] = place
        if self.lasting is not None and not self.ages.stamps[page] and not self.lasting.stamps[page]:
            self.lasting.join_one(page, owner)

    def touch(self, page: int, owner: int) -> None:
        """Note who touched a page's object last."""
        self.touch_many(np.array([page]), owner)

    # bulk

    def find_many(self, serial: int, oids: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        """Return page numbers (int64), NONE where there is none; `oids` (n, 3) uint64, `indexes` (n,) uint64."""
        if not _one_object(oids):
            return self._find_each(serial, oids, indexes)
        number = self.objects.find(serial, oids[0].tolist())
        if number == NONE:
            return np.full(len(oids), NONE, np.int64)
        return self.leaves.pages_at(self._positions_in(number, indexes, make=False))

    def _find_each(self, serial: int, oids: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        numbers = self.objects.find_many(serial, oids)
        known = (numbers != NONE).nonzero()[0]
        found = np.full(len(oids), NONE, np.int64)
        if len(known):
            found[known] = self.leaves.pages_at(self.leaves.positions(numbers[known], indexes[known], make=False))
        return found

    def _positions_in(self, number: int, indexes: np.ndarray, make: bool) -> np.ndarray:
        """Return the positions of indexes of one object."""
        first, count = int(indexes[0]), len(indexes)
        if int(indexes[-1]) - first == count - 1 and are_rising(indexes):                    # the usual: neighbours
            return self.leaves.positions_of_run(number, first, count, make)
        return self.leaves.positions(np.full(count, number), indexes, make)

    def add_many(self, serial: int, oids: np.ndarray, indexes: np.ndarray, places: np.ndarray,
                 ephemeral: bool, owner: int) -> np.ndarray:
        """Enter pages with new handles, all different; return their numbers."""
        self._make_room(len(oids))
        pages = self.pages.take(len(oids))
        if _one_object(oids):
            number = self.objects.number_for(serial, oids[0].tolist())
            positions = self._positions_in(number, indexes, make=True)
            self.objects.more_pages(number, len(pages))
        else:
            numbers = self.objects.numbers_for(serial, oids)
            positions = self.leaves.positions(numbers, indexes, make=True)
            self.objects.more_pages_each(numbers)
        self.leaves.enter(positions, pages)
        self.positions[pages] = positions
        self.places[pages] = places
        queue = self._queue(ephemeral)
        if queue is not None:
            queue.join(pages, owner)
        return pages

    def drop_many(self, pages: np.ndarray) -> np.ndarray:
        """Take pages, all different, out and return their places."""
        numbers = self.leaves.remove_many(self.positions[pages])
        if _all_same(numbers):
            self.objects.fewer_pages(int(numbers[0]), len(pages))
        else:
            self.objects.fewer_pages_each(numbers)
        self.positions[pages] = 0
        for queue in self._queues:
            queue.leave(pages)
        self.pages.give(pages)
        return self.places[pages]

    def forget_empty(self) -> None:
        """Let go of what is kept of emptied leaves."""
        self.leaves.forget_empty(len(self.leaves.kept))

    def touch_many(self, pages: np.ndarray, owner: int) -> None:
        """Note who touched the pages' objects last."""
        self.objects.touchers[self._numbers_of(pages)] = owner

    def touched_by(self, pages: np.ndarray, owner: int) -> np.ndarray:
        """Return those of `pages` whose object `owner` touched last."""
        return pages[self.objects.touchers[self._numbers_of(pages)] == owner]

    def _numbers_of(self, pages: np.ndarray) -> np.ndarray:
        """Return the object numbers (int64) of pages."""
        return self.leaves.numbers_of(self.positions[pages])

    def handles_of(self, pages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the object ids (n, 3) and indexes (n,) of pages, uint64."""
        positions = self.positions[pages]
        return self.objects.keys[self.leaves.numbers_of(positions), 1:], self.leaves.indexes_of(positions)

    def serials_of(self, pages: np.ndarray) -> np.ndarray:
        """Return the pool serials (uint64) of pages."""
        return self.objects.keys[self._numbers_of(pages), 0]

    def stored(self) -> np.ndarray:
        """Return all pages."""
        return np.flatnonzero(self.positions)

    def of_object(self, serial: int, oid: Oid) -> np.ndarray:
        """Return the pages of one object."""
        number = self.objects.find(serial, oid)
        return self.leaves.pages_of(number) if number != NONE else np.zeros(0, np.int64)

    def of_pool(self, serial: int) -> np.ndarray:
        """Return the pages of one pool."""
        stored = self.stored()
        return stored[self.serials_of(stored) == serial]

    def objects_of(self, serial: int) -> int:
        """Return how many objects a pool has."""
        live = np.flatnonzero(self.objects.pages)
        return int(np.count_nonzero(self.objects.keys[live, 0] == serial))

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        stored = self.stored()
        problems = [problem for queue in self._queues for problem in queue.audit()]
        problems += self.objects.audit() + self.leaves.audit()
        if len(stored) != len(self.pages) or int(self.leaves.used.sum()) != len(stored):
            problems.append(f"catalogue: {len(self.pages)} pages counted, {len(stored)} have a position, "
                            f"{int(self.leaves.used.sum())} are in leaves")
        elif (self.leaves.pages_at(self.positions[stored]) != stored).any():
            problems.append("catalogue: some pages are not where their positions say")
        numbers = self._numbers_of(stored)
        if (np.bincount(numbers, minlength=len(self.objects.pages)) != self.objects.pages).any():
            problems.append(f"catalogue: objects count {int(self.objects.pages.sum())} pages of {len(stored)}")
        return problems


def _one_object(oids: np.ndarray) -> bool:
    """Say whether pages are all of one object: the usual batch, and there mostly one id for all rows."""
    return oids.strides[0] == 0 or bool((oids == oids[0]).all())


def _all_same(numbers: np.ndarray) -> bool:
    return int(numbers[0]) == int(numbers[-1]) and np.count_nonzero(numbers == numbers[0]) == len(numbers)
