"""Granting: frames for pages that a guest touched, or asked for, within the budget and its own max_mem.

One place for both ways in: the FAULT hypercall (software mode, and whoever wants many pages at once) and the faults of
the processor itself (hardware mode).
"""

from enum import Enum

import numpy as np

from hypervisor.cmm2 import Cmm2
from hypervisor.domains import MOST_PINS, Domain
from hypervisor.giving import Wanting
from hypervisor.reclaim import Reclaim
from hypervisor.tmem.store import Store
from shm.counters import HostCount
from shm.pagestate import Sr

LEAST_PINS, PIN_SHARE = 64, 8    # a guest may pin one page in eight, and 64 in any case


class Answer(Enum):
    GRANTED = 1              # as many as is said, perhaps not all
    AGAIN = 2                # a state changed, or a lock was held: look again
    NONE = 3                 # no frame, even after reclaim, or none within its max_mem


class Granting:
    """Finds room and has `cmm2` fill it."""

    def __init__(self, cmm2: Cmm2, reclaim: Reclaim, store: Store) -> None:
        self.cmm2, self.reclaim, self.store = cmm2, reclaim, store

    def grant(self, domain: Domain, wanting: Wanting) -> tuple[Answer, int]:
        """Give frames to stable pages that have none, as far as there are any; and how many got one."""
        count = self.room(domain, len(wanting.gfns))
        if not count and self.reclaim.contended:
            return Answer.AGAIN, 0
        try:
            granted = self.cmm2.grant(domain, wanting.first(count)) if count else 0
        except OSError:                  # /dev/shm is full, whatever the budget says
            count = granted = 0
        domain.counts[HostCount.REFUSED_FAULTS] += len(wanting.gfns) - count
        return (Answer.GRANTED if count else Answer.NONE), granted

    def room(self, domain: Domain, wanted: int) -> int:
        """Reserve up to `wanted` frames for a guest; return how many."""
        count = self._within_max_mem(domain, wanted)
        while count and not self.reclaim.room(domain.number, count):
            count //= 2
        return count

    def _within_max_mem(self, domain: Domain, count: int) -> int:
        """Return how many frames more a guest may hold beside its persistent pages (T67).

        Where that is too few, frames of its own go: what it stored has taken their place.
        """
        held = self.reclaim.ledger.held.get(domain.number, 0) + self.store.pages_of(domain.number, persistent=True)
        excess = held + count - domain.max_pages
        if excess <= 0:
            return count
        return max(0, min(count, count - excess + self.reclaim.from_guest(domain, excess)))

    def pin(self, domain: Domain, gfns: np.ndarray) -> bool:
        """Hold stable resident pages (sorted) against any eviction; False when some are not, or too many are held."""
        holds = domain.holds[gfns]
        held = np.count_nonzero(domain.holds & MOST_PINS) + np.count_nonzero(holds & MOST_PINS == 0)
        states = self.cmm2.states(domain, gfns)
        if states is None or (states != Sr).any() or (holds & MOST_PINS == MOST_PINS).any():
            return False
        if held > max(LEAST_PINS, domain.pages // PIN_SHARE):
            return False
        domain.holds[gfns] += 1
        return True

    def unpin(self, domain: Domain, gfns: np.ndarray) -> bool:
        """Let pages go that were pinned; False when some are not."""
        if (domain.holds[gfns] & MOST_PINS == 0).any():
            return False
        domain.holds[gfns] -= 1
        return True
