"""Reclaim: take a census, let the policy plan, carry the plan out, and say how far it got.

    background   after each round of the event loop, between two watermarks, so that a guest seldom waits
    direct       when a reservation does not fit: the guest that asked waits for it

A plan is a wish: states are looked up again when a frame is taken, a guest that holds its lock is passed by, the swap
disk may be full.  What is missing is planned again, a bounded number of times; what cannot be met, the caller refuses.
"""

from time import monotonic

import numpy as np

from hypervisor.cmm2 import Cmm2
from hypervisor.domains import Domain
from hypervisor.ledger import HEAP, Ledger
from hypervisor.policy import Policy
from hypervisor.policy.census import Census, Hand, Holding, Plan
from hypervisor.tmem.heap import Heap
from hypervisor.tmem.pressure import Pressure
from hypervisor.tmem.store import Store
from shm.counters import HostCount

PASSES = 4                   # plans made for one shortfall
LOW_SHARE = 64               # background reclaim starts when less than 1/64 of the budget is free ...
HIGH_FACTOR = 2              # ... and goes on until twice that is
LEAST_LOW = 8                # frames
BACKGROUND_BATCH = 512       # frames a round of the event loop
PAUSE_S = 0.05               # after a background run that found nothing


class Reclaim:
    """Finds frames.  Owns the clock's hand; all else belongs to the parts it is given."""

    def __init__(self, ledger: Ledger, domains: dict[int, Domain], cmm2: Cmm2, policy: Policy) -> None:
        self.ledger = ledger
        self.domains = domains
        self.cmm2 = cmm2
        self.policy = policy
        self.hand = Hand()
        self.heap: Heap | None = None            # set by the machine: heap and reclaim need each other
        self.store: Store | None = None
        self.background_runs = 0
        self.contended = False                   # the last shortfall was for want of a lock, or of a page at rest
        self._fruitless_until = 0.0              # nothing was to be had in the background: do not ask again before

    @property
    def low(self) -> int:
        return max(LEAST_LOW, self.ledger.budget // LOW_SHARE)

    def room(self, owner: int, frames: int) -> bool:
        """Reserve `frames` for `owner`, reclaiming if they are not free; say whether they were had."""
        if self.ledger.reserve(owner, frames):
            return True
        if owner != HEAP:
            self.pressure.took(None, frames)
            self.domains[owner].counts[HostCount.DIRECT_RECLAIMS] += 1
        self.free_up(frames - self.ledger.free + min(self.low, frames), insist=owner != HEAP, for_put=owner == HEAP)
        return self.ledger.reserve(owner, frames)

    def background(self) -> None:
        """Free some frames if fewer than the low watermark are free.

        It makes the room that was taken before: whose puts took it are those who ask, each for its part (T58).
        """
        if self.ledger.free >= self.low or monotonic() < self._fruitless_until:
            return
        self.background_runs += 1
        freed = 0
        for guest, frames in self.pressure.askers(min(BACKGROUND_BATCH, HIGH_FACTOR * self.low - self.ledger.free)):
            self.pressure.requester = guest
            freed += self.free_up(frames, for_put=True)
        self.pressure.requester = None
        if not freed:
            self._fruitless_until = monotonic() + PAUSE_S

    @property
    def pressure(self) -> Pressure:
        assert self.store is not None
        return self.store.shelf.pressure

    def free_up(self, wanted: int, insist: bool = True, for_put: bool = False) -> int:
        """Free `wanted` frames, or as many as can be had in a few plans; return how many.

        `insist`: stored pages go until they free frames.  Not for the heap: a put may be refused, a guest's memory not.
        `for_put`: it is a put's doing, and whose put it was may pay for it; else no guest pays more than others (T62).
        """
        if not for_put:
            self.pressure.requester = None
        freed, before = 0, self._contention()
        for _ in range(PASSES):
            plan = self.policy(self.census(), wanted - freed)
            freed += self.carry_out(plan, insist)
            if freed >= wanted or not plan.frames:
                break
        self.contended = freed < wanted and self._contention() > before
        return freed

    def _contention(self) -> int:
        """Count how often a guest's lock was passed by, or its store came between a page's copy and its eviction."""
        return sum(int(domain.counts[HostCount.LOCK_PASSED_BY] + domain.counts[HostCount.SWAP_RETRIES])
                   for domain in self.domains.values())

    def from_guest(self, domain: Domain, frames: int) -> int:
        """Take up to `frames` frames of one guest's own memory, by the same policy; return how many were taken."""
        swap, free = self.cmm2.swap, self.ledger.free
        census = Census(guests=(_holding(domain),), ephemeral=0, aged=0, heap_free=0,
                        can_preserve=swap is not None and swap.free > 0, hand=Hand(domain.number, domain.hand))
        plan, before = self.policy(census, frames), self._contention()
        self._take(plan)
        domain.hand = plan.hand.page
        self.contended = self.ledger.free - free < frames and self._contention() > before
        return self.ledger.free - free

    def _take(self, plan: Plan) -> None:
        """Do what a plan says of guests' pages."""
        for owner, pages in plan.evict:
            self.cmm2.evict(self.domains[owner], pages)
        for owner, pages in plan.unreference:
            _unreference(self.domains[owner], pages)

    def census(self) -> Census:
        """Count what there is.  No lock is taken: what is stale is looked up again before it is acted on."""
        assert self.store is not None and self.heap is not None
        swap = self.cmm2.swap
        return Census(
            guests=tuple(_holding(self.domains[number]) for number in sorted(self.domains)),
            ephemeral=self.store.ephemeral_frames(self.store.ephemeral),
            aged=self.store.ephemeral_frames(self.store.catalogue.ages.aged), heap_free=self.heap.spare,
            can_preserve=swap is not None and swap.free > 0, hand=self.hand, lasting=self.store.lasting,
        )

    def carry_out(self, plan: Plan, insist: bool = True) -> int:
        """Do what `plan` says, as far as it still can be done; return the frames freed."""
        assert self.store is not None and self.heap is not None
        free = self.ledger.free
        self.heap.trim(plan.trim)
        self._take(plan)
        if plan.ephemeral:
            self.store.evict_frames(plan.ephemeral, insist)
            self.heap.trim(plan.ephemeral)
        if plan.write_back:
            self.heap.trim(self.store.write_back(plan.write_back, insist))
        if plan.passed_ephemeral:
            self.store.pass_hand()
        self.hand = plan.hand
        return self.ledger.free - free


def _holding(domain: Domain) -> Holding:
    if domain.hardware is not None and domain.hardware.restoring:
        domain.hardware.collect(domain)
    referenced = domain.referenced()
    spared = (domain.grace.current() & ~referenced) | (domain.holds != 0)
    return Holding(domain.number, domain.map.states(slice(None)), referenced, spared)


def _unreference(domain: Domain, pages: np.ndarray) -> None:
    """Clear referenced bits.  Grace ends with the access."""
    domain.grace.mask[pages] = False
    domain.unreference(pages)
