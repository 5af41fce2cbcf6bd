"""Hypercalls: each request is checked, carried out, and answered with a status.

A guest's numbers were checked for type and width by the ABI; here they are checked for meaning.  Entries and frame
numbers are copied out of the transfer buffer before anybody looks at them: the guest can change them at any time.
"""

from collections.abc import Callable

import numpy as np

from hypervisor.domains import Domain
from hypervisor.faults import Faults
from hypervisor.granting import Answer as Grant
from hypervisor.granting import Granting
from hypervisor.processor import ProcessorCalls
from hypervisor.tmem.calls import Answer, TmemCalls
from shm.abi import ENTRY, Op, Request, Status, decode_request, encode_reply, sequence_of
from shm.counters import HostCount
from shm.errors import BadHypercall, UnknownCall

# An attribute of an enum costs half a microsecond: every call looks at these.
_OK, _EEMPTY = int(Status.OK), int(Status.EEMPTY)
_HYPERCALLS, _MULTICALLS = int(HostCount.HYPERCALLS), int(HostCount.MULTICALLS)


class Dispatch:
    """Carries hypercalls out; those of tmem are `tmem`'s."""

    def __init__(self, granting: Granting, faults: Faults, tmem: TmemCalls, processor: ProcessorCalls) -> None:
        self.granting, self.faults = granting, faults
        self.cmm2 = granting.cmm2
        self.tmem = tmem
        self.processor = processor
        self._calls: dict[Op, Callable[[Domain, Request], Answer]] = {
            Op.PING: lambda domain, request: (Status.OK, 0),
            Op.FAULT: self._fault,
            Op.BALLOON: self._balloon,
            Op.MULTICALL: self._multicall,
            Op.PIN: self._pin,
            Op.UNPIN: self._pin,
        }
        self._calls.update(processor.table)
        self._calls.update(dict.fromkeys(tmem.table, tmem.answer))

    def answer(self, domain: Domain, message: bytes) -> bytes:
        """Return the reply to whatever bytes a guest has sent."""
        domain.counts.data[_HYPERCALLS] += 1
        self.cmm2.cost.client = domain
        try:
            request = decode_request(message)
        except UnknownCall:
            return encode_reply(sequence_of(message), Status.NO)
        except BadHypercall:
            domain.counts[HostCount.ERRORS] += 1
            return encode_reply(sequence_of(message), Status.EINVAL)
        status, value = self._calls[request.op](domain, request)
        if domain.releases is not None:
            self.processor.leave(domain)
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

        In hardware mode the pager is told of those that were discarded, all at once: a touch then waits for it.
        OK with 0 says: look again (a state changed, or a lock was held: this guest's, or those of all that had frames
        to give; who keeps his is ended in the end).  ENOMEM: no frame, even after reclaim, or none within its max_mem.
        """
        gfns = self._gfns(domain, request.arguments[0])
        if gfns is None:
            return Status.EFAULT, 0
        if domain.hardware is not None:
            self.faults.restore(domain, gfns)
        wanting = self.cmm2.wanting(domain, gfns)
        if wanting is None or not len(wanting.gfns):
            return Status.OK, 0
        outcome, granted = self.granting.grant(domain, wanting)
        return (Status.ENOMEM if outcome is Grant.NONE else Status.OK), granted

    def _pin(self, domain: Domain, request: Request) -> Answer:
        """Hold pages stable and resident (PIN), or let them go (UNPIN).

        EFAULT: they are not its own, or not pinned.  ENOMEM: no frames for them all, or it pins as many as it may.
        """
        gfns = self._gfns(domain, request.arguments[0])
        if gfns is None:
            return Status.EFAULT, 0
        if request.op == Op.UNPIN:
            return (Status.OK if self.granting.unpin(domain, gfns) else Status.EFAULT), 0
        status, _ = self._fault(domain, request)
        if status != Status.OK or not self.granting.pin(domain, gfns):
            return Status.ENOMEM, 0
        return Status.OK, len(gfns)

    def _balloon(self, domain: Domain, request: Request) -> Answer:
        """Take the frames of unused pages at once, so that they count as given back; the value is how many there were.

        EFAULT when some page is not the guest's, or not unused: nothing is taken then.
        """
        gfns = self._gfns(domain, request.arguments[0])
        if gfns is None or not self.cmm2.all_unused(domain, gfns):
            return Status.EFAULT, 0
        self.processor.free_copies(domain, gfns)
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
