"""Which of two schemes is faster at one overcommit, if the seeds show it.  Pure.

A seed gives both schemes the same operations and the same baseline, so the difference is taken seed by seed: of the
logarithms of the slow-downs, which is the logarithm of the ratio of times.  `interval`: 95 %, of its mean, by Student's
t.

    seeds agree    interval       verdict
    yes            without 0      shown
    yes            with 0         not shown
    no             with 0         not shown: seeds disagree
    no             without 0      seeds disagree beyond the interval: what holds on the mean does not for each seed

A seed with equal times agrees with nobody.  With fewer than two seeds that both schemes finished nothing is shown.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from hypervisor.toolstack.compare.statistics import Estimate, estimate

MEANT = 1e-12                   # a difference of logarithms below it is none


class Verdict(Enum):
    SHOWN = "difference shown"
    NOT_SHOWN = "no difference shown"
    DISAGREE = "no difference shown, seeds disagree"
    DISAGREE_BEYOND = "seeds disagree beyond the interval"
    TOO_FEW = "too few seeds"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two schemes at one overcommit; `difference` is log(time of first / time of second)."""

    first: str
    second: str
    verdict: Verdict
    difference: Estimate | None
    quicker: int                # seeds in which the first took less time
    slower: int

    @property
    def faster(self) -> str | None:
        """The scheme that is faster on the mean; None where that is not shown."""
        if self.verdict is not Verdict.SHOWN or self.difference is None:
            return None
        return self.first if self.difference.mean < 0 else self.second

    @property
    def seeds(self) -> int:
        """Seeds that both finished."""
        return self.difference.count if self.difference else 0

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """The first's time / the second's: mean, and both ends of the interval."""
        if self.difference is None or self.difference.low is None or self.difference.high is None:
            return None
        return (math.exp(self.difference.mean), _exp(self.difference.low), _exp(self.difference.high))


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def pair(first: str, second: str, of_first: Mapping[int, float], of_second: Mapping[int, float]) -> Pair:
    """Compare two schemes; `of_first` and `of_second`: seed -> slow-down, of the seeds that finished."""
    differences = [math.log(of_first[seed] / of_second[seed]) for seed in sorted(of_first.keys() & of_second.keys())]
    quicker = sum(difference < -MEANT for difference in differences)
    slower = sum(difference > MEANT for difference in differences)
    mean = estimate(differences)
    return Pair(first, second, _verdict(mean, quicker, slower), mean, quicker, slower)


def _verdict(mean: Estimate | None, quicker: int, slower: int) -> Verdict:
    if mean is None or mean.low is None or mean.high is None:
        return Verdict.TOO_FEW
    without_zero = mean.low > 0 or mean.high < 0
    if quicker and slower:
        return Verdict.DISAGREE_BEYOND if without_zero else Verdict.DISAGREE
    return Verdict.SHOWN if without_zero and mean.count in (quicker, slower) else Verdict.NOT_SHOWN


def sentence(found: Pair) -> str:
    """Return the one line that people read."""
    names = f"{found.first}, {found.second}"
    if found.verdict is Verdict.TOO_FEW or found.ratio is None:
        count = found.seeds
        return f"{names}: no difference shown: {count} seed{'s' * (count != 1)} that both finished, two are needed"
    mean, low, high = found.ratio
    takes = f"{found.first} takes {mean:.2f} of {found.second}'s time ({low:.2f} to {high:.2f})"
    if found.faster:
        return f"{names}: {found.faster} is faster: {takes}, all {found.seeds} seeds agree"
    votes = f"{found.first} faster with {found.quicker} of {found.seeds} seeds"
    return {Verdict.NOT_SHOWN: f"{names}: no difference shown: {takes}",
            Verdict.DISAGREE: f"{names}: no difference shown: seeds disagree ({votes}); {takes}",
            Verdict.DISAGREE_BEYOND: f"{names}: seeds disagree beyond the interval ({votes}): on the mean {takes}",
            }[found.verdict]
