"""What every picture of the page has: its place, axes with marks and words, names beside what they name.

Colours are CSS classes and variables (`style`), so one picture does for light, dark and paper.  Pixels throughout.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from hypervisor.toolstack.reporting.charts import Axis, Rule
from hypervisor.toolstack.reporting.markup import Markup, clean, joined, tag
from hypervisor.toolstack.reporting.palette import colour_class
from hypervisor.toolstack.reporting.scales import Scale, spread, ticks, within

WIDTH = 760.0
NARROW, WIDE = "iIjlftr.,:;'|!()[] ", "mwMW@%+<>="
WIDTHS = (5.0, 8.0, 11.8)        # of a narrow letter, of most, of a wide one, in a wide font of the words' size
LINE = 15.0                      # from one line of words to the next
PLACES = 48                      # that are tried for a name in an area
MOST_NAME = 28                   # letters of a name beside a curve or an area


def text_width(text: str) -> float:
    """Return about how wide a text is: rather more than less."""
    return sum(WIDTHS[0] if one in NARROW else WIDTHS[2] if one in WIDE else WIDTHS[1] for one in text)


def short_name(name: str) -> str:
    """Return a name that has room in a picture."""
    name = clean(name)
    return name if len(name) <= MOST_NAME else name[:MOST_NAME - 1] + "\u2026"


@dataclass(frozen=True, slots=True)
class Place:
    """The rectangle in which values are drawn."""

    left: float
    right: float
    top: float
    bottom: float


def svg(key: str, title: str, height: float, *children: Markup | None) -> Markup:
    """Return a picture; its title is told to those who cannot see it."""
    return tag("svg", tag("title", title), *children, viewBox=f"0 0 {WIDTH:.0f} {height:.0f}", role="img",
               aria_label=title, class_="chart", id=f"chart-{key}")


def words(x: float, y: float, said: str, anchor: str = "start", class_: str = "") -> Markup:
    return tag("text", said, x=x, y=y, text_anchor=anchor, class_=class_ or None)


def marks_of(axis: Axis, scale: Scale, count: int) -> list[tuple[float, str]]:
    """Return (value, what is written there)."""
    if axis.marks:
        return [(value, said) for value, said in axis.marks if scale.low <= value <= scale.high]
    return [(value, axis.words(value)) for value in ticks(scale, count)]


def axis_left(place: Place, axis: Axis, scale: Scale) -> Markup:
    """Draw lines across at each mark, the marks' numbers, and the words above the axis."""
    parts = []
    for value, said in marks_of(axis, scale, 5):
        y = scale.at(value)
        parts += [tag("line", x1=place.left, x2=place.right, y1=y, y2=y, class_="grid"),
                  words(place.left - 8, y + 4, said, "end", "mark")]
    return joined(*parts, words(2, place.top - 14, axis.said, class_="said"))


def axis_below(place: Place, axis: Axis, scale: Scale, lines: bool = False) -> Markup:
    """Draw the marks below, without those that have no room, and the words under them; `lines`: upwards too."""
    parts, free = [], -WIDTH
    for value, said in marks_of(axis, scale, 7):
        x, half = scale.at(value), text_width(said) / 2
        if x - half < free:
            continue
        free = x + half + 6
        parts += [tag("line", x1=x, x2=x, y1=place.top if lines else place.bottom, y2=place.bottom + 4,
                      class_="grid" if lines else "axis"), words(x, place.bottom + 18, said, "middle", "mark")]
    line = tag("line", x1=place.left, x2=place.right, y1=place.bottom, y2=place.bottom, class_="axis")
    return joined(*parts, None if lines else line,
                  words(place.right, place.bottom + 38, axis.said, "end", "said"))


def rule(place: Place, ruled: Rule | None, scale: Scale, named: bool = True) -> Markup | None:
    """Draw a dashed line at a value; `named`: say on it what it is."""
    if ruled is None or not scale.low <= ruled.value <= scale.high:
        return None
    y = scale.at(ruled.value)
    return joined(tag("line", x1=place.left, x2=place.right, y1=y, y2=y, class_="rule"),
                  words(place.left + 5, y - 5, ruled.name, class_="mark halo") if named else None)


def names_beside(place: Place, ends: Sequence[tuple[str, int | None, float, float]]) -> Markup:
    """Write names at the right, each beside its (x, y), no two over each other: (name, number, x, y).

    What has no number is a rule.
    """
    at = within(spread([y for *_, y in ends], LINE), place.top + 4, place.bottom)
    parts = []
    for (name, number, x, y), moved in zip(ends, at, strict=True):
        leader = f"{x + 5:.1f},{y:.1f} {place.right + 6:.1f},{moved:.1f} {place.right + 12:.1f},{moved:.1f}"
        parts += [tag("polyline", points=leader, class_="leader"),
                  _swatch(place.right + 13, moved, number),
                  words(place.right + 25, moved + 4, short_name(name), class_="name")]
    return joined(*parts)


def _swatch(x: float, y: float, number: int | None) -> Markup:
    if number is None:
        return tag("line", x1=x - 4, x2=x + 9, y1=y, y2=y, class_="rule")
    return tag("rect", x=x, y=y - 4, width=8, height=8, class_=f"swatch {colour_class(number)}")


def name_inside(name: str, xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> Markup | None:
    """Write a name in an area, where that is thickest; nothing where the area has no room for it.

    `low` and `high` are the places of its edges at `xs`, downwards; where the words lie, all edges must leave room.
    """
    half, best = text_width(short_name(name)) / 2 + 6, (LINE + 3, 0.0, 0.0)
    places = [xs[0] + (xs[-1] - xs[0]) * n / PLACES for n in range(PLACES + 1)]
    lows, highs = ([_between(xs, edge, x) for x in places] for edge in (low, high))
    for x in places:
        if xs[0] + half <= x <= xs[-1] - half:
            near = [k for k, other in enumerate(places) if abs(other - x) <= half]
            top, bottom = max(highs[k] for k in near), min(lows[k] for k in near)
            best = max(best, (bottom - top, x, (top + bottom) / 2))
    _, x, middle = best
    return words(x, middle + 4, short_name(name), "middle", "name halo") if x else None


def _between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Return the height of a line of corners at x."""
    n = min(max(bisect(xs, x), 1), len(xs) - 1)
    part = (x - xs[n - 1]) / ((xs[n] - xs[n - 1]) or 1.0)
    return ys[n - 1] + (ys[n] - ys[n - 1]) * part


def room_for_names(names: Sequence[str]) -> float:
    return max((text_width(short_name(name)) for name in names), default=0.0) + 30


def room_for_marks(axis: Axis, scale: Scale) -> float:
    return max((text_width(said) for _, said in marks_of(axis, scale, 5)), default=0.0) + 14
