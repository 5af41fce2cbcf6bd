"""Giving: frames for a guest's pages, in both fault modes.  One half of the host's CMM2; the other takes them, `Cmm2`.

    software    the frame is allocated and filled by descriptor, and `content` := r comes last
    hardware    the page is filled through the guest's userfaultfd, which lets the toucher go on

Frames are reserved in the ledger before: who finds room is `Granting`.
"""

from dataclasses import dataclass

import numpy as np

from hypervisor.domains import NO_SLOT, RESTORING, Domain
from hypervisor.ledger import Ledger
from hypervisor.mapping import Mapping, Unmapped
from hypervisor.swap import SwapDisk
from hypervisor.swapcost import SwapCost
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.counters import HostCount
from shm.pagestate import GUEST_CHANGE, HOST_CHANGE, PRESERVED, REFERENCED, RELEASED, RESIDENT, ZERO, Deed, Sp, Sz, Vz

_NO_PAGES = np.empty((0, PAGE_SIZE), np.uint8)


@dataclass(frozen=True, slots=True)
class Wanting:
    """Stable pages without a frame, and what they were when looked at."""

    gfns: np.ndarray             # sorted
    states: np.ndarray           # uint8: Sp or Sz

    def first(self, count: int) -> "Wanting":
        return Wanting(self.gfns[:count], self.states[:count])


