"""Targets of persistent tmem, kept: what a policy is told and what it answered (`hypervisor.policy.targets`).

A put asks `left`.  A guest that is yet to be dealt its first target has none left; one that is not here (its pages are
being restored) is under no target.
"""

from collections.abc import Iterable

from hypervisor.policy.targets import TARGET_POLICIES, Putter, TargetCensus
from hypervisor.tmem.store import Store
from shm.abi import Refusal

INTERVAL_S = 0.2
# Reasons for which a guest could have used a larger target.
_FOR_WANT_OF_ROOM = (Refusal.TARGET, Refusal.RESERVED, Refusal.NO_FRAME)


class Targets:
    """The one writer of the targets.  `policy` is a row of TARGET_POLICIES."""

    def __init__(self, store: Store, policy: str) -> None:
        self.store, self.policy = store, TARGET_POLICIES[policy]
        self.targets: dict[int, int] = {}
        self._refused: dict[int, int] = {}                   # puts refused so far, when it was decided last
        self._used: set[int] = set()
        self._next = 0.0

    def tick(self, now: float, guests: Iterable[int], pool: int) -> None:
        """Decide if it is due at `now` (seconds); `pool` as in the census."""
        if self.policy is not None and now >= self._next:
            self._next = now + INTERVAL_S
            self.decide(guests, pool)

    def decide(self, guests: Iterable[int], pool: int) -> None:
        if self.policy is None:
            return
        putters = [self._putter(owner) for owner in sorted(guests)]
        self._used = {putter.owner for putter in putters if putter.used}
        self._refused = {putter.owner: self._refusals(putter.owner) for putter in putters}
        self.targets = self.policy(TargetCensus(tuple(putters), max(0, pool)))

    def left(self, owner: int) -> int | None:
        """Return how many persistent pages a guest may still put; None where nothing is said."""
        if self.policy is None:
            return None
        return self.targets.get(owner, 0) - self.store.pages_of(owner, persistent=True)

    def _putter(self, owner: int) -> Putter:
        held = self.store.pages_of(owner, persistent=True)
        refused = self._refusals(owner) - self._refused.get(owner, 0)
        return Putter(owner, self.targets.get(owner, 0), held, refused,
                      used=owner in self._used or held > 0 or refused > 0)

    def _refusals(self, owner: int) -> int:
        client = self.store.clients.known(owner)
        return 0 if client is None else sum(int(client.refusals[reason]) for reason in _FOR_WANT_OF_ROOM)
