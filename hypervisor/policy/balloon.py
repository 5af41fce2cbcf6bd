"""Balloon controllers: how many pages each guest is told to have.  Pure: a census in, targets that change out.

    timed    a pool that grows while frames are short, and drains while they are plentiful, by a step each time: CMM1's
             timed pool under VMRM (arch/s390/mm/cmm.c)
    shares   Waldspurger's (OSDI 2002): who pays least for its pages gives first (min-funding revocation), and a page
             that is not used costs k times as much (the idle tax)
    self     nothing: guests balloon themselves, by what they have promised (`guests.selfballoon`)

Frames are short below SOFT and plentiful above HIGH of the budget, as ESX has its states.  The hypervisor's own reclaim
keeps a smaller share free, so it takes what balloons are too late to give.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

SOFT, HIGH = 0.04, 0.06      # of the budget free (Waldspurger 2002, 6.3)
FLOOR = 8                    # a guest keeps one page in so many of its memory
CHUNKS = 16                  # a step is dealt in so many parts, each to the guest that the price then names
WORTH_MOVING = 1.25          # prices this far apart are worth an exchange while frames are neither short nor plentiful
SLOW, FAST = 1 / 8, 1 / 2    # what a sample weighs in the averages


@dataclass(frozen=True, slots=True)
class Client:
    """One guest; sizes in pages."""

    owner: int
    pages: int               # of its memory
    target: int              # that it was told to have, last
    frames: int              # that it holds
    shares: int              # at least 1
    active: float = 1.0      # the fraction of its pages that is in use

    @property
    def floor(self) -> int:
        return max(1, self.pages // FLOOR)


@dataclass(frozen=True, slots=True)
class BalloonCensus:
    clients: tuple[Client, ...]
    budget: int              # frames
    free: int                # ... of them nobody holds; negative while a lowered budget is being met

    @property
    def missing(self) -> int:
        """Frames that make it half-way between short and plentiful; 0 where it is neither, negative: too many."""
        if self.budget * SOFT <= self.free <= self.budget * HIGH:
            return 0
        return int(self.budget * (SOFT + HIGH) / 2) - self.free


class Rules(NamedTuple):
    """What a person may set."""

    controller: str = "shares"
    interval: float = 0.2    # seconds
    step: int = 2048         # pages that all guests together are asked for, or given, in one interval
    tax: float = 0.75        # tau: of an idle page; 0 is none, and shares alone decide


DEFAULT = Rules()
Targets = dict[int, int]     # owner -> pages to have
Controller = Callable[[BalloonCensus, Rules], Targets]


def timed(census: BalloonCensus, rules: Rules) -> Targets:
    """Let every pool grow by its part of a step, pro rata of the frames held; or drain, pro rata of the pool."""
    grow = census.missing > 0
    parts = {client.owner: client.frames if grow else client.pages - client.target for client in census.clients}
    total = sum(parts.values())
    if not census.missing or not total:
        return {}
    sign = -1 if grow else 1
    return _changed(census, {client.owner: client.target + sign * ceil(rules.step * parts[client.owner] / total)
                             for client in census.clients})


def price(shares: int, pages: int, active: float, tax: float) -> float:
    """Return the adjusted shares-per-page ratio: rho = S / (P (f + k (1 - f))), k = 1 / (1 - tau)."""
    return shares / (max(1, pages) * (active + (1 - active) / (1 - tax)))


def shares(census: BalloonCensus, rules: Rules) -> Targets:
    """Take from the cheapest while frames are short, give to the dearest while they are plentiful, else exchange."""
    chunk, missing = max(1, rules.step // CHUNKS), min(census.missing, rules.step)
    book = _Book(census, rules.tax, short=missing > 0)
    if missing > 0:
        while missing > 0 and (taken := book.revoke(min(chunk, missing))):
            missing -= taken
    elif missing < 0:
        spare = min(-missing, rules.step)
        while spare > 0 and (given := book.grant(min(chunk, spare))):
            spare -= given
    else:
        for _ in range(CHUNKS):
            if not book.exchange(chunk):
                break
    return _changed(census, book.pages)


class _Book:
    """Targets in the making.  A guest that is to give is held to what it has: its balloon may be made of nothing."""

    def __init__(self, census: BalloonCensus, tax: float, short: bool) -> None:
        self.clients, self.tax = census.clients, tax
        self.pages = {client.owner: client.target for client in census.clients}
        self.held = {client.owner: max(client.floor, min(client.target, client.frames)) if short else client.target
                     for client in census.clients}

    def price(self, client: Client, more: int = 0) -> float:
        """Return what a guest pays a page, if it had `more` pages."""
        return price(client.shares, self.held[client.owner] + more, client.active, self.tax)

    def revoke(self, count: int) -> int:
        """Take up to `count` pages from the guest that pays least a page; return how many, 0 when nobody has any."""
        able = [client for client in self.clients if self.held[client.owner] > client.floor]
        return self._move(min(able, key=self.price), -count) if able else 0

    def grant(self, count: int) -> int:
        """Give up to `count` pages to the guest that pays most a page; return how many, 0 when all have everything."""
        able = [client for client in self.clients if self.held[client.owner] < client.pages]
        return self._move(max(able, key=self.price), count) if able else 0

    def exchange(self, count: int) -> bool:
        """Move pages from the cheapest to the dearest, if it is worth it and neither overtakes the other."""
        givers = [client for client in self.clients if self.held[client.owner] >= client.floor + count]
        takers = [client for client in self.clients if self.held[client.owner] + count <= client.pages]
        if not givers or not takers:
            return False
        giver, taker = min(givers, key=self.price), max(takers, key=self.price)
        overtakes = self.price(taker, count) < self.price(giver, -count)
        if overtakes or self.price(taker) <= WORTH_MOVING * self.price(giver):
            return False
        self._move(giver, -count)
        self._move(taker, count)
        return True

    def _move(self, client: Client, count: int) -> int:
        before = self.held[client.owner]
        self.held[client.owner] = max(client.floor, min(client.pages, before + count))
        self.pages[client.owner] = self.held[client.owner]
        return abs(self.held[client.owner] - before)


def itself(*_: object) -> Targets:
    """Say nothing."""
    return {}


def _changed(census: BalloonCensus, wanted: Targets) -> Targets:
    """Return the targets that are others than before, each within its guest's bounds."""
    bounded = {client.owner: max(client.floor, min(client.pages, wanted[client.owner])) for client in census.clients}
    return {client.owner: bounded[client.owner] for client in census.clients
            if bounded[client.owner] != client.target}


CONTROLLERS: dict[str, Controller] = {"timed": timed, "shares": shares, "self": itself}


class Activity(NamedTuple):
    """Moving averages of the fraction of a guest's pages that were in use; a guest that is new counts as busy."""

    slow: float = 1.0
    fast: float = 1.0

    def after(self, sampled: float) -> "Activity":
        return Activity(self.slow + SLOW * (sampled - self.slow), self.fast + FAST * (sampled - self.fast))

    @property
    def active(self) -> float:
        """The larger: quick to see that a guest wakes, slow to believe that it sleeps."""
        return max(self.slow, self.fast)
