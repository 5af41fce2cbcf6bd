"""The tmem hypercalls of guests: single ones, and the entries of a multicall.

Widths were checked by the ABI; pools and slots are checked here and in the store.  Entries were copied out of the
transfer buffer before.  An operation that this release does not know is answered with 0, as Xen did (T28).
"""

from collections.abc import Callable
from itertools import pairwise
from time import monotonic_ns
from typing import NamedTuple

import numpy as np

from hypervisor.domains import Domain
from hypervisor.tmem.clients import ClientCount
from hypervisor.tmem.control import Control
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.numbers import are_rising
from hypervisor.tmem.singles import Window
from hypervisor.tmem.store import Store
from shm.abi import ENTRY, MULTICALL_LIMIT, U32, Op, Request, Status
from shm.counters import HostCount

Answer = tuple[int, int]     # status, value
Call = Callable[[Domain, tuple[int, ...]], Answer]
# Operation and pool of an entry, as one number.
_HEADS = np.dtype({"names": ["head"], "formats": ["<u8"], "offsets": [0], "itemsize": ENTRY.itemsize})
# What the n-th of a run has more than the first in the word of index and slot.
_STEPS = np.arange(MULTICALL_LIMIT, dtype=np.uint64) * np.uint64(1 << 32 | 1)
# Numbers, for an attribute of an enum costs half a microsecond, and comparing one a quarter.
_OK = int(Status.OK)
_PUT, _GET, _FLUSH = int(Op.PUT_PAGE), int(Op.GET_PAGE), int(Op.FLUSH_PAGE)
_PUTS = (_PUT, int(Op.NEW_PAGE), int(Op.WRITE))
_GETS = (_GET, int(Op.READ))
_FLUSHES = (_FLUSH, int(Op.FLUSH_OBJECT))
_BULK = (_PUT, _GET, _FLUSH)
_TC, _TT, _TE = int(ClientCount.TC), int(StoreCount.TT), int(StoreCount.TE)
_COUNT_PUTS, _COUNT_GETS, _COUNT_FLUSHES = (
    int(count) for count in (HostCount.TMEM_PUTS, HostCount.TMEM_GETS, HostCount.TMEM_FLUSHES))
_OURS = 200                  # operations from here on are not tmem's


class Run(NamedTuple):
    """Neighbouring entries: one operation on neighbouring pages of one object, in neighbouring slots."""

    op: int
    pool: int
    first: int               # index
    slot: int


