"""Hypercalls: each request is checked, carried out, and answered with a status.

A guest's numbers were checked for type and width by the ABI; here they are checked for meaning.  Entries and frame
numbers are copied out of the transfer buffer before anybody looks at them: the guest can change them at any time.
"""

from collections.abc import Callable

import numpy as np

from hypervisor.cmm2 import Cmm2
from hypervisor.domains import Domain
from hypervisor.reclaim import Reclaim
from hypervisor.tmem.calls import Answer, TmemCalls
from shm.abi import ENTRY, Op, Request, Status, decode_request, encode_reply, sequence_of
from shm.counters import HostCount
from shm.errors import BadHypercall, UnknownCall

# An attribute of an enum costs half a microsecond: every call looks at these.
_OK, _EEMPTY = int(Status.OK), int(Status.EEMPTY)
_HYPERCALLS, _MULTICALLS = int(HostCount.HYPERCALLS), int(HostCount.MULTICALLS)


class Dispatch:
    """Carries hypercalls out; those of tmem are `tmem`'s."""

    def __init__(self, cmm2: Cmm2, reclaim: Reclaim, tmem: TmemCalls) -> None:
        self.cmm2 = cmm2
        self.reclaim = reclaim
        self.tmem = tmem
        self._calls: dict[Op, Callable[[Domain, Request], Answer]] = {
            Op.PING: lambda domain, request: (Status.OK, 0),
            Op.FAULT: self._fault,
            Op.BALLOON: self._balloon,
            Op.MULTICALL: self._multicall,
        }
        self._calls.update(dict.fromkeys(tmem.table, tmem.answer))

    def answer(self, domain: Domain, message: bytes) -> bytes:
        """Return the reply to whatever bytes a guest has sent."""
        domain.counts.data[_HYPERCALLS] += 1
        try:
            request = decode_request(message)
        except UnknownCall:
            return encode_reply(sequence_of(message), Status.NO)
        except BadHypercall:
            domain.counts[HostCount.ERRORS] += 1
            return encode_reply(sequence_of(message), Status.EINVAL)
        status, value = self._calls[request.op](domain, request)
        if status < 0 and status != _EEMPTY:
            domain.counts[HostCount.ERRORS] += 1
        return encode_reply(request.seq, status, value)

    def _gfns(self, domain: Domain, count: int) -> np.ndarray | None:
        """Return the frame numbers in the transfer buffer, our own copy, each once; None when some are not its own."""
        gfns = domain.transfer.gfns[:count].copy()
        if len(gfns) > 1:
            gfns = np.unique(gfns)
        return gfns if len(gfns) and gfns[0] >= 0 and gfns[-1] < domain.pages else None

    def _fault(self, domain: Domain, request: Request) -> Answer:
        """Grant frames to the pages named in the transfer buffer; the value is how many got one now.

        OK with 0 says: look again (a state changed, or a lock was held: this guest's, or those of all that had frames
        to give; who keeps his is ended in the end).  ENOMEM: no frame, even after reclaim, or none within its max_mem.
        """
        gfns = self._gfns(domain, request.arguments[0])
        if gfns is None:
            return Status.EFAULT, 0
        wanting = self.cmm2.wanting(domain, gfns)
        if wanting is None or not len(wanting.gfns):
            return Status.OK, 0
        count = self._within_max_mem(domain, len(wanting.gfns))
        while count and not self.reclaim.room(domain.number, count):
            count //= 2
        if not count and self.reclaim.contended:
            return Status.OK, 0
        try:
            granted = self.cmm2.grant(domain, wanting.first(count)) if count else 0
        except OSError:                  # /dev/shm is full, whatever the budget says
            count = granted = 0
        domain.counts[HostCount.REFUSED_FAULTS] += len(wanting.gfns) - count
        return (Status.OK if count else Status.ENOMEM), granted

    def _within_max_mem(self, domain: Domain, count: int) -> int:
        """Return how many frames more a guest may hold beside its persistent pages (T67).

        Where that is too few, frames of its own go: what it stored has taken their place.
        """
        held = self.reclaim.ledger.held.get(domain.number, 0) + self.tmem.store.pages_of(domain.number, persistent=True)
        excess = held + count - domain.max_pages
        if excess <= 0:
            return count
        return max(0, min(count, count - excess + self.reclaim.from_guest(domain, excess)))

    def _balloon(self, domain: Domain, request: Request) -> Answer:
        """Take the frames of unused pages at once, so that they count as given back; the value is how many there were.

        EFAULT when some page is not the guest's, or not unused: nothing is taken then.
        """
        gfns = self._gfns(domain, request.arguments[0])
        if gfns is None or not self.cmm2.all_unused(domain, gfns):
            return Status.EFAULT, 0
        return Status.OK, self.cmm2.evict(domain, gfns)

    def _multicall(self, domain: Domain, request: Request) -> Answer:
        """Carry out the entries in order; each gets its status, the value is how many are OK."""
        count = request.arguments[0]
        entries = domain.transfer.words[:count].copy().view(ENTRY).reshape(-1)
        domain.counts.data[_MULTICALLS] += 1
        done = self.tmem.carry_out(domain, entries)
        if done == count:                # then no reason is looked at
            domain.transfer.entries["status"][:count] = _OK
        else:
            for answer in ("status", "reason"):
                domain.transfer.entries[answer][:count] = entries[answer]
        return _OK, done
