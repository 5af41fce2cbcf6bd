"""The host half of CMM2: what happens to a guest's frames.  Every change of `content` is made here.

    evict     by the page's state: forget (U), discard (V, clean P), or preserve on the swap disk (S, dirty P)
    fault     grant frames to stable pages that have none: zero-filled, or read back from the swap disk
    settle    take note of preserved copies that the guest has declared void (RELEASED)

The event loop is one thread: a frame is granted, punched and accounted by nobody else.  What runs beside it is the
guest, which reads `content` and writes `usage` under the state lock; each race with it is argued where it bites.
"""

from dataclasses import dataclass

import numpy as np

from hypervisor.domains import NO_SLOT, Domain
from hypervisor.ledger import Ledger
from hypervisor.swap import SwapDisk
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.counters import HostCount
from shm.pagestate import (
    HOST_CHANGE,
    PRESERVED,
    REFERENCED,
    RELEASED,
    RESIDENT,
    STABLE,
    USAGE_MASK,
    VOLATILE,
    ZERO,
    Deed,
    Sp,
    Sz,
    Ur,
    Uz,
)

PRESERVE_BATCH = 64          # pages copied out under one hold of the lock: some 0.1 ms


@dataclass(frozen=True, slots=True)
class Copies:
    """Pages copied out of a guest's memory, about to be written to the swap disk."""

    gfns: np.ndarray
    pages: np.ndarray        # (n, 4096)


@dataclass(frozen=True, slots=True)
class Wanting:
    """Stable pages without a frame, and what they were when looked at."""

    gfns: np.ndarray             # sorted
    states: np.ndarray           # uint8: Sp or Sz

    def first(self, count: int) -> "Wanting":
        return Wanting(self.gfns[:count], self.states[:count])


