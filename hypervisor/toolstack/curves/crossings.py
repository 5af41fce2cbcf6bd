"""Where the curve of one scheme crosses another's: from the verdicts of pairs, overcommit by overcommit.  Pure.

A crossing of two schemes lies between two overcommits where one is shown to be faster at the lower and the other at the
higher; shown as `compare.pairs` has it: all seeds agree, and 0 is outside the 95 % interval of the paired difference.
Between the two there may be overcommits at which no difference is shown.  Where a scheme did not finish there is no
difference either: a curve that ends crosses nobody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from hypervisor.toolstack.compare.outcome import Outcome
from hypervisor.toolstack.compare.pairs import Pair, Verdict

NONE_SHOWN = "no crossing shown"


@dataclass(frozen=True, slots=True)
class Crossing:
    """`passing` is faster from the overcommit `above` on, and `passed` was at `below`."""

    passing: str
    passed: str
    below: float
    above: float
    before: tuple[float, float, float]       # passing's time / passed's at `below`: mean, and both ends of the interval
    after: tuple[float, float, float]        # the same at `above`
    between: tuple[float, ...]               # overcommits at which no difference is shown


def crossings(found: Outcome) -> list[Crossing]:
    """Return all crossings of a picture, those at the least overcommit first."""
    pairs = {(pair.first, pair.second, factor): pair for factor, each in found.pairs.items() for pair in each}
    factors = sorted(found.overcommits)
    crossed = [crossing for first, second in combinations(found.schemes, 2)
               for crossing in of_pair([(factor, pairs[first, second, factor]) for factor in factors])]
    return sorted(crossed, key=lambda crossing: (crossing.below, crossing.above))


def of_pair(pairs: Sequence[tuple[float, Pair]]) -> list[Crossing]:
    """Return the crossings of two schemes; `pairs`: (overcommit, their pair), in the order of overcommit."""
    shown = [(factor, pair) for factor, pair in pairs if pair.faster]
    return [_crossing(low, high, [factor for factor, _ in pairs if low[0] < factor < high[0]])
            for low, high in pairwise(shown) if low[1].faster != high[1].faster]


def _crossing(low: tuple[float, Pair], high: tuple[float, Pair], between: Sequence[float]) -> Crossing:
    passing, passed = high[1].faster, low[1].faster
    assert passing and passed, "only pairs with a difference are put together"
    return Crossing(passing, passed, low[0], high[0], _ratio(low[1], passing), _ratio(high[1], passing),
                    tuple(between))


def _ratio(pair: Pair, scheme: str) -> tuple[float, float, float]:
    """Return the time of `scheme` / the other's."""
    assert pair.ratio, "a difference that is shown has an interval"
    mean, low, high = pair.ratio
    return (mean, low, high) if pair.first == scheme else (1 / mean, 1 / high, 1 / low)


def sentence(crossing: Crossing) -> str:
    """Return the one line that people read."""
    lies = f" (no difference shown at {', '.join(f'{factor:g}' for factor in crossing.between)})"
    return (f"between {crossing.below:g} and {crossing.above:g} {crossing.passing} passes {crossing.passed}: it takes "
            f"{_words(crossing.before)} of its time at {crossing.below:g}, {_words(crossing.after)} at "
            f"{crossing.above:g}{lies if crossing.between else ''}")


def _words(ratio: tuple[float, float, float]) -> str:
    mean, low, high = ratio
    return f"{mean:.2f} ({low:.2f} to {high:.2f})" if math.isfinite(high) else f"{mean:.2f}"


def why_none(found: Outcome) -> str:
    """Return the line for a picture without a crossing."""
    enough = any(pair.verdict is not Verdict.TOO_FEW for pairs in found.pairs.values() for pair in pairs)
    return NONE_SHOWN if enough else f"{NONE_SHOWN}: two seeds that two schemes finished are needed"
