"""Targets of persistent tmem: how many pages each guest may put.  Pure: a census in, targets out.

    greedy         no targets: who comes first has all (Xen)
    static         the pool in equal parts, a guest each
    reconfigured   in equal parts among the guests that have used it; one that has not may begin with such a part
    demand         a guest whose puts were refused gets a share of the pool more, one with slack loses a share of its
                   target; what is too much in sum is cut pro rata

Source: SmarTmem (Garrido, Lastra and others, 2019), where they are greedy, static-alloc, reconf-static and smart-alloc.
A target below what a guest holds takes nothing from it: persistent pages are kept, and further puts refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

RAISE = 50                   # demand: one page in so many of the pool, an interval (2 %)
LOWER = 50                   # ... of a target that has slack
SLACK = 50                   # ... which it has when that much of the pool lies between it and what is held


@dataclass(frozen=True, slots=True)
class Putter:
    """One guest; sizes in pages."""

    owner: int
    target: int              # that it had until now; 0 at first
    held: int                # persistent pages
    refused: int             # puts refused for want of room since the last time
    used: bool               # it has put, or tried to


@dataclass(frozen=True, slots=True)
class TargetCensus:
    guests: tuple[Putter, ...]
    pool: int                # persistent pages that all guests may hold together


Targets = dict[int, int]     # owner -> pages
TargetPolicy = Callable[[TargetCensus], Targets]


def static(census: TargetCensus) -> Targets:
    """Deal the pool out to all guests alike."""
    return {guest.owner: census.pool // len(census.guests) for guest in census.guests}


def reconfigured(census: TargetCensus) -> Targets:
    """Deal the pool out to those that use it."""
    users = sum(guest.used for guest in census.guests)
    return {guest.owner: census.pool // (users if guest.used else users + 1) for guest in census.guests}


def demand(census: TargetCensus) -> Targets:
    """Raise where puts were refused, lower where there is slack, and keep the sum within the pool."""
    wanted = {guest.owner: _demanded(guest, census.pool) for guest in census.guests}
    total = sum(wanted.values())
    if total <= census.pool:
        return wanted
    return {owner: pages * census.pool // total for owner, pages in wanted.items()}


def _demanded(guest: Putter, pool: int) -> int:
    if guest.refused:
        return guest.target + max(1, pool // RAISE)
    if guest.target - guest.held > max(1, pool // SLACK):
        return guest.target - max(1, guest.target // LOWER)
    return guest.target


# Greedy is no policy: there is nothing to decide.
TARGET_POLICIES: dict[str, TargetPolicy | None] = {
    "greedy": None, "static": static, "reconfigured": reconfigured, "demand": demand}