class Cmm2:
    """Carries host events out on domains.  `swap` is None where the scheme has no hypervisor swap."""

    def __init__(self, ledger: Ledger, swap: SwapDisk | None) -> None:
        self.ledger = ledger
        self.swap = swap

    def evict(self, domain: Domain, gfns: np.ndarray) -> int:
        """Take the frames of `gfns` (sorted), as far as their states allow now; return how many were taken."""
        taken = 0
        for at in range(0, len(gfns), PRESERVE_BATCH):
            taken += self._evict_batch(domain, gfns[at:at + PRESERVE_BATCH])
            if domain.lock_missed_since is not None:     # passed by: one wait for its holder is enough
                break
        return taken

    def all_unused(self, domain: Domain, gfns: np.ndarray) -> bool:
        """Say whether all of `gfns` are unused pages; not so while the lock cannot be had."""
        if not domain.lock():
            return False
        states = domain.map.states(gfns)
        domain.unlock()
        return bool(((states == Ur) | (states == Uz)).all())

    def _evict_batch(self, domain: Domain, gfns: np.ndarray) -> int:
        if not domain.lock():
            return 0
        try:
            # Race: make-stable overtaking a discard.  The plan that named these pages is old; state and deed are
            # looked up here, under the lock, and `content` is written before it is given up.  A guest that makes a
            # page stable before us keeps it; one that comes after us reads z, and knows.
            deeds = domain.map.tables.deed[domain.map.pairs(gfns)]
            freed = gfns[(deeds == Deed.FREE) | (deeds == Deed.DISCARD)]
            domain.map.content[freed] = ZERO
            copies = self._copy_out(domain, gfns[deeds == Deed.PRESERVE])
        finally:
            domain.unlock()
        domain.counts[HostCount.FREED_UNUSED] += np.count_nonzero(deeds == Deed.FREE)
        domain.counts[HostCount.DISCARDS] += np.count_nonzero(deeds == Deed.DISCARD)
        # Race: a touch between z and the punch.  None can come: an accessor looks the state up first, finds z, and asks
        # this very thread for a frame, which serves it only after the punch.
        self._give_back(domain, freed)
        return len(freed) + self._preserve(domain, copies)

    def _copy_out(self, domain: Domain, gfns: np.ndarray) -> Copies:
        """Copy stable pages out and clear their host-change bits.  The lock is held.

        Race: a store between the copy and the write's end.  It sets host-change again, under the lock, and `_preserve`
        then gives the eviction up: no completed store is lost (R19).
        """
        if self.swap is None or not len(gfns):
            gfns = gfns[:0]
        pages = np.empty((len(gfns), PAGE_SIZE), np.uint8)
        domain.ram.read(runs(gfns), pages)
        domain.map.usage[gfns] &= 0xFF ^ HOST_CHANGE
        volatile = (domain.map.usage[gfns] & USAGE_MASK) == VOLATILE
        domain.counts[HostCount.VOLATILE_SWAP_WRITES] += np.count_nonzero(volatile)
        return Copies(gfns, pages)

    def _preserve(self, domain: Domain, copies: Copies) -> int:
        """Write copies to the swap disk, then let the frames go whose pages did not change meanwhile."""
        if self.swap is None or not len(copies.gfns):
            return 0
        slots = self.swap.allocate(len(copies.gfns))
        gfns = copies.gfns[:len(slots)]
        domain.counts[HostCount.SWAP_FULL] += len(copies.gfns) - len(slots)
        try:
            self.swap.write(slots, copies.pages[:len(slots)])
        except OSError:                  # ENOSPC, EIO: the eviction is refused, and nothing is lost
            self.swap.release(slots)
            domain.counts[HostCount.SWAP_FULL] += len(slots)
            return 0
        domain.counts[HostCount.SWAP_OUT] += len(slots)
        return self._settle_preserved(domain, gfns, slots)

    def _settle_preserved(self, domain: Domain, gfns: np.ndarray, slots: np.ndarray) -> int:
        assert self.swap is not None
        if not domain.lock():
            self.swap.release(slots)
            return 0
        try:
            pairs = domain.map.pairs(gfns)
            still = (domain.map.tables.deed[pairs] == Deed.PRESERVE) & (pairs & HOST_CHANGE == 0)
            kept = gfns[still]
            domain.map.content[kept] = PRESERVED
            self._mark_stable(domain, kept)
            domain.slots[kept] = slots[still]
        finally:
            domain.unlock()
        self.swap.release(slots[~still])
        domain.counts[HostCount.SWAP_RETRIES] += np.count_nonzero(~still)
        self._give_back(domain, kept)
        return len(kept)

    def _mark_stable(self, domain: Domain, gfns: np.ndarray) -> None:
        """R16: a dirty P becomes S when it is preserved: the one usage change of the host's.  The lock is held."""
        domain.map.usage[gfns] &= 0xFF ^ (USAGE_MASK | RELEASED)
        domain.map.usage[gfns] |= STABLE

    def _give_back(self, domain: Domain, gfns: np.ndarray) -> None:
        """Punch the frames of `gfns` (sorted), then tell the ledger: it never claims too little."""
        if len(gfns):
            domain.ram.punch(runs(gfns))
            self.ledger.release(domain.number, len(gfns))

    def settle(self, domain: Domain) -> int:
        """Free the preserved copies that the guest has declared void; return how many."""
        suspects = np.flatnonzero(domain.map.content == PRESERVED)
        if not len(suspects) or not domain.lock():
            return 0
        try:
            return self._void(domain, suspects[domain.map.usage[suspects] & RELEASED != 0])
        finally:
            domain.unlock()

    def _void(self, domain: Domain, gfns: np.ndarray) -> int:
        """Free the swap slots of `gfns`, write z and clear the bit.  The lock is held."""
        if len(gfns) and self.swap is not None:
            self.swap.release(domain.slots[gfns])
            domain.slots[gfns] = NO_SLOT
            domain.map.content[gfns] = ZERO
            domain.map.usage[gfns] &= 0xFF ^ RELEASED
            domain.counts[HostCount.RELEASED] += len(gfns)
        return len(gfns)

    def wanting(self, domain: Domain, gfns: np.ndarray) -> Wanting | None:
        """Return which of `gfns` (sorted) are stable and without a frame; None while the lock cannot be had.

        Void copies among them are settled on the way, so that such a page is zero-filled and not brought back.
        """
        if not domain.lock():
            return None
        try:
            usage, content = domain.map.usage[gfns], domain.map.content[gfns]
            self._void(domain, gfns[(content == PRESERVED) & (usage & RELEASED != 0)])
            states = domain.map.states(gfns)
        finally:
            domain.unlock()
        wanted = (states == Sp) | (states == Sz)
        return Wanting(gfns[wanted], states[wanted])

    def grant(self, domain: Domain, wanting: Wanting) -> int:
        """Give frames, reserved in the ledger already, to pages that were wanting; return how many got one.

        OSError (ENOSPC: /dev/shm is full) leaves everything as it was.  Race: the guest's word may change until the
        second lookup (another of its threads sets U, say, and S again: then the copy is void).  So frames are filled
        first, and content := r is written last, under the lock, where the state is still the one filled for.
        """
        try:
            domain.ram.allocate(runs(wanting.gfns))
            self._page_in(domain, wanting)
        except OSError:
            self._give_back(domain, wanting.gfns)
            raise
        if not domain.lock():
            self._give_back(domain, wanting.gfns)
            return 0
        try:
            same = domain.map.states(wanting.gfns) == wanting.states
            granted = wanting.gfns[same]
            domain.map.content[granted] = RESIDENT
            domain.map.usage[granted] &= 0xFF ^ (REFERENCED | HOST_CHANGE)
            domain.grace.begin(granted)
        finally:
            domain.unlock()
        self._release_slots(domain, granted)
        self._give_back(domain, wanting.gfns[~same])
        return len(granted)

    def _page_in(self, domain: Domain, wanting: Wanting) -> None:
        gfns = wanting.gfns[wanting.states == Sp]
        domain.counts[HostCount.ZERO_FILLS] += len(wanting.gfns) - len(gfns)
        if len(gfns) and self.swap is not None:
            domain.ram.write(runs(gfns), self.swap.read(domain.slots[gfns]))
            domain.counts[HostCount.SWAP_IN] += len(gfns)

    def _release_slots(self, domain: Domain, gfns: np.ndarray) -> None:
        paged = gfns[domain.slots[gfns] != NO_SLOT]
        if len(paged) and self.swap is not None:
            self.swap.release(domain.slots[paged])
            domain.slots[paged] = NO_SLOT

    def forget(self, domain: Domain) -> None:
        """Free what a dead guest held on the swap disk and in the ledger; its frames have been given back."""
        if self.swap is not None:
            self.swap.release(domain.slots[domain.slots != NO_SLOT])
            domain.slots[:] = NO_SLOT
        self.ledger.forget(domain.number)

