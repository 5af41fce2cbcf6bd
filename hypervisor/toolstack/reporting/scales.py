"""Axes: where a value lies, which values get a mark, and how these are written.  Pure."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """From values between `low` and `high` to places between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value; what lies outside is drawn at the border."""
        low, high, value = (math.log10(v) if self.log else v for v in
                            (self.low, self.high, min(max(value, self.low), self.high)))
        return self.start + (self.end - self.start) * ((value - low) / (high - low))


def scale(values: Iterable[float], start: float, end: float, log: bool = False, from_zero: bool = False,
          headroom: float = 0.0) -> Scale:
    """Return a scale that holds all values; `headroom` is the part that is left free above them.

    A logarithmic scale knows no values of 0 and less.
    """
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        return Scale(low / 1.15, high * 1.15, start, end, True)
    low = min(0.0, low) if from_zero else low
    if high <= low:
        high = low + (abs(low) or 1.0)
    return Scale(low, high + (high - low) * headroom, start, end)


def ticks(axis: Scale, count: int = 5) -> list[float]:
    """Return about `count` round values on an axis."""
    return _decades(axis) if axis.log else _round_values(axis.low, axis.high, count)


def _round_values(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * step for step in STEPS if size * step >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _decades(axis: Scale) -> list[float]:
    """Return the powers of ten; 2 and 5 of each as well where there are few."""
    first, last = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
    wide = last - first > 4
    every = max(1, (last - first) // 8)
    found = [10.0 ** n * step for n in range(first, last + 1, every) for step in ((1,) if wide else (1, 2, 5))]
    return [value for value in found if axis.low <= value <= axis.high]


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return places at least `gap` apart, in the same order and as near as that to where they were."""
    order = sorted(range(len(places)), key=lambda n: places[n])
    blocks: list[list[float]] = []               # [sum of wanted bottoms, how many]: blocks that touch move as one
    for rank, n in enumerate(order):
        blocks.append([places[n] - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            wanted, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + wanted, blocks[-1][1] + count]
    bottoms = [wanted / count for wanted, count in blocks for _ in range(int(count))]
    moved = [0.0] * len(places)
    for rank, n in enumerate(order):
        moved[n] = bottoms[rank] + rank * gap
    return moved


def within(places: Sequence[float], low: float, high: float) -> list[float]:
    """Move all places by one distance, so that they lie between `low` and `high` if they can."""
    if not places:
        return []
    moved = min(0.0, high - max(places))
    moved += max(0.0, low - min(places) - moved)
    return [place + moved for place in places]


def number_words(value: float) -> str:
    """Return a mark's number: 0, 0.25, 1,500, 20,000, 3M."""
    for unit, word in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{word}"
    return f"{round(value, 9):,.6g}"


def microsecond_words(value: float) -> str:
    return time_words(value * 1e-6)


def time_words(seconds: float) -> str:
    """Return a time with its unit: 5 µs, 20 ms, 1 s; 0 needs none."""
    if not seconds:
        return "0"
    for unit, word in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit * 0.9999:
            return f"{seconds / unit:.3g} {word}"
    return f"{seconds / 1e-9:.3g} ns"


Words = Callable[[float], str]
