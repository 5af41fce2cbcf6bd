"""The points of a comparison, decided before anything is started: pure functions.

A point is one run: a scheme at one overcommit (sum of the guests' RAM / budget) with one seed, or the baseline of that
seed with all memory granted.  A search for density has a number of guests in the place of the overcommit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.scenario import Scenario, check_budget
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

OVERCOMMIT = "1,1.5,2,3"
DECIMALS = 4
LEAST, MOST = 0.1, 100.0
MOST_SEEDS = 1000
SEED_LIMIT = 1 << 31


class OneRun(Protocol):
    """Whatever can be run and kept: its scheme, its name among the files, its name for people, its baseline."""

    @property
    def scheme(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def said(self) -> str: ...

    @property
    def baseline(self) -> "OneRun": ...


@dataclass(frozen=True, slots=True)
class Point:
    """One run."""

    scheme: str
    seed: int
    overcommit: float | None = None      # None: the baseline, or the scenario's own budget
    guests: int | None = None            # None: as many as the scenario has

    @property
    def key(self) -> str:
        """Its name among the files."""
        overcommit = [] if self.overcommit is None else [f"k{self.overcommit:g}"]
        guests = [] if self.guests is None else [f"g{self.guests}"]
        return "-".join([self.scheme, *overcommit, *guests, f"s{self.seed}"])

    @property
    def said(self) -> str:
        """Its name for people."""
        overcommit = [] if self.overcommit is None else [f"overcommit {self.overcommit:g}"]
        guests = [] if self.guests is None else [f"{self.guests} guests"]
        return " ".join([self.scheme, *overcommit, *guests, f"seed {self.seed}"])

    @property
    def baseline(self) -> "Point":
        """The run that it is compared with."""
        return Point(BASELINE, self.seed, guests=self.guests)


def overcommits(text: str) -> list[float]:
    """Return the numbers of a comma list, each once; UsageProblem for what is none."""
    found = [_overcommit(word.strip()) for word in text.split(",")]
    return list(dict.fromkeys(found))


def _overcommit(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise UsageProblem(f"--overcommit: {word!r} is not a number; give numbers such as {OVERCOMMIT}") from None
    if not math.isfinite(value) or not LEAST <= value <= MOST:
        raise UsageProblem(f"--overcommit: {word} is not possible; allowed: {LEAST:g} to {MOST:g}")
    return round(value, DECIMALS)


def seeds(first: int, count: int) -> list[int]:
    """Return `count` seeds from the scenario's own on."""
    if not 1 <= count <= MOST_SEEDS:
        raise UsageProblem(f"--seeds: {count} is not possible; allowed: 1 to {MOST_SEEDS}")
    if first + count > SEED_LIMIT:
        raise UsageProblem(f"--seeds: {count} seeds from {first} on pass {SEED_LIMIT - 1}; use a smaller seed")
    return list(range(first, first + count))


def planned(schemes: Sequence[str], factors: Sequence[float], numbers: Sequence[int]) -> list[Point]:
    """Return all points in the order of running: for each seed its baseline, then every scheme at every overcommit.

    Each seed begins with another point, so that what drifts while hours pass favours no scheme.
    """
    pairs = [(scheme, factor) for factor in factors for scheme in schemes]
    points = []
    for n, seed in enumerate(numbers):
        shift = n % len(pairs)
        points += [Point(BASELINE, seed),
                   *(Point(scheme, seed, factor) for scheme, factor in [*pairs[shift:], *pairs[:shift]])]
    return points


def budget_for(total_ram: int, overcommit: float) -> int:
    """Return the budget in bytes, whole pages, in which the guests' RAM is overcommitted so."""
    return int(total_ram / overcommit) // PAGE_SIZE * PAGE_SIZE


def scenario_at(scenario: Scenario, point: Point) -> Scenario:
    """Return the scenario as `point` has it; UsageProblem when its guests could not stand in the budget."""
    budget = scenario.table.budget if point.overcommit is None else budget_for(scenario.total_ram, point.overcommit)
    check_budget(budget, len(scenario.guests), f"--overcommit {point.overcommit:g}: a budget" if point.overcommit
                 else f"{scenario.source}: budget")
    return replace(scenario, table=scenario.table.model_copy(update={"budget": budget, "seed": point.seed}))
