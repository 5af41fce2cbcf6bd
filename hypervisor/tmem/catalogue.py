"""Where each stored page is: handle -> page number -> place; the only file that knows how that is kept.

    objects   (pool serial, oid x 3) -> object number; how many pages it has; who touched it last
    pages     (object number, index) -> page number; its place (`forms`); its age, if that is kept

Some 75 bytes a page and 70 an object, all in arrays.  The pages of an object or a pool are found by one vectorised
scan: no list is threaded through them, because flushing whole objects is rare beside put and get.

A page number is good until the page is dropped.  Scalar and bulk forms mean the same.
"""

from collections.abc import Sequence

import numpy as np

from hypervisor.tmem.ages import Ages
from hypervisor.tmem.forms import EMPTY_PLACE
from hypervisor.tmem.index import NONE, Index

Oid = Sequence[int]


class Catalogue:
    """All stored pages.  One writer, the store.  `lasting`: ages of persistent pages are kept too."""

    def __init__(self, lasting: bool = False) -> None:
        self.objects = Index(words=4)
        self.pages = Index(words=1)
        self.ages = Ages()                                   # of ephemeral pages
        self.lasting = Ages() if lasting else None           # of persistent pages
        self.object_pages = np.zeros(self.objects.capacity, np.uint32)
        self.touchers = np.zeros(self.objects.capacity, np.uint32)
        self.places = np.full(self.pages.capacity, EMPTY_PLACE, np.uint64)
        self._cover()

    def __len__(self) -> int:
        return len(self.pages)

    @property
    def nbytes(self) -> int:
        arrays = self.object_pages.nbytes + self.touchers.nbytes + self.places.nbytes
        return arrays + self.objects.nbytes + self.pages.nbytes + sum(queue.nbytes for queue in self._queues())

    def _queues(self) -> list[Ages]:
        return [self.ages, self.lasting] if self.lasting is not None else [self.ages]

    def _queue(self, ephemeral: bool) -> Ages | None:
        return self.ages if ephemeral else self.lasting

    def _cover(self) -> None:
        """Lengthen what is kept by number to what the indexes may give out."""
        if self.pages.capacity > len(self.places):
            more = np.full(self.pages.capacity - len(self.places), EMPTY_PLACE, np.uint64)
            self.places = np.concatenate((self.places, more))
        if self.objects.capacity > len(self.object_pages):
            more = np.zeros(self.objects.capacity - len(self.object_pages), np.uint32)
            self.object_pages = np.concatenate((self.object_pages, more))
            self.touchers = np.concatenate((self.touchers, more))
        for queue in self._queues():
            queue.cover(self.pages.capacity)

    # scalar

    def find(self, serial: int, oid: Oid, index: int) -> int:
        """Return the number of the page with this handle, or NONE."""
        number = self.objects.find((serial, *oid))
        return NONE if number == NONE else self.pages.find((number << 32 | index,))

    def add(self, serial: int, oid: Oid, index: int, place: int, ephemeral: bool, owner: int) -> int:
        """Enter a page with a new handle, as the youngest of its owner's."""
        key = (serial, *oid)
        number = self.objects.find(key)
        if number == NONE:
            number = self.objects.insert(key)
        page = self.pages.insert((number << 32 | index,))
        self._cover()
        self.object_pages[number] += 1
        self.places[page] = place
        queue = self._queue(ephemeral)
        if queue is not None:
            queue.join_one(page, owner)
        return page

    def drop(self, page: int) -> int:
        """Take a page out and return its place."""
        number = int(self.pages.keys[page, 0]) >> 32
        self.pages.remove(page)
        for queue in self._queues():
            queue.leave_one(page)
        self.object_pages[number] -= 1
        if not self.object_pages[number]:
            self.objects.remove(number)
        place, self.places[page] = int(self.places[page]), EMPTY_PLACE
        return place

    def move(self, page: int, place: int, owner: int) -> None:
        """Note that a page has new data, at `place`: one that had been written back is in memory again."""
        self.places[page] = place
        if self.lasting is not None and not self.ages.stamps[page] and not self.lasting.stamps[page]:
            self.lasting.join_one(page, owner)

    def touch(self, page: int, owner: int) -> None:
        """Note who touched a page's object last."""
        self.touchers[int(self.pages.keys[page, 0]) >> 32] = owner

    # bulk

    def find_many(self, serial: int, oids: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        """Return page numbers (int64), NONE where there is none; `oids` (n, 3) uint64, `indexes` (n,) uint64."""
        numbers = self._objects_of(serial, oids)
        if (numbers != NONE).all():
            return self.pages.find_many(_page_keys(numbers, indexes))
        known = np.flatnonzero(numbers != NONE)
        found = np.full(len(oids), NONE, np.int64)
        if len(known):
            found[known] = self.pages.find_many(_page_keys(numbers[known], indexes[known]))
        return found

    def _objects_of(self, serial: int, oids: np.ndarray) -> np.ndarray:
        if (oids == oids[0]).all():                          # the usual batch: pages of one file
            return np.full(len(oids), self.objects.find((serial, *oids[0].tolist())), np.int64)
        return self.objects.find_many(_object_keys(serial, oids))

    def add_many(self, serial: int, oids: np.ndarray, indexes: np.ndarray, places: np.ndarray,
                 ephemeral: bool, owner: int) -> np.ndarray:
        """Enter pages with new handles, all different; return their numbers."""
        numbers = self._numbers_for(serial, oids)
        pages = self.pages.insert_many(_page_keys(numbers, indexes))
        self._cover()
        if numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
            self.object_pages[numbers[0]] += len(pages)
        else:
            np.add.at(self.object_pages, numbers, 1)
        self.places[pages] = places
        queue = self._queue(ephemeral)
        if queue is not None:
            queue.join(pages, owner)
        return pages

    def _numbers_for(self, serial: int, oids: np.ndarray) -> np.ndarray:
        """Return the object numbers of `oids`, giving numbers to those that have none."""
        numbers = self._objects_of(serial, oids)
        unknown = numbers == NONE
        if not unknown.any():
            return numbers
        if (oids == oids[0]).all():
            return np.full(len(oids), self.objects.insert((serial, *oids[0].tolist())), np.int64)
        self.objects.insert_many(np.unique(_object_keys(serial, oids[unknown]), axis=0))
        return self._objects_of(serial, oids)

    def drop_many(self, pages: np.ndarray) -> np.ndarray:
        """Take pages, all different, out and return their places."""
        numbers = self._numbers_of(pages)
        self.pages.remove_many(pages)
        for queue in self._queues():
            queue.leave(pages)
        if numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
            self.object_pages[numbers[0]] -= len(pages)
            if not self.object_pages[numbers[0]]:
                self.objects.remove(int(numbers[0]))
        else:
            np.subtract.at(self.object_pages, numbers, 1)
            empty = numbers[self.object_pages[numbers] == 0]
            if len(empty):
                self.objects.remove_many(np.unique(empty))
        places = self.places[pages]
        self.places[pages] = EMPTY_PLACE
        return places

    def touch_many(self, pages: np.ndarray, owner: int) -> None:
        """Note who touched the pages' objects last."""
        self.touchers[self._numbers_of(pages)] = owner

    def touched_by(self, pages: np.ndarray, owner: int) -> np.ndarray:
        """Return those of `pages` whose object `owner` touched last."""
        return pages[self.touchers[self._numbers_of(pages)] == owner]

    def _numbers_of(self, pages: np.ndarray) -> np.ndarray:
        """Return the object numbers (int64) of pages."""
        return (self.pages.keys[pages, 0] >> np.uint64(32)).astype(np.int64)

    def handles_of(self, pages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the object ids (n, 3) and indexes (n,) of pages, uint64."""
        return self.objects.keys[self._numbers_of(pages), 1:], self.pages.keys[pages, 0] & np.uint64(0xFFFFFFFF)

    def serials_of(self, pages: np.ndarray) -> np.ndarray:
        """Return the pool serials (uint64) of pages."""
        return self.objects.keys[self._numbers_of(pages), 0]

    def stored(self) -> np.ndarray:
        """Return all pages."""
        return np.flatnonzero(self.places != EMPTY_PLACE)

    def of_object(self, serial: int, oid: Oid) -> np.ndarray:
        """Return the pages of one object."""
        number = self.objects.find((serial, *oid))
        stored = self.stored()
        return stored[self.pages.keys[stored, 0] >> np.uint64(32) == number] if number != NONE else stored[:0]

    def of_pool(self, serial: int) -> np.ndarray:
        """Return the pages of one pool."""
        stored = self.stored()
        return stored[self.serials_of(stored) == serial]

    def objects_of(self, serial: int) -> int:
        """Return how many objects a pool has."""
        live = np.flatnonzero(self.object_pages)
        return int(np.count_nonzero(self.objects.keys[live, 0] == serial))

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        stored = self.stored()
        problems = [problem for queue in self._queues() for problem in queue.audit()]
        if len(stored) != len(self.pages):
            problems.append(f"catalogue: {len(self.pages)} handles, {len(stored)} pages with a place")
        if int(self.object_pages.sum()) != len(stored) or np.count_nonzero(self.object_pages) != len(self.objects):
            problems.append(f"catalogue: objects count {int(self.object_pages.sum())} pages of {len(stored)}")
        return problems


def _object_keys(serial: int, oids: np.ndarray) -> np.ndarray:
    return np.column_stack((np.full(len(oids), serial, np.uint64), oids))


def _page_keys(objects: np.ndarray, indexes: np.ndarray) -> np.ndarray:
    return (objects.astype(np.uint64) << np.uint64(32) | indexes).reshape(-1, 1)
