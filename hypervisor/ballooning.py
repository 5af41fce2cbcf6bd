"""Ballooning, the host's half: every interval a controller decides (`hypervisor.policy.balloon`), and guests are told.

A target is a word that the guest maps read-only (`shm.target`).  Its balloon driver follows; one that does not, or is
late, has its pages taken by the hypervisor's own reclaim, which knows nothing of targets.  So nothing rests on the good
will of a guest, and nothing of what it says is looked at.

The active fraction is the host's own finding: of some pages, chosen anew each interval among those with a frame, the
referenced bits are cleared, and counted an interval later.  Where there are no access bits, only stores and accesses
that go through `guests.memory` are seen.
"""

import numpy as np

from hypervisor.domains import Domain
from hypervisor.ledger import Ledger
from hypervisor.policy.balloon import CONTROLLERS, Activity, BalloonCensus, Client, Rules

SAMPLE = 100                 # pages (Waldspurger 2002, 5.3)
TAXING = "shares"            # the controller that asks which pages are in use


class Ballooning:
    """The one writer of guests' targets, and of what was found of their activity."""

    def __init__(self, ledger: Ledger, domains: dict[int, Domain], rules: Rules) -> None:
        self.ledger, self.domains, self.rules = ledger, domains, rules
        self.activity: dict[int, Activity] = {}
        self._samples: dict[int, np.ndarray] = {}
        self._rng = np.random.default_rng(0)
        self._next = 0.0

    def tick(self, now: float) -> None:
        """Do what is due at `now` (seconds)."""
        if now < self._next:
            return
        self._next = now + self.rules.interval
        self.decide()

    def decide(self) -> None:
        """Look at all guests, and tell those whose target changes."""
        if self.rules.controller == TAXING:
            self._sample()
        for owner, pages in CONTROLLERS[self.rules.controller](self.census(), self.rules).items():
            self.domains[owner].target[0] = pages

    def census(self) -> BalloonCensus:
        clients = tuple(self._client(self.domains[number]) for number in sorted(self.domains))
        return BalloonCensus(clients, self.ledger.budget, self.ledger.free)

    def _client(self, domain: Domain) -> Client:
        return Client(domain.number, domain.pages, target=int(domain.target[0]) or domain.pages,
                      frames=self.ledger.held.get(domain.number, 0), shares=domain.weight or 1,
                      active=self.activity.get(domain.number, Activity()).active)

    def _sample(self) -> None:
        """Count the samples of the last interval, and begin new ones."""
        self.activity = {number: self._after(domain) for number, domain in self.domains.items()}
        self._samples = {number: self._begun(domain) for number, domain in self.domains.items()}

    def _after(self, domain: Domain) -> Activity:
        before = self.activity.get(domain.number, Activity())
        sample = self._samples.get(domain.number)
        if sample is None or not len(sample):
            return before
        return before.after(float(domain.referenced()[sample].mean()))

    def _begun(self, domain: Domain) -> np.ndarray:
        resident = np.flatnonzero(domain.resident_mask())
        sample = np.sort(self._rng.choice(resident, min(SAMPLE, len(resident)), replace=False))
        if len(sample):
            domain.unreference(sample)
        return sample