class TmemCalls:
    """Carries tmem calls out.  `on` is false where the scheme has none: every one is ENODEV then (T8)."""

    def __init__(self, store: Store, control: Control, on: bool) -> None:
        self.store, self.control, self.on = store, control, on
        self.table: dict[Op, Call] = {
            Op.CONTROL: self._privileged(self._control), Op.AUTH: self._privileged(self._auth),
            Op.RESTORE_NEW: self._privileged(self._restore_new),
            Op.NEW_POOL: self._new_pool, Op.DESTROY_POOL: self._destroy_pool,
            Op.NEW_PAGE: self._new_page, Op.PUT_PAGE: self._put, Op.WRITE: self._write,
            Op.GET_PAGE: self._get, Op.READ: self._read,
            Op.FLUSH_PAGE: self._flush_page, Op.FLUSH_OBJECT: self._flush_object,
        }

    def answer(self, domain: Domain, request: Request) -> Answer:
        """Carry out one call; the value of a refused put says why (a Refusal)."""
        blocked = self._blocked(domain)
        if blocked:
            self._count_answers(1, 1)
            return blocked, 0
        start = monotonic_ns()
        try:
            status, value = self.table[request.op](domain, request.arguments)
        except OSError:                                      # the swap disk: what it holds is still there
            status, value = Status.EIO, 0
        self._count_answers(1, status < 0)
        _count_many(domain, request.op, 1, status == _OK)
        self._end(domain, start)
        return status, value

    def _blocked(self, domain: Domain) -> int:
        """Return the status that answers everything this guest asks, or 0."""
        if domain.moved is not None:
            return Status.EMOVED
        return 0 if self.on else Status.ENODEV

    def _end(self, domain: Domain, start: int) -> None:
        """Charge the time to the guest's client.  Between two calls nobody asks for room (T62)."""
        self.store.shelf.pressure.requester = None
        client = self.store.clients.known(domain.number)
        if client is not None:
            client.counts.data[_TC] += monotonic_ns() - start

    # pools, and what is the operator's

    def _privileged(self, call: Call) -> Call:
        """Refuse what is the operator's; Xen 4.2 did not (T28)."""
        def checked(domain: Domain, arguments: tuple[int, ...]) -> Answer:
            return call(domain, arguments) if self.store.rules.quirks else (Status.EPERM, 0)
        return checked

    def _control(self, _: Domain, arguments: tuple[int, ...]) -> Answer:
        status = self.control.hypercall(*arguments)
        return (status, 0) if status < 0 else (Status.OK, status)

    def _auth(self, _: Domain, arguments: tuple[int, ...]) -> Answer:
        client, first, second, allow = arguments
        return self.control.authorise(client, (first, second), bool(allow)), 0

    def _restore_new(self, _: Domain, arguments: tuple[int, ...]) -> Answer:
        client, number, flags, *_uuid = arguments
        return (Status.OK, number) if self.store.membership.restore_pool(client, number, flags) else (Status.EPERM, 0)

    def _new_pool(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        flags, *uuid = arguments
        return self.store.create_pool(domain.number, flags, (uuid[0], uuid[1]))

    def _destroy_pool(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        return self.store.destroy_pool(domain.number, arguments[0]), 0

    # single pages, in slot 0

    def _refusal(self, status: Status) -> Answer:
        return status, self.store.refusal if status < 0 and status != Status.ENODEV else 0

    def _put(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        pool, *oid, index = arguments
        return self._refusal(self.store.put(domain.number, pool, oid, index, domain.transfer.pages[0]))

    def _new_page(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        pool, *oid, index = arguments
        return self._refusal(self.store.new_page(domain.number, pool, oid, index))

    def _write(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        pool, *oid, index = arguments[:5]
        page, window = domain.transfer.pages[0], Window(*arguments[5:])
        status = self.store.write(domain.number, pool, oid, index, window, page)
        return self._refusal(status) if status != Status.EINVAL else (status, 0)

    def _get(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        pool, *oid, index = arguments
        return self.store.get(domain.number, pool, oid, index, domain.transfer.pages[0]), 0

    def _read(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        pool, *oid, index = arguments[:5]
        window = Window(*arguments[5:])
        return self.store.read(domain.number, pool, oid, index, window, domain.transfer.pages[0]), 0

    def _flush_page(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        pool, *oid, index = arguments
        return self.store.flush_page(domain.number, pool, oid, index), 0

    def _flush_object(self, domain: Domain, arguments: tuple[int, ...]) -> Answer:
        pool, *oid = arguments
        return self.store.flush_object(domain.number, pool, oid), 0

    # many

    def carry_out(self, domain: Domain, entries: np.ndarray) -> int:
        """Carry out `entries`, our own copy, in order; each gets its status, and its reason if it is a refused put.

        Return how many are OK.  Where all are, nobody looks at statuses and reasons, and they need not be right.
        """
        blocked = self._blocked(domain)
        if blocked:
            entries["status"], entries["reason"] = blocked, 0
            self._count_answers(len(entries), len(entries))
            return 0
        start, run = monotonic_ns(), _run(entries)
        if run is not None:
            done = self._carry_out_run(domain, run, entries)
        else:
            entries["reason"] = 0
            done = sum(self._group(domain, entries[rows]) for rows in _groups(entries))
        refused = done < len(entries) and np.count_nonzero(entries["status"] < 0)
        self._count_answers(len(entries), int(refused))
        self._end(domain, start)
        return done

    def _count_answers(self, count: int, negative: int) -> None:
        counts = self.store.counts.data
        counts[_TT] += count
        counts[_TE] += negative

    def _carry_out_run(self, domain: Domain, run: Run, entries: np.ndarray) -> int:
        """Carry out a run; return how many are OK."""
        count = len(entries)
        oids = np.ndarray((count, 3), np.uint64, entries, 8, (0, 8))         # the first one's, for all
        indexes = np.arange(run.first, run.first + count, dtype=np.uint64)
        slots = np.arange(run.slot, run.slot + count)
        return self._many(domain, run.op, run.pool, oids, indexes, slots, entries)

    def _group(self, domain: Domain, entries: np.ndarray) -> int:
        """Carry out neighbours of one operation on one pool; return how many are OK."""
        op, pool, slots = int(entries["op"][0]), int(entries["pool"][0]), entries["slot"].astype(np.int64)
        oids, indexes = entries["oid"], entries["index"].astype(np.uint64)
        if op in _BULK and slots.max() < MULTICALL_LIMIT and not _repeats(oids, indexes):
            return self._many(domain, op, pool, oids, indexes, slots, entries)
        for entry in entries:
            entry["status"], entry["reason"] = self._one_safely(domain, entry)
        done = int(np.count_nonzero(entries["status"] == _OK))
        _count_many(domain, op, len(entries), done)
        return done

    def _many(self, domain: Domain, op: int, pool: int, oids: np.ndarray, indexes: np.ndarray, slots: np.ndarray,
              entries: np.ndarray) -> int:
        """Carry out one operation on different pages of one pool; return how many are OK."""
        statuses: np.ndarray | int
        reasons: np.ndarray | int = 0
        if op == _PUT:
            statuses = self.store.put_many(domain.number, pool, oids, indexes, _rows(domain.transfer.pages, slots))
            reasons = self.store.reasons
        elif op == _GET:
            statuses = self._get_many(domain, pool, oids, indexes, slots, entries)
        else:
            statuses = self.store.flush_many(domain.number, pool, oids, indexes)
        done = int(np.count_nonzero(statuses == _OK))
        if done < len(slots):
            entries["reason"] = reasons
        entries["status"] = statuses
        _count_many(domain, op, len(slots), done)
        return done

    def _get_many(self, domain: Domain, pool: int, oids: np.ndarray, indexes: np.ndarray, slots: np.ndarray,
                  entries: np.ndarray) -> np.ndarray:
        try:
            return self.store.get_many(domain.number, pool, oids, indexes, domain.transfer.pages, slots)
        except OSError:                                      # some page of them: which, single gets tell
            return np.array([self._one_safely(domain, entry)[0] for entry in entries], np.int32)

    def _one_safely(self, domain: Domain, entry: np.void) -> Answer:
        try:
            return self._one(domain, entry)
        except OSError:
            return Status.EIO, 0

    def _one(self, domain: Domain, entry: np.void) -> Answer:
        """Carry out one entry; a slot outside the buffer is a bad frame (T28b, T37)."""
        op, number, pool = int(entry["op"]), domain.number, int(entry["pool"])
        oid, index, slot = entry["oid"].tolist(), int(entry["index"]), int(entry["slot"])
        page = domain.transfer.pages[slot] if slot < MULTICALL_LIMIT else None
        if op == Op.PUT_PAGE:
            return self._refusal(self.store.put(number, pool, oid, index, page))
        if op in (Op.GET_PAGE, Op.READ, Op.WRITE):
            return self._moved(domain, entry, page)
        if op in (Op.NEW_PAGE, Op.FLUSH_PAGE):
            return self.table[Op(op)](domain, (pool, *oid, index))
        if op == Op.FLUSH_OBJECT:
            return self._flush_object(domain, (pool, *oid))
        if op in (Op.CONTROL, Op.AUTH, Op.RESTORE_NEW):
            return Status.EPERM, 0
        return (Status.EINVAL, 0) if op >= _OURS or op in set(Op) else (Status.NO, 0)

    def _moved(self, domain: Domain, entry: np.void, page: np.ndarray | None) -> Answer:
        """Carry out an entry that moves a page, or a part of one, to or from a slot."""
        number, pool, oid, index = domain.number, int(entry["pool"]), entry["oid"].tolist(), int(entry["index"])
        window = Window(int(entry["offset"]), int(entry["slot_offset"]), int(entry["length"]))
        if page is None:
            return self._no_frame(domain, entry)
        if entry["op"] == Op.GET_PAGE:
            return self.store.get(number, pool, oid, index, page), 0
        if entry["op"] == Op.READ:
            return self.store.read(number, pool, oid, index, window, page), 0
        status = self.store.write(number, pool, oid, index, window, page)
        return self._refusal(status) if status != Status.EINVAL else (status, 0)

    def _no_frame(self, domain: Domain, entry: np.void) -> Answer:
        """Answer an entry whose slot is no page: a get takes nothing out (T28b), a write is a put that fails (T37)."""
        number, pool = domain.number, int(entry["pool"])
        if entry["op"] == Op.WRITE:
            return self._refusal(self.store.put(number, pool, entry["oid"].tolist(), int(entry["index"]), None))
        if self.store.pools.get(number, pool) is None:
            return Status.ENODEV, 0
        self.store.counts[StoreCount.CF] += 1
        return Status.EFAULT, 0


def _count_many(domain: Domain, op: int, count: int, done: int) -> None:
    """Count entries of one operation, of which `done` are OK."""
    counts = domain.counts.data
    if op in _FLUSHES:
        counts[_COUNT_FLUSHES] += count
    elif op in _PUTS or op in _GETS:
        asked = _COUNT_PUTS if op in _PUTS else _COUNT_GETS
        counts[asked] += count
        counts[asked + 1] += done


def _run(entries: np.ndarray) -> Run | None:
    """Return the run that all entries are; None: they are none."""
    count = len(entries)
    if not count:
        return None
    words = entries.view(np.uint64).reshape(count, -1)       # operation and pool, object id x 3, index and slot, others
    # As bytes: comparing arrays takes three times as long.
    if words[:, :4].tobytes() != words[0, :4].tobytes() * count:
        return None
    if (words[:, 4] - _STEPS[:count]).tobytes() != words[0, 4].tobytes() * count:
        return None
    head, place = words[0, 0:5:4].tolist()
    run = Run(head & U32, head >> 32, place & U32, place >> 32)
    fits = run.slot + count <= MULTICALL_LIMIT and run.first + count <= U32 + 1
    return run if fits and run.op in _BULK else None


def _groups(entries: np.ndarray) -> list[slice]:
    """Return runs of neighbouring entries with one operation and one pool."""
    if not len(entries):
        return []
    heads = entries.view(_HEADS)["head"]
    changes = heads[1:] != heads[:-1]
    if not changes.any():
        return [slice(0, len(entries))]
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(entries)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _repeats(oids: np.ndarray, indexes: np.ndarray) -> bool:
    """Say whether two handles of one pool are the same."""
    if are_rising(indexes):
        return False
    handles = np.column_stack((oids, indexes))
    return len(np.unique(handles, axis=0)) < len(handles)


def _rows(pages: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Return the pages of `slots`: a view where they are neighbours, which the store then copies once."""
    first, count = int(slots[0]), len(slots)
    neighbours = int(slots[-1]) - first == count - 1 and are_rising(slots)
    return pages[first:first + count] if neighbours else pages[slots]
