"""One pool of tmem: put, get, flush; parts of pages; single, or many as one multicall.

A put may be refused at any time, and a page put into an ephemeral pool may be gone at the next get: callers cope.  A
get takes the page out of a private ephemeral pool, and leaves it in any other.  Object ids are 3 x 64 bits (an int
stands for (id, 0, 0)), indexes 32.

Rule 1: a refused put, whole or part, is False and never an exception, and nothing is stored under the handle then.
        `refusal` says why the last one was; `refusals` says it of each page of the last `put_many`.
Rule 2: a flush is done whatever its answer, also while the pool is frozen (T42).
Rule 3: a page that the hypervisor has on its disk and cannot read now is an OSError, and neither a miss nor lost.
Rule 4: what cannot be a handle or a page is a ValueError before anything is sent.
"""

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guests.handles import Oid, check_part, checked_index, handles_of, parts_of, words_of
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, Op, Refusal, Reply, Status
from shm.errors import TmemRefused

if TYPE_CHECKING:
    from guests.tmem import TmemClient

ENDING = (int(Status.ENODEV), int(Status.EIO))       # answers that end a batch
# An attribute of an enum costs half a microsecond.
_OK, _PUT, _GET = int(Status.OK), Op.PUT_PAGE, Op.GET_PAGE
_SLOTS = np.arange(MULTICALL_LIMIT, dtype=np.uint64) << np.uint64(32)


