"""An ephemeral private pool of tmem on volatile pages of the guest's own memory: Liguori's claim, built (E1).

    put     the page is made stable, written, made volatile
    get     it is made stable if it was not discarded, read, made unused; a discarded one is a miss

Rule 1: a page of the region is either free (unused) or holds what one handle put (volatile).  It is stable only within
        a call here.
Rule 2: a put over a known handle writes to the page that the handle has, so its place in the order of puts stays
        (T36).  It replaces, or fails and the handle is gone: never the old bytes (T32, T33).
Rule 3: a put that finds the region full drops the oldest put, as tmem does when it has no frame (T56), and is stored:
        tmem refuses an ephemeral put only where nothing ephemeral is left to evict (T65).  Handles whose pages the
        host has discarded go first, if they are among the LOOK oldest.
Rule 4: a put for which the host has no frame is refused, as `Pool.put` is: False, and nothing is under the handle.
        A page that cannot be read for want of a frame is a miss.

Whoever stores to the region's pages meanwhile is answered with his own bytes: nothing here can notice (E2).
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from guests.handles import Oid, check_part, checked_index, handles_of, parts_of, words_of
from shm.abi import PAGE_SIZE, Refusal
from shm.errors import OutOfMemory, TmemRefused, UsageProblem
from shm.pagestate import DISCARDED, Essa
from shm.statemap import checked_gfns

if TYPE_CHECKING:
    from guests.guest import Guest

LOOK = 64                    # handles looked at for discarded ones before a living one is dropped
_ZEROS = bytes(PAGE_SIZE)

Words = tuple[int, int, int]
Handle = tuple[Words, int]


class VolatilePool:
    """A pool on `gfns` of a guest, which nobody else uses.  Its face is that of `guests.pool.Pool`."""

    persistent = shared = False

    def __init__(self, guest: "Guest", gfns: Sequence[int] | np.ndarray) -> None:
        numbers = checked_gfns(gfns, guest.pages)
        if not len(numbers):
            raise UsageProblem(f"guest {guest.name!r}: a pool on volatile pages needs one page at least")
        self._memory, self._essa, self._essa_one = guest.memory, guest.essa, guest.essa_one
        self._free = numbers[::-1].tolist()
        self._pages = dict[Handle, int]()            # handle -> gfn, in the order of first puts
        self._objects = dict[Words, set[int]]()
        self._open = True
        self.refusal = Refusal.NONE
        self.refusals = np.zeros(0, np.uint32)
        self._essa(Essa.SET_UNUSED, numbers)

    def __len__(self) -> int:
        """How many handles it remembers, those that the host has discarded among them."""
        return len(self._pages)

    # one page

    def put(self, oid: Oid, index: int, page: bytes | np.ndarray) -> bool:
        """Store a copy of `page` (4096 bytes); False when refused, and then nothing is stored under the handle."""
        if len(page) != PAGE_SIZE:
            raise ValueError(f"a page is {PAGE_SIZE} bytes, not {len(page)}")
        return self._store(self._handle(oid, index), 0, page)

    def new_page(self, oid: Oid, index: int) -> bool:
        """Store a page of zeros; False when refused, as `put`.  Here it costs a frame like any."""
        return self.put(oid, index, _ZEROS)

    def get(self, oid: Oid, index: int) -> bytes | None:
        """Return the page last put under the handle, and forget it; or None."""
        gfn = self._forget(self._handle(oid, index))
        if gfn is None:
            return None
        try:
            return self._memory.read(gfn) if self._stabilised(gfn) else None
        except OutOfMemory:
            return None
        finally:
            self._give_back([gfn])

    def read(self, oid: Oid, index: int, offset: int, length: int) -> bytes | None:
        """Return `length` bytes of the page from `offset` on, or None; a get otherwise, of the whole page."""
        check_part(offset, length)
        page = self.get(oid, index)
        return None if page is None else page[offset:offset + length]

    def write(self, oid: Oid, index: int, offset: int, data: bytes | np.ndarray) -> bool:
        """Store `data` into the page from `offset` on; a new page is zero elsewhere.  False when refused, as `put`."""
        check_part(offset, len(data))
        handle = self._handle(oid, index)
        gfn = self._pages.get(handle)
        if gfn is not None and self._stabilised(gfn):
            return self._store(handle, offset, data)
        whole = bytearray(PAGE_SIZE)
        whole[offset:offset + len(data)] = memoryview(data)  # type: ignore[arg-type]  # an array has a buffer
        return self._store(handle, 0, bytes(whole))

    def flush(self, oid: Oid, index: int) -> None:
        """Make sure that the next get of the handle misses."""
        self._drop([self._handle(oid, index)])

    def flush_object(self, oid: Oid) -> None:
        """Flush every index of one object."""
        self._check_open()
        words = words_of(oid)
        self._drop([(words, index) for index in self._objects.get(words, ())])

    def destroy(self) -> None:
        """Flush all; the pages are its owner's again, unused."""
        self._drop(list(self._pages))
        self._open = False

    # many: as one page after the other, but written and read together

    def put_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray, pages: np.ndarray) -> np.ndarray:
        """Store copies of `pages` (n, 4096) under one object id, or under n (n, 3); return which were stored (bool)."""
        handles = self._handles(oids, indexes)
        if pages.shape != (len(handles), PAGE_SIZE):
            raise ValueError(f"{len(handles)} pages are an array of {(len(handles), PAGE_SIZE)}, not {pages.shape}")
        stored, self.refusals = np.ones(len(handles), bool), np.zeros(len(handles), np.uint32)
        for part in parts_of(len(handles)):
            if not self._store_many(handles[part], pages[part]):
                stored[part] = [self._store(handle, 0, page)
                                for handle, page in zip(handles[part], pages[part], strict=True)]
        self.refusals[~stored] = Refusal.NO_FRAME
        return stored

    def get_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which handles hit (bool) and the pages (n, 4096), and forget them; rows of misses are zero."""
        handles = self._handles(oids, indexes)
        hits, pages = np.zeros(len(handles), bool), np.zeros((len(handles), PAGE_SIZE), np.uint8)
        found = [(row, gfn) for row, handle in enumerate(handles) if (gfn := self._forget(handle)) is not None]
        if not found:
            return hits, pages
        rows, gfns = np.array(found, np.int64).T
        there = self._essa(Essa.SET_STABLE_IF_NOT_DISCARDED, gfns) != DISCARDED
        try:
            pages[rows[there]] = self._memory.read_many(gfns[there])
            hits[rows[there]] = True
        except OutOfMemory:
            pass                                     # misses, all of them: no byte was read
        self._give_back(gfns.tolist())
        return hits, pages

    def flush_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> None:
        """Make sure that the next get of each handle misses."""
        self._drop(self._handles(oids, indexes))

    # handles

    def _check_open(self) -> None:
        if not self._open:
            raise TmemRefused("this pool does not exist (destroyed?)")

    def _handle(self, oid: Oid, index: int) -> Handle:
        self._check_open()
        return words_of(oid), checked_index(index)

    def _handles(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> list[Handle]:
        self._check_open()
        words, numbers = handles_of(oids, indexes)
        rows = [words_of(row) for row in words.tolist()]
        rows = rows * len(numbers) if len(rows) == 1 else rows
        return list(zip(rows, numbers.tolist(), strict=True))

    def _forget(self, handle: Handle) -> int | None:
        """Take a handle out and return its page, which is neither free nor known from then on."""
        gfn = self._pages.pop(handle, None)
        if gfn is not None:
            indexes = self._objects[handle[0]]
            indexes.discard(handle[1])
            if not indexes:
                del self._objects[handle[0]]
        return gfn

    def _drop(self, handles: Iterable[Handle]) -> None:
        self._give_back([gfn for handle in handles if (gfn := self._forget(handle)) is not None])

    def _give_back(self, gfns: list[int]) -> None:
        """Let pages be free: their bytes are worthless, and the host may have the frames."""
        if len(gfns) == 1:
            self._essa_one(Essa.SET_UNUSED, gfns[0])
        elif gfns:
            self._essa(Essa.SET_UNUSED, gfns)
        self._free += gfns

    # pages

    def _stabilised(self, gfn: int) -> bool:
        """Make a page stable if it was not discarded; say whether it is."""
        return self._essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, gfn) != DISCARDED

    def _page_of(self, handle: Handle) -> int:
        """Return the page of a handle, which is known from now on: its own, a free one, or the oldest one's."""
        gfn = self._pages.get(handle)
        if gfn is not None:
            return gfn
        if not self._free:
            self._make_room()
        gfn = self._pages[handle] = self._free.pop()
        self._objects.setdefault(handle[0], set()).add(handle[1])
        return gfn

    def _make_room(self) -> None:
        """Drop what the host has discarded, or else the oldest."""
        oldest = list(islice(self._pages.items(), LOOK))
        states = self._essa(Essa.GET_STATE, [gfn for _, gfn in oldest])
        dead = [handle for (handle, _), state in zip(oldest, states, strict=True) if state == DISCARDED]
        self._drop(dead or [oldest[0][0]])

    def _store(self, handle: Handle, offset: int, data: bytes | np.ndarray) -> bool:
        gfn = self._page_of(handle)
        self._essa_one(Essa.SET_STABLE, gfn)
        try:
            self._memory.write_part(gfn, offset, data)
        except OutOfMemory:
            self._drop([handle])
            self.refusal = Refusal.NO_FRAME
            return False
        self._essa_one(Essa.SET_VOLATILE, gfn)
        return True

    def _store_many(self, handles: list[Handle], pages: np.ndarray) -> bool:
        """Store a batch; False when the host has no frames for all of it, and none of its handles is known then.

        Of a handle that is there twice the last row counts, and of one that the batch itself has dropped none.
        """
        for handle in handles:
            self._page_of(handle)
        rows = {self._pages[handle]: row for row, handle in enumerate(handles) if handle in self._pages}
        gfns = np.fromiter(rows, np.int64, len(rows))
        self._essa(Essa.SET_STABLE, gfns)
        try:
            self._memory.write_many(gfns, pages[list(rows.values())])
        except OutOfMemory:
            self._drop(handles)
            return False
        self._essa(Essa.SET_VOLATILE, gfns)
        return True