class Giving:
    """Gives frames.  `swap` is None where the scheme has no hypervisor swap."""

    def __init__(self, ledger: Ledger, swap: SwapDisk | None, cost: SwapCost | None = None) -> None:
        self.ledger = ledger
        self.swap = swap
        self.cost = cost or SwapCost()           # the swap disk's, also where another part alone has a swap disk
        self.doomed: dict[Domain, str] = {}      # guests whose memory is not what they said: to be ended, and why

    def wanting(self, domain: Domain, gfns: np.ndarray) -> Wanting | None:
        """Return which of `gfns` (sorted) are stable and without a frame; None while the lock cannot be had."""
        states = self.states(domain, gfns)
        if states is None:
            return None
        wanted = (states == Sp) | (states == Sz)
        return Wanting(gfns[wanted], states[wanted])

    def states(self, domain: Domain, gfns: np.ndarray) -> np.ndarray | None:
        """Return the states of `gfns` (sorted); None while the lock cannot be had.

        Void copies among them are settled on the way, so that such a page is zero-filled and not brought back.
        """
        if not domain.lock():
            return None
        try:
            usage, content = domain.map.usage[gfns], domain.map.content[gfns]
            self._void(domain, domain.off_list(gfns[(content == PRESERVED) & (usage & RELEASED != 0)]))
            return domain.map.states(gfns)
        finally:
            domain.unlock()

    def grant(self, domain: Domain, wanting: Wanting) -> int:
        """Give frames, reserved in the ledger already, to pages that were wanting; return how many got one.

        OSError (ENOSPC: /dev/shm is full) leaves everything as it was.  Race: the guest's word may change until the
        second lookup (another of its threads sets U, say, and S again: then the copy is void).  So frames are filled
        first, and content := r is written last, under the lock, where the state is still the one filled for.
        """
        if domain.mapping is not None:
            return self._grant_mapped(domain, domain.mapping, wanting)
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

    def _grant_mapped(self, domain: Domain, mapping: Mapping, wanting: Wanting) -> int:
        """Grant in hardware mode: look up, fill, content := r, all under the lock.

        Race: the fill lets the touching thread go on before `content` says r.  What it then asks of the page's state it
        asks under the lock, so after us; and a store of its needs no state.  So what was filled before a fill fails is
        never taken back: somebody may have stored to it.  The kernel is asked which pages those are.
        """
        away = wanting.gfns[wanting.states == Sp]
        try:
            pages = self.swap.read(domain.slots[away]) if len(away) and self.swap is not None else _NO_PAGES
        except OSError:
            self.ledger.release(domain.number, len(wanting.gfns))
            raise
        if not domain.lock():
            self.ledger.release(domain.number, len(wanting.gfns))
            return 0
        problem: OSError | Unmapped | None = None
        try:
            same = domain.map.states(wanting.gfns) == wanting.states
            granted, zeros = wanting.gfns[same], wanting.gfns[same & (wanting.states == Sz)]
            still = same[wanting.states == Sp]
            try:
                mapping.zero(zeros)
                self._fill(domain, mapping, away[still], pages[still])
            except (OSError, Unmapped) as error:
                problem, granted = error, mapping.framed(granted)
                zeros = np.intersect1d(zeros, granted)
            domain.map.content[granted] = RESIDENT
            domain.map.usage[granted] &= 0xFF ^ (REFERENCED | HOST_CHANGE)
            domain.map.usage[zeros] |= GUEST_CHANGE          # not protected, so taken for changed
            domain.grace.begin(granted)
        finally:
            domain.unlock()
        domain.counts[HostCount.ZERO_FILLS] += len(zeros)
        domain.counts[HostCount.SWAP_IN] += len(granted) - len(zeros)
        self._release_slots(domain, granted)
        self.ledger.release(domain.number, len(wanting.gfns) - len(granted))
        self._blame(domain, problem, len(granted))
        return len(granted)

    def _blame(self, domain: Domain, problem: OSError | Unmapped | None, granted: int) -> None:
        """Say who is to blame that not all pages were filled: the guest, or the machine, which has no memory for it."""
        if isinstance(problem, Unmapped):
            self.doomed[domain] = str(problem)
        elif problem is not None and not granted and not isinstance(problem, ProcessLookupError):
            raise problem                                    # ESRCH: it is dying this very moment

    def _fill(self, domain: Domain, mapping: Mapping, gfns: np.ndarray, pages: np.ndarray) -> None:
        """Bring pages back; clean ones stay write-protected, so that their next store is noticed.  The lock is held."""
        clean = domain.map.usage[gfns] & GUEST_CHANGE == 0
        for protected, rows in ((True, clean), (False, ~clean)):
            mapping.fill(gfns[rows], np.ascontiguousarray(pages[rows]), protected)

    # hardware faults

    def begin_restore(self, domain: Domain, gfns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let the guest's pager fill discarded pages (sorted; frames are reserved): (pages, which of them are clean).

        They are resident from now on, and held: no eviction takes them until the kernel has their frames
        (`Hardware.collect`).  Race: make-stable finds them there and uses them; its touch then waits like any.
        """
        if not domain.lock():
            self.ledger.release(domain.number, len(gfns))
            return gfns[:0], gfns[:0]
        try:
            begun = gfns[(domain.map.states(gfns) == Vz) & (domain.holds[gfns] & RESTORING == 0)]
            self._release_slots(domain, begun)               # of void copies: who is a neighbour comes unsettled
            domain.map.content[begun] = RESIDENT
            domain.map.usage[begun] &= 0xFF ^ (REFERENCED | HOST_CHANGE | RELEASED)
            domain.holds[begun] |= RESTORING
            clean = domain.map.usage[begun] & GUEST_CHANGE == 0
        finally:
            domain.unlock()
        self.ledger.release(domain.number, len(gfns) - len(begun))
        return begun, clean

    def forsake(self, domain: Domain, gfn: int) -> bool:
        """Let a page be discarded again that its pager was to fill; False: somebody relies on it, or holds the lock.

        Punched before it is released: a pager may say one thing and have done another.
        """
        if not domain.lock():
            return False
        try:
            if domain.map.tables.deed[domain.map.pair_one(gfn)] not in (Deed.FREE, Deed.DISCARD):
                return False
            domain.map.content[gfn] = ZERO
            domain.holds[gfn] &= 0xFF ^ RESTORING
            self._give_back(domain, np.array([gfn]))
        finally:
            domain.unlock()
        return True

    def stored(self, domain: Domain, gfns: np.ndarray) -> bool:
        """Note that protected pages (sorted) are stored to, and let the stores go on; False without the lock.

        The bits are set before the protection is lifted: dying between the two leaves a page too dirty.
        """
        assert domain.mapping is not None
        if not domain.lock():
            return False
        try:
            domain.map.usage[gfns] |= REFERENCED | HOST_CHANGE | GUEST_CHANGE
            domain.mapping.unprotect(gfns)
        finally:
            domain.unlock()
        return True

    def _page_in(self, domain: Domain, wanting: Wanting) -> None:
        gfns = wanting.gfns[wanting.states == Sp]
        domain.counts[HostCount.ZERO_FILLS] += len(wanting.gfns) - len(gfns)
        if len(gfns) and self.swap is not None:
            domain.ram.write(runs(gfns), self.swap.read(domain.slots[gfns]))
            domain.counts[HostCount.SWAP_IN] += len(gfns)

    def free_slot(self, domain: Domain, gfn: int) -> None:
        """Free the swap slot of one page that was brought back."""
        if self.swap is not None:
            self.swap.release_one(int(domain.slots[gfn]))
        domain.slots[gfn] = NO_SLOT

    def _release_slots(self, domain: Domain, gfns: np.ndarray) -> None:
        paged = gfns[domain.slots[gfns] != NO_SLOT]
        if len(paged) and self.swap is not None:
            self.swap.release(domain.slots[paged])
            domain.slots[paged] = NO_SLOT

    def _give_back(self, domain: Domain, gfns: np.ndarray) -> None:
        """Punch the frames of `gfns` (sorted), then tell the ledger: it never claims too little."""
        if len(gfns):
            domain.ram.punch(runs(gfns))
            self.ledger.release(domain.number, len(gfns))

    def _void(self, domain: Domain, gfns: np.ndarray) -> int:
        """Free the swap slots of `gfns`, write z and clear the bit.  The lock is held."""
        if len(gfns) and self.swap is not None:
            self.swap.release(domain.slots[gfns])
            domain.slots[gfns] = NO_SLOT
            domain.map.content[gfns] = ZERO
            domain.map.usage[gfns] &= 0xFF ^ RELEASED
            domain.counts[HostCount.RELEASED] += len(gfns)
        return len(gfns)
