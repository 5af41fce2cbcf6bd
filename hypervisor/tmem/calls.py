"""The tmem hypercalls of guests: single ones, and the entries of a multicall.

Widths were checked by the ABI; pools and slots are checked here and in the store.  Entries were copied out of the
transfer buffer before.  An operation that this release does not know is answered with 0, as Xen did (T28).
"""

from collections.abc import Callable
from itertools import pairwise
from time import monotonic_ns

import numpy as np

from hypervisor.domains import Domain
from hypervisor.tmem.clients import ClientCount
from hypervisor.tmem.control import Control
from hypervisor.tmem.shelf import StoreCount
from hypervisor.tmem.singles import Window
from hypervisor.tmem.store import Store
from shm.abi import ENTRY, MULTICALL_LIMIT, Op, Request, Status
from shm.counters import HostCount

Answer = tuple[int, int]     # status, value
Call = Callable[[Domain, tuple[int, ...]], Answer]
# Operation and pool of an entry, as one number.
_HEADS = np.dtype({"names": ["head"], "formats": ["<u8"], "offsets": [0], "itemsize": ENTRY.itemsize})
_PUTS = (Op.PUT_PAGE, Op.NEW_PAGE, Op.WRITE)
_GETS = (Op.GET_PAGE, Op.READ)
_FLUSHES = (Op.FLUSH_PAGE, Op.FLUSH_OBJECT)
_BULK = (Op.PUT_PAGE, Op.GET_PAGE, Op.FLUSH_PAGE)
_OURS = 200                  # operations from here on are not tmem's


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
            self.store.count(blocked)
            return blocked, 0
        start = monotonic_ns()
        try:
            status, value = self.table[request.op](domain, request.arguments)
        except OSError:                                      # the swap disk: what it holds is still there
            status, value = Status.EIO, 0
        self.store.count(int(status))
        _count(domain, request.op, status)
        self._end(domain, start)
        return status, value

    def _blocked(self, domain: Domain) -> int:
        """Return the status that answers everything this guest asks, or 0."""
        if domain.moved is not None:
            return Status.EMOVED
        return 0 if self.on else Status.ENODEV

    def _end(self, domain: Domain, start: int) -> None:
        """Charge the time to the guest's client.  Between two calls nobody asks for room (T62)."""
        self.store.shelf.requester = None
        client = self.store.clients.known(domain.number)
        if client is not None:
            client.counts[ClientCount.TC] += monotonic_ns() - start

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

    def carry_out(self, domain: Domain, entries: np.ndarray) -> None:
        """Carry out `entries`, our own copy, in order; each gets its status, and a refused put its reason."""
        entries["reason"] = 0
        blocked = self._blocked(domain)
        if blocked:
            entries["status"] = blocked
            self.store.count(entries["status"])
            return
        start = monotonic_ns()
        for rows in _groups(entries):
            self._group(domain, entries[rows])
        self.store.count(entries["status"])
        self._end(domain, start)

    def _group(self, domain: Domain, entries: np.ndarray) -> None:
        """Carry out neighbours of one operation on one pool."""
        op, pool, slots = int(entries["op"][0]), int(entries["pool"][0]), entries["slot"].astype(np.int64)
        oids, indexes = entries["oid"], entries["index"].astype(np.uint64)
        if op not in _BULK or slots.max() >= MULTICALL_LIMIT or _repeats(oids, indexes):
            for entry in entries:
                entry["status"], entry["reason"] = self._one_safely(domain, entry)
        elif op == Op.PUT_PAGE:
            pages = _rows(domain.transfer.pages, slots)
            entries["status"] = self.store.put_many(domain.number, pool, oids, indexes, pages)
            entries["reason"] = self.store.reasons
        elif op == Op.GET_PAGE:
            entries["status"] = self._get_many(domain, pool, oids, indexes, slots)
        else:
            entries["status"] = self.store.flush_many(domain.number, pool, oids, indexes)
        _count_many(domain, op, entries["status"])

    def _get_many(self, domain: Domain, pool: int, oids: np.ndarray, indexes: np.ndarray,
                  slots: np.ndarray) -> np.ndarray | int:
        try:
            return self.store.get_many(domain.number, pool, oids, indexes, domain.transfer.pages, slots)
        except OSError:
            return Status.EIO

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


def _count(domain: Domain, op: int, status: int) -> None:
    """Count one call of a guest's."""
    if op in _PUTS:
        domain.counts[HostCount.TMEM_PUTS] += 1
        domain.counts[HostCount.TMEM_PUTS_STORED] += status == Status.OK
    elif op in _GETS:
        domain.counts[HostCount.TMEM_GETS] += 1
        domain.counts[HostCount.TMEM_HITS] += status == Status.OK
    elif op in _FLUSHES:
        domain.counts[HostCount.TMEM_FLUSHES] += 1


def _count_many(domain: Domain, op: int, statuses: np.ndarray) -> None:
    """Count entries of one operation."""
    if op in _FLUSHES:
        domain.counts[HostCount.TMEM_FLUSHES] += len(statuses)
    elif op in _PUTS or op in _GETS:
        asked = HostCount.TMEM_PUTS if op in _PUTS else HostCount.TMEM_GETS
        domain.counts[asked] += len(statuses)
        domain.counts[asked + 1] += np.count_nonzero(statuses == Status.OK)


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
    if (indexes[1:] > indexes[:-1]).all():
        return False
    handles = np.column_stack((oids, indexes))
    return len(np.unique(handles, axis=0)) < len(handles)


def _rows(pages: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Return the pages of `slots`: a view where they are neighbours, which the store then copies once."""
    first, count = int(slots[0]), len(slots)
    return pages[first:first + count] if (slots[1:] - slots[:-1] == 1).all() else pages[slots]
