"""The audit: the kernel's count of what is resident against the ledger.

Between two events of the loop they must be equal: only the loop allocates, and only the loop punches; a well-meaning
guest touches nothing that was not granted.  Kernel more than ledger in a guest's memory means that the guest took
frames behind our back (a mere read of a hole through a second mapping does): they are taken back, and it is ended.
Any other difference is our bug.
"""

from dataclasses import dataclass, field

import numpy as np

from hypervisor.domains import Domain
from hypervisor.ledger import HEAP, Ledger
from hypervisor.tmem.heap import Heap
from shm.abi import PAGE_SIZE
from shm.arena import no_room, runs
from shm.errors import UsageProblem


@dataclass
class Audit:
    """Checks, and what they found.  Written by the event loop alone."""

    ledger: Ledger
    domains: dict[int, Domain]
    heap: Heap
    checks: int = 0
    max_drift: int = 0                                       # frames, by our own fault
    kernel_peak: int = 0                                     # frames
    drifts: list[str] = field(default_factory=list)

    def kernel_frames(self) -> int:
        """Return what the kernel says is resident in the arena, and remember the most that was seen."""
        frames = self.heap.object.resident() + sum(domain.ram.resident() for domain in self.domains.values())
        self.kernel_peak = max(self.kernel_peak, frames)
        return frames

    def check(self) -> list[Domain]:
        """Compare every object with the ledger; return the guests that took frames, which have lost them again."""
        self.checks += 1
        thieves = [domain for domain in self.domains.values() if self._is_thief(domain)]
        # Race: a pager fills a page meanwhile.  What may be on its way is counted before the kernel is asked: what
        # comes in between is then too much allowed for, and never too little.
        under_way = {owner: self._on_their_way(owner) for owner in (HEAP, *self.domains)}
        for owner, resident in self._residents().items():
            drift = resident - self.ledger.held.get(owner, 0)
            self._note(owner, drift if drift > 0 else min(0, drift + under_way[owner]))
        return thieves

    def _on_their_way(self, owner: int) -> int:
        """Return how many frames a guest's pager may take this very moment: granted, and perhaps not yet resident."""
        domain = self.domains.get(owner)
        if domain is None or domain.hardware is None:
            return 0
        domain.hardware.collect(domain)
        return len(domain.hardware.restoring)

    def _residents(self) -> dict[int, int]:
        return {HEAP: self.heap.object.resident()} | {n: domain.ram.resident() for n, domain in self.domains.items()}

    def _is_thief(self, domain: Domain) -> bool:
        if domain.ram.resident() <= self.ledger.held.get(domain.number, 0):
            return False
        domain.ram.punch(runs(np.flatnonzero(~domain.resident_mask())))
        return True

    def _note(self, owner: int, drift: int) -> None:
        if drift:
            self.max_drift = max(self.max_drift, abs(drift))
            self.drifts.append(f"{'heap' if owner == HEAP else f'guest {owner}'}: kernel {drift:+d} frames")


def probe(heap: Heap) -> None:
    """Refuse a /dev/shm whose accounts cannot be trusted: one page must cost one page (no huge pages, no host swap)."""
    try:
        heap.object.allocate([(0, 1)])
    except OSError as error:
        raise no_room(1, error) from error
    resident = heap.object.resident()
    heap.object.punch([(0, 1)])
    if resident != 1:
        raise UsageProblem(f"/dev/shm gives {resident * PAGE_SIZE >> 10} KiB for one page (mounted with huge=...?): "
                           f"frames cannot be counted there; mount it with huge=never")
