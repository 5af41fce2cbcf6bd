"""One clock over all frames: guest pages in the order of guest and page, then ephemeral pages oldest first.

The hand gives a second chance: it clears a referenced bit and moves on, and takes what it finds unreferenced.  An
ephemeral page counts as referenced from its put until the hand has passed the store once.

    hint-after-choice   U pages and free heap frames first; then the hand alone chooses, blind to what a page holds
                        (Schwidefsky, 3 and 6 Apr 2009; R20).  The executor reads off the hint what to do with a victim.
    u-e-v-p-s           the counterfactual: a kind is exhausted before the next is touched; the hand chooses within.
    biased              between the two (Jeremy Fitzhardinge was for a bias towards volatile pages, Schwidefsky against
                        any, 2009; E25): a part is chosen kind by kind, but no stable page; the rest blindly.

Pure: the arrays of the census are read, never written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from hypervisor.policy.census import EPHEMERAL, Census, Hand, Holding, Plan
from shm.pagestate import State

REVOLUTIONS = 2              # after two, every page has had its second chance
ROUNDING = 1e-9              # of a product of floats: a tenth of 30 is 3


def hint_after_choice(census: Census, wanted: int) -> Plan:
    """Plan to free `wanted` frames: what nobody wants first, then by the clock alone."""
    return _finish(_unwanted(census, wanted), census, wanted, [_blind(census)])


def u_e_v_p_s(census: Census, wanted: int) -> Plan:
    """Plan to free `wanted` frames kind by kind: unused, ephemeral, volatile, potentially volatile, stable."""
    kinds = _worthless()
    if census.can_preserve:
        kinds.append(_Choice(frozenset({State.Sr})))
    return _finish(_unwanted(census, wanted), census, wanted, kinds)


def biased(census: Census, wanted: int, bias: float) -> Plan:
    """Plan to free `wanted` frames: what nobody wants, then the share `bias` of the rest, rounded up, kind by kind.

    0 is hint-after-choice, 1 is u-e-v-p-s.  Between them the hand is the blind choice's: the other leaves it standing.
    """
    plan = _unwanted(census, wanted)
    preferred = ceil(bias * (wanted - plan.frames) - ROUNDING)
    return _finish(plan, census, wanted, [_blind(census)], _worthless(), preferred, keep_hand=bias < 1)


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the hand may take on a sweep."""

    states: frozenset[State]
    ephemeral: bool = False


def _blind(census: Census) -> _Choice:
    states = {State.Vr, State.Pr} | ({State.Sr} if census.can_preserve else set())
    return _Choice(frozenset(states), ephemeral=True)


def _worthless() -> list[_Choice]:
    """Return the kinds before stable, in their order."""
    return [_Choice(frozenset(), ephemeral=True), _Choice(frozenset({State.Vr})), _Choice(frozenset({State.Pr}))]


@dataclass(slots=True)
class _Sweep:
    """A plan in the making."""

    hand: Hand
    missing: int
    taken: dict[int, list[np.ndarray]] = field(default_factory=dict)
    cleared: dict[int, list[np.ndarray]] = field(default_factory=dict)
    ephemeral: int = 0
    aged: int = 0
    passed: bool = False


def _unwanted(census: Census, wanted: int) -> Plan:
    """Plan what costs nothing: the heap's free frames and unused pages, guest after guest."""
    trim = min(wanted, census.heap_free)
    missing, evict = wanted - trim, []
    for guest in census.guests:
        pages = np.flatnonzero(guest.states == State.Ur)[:missing]
        missing -= len(pages)
        if len(pages):
            evict.append((guest.owner, pages))
    return Plan(census.hand, trim, tuple(evict))


def _finish(plan: Plan, census: Census, wanted: int, choices: Sequence[_Choice], before: Sequence[_Choice] = (),
            preferred: int = 0, keep_hand: bool = False) -> Plan:
    """Add to `plan` what the hand takes for each choice in turn, and persistent tmem pages when all that is short.

    `preferred` of the frames are taken by the choices `before` these, as far as they have so many; with `keep_hand` the
    hand then stands where it stood.
    """
    sweep = _Sweep(census.hand, preferred, aged=census.aged)
    for choice in before:
        _turn(sweep, census, choice)
    if keep_hand:
        sweep.hand = census.hand
    sweep.missing += wanted - plan.frames - preferred
    for choice in choices:
        _turn(sweep, census, choice)
    return replace(
        plan, hand=sweep.hand, ephemeral=sweep.ephemeral, passed_ephemeral=sweep.passed,
        write_back=max(0, min(sweep.missing, census.lasting)),
        evict=plan.evict + _joined(sweep.taken), unreference=_joined(sweep.cleared),
    )


def _joined(pieces: dict[int, list[np.ndarray]]) -> tuple[tuple[int, np.ndarray], ...]:
    return tuple((owner, np.unique(np.concatenate(arrays))) for owner, arrays in pieces.items())


def _turn(sweep: _Sweep, census: Census, choice: _Choice) -> None:
    """Move the hand until enough is taken, or two revolutions are done."""
    ring: list[Holding | None] = [*census.guests, None]          # None: the store
    owners = [guest.owner for guest in census.guests]
    at = len(owners) if sweep.hand.owner == EPHEMERAL else int(np.searchsorted(owners, sweep.hand.owner))
    if at < len(owners) and owners[at] != sweep.hand.owner:
        sweep.hand = Hand(owners[at])
    start = sweep.hand
    # One visit more than two revolutions: the first may begin in the middle of a guest.
    for visit in range(at, at + REVOLUTIONS * len(ring) + 1):
        if sweep.missing <= 0:
            return
        guest = ring[visit % len(ring)]
        if guest is None:
            _visit_store(sweep, census, choice)
        else:
            _visit_guest(sweep, guest, choice)
        if sweep.missing > 0:
            following = ring[(visit + 1) % len(ring)]
            sweep.hand = Hand(EPHEMERAL if following is None else following.owner)
    if sweep.missing > 0:
        sweep.hand = start                                       # whole revolutions end where they began


def _visit_guest(sweep: _Sweep, guest: Holding, choice: _Choice) -> None:
    """Sweep one guest from the hand to its last page, or to the page that made it enough."""
    start = sweep.hand.page if sweep.hand.owner == guest.owner else 0
    eligible = np.isin(guest.states, [int(state) for state in choice.states]) & ~guest.grace
    referenced = guest.referenced.copy()
    for pages in sweep.cleared.get(guest.owner, ()):
        referenced[pages] = False
    for pages in sweep.taken.get(guest.owner, ()):
        eligible[pages] = False
    eligible[:start] = False
    victims = np.flatnonzero(eligible & ~referenced)[:sweep.missing]
    stop = int(victims[-1]) + 1 if len(victims) == sweep.missing else len(eligible)
    passed = start + np.flatnonzero((eligible & referenced)[start:stop])
    if len(victims):
        sweep.taken.setdefault(guest.owner, []).append(victims)
    if len(passed):
        sweep.cleared.setdefault(guest.owner, []).append(passed)
    sweep.missing -= len(victims)
    sweep.hand = Hand(guest.owner, stop)


def _visit_store(sweep: _Sweep, census: Census, choice: _Choice) -> None:
    """Take aged ephemeral pages; passing the store ages those that remain."""
    if not choice.ephemeral:
        return
    count = min(sweep.missing, sweep.aged)
    sweep.ephemeral += count
    sweep.aged -= count
    sweep.missing -= count
    if sweep.missing > 0:
        sweep.aged, sweep.passed = census.ephemeral - sweep.ephemeral, True
