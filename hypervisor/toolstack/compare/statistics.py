"""The statistics of a comparison: Student's t, intervals of means, Jain's index.  Pure; values in, values out.

    Student's t     Gosset 1908; its distribution by the regularised incomplete beta function (Abramowitz and Stegun
                    26.5.8 as a continued fraction, evaluated by Lentz's method), its quantile by bisection
    Jain's index    Jain, Chiu and Hawe 1984: (sum x)^2 / (n sum x^2), 1 when all are alike, 1/n when one has all
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
DOUBTFUL = 0.8                  # of the baseline's time: who takes less was hardly sped up by having less memory
TINY, PRECISION, TERMS = 1e-300, 1e-15, 500


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds, and half the width of its interval."""

    mean: float
    half: float | None          # None: one value shows no spread
    count: int

    @property
    def low(self) -> float | None:
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        return None if self.half is None else self.mean + self.half


def estimate(values: Sequence[float], level: float = LEVEL) -> Estimate | None:
    """Return the mean with the two-sided interval at `level`; None where there is no value."""
    count = len(values)
    if not count:
        return None
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, t_quantile(0.5 + level / 2, count - 1) * math.sqrt(variance / count), count)


def doubtful(slowdown: float) -> bool:
    """Say whether a time is too good for what was measured to be the scheme alone."""
    return slowdown < DOUBTFUL


def doubt(slowdown: float) -> str:
    """Return what is to be said of a time that is too good."""
    return (f"{slowdown:.2f} of the time with all memory granted is less than a scheme explains: the machine did other "
            f"work during the baseline, or the runs are too short")


def jain(values: Sequence[float]) -> float | None:
    """Return Jain's fairness index; None where nobody got anything."""
    squares = math.fsum(value * value for value in values)
    return math.fsum(values) ** 2 / (len(values) * squares) if squares else None


def t_quantile(p: float, freedom: int) -> float:
    """Return t with P(T <= t) = p for `freedom` degrees; 0 < p < 1."""
    if p < 0.5:
        return -t_quantile(1 - p, freedom)
    low, high = 0.0, 1.0
    while t_distribution(high, freedom) < p:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_distribution(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def t_distribution(t: float, freedom: int) -> float:
    """Return P(T <= t) of Student's t with `freedom` degrees."""
    tail = incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2
    return 1 - tail if t > 0 else tail


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), 0 <= x <= 1."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):           # else the fraction converges slowly, and the mirror image fast
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function."""
    value, upper, lower = 1.0, 1.0, 0.0
    for n in range(TERMS):
        term = _term(a, b, x, n)
        lower = 1 / _nonzero(1 + term * lower)
        upper = _nonzero(1 + term / upper)
        value *= upper * lower
        if n and abs(upper * lower - 1) < PRECISION:
            break
    return 1 / value


def _term(a: float, b: float, x: float, n: int) -> float:
    """Return the (n + 1)th coefficient: d1, d2, ... of 26.5.8."""
    m, odd = divmod(n + 1, 2)
    if odd:
        return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))


def _nonzero(value: float) -> float:
    return value if abs(value) > TINY else TINY
