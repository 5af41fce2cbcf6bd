"""Timing two things in turn and printing their ratio: the machine's speed drifts, so only neighbours are compared."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

ROUNDS = 15


@dataclass(frozen=True)
class Result:
    what: str
    ours_us: float               # median over the rounds, one operation
    peer: str
    peer_us: float
    ratio: float                 # median of the rounds' own ratios
    spread: tuple[float, float]  # smallest and largest ratio
    goal: float | None = None    # of the ratio, or of ours in us where there is no peer

    def line(self) -> str:
        goal = "" if self.goal is None else f"   goal {self.goal:g}"
        ratio = f"{self.ratio:6.2f}x  ({self.spread[0]:.2f} to {self.spread[1]:.2f}){goal}"
        return f"{self.what:<38} {self.ours_us:9.2f} us   {self.peer:<34} {self.peer_us:9.2f} us   {ratio}"


def once(operation: Callable[[], object], times: int) -> float:
    """Return the microseconds that one of `times` operations took."""
    start = perf_counter_ns()
    for _ in range(times):
        operation()
    return (perf_counter_ns() - start) / times / 1000


def compare(what: str, ours: Callable[[], object], peer: str, theirs: Callable[[], object], times: int,
            goal: float | None = None, before: Callable[[], object] = lambda: None) -> Result:
    """Time `ours` and `theirs` in turn, `times` operations a round; `before` runs untimed ahead of each."""
    pairs = []
    for _ in range(ROUNDS):
        before()
        mine = once(ours, times)
        before()
        pairs.append((mine, once(theirs, times)))
    ratios = [a / b for a, b in pairs]
    return Result(what, statistics.median(a for a, _ in pairs), peer, statistics.median(b for _, b in pairs),
                  statistics.median(ratios), (min(ratios), max(ratios)), goal)
