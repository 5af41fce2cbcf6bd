"""The host half of CMM2: what happens to a guest's frames.  `content` is written here and in its other half, `Giving`.

    evict     by the page's state: forget (U), discard (V, clean P), or preserve on the swap disk (S, dirty P)
    settle    take note of preserved copies that the guest has declared void (RELEASED)
    give up   drop what the guest does not want any more

The event loop is one thread: a frame is granted, punched and accounted by nobody else.  What runs beside it is the
guest, which reads `content` and writes `usage` under the state lock; each race with it is argued where it bites.
"""

from dataclasses import dataclass

import numpy as np

from hypervisor.domains import NO_SLOT, Domain
from hypervisor.giving import Giving
from hypervisor.mapping import Unmapped
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.counters import HostCount
from shm.pagestate import (
    CONTENT_MASK,
    HOST_CHANGE,
    PRESERVED,
    RELEASED,
    RESIDENT,
    STABLE,
    USAGE_MASK,
    VOLATILE,
    ZERO,
    Deed,
    Ur,
    Uz,
)

PRESERVE_BATCH = 64          # pages copied out under one hold of the lock: some 0.1 ms


@dataclass(frozen=True, slots=True)
class Copies:
    """Pages copied out of a guest's memory, about to be written to the swap disk."""

    gfns: np.ndarray
    pages: np.ndarray        # (n, 4096)


class Cmm2(Giving):
    """Carries host events out on domains."""

    def evict(self, domain: Domain, gfns: np.ndarray) -> int:
        """Take the frames of `gfns` (sorted), as far as their states allow now; return how many were taken."""
        taken = 0
        domain.collect()
        try:
            for at in range(0, len(gfns), PRESERVE_BATCH):
                taken += self._evict_batch(domain, gfns[at:at + PRESERVE_BATCH])
                if domain.lock_missed_since is not None:     # passed by: one wait for its holder is enough
                    break
        except Unmapped as error:
            self.doomed[domain] = str(error)
        except ProcessLookupError:                       # it is dying this very moment
            pass
        except OSError as error:                         # it is another guest's reclaim that this must not end
            if domain.mapping is None:
                raise
            self.doomed[domain] = f"its memory cannot be reclaimed: {error.strerror}"
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
            gfns = gfns[domain.holds[gfns] == 0]
            deeds = domain.map.tables.deed[domain.map.pairs(gfns)]
            freed = gfns[(deeds == Deed.FREE) | (deeds == Deed.DISCARD)]
            domain.map.content[freed] = ZERO
            # Race: a store between z and the punch.  In hardware mode nobody asks before he stores: a guest that read
            # z, made the page stable and stored to the old frame would lose it to a later punch.  So the punch comes
            # before the lock is given up: who reads z finds a hole.
            self._give_back(domain, freed)
            copies = self._copy_out(domain, gfns[deeds == Deed.PRESERVE])
        finally:
            domain.unlock()
        domain.counts[HostCount.FREED_UNUSED] += np.count_nonzero(deeds == Deed.FREE)
        domain.counts[HostCount.DISCARDS] += np.count_nonzero(deeds == Deed.DISCARD)
        return len(freed) + self._preserve(domain, copies)

    def _copy_out(self, domain: Domain, gfns: np.ndarray) -> Copies:
        """Copy stable pages out and clear their host-change bits.  The lock is held.

        Race: a store between the copy and the write's end.  Software: it sets host-change again, under the lock, and
        `_preserve` then gives the eviction up.  Hardware: the page is write-protected before it is read, so the store
        is a fault, which this thread resolves when it has settled the eviction: it stores to the page read back.  No
        completed store is lost (R19).  What is given up stays protected: its next store is one fault more.
        """
        if self.swap is None or not len(gfns):
            gfns = gfns[:0]
        if domain.mapping is not None:
            domain.mapping.protect(gfns)
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
            still &= domain.holds[gfns] == 0
            kept = gfns[still]
            domain.map.content[kept] = PRESERVED
            self._mark_stable(domain, kept)
            domain.slots[kept] = slots[still]
            self._give_back(domain, kept)
        finally:
            domain.unlock()
        self.swap.release(slots[~still])
        domain.counts[HostCount.SWAP_RETRIES] += np.count_nonzero(~still)
        return len(kept)

    def _mark_stable(self, domain: Domain, gfns: np.ndarray) -> None:
        """R16: a dirty P becomes S when it is preserved: the one usage change of the host's.  The lock is held."""
        domain.map.usage[gfns] &= 0xFF ^ (USAGE_MASK | RELEASED)
        domain.map.usage[gfns] |= STABLE

    def settle(self, domain: Domain) -> int:
        """Free the preserved copies that the guest has declared void; return how many."""
        suspects = np.flatnonzero(domain.map.content == PRESERVED)
        if not len(suspects) or not domain.lock():
            return 0
        try:
            return self._void(domain, domain.off_list(suspects[domain.map.usage[suspects] & RELEASED != 0]))
        finally:
            domain.unlock()

    def forget(self, domain: Domain) -> None:
        """Free what a dead guest held on the swap disk and in the ledger; its frames have been given back."""
        if self.swap is not None:
            self.swap.release(domain.slots[domain.slots != NO_SLOT])
            domain.slots[:] = NO_SLOT
        self.ledger.forget(domain.number)

    def give_up(self, domain: Domain, gfns: np.ndarray) -> int:
        """Drop the frames and copies of `gfns` (sorted), as far as nothing holds them; return how many there were.

        For who knows that their content is not wanted any more.  The lock is held.
        """
        domain.collect()                                     # a page that was just restored is held no more
        gfns = gfns[domain.holds[gfns] == 0]
        content = domain.map.content[gfns] & CONTENT_MASK
        framed = gfns[content == RESIDENT]
        domain.map.content[framed] = ZERO
        self._give_back(domain, framed)
        return len(framed) + self._void(domain, gfns[content == PRESERVED])
