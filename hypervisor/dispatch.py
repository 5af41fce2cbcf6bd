"""Hypercalls: each request is checked, carried out, and answered with a status.

A guest's numbers were checked for type and width by the ABI; here they are checked for meaning.  Entries and frame
numbers are copied out of the transfer buffer before anybody looks at them: the guest can change them at any time.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from hypervisor.cmm2 import Cmm2
from hypervisor.domains import Domain
from hypervisor.reclaim import Reclaim
from hypervisor.tmem.store import Store
from shm.abi import ENTRY, MULTICALL_LIMIT, Op, Request, Status, decode_request, encode_reply, sequence_of
from shm.counters import HostCount
from shm.errors import BadHypercall

Answer = tuple[int, int]     # status, value
# Operation and pool of an entry, as one number.
_HEADS = np.dtype({"names": ["head"], "formats": ["<u8"], "offsets": [0], "itemsize": ENTRY.itemsize})
# What an entry of a multicall may ask, and where it is counted: asked, and done.
_COUNTED: dict[int, tuple[HostCount, HostCount | None]] = {
    Op.PUT_PAGE: (HostCount.TMEM_PUTS, HostCount.TMEM_PUTS_STORED),
    Op.GET_PAGE: (HostCount.TMEM_GETS, HostCount.TMEM_HITS),
    Op.FLUSH_PAGE: (HostCount.TMEM_FLUSHES, None),
}


class Dispatch:
    """Carries hypercalls out.  `tmem` is false where the scheme has none: every tmem call is ENODEV then (T8)."""

    def __init__(self, cmm2: Cmm2, reclaim: Reclaim, store: Store, tmem: bool) -> None:
        self.cmm2 = cmm2
        self.reclaim = reclaim
        self.store = store
        self.tmem = tmem
        self._calls: dict[Op, Callable[[Domain, Request], Answer]] = {
            Op.PING: lambda domain, request: (Status.OK, 0),
            Op.FAULT: self._fault,
            Op.MULTICALL: self._multicall,
            Op.NEW_POOL: self._new_pool,
            Op.DESTROY_POOL: self._destroy_pool,
            Op.PUT_PAGE: self._put,
            Op.GET_PAGE: self._get,
            Op.FLUSH_PAGE: self._flush_page,
            Op.FLUSH_OBJECT: self._flush_object,
        }

    def answer(self, domain: Domain, message: bytes) -> bytes:
        """Return the reply to whatever bytes a guest has sent."""
        domain.counts[HostCount.HYPERCALLS] += 1
        try:
            request = decode_request(message)
        except BadHypercall:
            domain.counts[HostCount.ERRORS] += 1
            return encode_reply(sequence_of(message), Status.EINVAL)
        status, value = self._calls[request.op](domain, request)
        if status < 0 and status != Status.EEMPTY:
            domain.counts[HostCount.ERRORS] += 1
        return encode_reply(request.seq, status, value)

    def _fault(self, domain: Domain, request: Request) -> Answer:
        """Grant frames to the pages named in the transfer buffer; the value is how many got one now.

        OK with 0 says: look again (a state changed, or the lock was held).  ENOMEM: no frame, even after reclaim.
        """
        gfns = domain.transfer.gfns[:request.arguments[0]].copy()
        if len(gfns) > 1:
            gfns = np.unique(gfns)
        if not len(gfns) or gfns[0] < 0 or gfns[-1] >= domain.pages:
            return Status.EFAULT, 0
        wanting = self.cmm2.wanting(domain, gfns)
        if wanting is None or not len(wanting.gfns):
            return Status.OK, 0
        count = len(wanting.gfns)
        while count and not self.reclaim.room(domain.number, count):
            count //= 2
        try:
            granted = self.cmm2.grant(domain, wanting.first(count)) if count else 0
        except OSError:                  # /dev/shm is full, whatever the budget says
            count = granted = 0
        domain.counts[HostCount.REFUSED_FAULTS] += len(wanting.gfns) - count
        return (Status.OK if count else Status.ENOMEM), granted

    def _new_pool(self, domain: Domain, request: Request) -> Answer:
        if not self.tmem:
            return Status.ENODEV, 0
        return self.store.create_pool(domain.number, request.arguments[0])

    def _destroy_pool(self, domain: Domain, request: Request) -> Answer:
        if not self.tmem:
            return Status.ENODEV, 0
        return self.store.destroy_pool(domain.number, request.arguments[0]), 0

    def _put(self, domain: Domain, request: Request) -> Answer:
        pool, *oid, index = request.arguments
        status = self.store.put(domain.number, pool, oid, index, domain.transfer.pages[0])
        domain.counts[HostCount.TMEM_PUTS] += 1
        domain.counts[HostCount.TMEM_PUTS_STORED] += status == Status.OK
        return status, 0

    def _get(self, domain: Domain, request: Request) -> Answer:
        pool, *oid, index = request.arguments
        status = self.store.get(domain.number, pool, oid, index, domain.transfer.pages[0])
        domain.counts[HostCount.TMEM_GETS] += 1
        domain.counts[HostCount.TMEM_HITS] += status == Status.OK
        return status, 0

    def _flush_page(self, domain: Domain, request: Request) -> Answer:
        pool, *oid, index = request.arguments
        domain.counts[HostCount.TMEM_FLUSHES] += 1
        return self.store.flush_page(domain.number, pool, oid, index), 0

    def _flush_object(self, domain: Domain, request: Request) -> Answer:
        pool, *oid = request.arguments
        domain.counts[HostCount.TMEM_FLUSHES] += 1
        return self.store.flush_object(domain.number, pool, oid), 0

    def _multicall(self, domain: Domain, request: Request) -> Answer:
        """Carry out the entries in order; each gets its status, the value is how many are OK."""
        count = request.arguments[0]
        entries = domain.transfer.entries[:count].copy()
        domain.counts[HostCount.MULTICALLS] += 1
        statuses = np.full(count, Status.EINVAL, np.int32)
        for rows in _groups(entries):
            statuses[rows] = self._group(domain, entries[rows])
        domain.transfer.entries["status"][:count] = statuses
        return Status.OK, int(np.count_nonzero(statuses == Status.OK))

    def _group(self, domain: Domain, entries: np.ndarray) -> np.ndarray:
        """Carry out neighbours of one operation on one pool."""
        op, pool, slots = int(entries["op"][0]), int(entries["pool"][0]), entries["slot"].astype(np.int64)
        if op not in _COUNTED:
            return np.full(len(entries), Status.EINVAL, np.int32)
        oids, indexes = entries["oid"], entries["index"].astype(np.uint64)
        if slots.max() >= MULTICALL_LIMIT or _repeats(oids, indexes):
            statuses = self._one_by_one(domain, op, pool, entries)
        elif op == Op.PUT_PAGE:
            statuses = self.store.put_many(domain.number, pool, oids, indexes, _rows(domain.transfer.pages, slots))
        elif op == Op.GET_PAGE:
            statuses = self.store.get_many(domain.number, pool, oids, indexes, domain.transfer.pages, slots)
        else:
            statuses = self.store.flush_many(domain.number, pool, oids, indexes)
        asked, done = _COUNTED[op]
        domain.counts[asked] += len(entries)
        if done is not None:
            domain.counts[done] += np.count_nonzero(statuses == Status.OK)
        return statuses

    def _one_by_one(self, domain: Domain, op: int, pool: int, entries: np.ndarray) -> np.ndarray:
        """Carry out entries of which two name one handle, or one names no page of the buffer (EFAULT; T28b, T37)."""
        return np.array([self._one(domain, op, pool, entry) for entry in entries], np.int32)

    def _one(self, domain: Domain, op: int, pool: int, entry: np.void) -> int:
        oid, index, slot = entry["oid"].tolist(), int(entry["index"]), int(entry["slot"])
        page = domain.transfer.pages[slot] if slot < MULTICALL_LIMIT else None
        if op == Op.PUT_PAGE:
            return self.store.put(domain.number, pool, oid, index, page)
        if op == Op.FLUSH_PAGE:
            return self.store.flush_page(domain.number, pool, oid, index)
        return Status.EFAULT if page is None else self.store.get(domain.number, pool, oid, index, page)


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
