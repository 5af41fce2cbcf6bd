"""The search for the most guests that fit: known counts in, the next count to try or the answer out.  Pure.

It is assumed that fitting is monotone: if n guests fit, fewer do.  So it steps upward from `start`, in steps that
double, until a count does not fit, and halves the gap that is left.  If `start` does not fit it steps downward.
Where counts that are known contradict the assumption, the lowest count that does not fit is believed, and the counts
above it that do fit are told as `contrary`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """`most` guests fit; 0: not even one."""

    most: int
    first_not: int | None           # the count above that does not fit; None: the limit was reached
    contrary: tuple[int, ...] = ()  # counts above `first_not` that fit though


def next_count(known: Mapping[int, bool], start: int, limit: int) -> int | Answer:
    """Return the next count to try, of 1 to `limit`, or the answer; `known`: count -> it fits."""
    start = min(max(1, start), limit)
    within = {count: fits for count, fits in known.items() if 1 <= count <= limit}
    first_not = min((count for count, fits in within.items() if not fits), default=None)
    below = [count for count, fits in within.items() if fits and (first_not is None or count < first_not)]
    most = max(below, default=0)
    if first_not is None:
        return _upward(most, start, limit)
    if first_not - most == 1:
        contrary = sorted(count for count, fits in within.items() if fits and count > first_not)
        return Answer(most, first_not, tuple(contrary))
    return (most + first_not) // 2 if most else _downward(first_not, start)


def _upward(most: int, start: int, limit: int) -> int | Answer:
    """Everything known fits: step on from the most, in steps that double with the way from `start`."""
    if most == limit:
        return Answer(most, None)
    return start if most < start else min(limit, most + (most - start) + 1)


def _downward(first_not: int, start: int) -> int:
    """Nothing known fits: step down from the least, in steps that double with the way from `start`."""
    return start if first_not > start else max(1, first_not - (start - first_not) - 1)
