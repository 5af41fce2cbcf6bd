"""The device behind a guest's disks: what their requests cost by a stated model, and in which time.

    virtual    the wait is added to a counter, and nothing sleeps.  The guest's clock is its real time plus these waits
    waited     it really sleeps until the model says that the request is served

Or it has no model, and `direct`: files are read and written past the machine's page cache, and cost what they take.

One device a guest: its file disks and its swap disk are parts of one, as partitions are, and share its queue.  The
guest's thread waits for each batch, writes too, since this guest kernel writes nothing behind its back; so what queues
is the runs of one batch.  What the pager reads it reads alone, the thread stands meanwhile: in virtual time that costs
what its counts say, and in waited time the pager sleeps (`pager_words`).
"""

from collections.abc import Sequence
from time import monotonic_ns, sleep

import numpy as np

from shm.counters import Count
from shm.diskcost import NANO, NONE, WAITED, DiskModel, idle, served

_DISK, _SWAP = int(Count.VIRTUAL_DISK_NS), int(Count.VIRTUAL_SWAP_NS)
_REQUESTS, _BLOCKS = int(Count.PAGER_DISK_REQUESTS), int(Count.PAGER_DISK_READS)


class Device:
    """One guest's disk device.  The only writer of VIRTUAL_DISK_NS and of its queue."""

    def __init__(self, counters: np.ndarray, model: DiskModel = NONE, waited: bool = False,
                 direct: bool = False) -> None:
        self.model, self.waited, self.direct = model, waited, direct
        self._counters = counters.data
        self._busy = idle(model)

    @classmethod
    def of(cls, counters: np.ndarray, model: DiskModel, time: str, direct: bool = False) -> "Device":
        return cls(counters, model, time == WAITED, direct)

    @property
    def costs(self) -> bool:
        return not self.model.free

    def serve(self, start: int, lengths: Sequence[int]) -> None:
        """Let requests of `lengths` blocks, begun together at `start` (monotonic_ns), take what they take."""
        if self.waited:
            self._busy, end = served(self.model, self._busy, start, lengths)
            sleep(max(0, end - monotonic_ns()) / NANO)
            return
        now = start + self.virtual_ns()
        self._busy, end = served(self.model, self._busy, now, lengths)
        self._counters[_DISK] += end - now

    def passed(self, requests: int) -> None:
        """Let requests of one block each, one after the other, have happened: computed from their count."""
        cost = self.model.alone_ns(requests, requests)
        if self.waited:
            sleep(cost / NANO)
        else:
            self._counters[_DISK] += cost

    def virtual_ns(self) -> int:
        """Return how far the guest's clock is before the real one: its own waits, its pager's, and its page-ins'."""
        counters = self._counters
        pager = 0 if self.waited else self.model.alone_ns(counters[_REQUESTS], counters[_BLOCKS])
        return counters[_DISK] + counters[_SWAP] + pager

    @property
    def pager_words(self) -> tuple[int, ...]:
        """What the pager is told: a request's latency and a block's transfer, to be slept; nothing in virtual time."""
        return (self.model.latency_ns, self.model.transfer_ns(1)) if self.waited and self.costs else ()
