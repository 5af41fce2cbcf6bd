"""What the hypervisor's swap disk costs by a stated model, and who is charged.

Whoever is being served waits: for the pages read back for it, and for the pages written out to find it room.  What is
written in the background is nobody's wait, but the disk's time all the same (`busy_ns`).

    virtual    the wait goes to the guest's account, and nothing sleeps.  Guests' clocks are apart then, by what each
               has waited, so their requests have no common order: each guest finds the disk as if it were alone with
               it, and idle, since it waited for all it asked before.  A cost is so computed from the runs of one batch
    waited     the hypervisor really sleeps until the request is served, and all guests with it: it is one thread and
               reads its disk as it does without a model.  Guests wait for each other then, in one queue
"""

from collections.abc import Sequence
from time import monotonic_ns, sleep
from typing import TYPE_CHECKING

from shm.counters import Count, HostCount
from shm.diskcost import NANO, NONE, DiskModel, idle, served

if TYPE_CHECKING:
    from hypervisor.domains import Domain

_WAIT, _WORD = int(HostCount.SWAP_WAIT_NS), int(Count.VIRTUAL_SWAP_NS)


class SwapCost:
    """The account of one swap disk.  `client` is written by the event loop: whom it is serving."""

    def __init__(self, model: DiskModel = NONE, waited: bool = False) -> None:
        self.model, self.waited = model, waited
        self.client: Domain | None = None
        self.busy_ns = 0
        self._busy = self._idle = idle(model)

    def serve(self, lengths: Sequence[int]) -> None:
        """Let requests of `lengths` pages that come together take what they take."""
        if self.model.free or not lengths:
            return
        cost = self._sleep(lengths) if self.waited else served(self.model, self._idle, 0, lengths)[1]
        self.busy_ns += cost
        if self.client is not None:
            self._charge(self.client, cost)

    def _sleep(self, lengths: Sequence[int]) -> int:
        now = monotonic_ns()
        self._busy, end = served(self.model, self._busy, now, lengths)
        sleep((end - now) / NANO)
        return end - now

    def _charge(self, domain: "Domain", cost: int) -> None:
        """Note the wait, and tell the guest how far its clock is before the real one.

        The guest may have scribbled on its page: so the word there is written anew from our own account.
        """
        domain.counts.data[_WAIT] += cost
        if not self.waited:
            domain.counters.data[_WORD] = domain.counts.data[_WAIT]