class Pool:
    """One pool, as the guest that made or joined it holds it."""

    def __init__(self, client: "TmemClient", number: int, persistent: bool, shared: bool = False) -> None:
        self.client = client
        self.number = number
        self.persistent = persistent
        self.shared = shared
        self.refusal = Refusal.NONE
        self.refusals = np.zeros(0, np.uint32)

    # one page

    def put(self, oid: Oid, index: int, page: bytes | np.ndarray) -> bool:
        """Store a copy of `page` (4096 bytes); False when refused, and then nothing is stored under the handle."""
        if len(page) != PAGE_SIZE:
            raise ValueError(f"a page is {PAGE_SIZE} bytes, not {len(page)}")
        words, index = words_of(oid), checked_index(index)
        self.client.transfer.first[:] = memoryview(page)     # type: ignore[arg-type]  # an array has a buffer
        return self._stored(self.client.call(_PUT, self.number, *words, index))

    def new_page(self, oid: Oid, index: int) -> bool:
        """Store a page of zeros; False when refused, as `put`."""
        return self._stored(self.client.call(Op.NEW_PAGE, self.number, *words_of(oid), checked_index(index)))

    def get(self, oid: Oid, index: int) -> bytes | None:
        """Return the page last put under the handle, or None."""
        reply = self.client.call(_GET, self.number, *words_of(oid), checked_index(index))
        return bytes(self.client.transfer.first) if self._checked(reply) == _OK else None

    def read(self, oid: Oid, index: int, offset: int, length: int) -> bytes | None:
        """Return `length` bytes of the page from `offset` on, or None; a get otherwise, of the whole page."""
        words, index = words_of(oid), checked_index(index)
        check_part(offset, length)
        reply = self.client.call(Op.READ, self.number, *words, index, offset, 0, length)
        return bytes(self.client.transfer.first[:length]) if self._checked(reply) == Status.OK else None

    def write(self, oid: Oid, index: int, offset: int, data: bytes | np.ndarray) -> bool:
        """Store `data` into the page from `offset` on; a new page is zero elsewhere.  False when refused, as `put`."""
        words, index = words_of(oid), checked_index(index)
        check_part(offset, len(data))
        self.client.transfer.first[:len(data)] = memoryview(data)    # type: ignore[arg-type]
        return self._stored(self.client.call(Op.WRITE, self.number, *words, index, offset, 0, len(data)))

    def flush(self, oid: Oid, index: int) -> None:
        """Make sure that the next get of the handle misses."""
        self._checked(self.client.call(Op.FLUSH_PAGE, self.number, *words_of(oid), checked_index(index)))

    def flush_object(self, oid: Oid) -> None:
        """Flush every index of one object."""
        self._checked(self.client.call(Op.FLUSH_OBJECT, self.number, *words_of(oid)))

    def destroy(self) -> None:
        """Flush all and give the pool's number back; TmemRefused while the guest is being migrated (T88)."""
        if self.client.call(Op.DESTROY_POOL, self.number).status == Status.EBUSY:
            raise TmemRefused(f"pool {self.number} cannot be destroyed while its guest is being migrated; try again")

    def _stored(self, reply: Reply) -> bool:
        if self._checked(reply) == _OK:
            return True
        self.refusal = Refusal(reply.value)
        return False

    def _checked(self, reply: Reply) -> int:
        if reply.status < 0:
            self._check(reply.status)
        return reply.status

    def _check(self, status: int) -> None:
        """Raise where the answer is neither a miss nor a refused put."""
        if status == Status.ENODEV:
            raise TmemRefused(f"pool {self.number} does not exist (destroyed?)")
        if status == Status.EIO:
            raise OSError(errno.EIO, "the hypervisor cannot read a page back from its swap disk; it is still there")

    # many: at most MULTICALL_LIMIT pages a hypercall

    def put_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray, pages: np.ndarray) -> np.ndarray:
        """Store copies of `pages` (n, 4096) under one object id, or under n (n, 3); return which were stored (bool)."""
        words, numbers = handles_of(oids, indexes)
        if pages.shape != (len(numbers), PAGE_SIZE):
            raise ValueError(f"{len(numbers)} pages are an array of {(len(numbers), PAGE_SIZE)}, not {pages.shape}")
        stored, self.refusals = np.ones(len(numbers), bool), np.zeros(len(numbers), np.uint32)
        for part in parts_of(len(numbers)):
            self.client.transfer.pages[:part.stop - part.start] = pages[part]
            answered = self._multicall(_PUT, words, numbers, part)
            if answered is not None:
                stored[part] = answered["status"] == _OK
                self.refusals[part] = answered["reason"]
                if not stored[part].all():
                    self.refusal = Refusal(int(self.refusals[part][~stored[part]][-1]))
        return stored

    def get_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which handles hit (bool) and the pages (n, 4096); rows of misses are zero."""
        words, numbers = handles_of(oids, indexes)
        hits, pages = np.ones(len(numbers), bool), np.empty((len(numbers), PAGE_SIZE), np.uint8)
        for part in parts_of(len(numbers)):
            answered = self._multicall(_GET, words, numbers, part)
            pages[part] = self.client.transfer.pages[:part.stop - part.start]
            if answered is not None:
                hits[part] = answered["status"] == _OK
                pages[part][~hits[part]] = 0
        return hits, pages

    def flush_many(self, oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> None:
        """Make sure that the next get of each handle misses."""
        words, numbers = handles_of(oids, indexes)
        for part in parts_of(len(numbers)):
            self._multicall(Op.FLUSH_PAGE, words, numbers, part)

    def _multicall(self, op: Op, words: np.ndarray, numbers: np.ndarray, part: slice) -> np.ndarray | None:
        """Have one operation carried out on a part of handles; return the answered entries, or None: all are OK.

        The next call overwrites them.  What the hypervisor alone writes, or other operations look at, stays as it is.
        """
        count = part.stop - part.start
        entries = self.client.transfer.words[:count]             # the first five of each: see ENTRY
        entries[:, 0] = op | self.number << 32
        entries[:, 1:4] = words if len(words) == 1 else words[part]
        np.bitwise_or(numbers[part], _SLOTS[:count], out=entries[:, 4])
        answered = self.client.multicall(count)
        if answered is not None:
            for status in ENDING:
                if (answered["status"] == status).any():
                    self._check(status)
        return answered
