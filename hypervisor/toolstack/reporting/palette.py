"""What tells one curve or area from another: colour, and marker, dashes or texture as well: nobody needs colour.

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart.  Their yellow cannot be seen on
white paper and is darker here; a brown is added for the ninth scheme.  On dark ground they are lighter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hypervisor.schemes import BASELINE

GREY = -1                        # the number of what all others are compared with
LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8F7F00", "#7A4A1E")
DARK = ("#4C9BE0", "#F07A2C", "#2FC29A", "#E39CC6", "#F2B134", "#9BD3F7", "#F2F2F2", "#F0E442", "#C8966A")
GREY_LIGHT, GREY_DARK = "#666666", "#A3A9B0"
COUNT = len(LIGHT)

# A scheme keeps its number on every page; those that are most often beside each other are the furthest apart.
NUMBERS = {"tmem": 0, "swap": 1, "cmm2": 2, "balloon": 3, "cmm2+tmem": 4, "swapcache": 5, "none": 6, "light": 7,
            "more-ram": 8, "cmm2+balloon": 9}


@dataclass(frozen=True, slots=True)
class Marker:
    """A shape of radius 1: the corners of a polygon, none for a circle; and matplotlib's letter for it."""

    letter: str
    corners: tuple[tuple[float, float], ...] = ()


MARKERS = (
    Marker("o"),
    Marker("s", ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9))),
    Marker("^", ((0, -1.15), (1.05, 0.8), (-1.05, 0.8))),
    Marker("D", ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0))),
    Marker("v", ((0, 1.15), (1.05, -0.8), (-1.05, -0.8))),
    Marker("P", ((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4), (0.4, 1.1), (-0.4, 1.1),
                 (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4))),
    Marker("X", ((-1.1, -0.55), (-0.55, -1.1), (0, -0.5), (0.55, -1.1), (1.1, -0.55), (0.5, 0), (1.1, 0.55),
                 (0.55, 1.1), (0, 0.5), (-0.55, 1.1), (-1.1, 0.55), (-0.5, 0))),
    Marker("<", ((-1.15, 0), (0.8, -1.05), (0.8, 1.05))),
    Marker(">", ((1.15, 0), (-0.8, -1.05), (-0.8, 1.05))),
)
DASHES = ("", "8 3", "8 3 2 3", "2 3")
GREY_DASH = 3
LINESTYLES = ("-", "--", "-.", ":")                      # the same, in matplotlib's words

# Textures of areas: the strength of the colour under the strokes, and matplotlib's hatch.
SOLID, STRIPES, DOTS, CROSSES, BLANK = range(5)
STRENGTHS = (1.0, 0.25, 0.2, 0.25, 0.12)
HATCHES = ("", "////", "....", "xxxx", "")


def number_of(name: str, place: int = 0) -> int:
    """Return the number of a scheme; of any other name its place among those drawn."""
    return GREY if name == BASELINE else NUMBERS.get(name, place)


def numbers_of(names: Sequence[str]) -> list[int]:
    """Return the numbers of names that are drawn together, all different: schemes have theirs."""
    taken = {NUMBERS[name] for name in names if name in NUMBERS}
    free = iter(number for number in range(len(names) + COUNT) if number not in taken)
    found, used = [], set()
    for name in names:
        number = number_of(name, -2)
        if number == -2 or number in used:
            number = next(free)
        used.add(number)
        found.append(number)
    return found


def colour_class(number: int) -> str:
    """Return the CSS class that sets an element's colour."""
    return "cg" if number == GREY else f"c{number % COUNT}"


def colour(number: int) -> str:
    """Return the colour on white paper."""
    return GREY_LIGHT if number == GREY else LIGHT[number % COUNT]


def marker(number: int) -> Marker:
    return MARKERS[0] if number == GREY else MARKERS[number % len(MARKERS)]


def dash(number: int) -> int:
    """Return the number of its dashes: others where colours begin again, since 9 and 4 have no divisor."""
    return GREY_DASH if number == GREY else number % len(DASHES)
