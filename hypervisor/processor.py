"""What a guest's processor leaves to the hypervisor: trapped ESSA, diag 10, reset, and the release list.

    ESSA      an instruction that was trapped (or intercepted, its release list being full): carried out here
    RELEASE   CMM1's diag 10: the content of stable and unused pages is dropped
    RESET     of the processor: all pages are stable again (R22)
    leave     after every hypercall: what the release list names is freed, as KVM does at an intercept (R46)

Rule 1: the answer NO says that the guest's state lock could not be had: nothing was done, ask again.
Rule 2: exceptions are the guest's processor's to raise; here a bad order is EINVAL, a bad page EFAULT, no CMMA ENODEV.
"""

from collections.abc import Callable

import numpy as np

from hypervisor import usage
from hypervisor.cmm2 import Cmm2
from hypervisor.domains import Domain
from shm.abi import Op, Request, Status
from shm.facilities import Facilities
from shm.pagestate import Essa

Answer = tuple[int, int]
NOT_NOW: Answer = Status.NO, 0


class ProcessorCalls:
    """Carries out the hypercalls of guests' processors."""

    def __init__(self, cmm2: Cmm2, facilities: Facilities) -> None:
        self.cmm2 = cmm2
        self.facilities = facilities
        self.table: dict[Op, Callable[[Domain, Request], Answer]] = {
            Op.ESSA: self._essa, Op.RELEASE: self._release, Op.RESET: self._reset,
        }

    def _essa(self, domain: Domain, request: Request) -> Answer:
        """Execute an order on the pages in the transfer buffer; their old states come back there."""
        order, count = request.arguments
        if not self.facilities.cmma:
            return Status.ENODEV, 0
        if order not in self.facilities.orders:
            return Status.EINVAL, 0
        gfns = domain.transfer.gfns[:count].copy()
        status = _status_of(gfns, domain.pages)
        if status != Status.OK:
            return status, 0
        old = usage.essa(self.cmm2, domain, Essa(order), gfns)
        if old is None:
            return NOT_NOW
        domain.transfer.states[:count] = old
        return Status.OK, count

    def _release(self, domain: Domain, request: Request) -> Answer:
        """Drop the content of the pages in the transfer buffer; the value is how many had a frame or a copy."""
        gfns = domain.transfer.gfns[:request.arguments[0]].copy()
        status = _status_of(gfns, domain.pages)
        if status != Status.OK:
            return status, 0
        released = usage.recognise_zero(self.cmm2, domain, np.sort(gfns))
        return NOT_NOW if released is None else (Status.OK, released)

    def _reset(self, domain: Domain, _: Request) -> Answer:
        return (Status.OK, domain.pages) if usage.reset(self.cmm2, domain) else NOT_NOW

    def leave(self, domain: Domain) -> None:
        """Process the release list before the guest goes on; one whose lock cannot be had is processed next time."""
        releases = domain.releases
        if releases is None or not len(releases) or not domain.lock():
            return
        try:
            usage.void_zero(self.cmm2, domain, releases.listed(domain.pages))
            releases.clear()
        finally:
            domain.unlock()

    def free_copies(self, domain: Domain, gfns: np.ndarray) -> None:
        """Free void copies of `gfns` (sorted), listed or not: what was in the balloon is zero when it leaves it.

        An architected processor's are void for good, and are settled in their time.
        """
        if domain.releases is None or not domain.lock():
            return
        try:
            usage.void_zero(self.cmm2, domain, gfns)
        finally:
            domain.unlock()


def _status_of(gfns: np.ndarray, pages: int) -> Status:
    """Say whether all of `gfns` are the guest's (else EFAULT), and each is named once (else EINVAL)."""
    ordered = np.sort(gfns)
    if not len(ordered) or ordered[0] < 0 or ordered[-1] >= pages:
        return Status.EFAULT
    return Status.EINVAL if (ordered[1:] == ordered[:-1]).any() else Status.OK
