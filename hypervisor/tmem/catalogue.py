"""Where each stored page is: handle -> page number -> frame; the only file that knows how that is kept.

    objects   (pool serial, oid x 3) -> object number; how many pages it has
    pages     (object number, index) -> page number; its frame; its age while it is ephemeral

About 65 bytes a page and 65 an object, all in arrays.  The pages of an object or a pool are found by one vectorised
scan: no list is threaded through them, because flushing whole objects is rare beside put and get.

A page number is good until the page is dropped.  Scalar and bulk forms mean the same.
"""

from collections.abc import Sequence

import numpy as np

from hypervisor.tmem.ages import Ages
from hypervisor.tmem.index import NONE, Index

Oid = Sequence[int]
_NO_FRAME = 0xFFFFFFFF


class Catalogue:
    """All stored pages.  One writer, the store."""

    def __init__(self) -> None:
        self.objects = Index(words=4)
        self.pages = Index(words=1)
        self.ages = Ages()                                   # of ephemeral pages
        self.object_pages = np.zeros(self.objects.capacity, np.uint32)
        self.frames = np.full(self.pages.capacity, _NO_FRAME, np.uint32)
        self._cover()

    def __len__(self) -> int:
        return len(self.pages)

    @property
    def nbytes(self) -> int:
        arrays = (self.objects, self.pages, self.ages, self.object_pages, self.frames)
        return sum(array.nbytes for array in arrays)

    def _cover(self) -> None:
        """Lengthen what is kept by number to what the indexes may give out."""
        if self.pages.capacity > len(self.frames):
            more = np.full(self.pages.capacity - len(self.frames), _NO_FRAME, np.uint32)
            self.frames = np.concatenate((self.frames, more))
        if self.objects.capacity > len(self.object_pages):
            more = np.zeros(self.objects.capacity - len(self.object_pages), np.uint32)
            self.object_pages = np.concatenate((self.object_pages, more))
        self.ages.cover(self.pages.capacity)

    # scalar

    def find(self, serial: int, oid: Oid, index: int) -> int:
        """Return the number of the page with this handle, or NONE."""
        number = self.objects.find((serial, *oid))
        return NONE if number == NONE else self.pages.find((number << 32 | index,))

    def add(self, serial: int, oid: Oid, index: int, frame: int, ephemeral: bool) -> int:
        """Enter a page with a new handle."""
        key = (serial, *oid)
        number = self.objects.find(key)
        if number == NONE:
            number = self.objects.insert(key)
        page = self.pages.insert((number << 32 | index,))
        self._cover()
        self.object_pages[number] += 1
        self.frames[page] = frame
        if ephemeral:
            self.ages.join_one(page)
        return page

    def drop(self, page: int) -> int:
        """Take a page out and return its frame."""
        number = int(self.pages.keys[page, 0]) >> 32
        self.pages.remove(page)
        self.ages.leave_one(page)
        self.object_pages[number] -= 1
        if not self.object_pages[number]:
            self.objects.remove(number)
        frame, self.frames[page] = int(self.frames[page]), _NO_FRAME
        return frame

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

    def add_many(self, serial: int, oids: np.ndarray, indexes: np.ndarray, frames: np.ndarray,
                 ephemeral: bool) -> np.ndarray:
        """Enter pages with new handles, all different; return their numbers."""
        numbers = self._objects_of(serial, oids)
        unknown = numbers == NONE
        if unknown.any():
            fresh = oids[unknown][:1] if (oids == oids[0]).all() else oids[unknown]
            self.objects.insert_many(np.unique(_object_keys(serial, fresh), axis=0))
            numbers = self._objects_of(serial, oids)
        pages = self.pages.insert_many(_page_keys(numbers, indexes))
        self._cover()
        np.add.at(self.object_pages, numbers, 1)
        self.frames[pages] = frames
        if ephemeral:
            self.ages.join(pages)
        return pages

    def drop_many(self, pages: np.ndarray) -> list[int]:
        """Take pages, all different, out and return their frames."""
        numbers = (self.pages.keys[pages, 0] >> np.uint64(32)).astype(np.int64)
        self.pages.remove_many(pages)
        self.ages.leave(pages)
        np.subtract.at(self.object_pages, numbers, 1)
        empty = numbers[self.object_pages[numbers] == 0]
        if len(empty):
            self.objects.remove_many(np.unique(empty))
        frames = self.frames[pages].tolist()
        self.frames[pages] = _NO_FRAME
        return frames

    def serials_of(self, pages: np.ndarray) -> np.ndarray:
        """Return the pool serials (uint64) of pages."""
        return self.objects.keys[(self.pages.keys[pages, 0] >> np.uint64(32)).astype(np.int64), 0]

    def of_object(self, serial: int, oid: Oid) -> np.ndarray:
        """Return the pages of one object."""
        number = self.objects.find((serial, *oid))
        stored = np.flatnonzero(self.frames != _NO_FRAME)
        return stored[self.pages.keys[stored, 0] >> np.uint64(32) == number] if number != NONE else stored[:0]

    def of_pool(self, serial: int) -> np.ndarray:
        """Return the pages of one pool."""
        stored = np.flatnonzero(self.frames != _NO_FRAME)
        return stored[self.serials_of(stored) == serial]

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        stored = np.flatnonzero(self.frames != _NO_FRAME)
        problems = self.ages.audit()
        if len(stored) != len(self.pages):
            problems.append(f"catalogue: {len(self.pages)} handles, {len(stored)} pages with frames")
        if len(np.unique(self.frames[stored])) != len(stored):
            problems.append("catalogue: one frame holds two pages")
        if int(self.object_pages.sum()) != len(stored) or np.count_nonzero(self.object_pages) != len(self.objects):
            problems.append(f"catalogue: objects count {int(self.object_pages.sum())} pages of {len(stored)}")
        return problems


def _object_keys(serial: int, oids: np.ndarray) -> np.ndarray:
    return np.column_stack((np.full(len(oids), serial, np.uint64), oids))


def _page_keys(objects: np.ndarray, indexes: np.ndarray) -> np.ndarray:
    return (objects.astype(np.uint64) << np.uint64(32) | indexes).reshape(-1, 1)
