"""Skewed choice: few things often, many seldom, as programs do (Zipf; theta 0 is uniform, 0.99 is YCSB's).

The same seed chooses the same things in the same order.  Which thing is popular is shuffled by the seed as well, so
that popular blocks do not lie side by side.
"""

from random import Random

import numpy as np


class Skewed:
    """Choose among `count` things; the k-th most popular has weight 1 / k**theta."""

    def __init__(self, count: int, theta: float, random: Random) -> None:
        weights = np.arange(1, count + 1, dtype=np.float64) ** -theta
        self._below = np.cumsum(weights) / weights.sum()
        self._below[-1] = 1.0
        self._things = np.random.Generator(np.random.PCG64(random.getrandbits(64))).permutation(count)
        self._random = random.random

    def choose(self) -> int:
        """Return the next thing, 0 <= thing < count."""
        return int(self._things[self._below.searchsorted(self._random(), side="right")])
