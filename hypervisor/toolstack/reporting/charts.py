"""Pictures as plain values: what is drawn, in which unit, and in which words.  Who draws them: `svg` and `png`.

    Lines     curves, with intervals where there are some
    Stack     areas over time, one on the other
    Rows      bars from the left, each of parts in a row

`number` chooses colour, marker and dashes; `texture` what an area is filled with (both: `palette`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypervisor.toolstack.reporting.palette import SOLID
from hypervisor.toolstack.reporting.scales import Words, number_words

MOST_POINTS = 400                # of a line or an area: more cannot be seen
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float
    half: float | None = None    # of its interval
    whole: bool = True           # False: drawn hollow


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    number: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A straight line at a value, and what it means."""

    value: float
    name: str


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis says; its unit is in the words."""

    said: str
    log: bool = False
    from_zero: bool = True
    marks: tuple[tuple[float, str], ...] = ()    # instead of round values
    words: Words = number_words


@dataclass(frozen=True, slots=True)
class Lines:
    key: str                     # of its file
    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    rule: Rule | None = None
    note: str = ""               # how it is to be read


@dataclass(frozen=True, slots=True)
class Layer:
    """An area: `part` of what `owner` has."""

    owner: str
    part: str
    number: int
    texture: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    key: str
    title: str
    x: Axis
    y: Axis
    places: tuple[float, ...]
    layers: tuple[Layer, ...]    # from below
    rule: Rule | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    value: float
    number: int
    texture: int = SOLID


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    parts: tuple[Part, ...]
    said: str                    # at its end


@dataclass(frozen=True, slots=True)
class Rows:
    key: str
    title: str
    x: Axis
    rows: tuple[Row, ...]
    note: str = ""
    legend: bool = True


Chart = Lines | Stack | Rows


def key_of(*words: object) -> str:
    """Return words as one that may name a file and an element."""
    return re.sub(r"[^A-Za-z0-9+_-]", "_", "-".join(map(str, words)))[:80]


def is_drawable(chart: Chart) -> bool:
    """Say whether there is anything to see."""
    match chart:
        case Lines():
            return any(line.points for line in chart.lines)
        case Stack():
            return len(chart.places) > 1 and any(any(layer.values) for layer in chart.layers)
        case Rows():
            return any(part.value for row in chart.rows for part in row.parts)


def thinned(values: Sequence[T], most: int = MOST_POINTS) -> list[T]:
    """Return at most `most` of the values, evenly chosen, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(n * (len(values) - 1) / (most - 1))] for n in range(most)]


def stacked(layers: Sequence[Layer]) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return (lower edge, upper edge) of each layer when all lie on each other."""
    if not layers:
        return []
    edges, below = [], (0.0,) * len(layers[0].values)
    for layer in layers:
        above = tuple(low + value for low, value in zip(below, layer.values, strict=True))
        edges.append((below, above))
        below = above
    return edges
