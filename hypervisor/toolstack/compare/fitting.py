"""Whether so many guests fit: a judgement on the body of a point.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypervisor.toolstack.compare.search import Answer


@dataclass(frozen=True, slots=True)
class Tried:
    """One count of guests under one scheme."""

    guests: int
    fits: bool
    worst: float | None         # slow-down of the guest that lost most; None: not all finished
    worst_guest: str | None
    failed: str | None          # why not all finished
    promised: float             # RAM of all guests / budget


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


def tried(count: int, body: Mapping[str, Any], limit: float, promised: float) -> Tried:
    """Judge a point: it fits when every guest finished and none took more than `limit` times its baseline."""
    if body["failed"] or "summary" not in body:
        return Tried(count, False, None, None, body["failed"] or "its summary is missing", promised)
    slower = {guest["name"]: guest["slowdown"] for guest in body["summary"]["guests"]}
    missing = [name for name, value in slower.items() if value is None]
    if missing or not slower:
        return Tried(count, False, None, None, f"no time of guest {missing[0]!r}" if missing else "no guest", promised)
    worst = max(slower, key=slower.__getitem__)
    return Tried(count, slower[worst] <= limit, slower[worst], worst, None, promised)
