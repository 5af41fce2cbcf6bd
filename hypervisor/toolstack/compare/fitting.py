"""Whether so many guests fit: a judgement on the bodies of points.  Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hypervisor.toolstack.compare.search import Answer


@dataclass(frozen=True, slots=True)
class Tried:
    """One count of guests under one scheme."""

    guests: int
    fits: bool
    worst: float | None         # slow-down of the guest that lost most, median of the seeds; None: too few finished
    worst_guest: str | None
    failed: str | None          # why too few finished
    promised: float             # RAM of all guests / budget
    unfinished: int             # seeds that did not finish


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a search."""

    scheme: str
    answer: Answer
    tried: Mapping[int, Tried]

    @property
    def at(self) -> Tried | None:
        return self.tried.get(self.answer.most)

    @property
    def next(self) -> Tried | None:
        return None if self.answer.first_not is None else self.tried[self.answer.first_not]


def tried(count: int, bodies: Sequence[Mapping[str, Any]], limit: float, promised: float) -> Tried:
    """Judge a count by its points, one a seed: it fits when no guest's median slow-down is above `limit`.

    A seed that did not finish is slower than any that did; when half of them did not, the count does not fit.
    """
    failed = [why for body in bodies if (why := _unfinished(body))]
    if 2 * len(failed) >= len(bodies):
        return Tried(count, False, None, None, failed[0], promised, len(failed))
    slower: dict[str, list[float]] = {}
    for body in bodies:
        for guest in body["summary"]["guests"] if not _unfinished(body) else ():
            slower.setdefault(guest["name"], []).append(guest["slowdown"])
    medians = {name: median([*values, *[math.inf] * len(failed)]) for name, values in slower.items()}
    worst = max(medians, key=medians.__getitem__)
    return Tried(count, medians[worst] <= limit, medians[worst], worst, None, promised, len(failed))


def _unfinished(body: Mapping[str, Any]) -> str | None:
    """Return why a run did not finish, None if it did."""
    if body["failed"] or "summary" not in body:
        return body["failed"] or "its summary is missing"
    guests = body["summary"]["guests"]
    missing = [guest["name"] for guest in guests if guest["slowdown"] is None]
    if missing or not guests:
        return f"no time of guest {missing[0]!r}" if missing else "no guest"
    return None
