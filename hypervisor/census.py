"""The census of a guest's pages, as the CMM2 patches showed it: usage by content, and what could be had for nothing.

Pure: states counted in, rows out.  Source: cover letter of v7, 2009 (reference 3.1).
"""

from collections.abc import Mapping
from typing import NamedTuple

USAGES, CONTENTS = "SUPV", "rpz"
FREE = "UV"                  # resident ones need no write; clean pages of P neither, but they are not told apart


class Census(NamedTuple):
    """`rows` of (name, r, p, z, sum), one a usage and the sum of all last; shares of resident pages in percent."""

    rows: tuple[tuple[str, int, int, int, int], ...]
    volatile_percent: float
    reclaimable_percent: float


def census_table(states: Mapping[str, int]) -> Census:
    """Return the table of a guest with so many pages in each state, by the states' names; one not named has none."""
    counts = [[states.get(usage + content, 0) for content in CONTENTS] for usage in USAGES]
    sums = [sum(column) for column in zip(*counts, strict=True)]
    rows = tuple((name, *row, sum(row)) for name, row in zip((*USAGES, "sum"), [*counts, sums], strict=True))
    free = sum(states.get(usage + "r", 0) for usage in FREE)
    return Census(rows, _percent(states.get("Vr", 0), sums[0]), _percent(free, sums[0]))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
