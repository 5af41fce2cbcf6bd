"""The pictures of a page as PNG files, on white.  matplotlib is imported here alone, and late.

They show what `svg` and `areas` show, with the same colours, markers, dashes and textures.
"""

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hypervisor.toolstack.reporting.charts import Axis, Chart, Line, Lines, Rows, Rule, Stack, is_drawable, stacked
from hypervisor.toolstack.reporting.frame import marks_of, short_name
from hypervisor.toolstack.reporting.markup import clean
from hypervisor.toolstack.reporting.palette import (
    HATCHES,
    LINESTYLES,
    SOLID,
    STRENGTHS,
    colour,
    dash,
    marker,
)
from hypervisor.toolstack.reporting.scales import Scale, scale, spread
from hypervisor.toolstack.reporting.svg import MARKERS_A_LINE, heights

DPI = 150
SIZE = (8.0, 4.4)                # inches
NO_COLOUR = 6                    # the palette's black
HOW = f"no PNG files: matplotlib is not installed; {sys.executable} -m pip install matplotlib"


def saved(charts: Iterable[Chart], folder: Path, option: str = "") -> list[str]:
    """Draw each chart into `folder`, which `option` named; return what there is to say: how to have matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return [HOW]
    with matplotlib.rc_context({"text.parse_math": False, "hatch.linewidth": 0.8}):
        for chart in charts:
            if is_drawable(chart):
                try:
                    picture(Figure, chart).savefig(folder / f"{chart.key}.png", dpi=DPI)
                except OSError as error:
                    return [f"{option}{folder}: {error.strerror}; pictures are missing there"]
    return []


def picture(figure: Any, chart: Chart) -> Any:
    """Return matplotlib's figure of a chart."""
    height = SIZE[1] if not isinstance(chart, Rows) else 1.7 + 0.42 * len(chart.rows)
    drawing = figure(figsize=(SIZE[0], height), layout="constrained")
    axes = drawing.add_subplot()
    axes.set_title(clean(chart.title), fontsize=10, loc="left")
    match chart:
        case Lines():
            _lines(axes, chart)
        case Stack():
            _stack(axes, chart)
        case Rows():
            _rows(axes, chart)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x" if isinstance(chart, Rows) else "y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return drawing


def paler(strong: str, strength: float) -> str:
    """Return a colour (#rrggbb) mixed with white; opaque, so that no grid shines through."""
    parts = [int(strong[n:n + 2], 16) for n in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - part) * strength):02x}" for part in parts)


def _axis(axes: Any, which: str, axis: Axis) -> None:
    """Set an axis' words, its scale and its marks."""
    side = getattr(axes, f"{which}axis")
    getattr(axes, f"set_{which}label")(clean(axis.said), fontsize=9)
    if axis.log:
        getattr(axes, f"set_{which}scale")("log")
    low, high = getattr(axes, f"get_{which}lim")()
    if axis.marks or axis.log:
        marks = marks_of(axis, Scale(low, high, 0, 1, axis.log), 5)
        side.set_ticks([value for value, _ in marks], [clean(said) for _, said in marks], minor=False)
        side.set_ticks([], minor=True)
    else:
        side.set_major_formatter(lambda value, _: axis.words(value))
    axes.tick_params(axis=which, labelsize=8)


def _rule(axes: Any, rule: Rule | None, left: float) -> None:
    if rule:
        axes.axhline(rule.value, color="black", linewidth=1, linestyle="--")
        axes.annotate(clean(rule.name), (left, rule.value), (3, 3), textcoords="offset points", fontsize=8)


# -- curves

def _lines(axes: Any, chart: Lines) -> None:
    lines = [line for line in chart.lines if line.points]
    for line in lines:
        _curve(axes, line)
    points = [point for line in lines for point in line.points]
    if not chart.y.log:
        known = heights(points, [chart.rule.value] if chart.rule else [])
        up = scale(known, 0, 1, from_zero=chart.y.from_zero, headroom=0.06)
        axes.set_ylim(up.low, up.high)
    _axis(axes, "x", chart.x)
    _axis(axes, "y", chart.y)
    ends = [(line.name, line.number, line.points[-1].x, line.points[-1].y) for line in lines]
    if chart.rule:
        axes.axhline(chart.rule.value, color="black", linewidth=1, linestyle="--")
        ends.append((chart.rule.name, NO_COLOUR, axes.get_xlim()[1], chart.rule.value))
    _names(axes, ends)


def _curve(axes: Any, line: Line) -> None:
    strong, shape = colour(line.number), marker(line.number).letter
    xs, ys = [point.x for point in line.points], [point.y for point in line.points]
    halves = [point.half or 0.0 for point in line.points]
    if any(halves):
        axes.errorbar(xs, ys, yerr=halves, color=strong, linestyle="none", capsize=3, elinewidth=1)
    axes.plot(xs, ys, color=strong, linestyle=LINESTYLES[dash(line.number)], linewidth=1.6)
    every = max(1, len(xs) // MARKERS_A_LINE)
    for n, point in enumerate(reversed(line.points)):
        if n % every == 0:
            axes.plot([point.x], [point.y], marker=shape, markersize=6, color=strong, zorder=3,
                      markerfacecolor=strong if point.whole else "white")


def _names(axes: Any, ends: Sequence[tuple[str, int, float, float]]) -> None:
    """Write names at the right, no two over each other: in the axes' own measure, for a log scale too."""
    if not ends:
        return
    to_axes = axes.transAxes.inverted().transform
    heights = [float(to_axes(axes.transData.transform((x, y)))[1]) for *_, x, y in ends]
    for (name, number, x, y), place in zip(ends, spread(heights, 0.062), strict=True):
        axes.annotate(short_name(name), (x, y), (1.03, place), xycoords="data", textcoords="axes fraction",
                      color=paler(colour(number), 1.0), fontsize=9, va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": colour(number), "linewidth": 0.5})


# -- areas

def _stack(axes: Any, chart: Stack) -> None:
    layers = [layer for layer in chart.layers if any(layer.values)]
    edges = stacked(layers)
    seen: dict[str, Any] = {}
    for layer, (low, high) in zip(layers, edges, strict=True):
        area = axes.fill_between(chart.places, low, high, **_fill(layer.number, layer.texture))
        seen.setdefault(layer.part, area)
    limit = max([*edges[-1][1], chart.rule.value if chart.rule else 0.0])
    axes.set_ylim(0, limit * 1.1)
    axes.set_xlim(chart.places[0], chart.places[-1])
    _axis(axes, "x", chart.x)
    _axis(axes, "y", chart.y)
    _rule(axes, chart.rule, chart.places[0])
    ends = []
    for owner, group in groupby(zip(layers, edges, strict=True), key=lambda pair: pair[0].owner):
        own = list(group)
        ends.append((owner, own[0][0].number, chart.places[-1], (own[0][1][0][-1] + own[-1][1][1][-1]) / 2))
    _names(axes, ends)
    _legend(axes, seen)


def _fill(number: int, texture: int) -> dict[str, Any]:
    strong = colour(number)
    return {"facecolor": paler(strong, STRENGTHS[texture] if texture != SOLID else 1.0), "hatch": HATCHES[texture],
            "edgecolor": strong if HATCHES[texture] else "white", "linewidth": 0.5}


def _legend(axes: Any, seen: dict[str, Any]) -> None:
    axes.figure.legend(list(seen.values()), [clean(name).lstrip("_") for name in seen], loc="outside lower left",
                       ncols=2, fontsize=8, frameon=False)


def _rows(axes: Any, chart: Rows) -> None:
    seen: dict[str, Any] = {}
    for n, row in enumerate(chart.rows):
        below = 0.0
        for part in row.parts:
            if part.value:
                bar = axes.barh(n, part.value, 0.7, left=below, **_fill(part.number, part.texture))
                seen.setdefault(part.name, bar)
            below += part.value
        axes.annotate(clean(row.said), (below, n), (4, 0), textcoords="offset points", fontsize=8, va="center")
    most = max(sum(part.value for part in row.parts) for row in chart.rows)
    axes.set_xlim(0, most * 1.3)
    axes.set_yticks(range(len(chart.rows)), [short_name(row.name) for row in chart.rows], fontsize=9)
    axes.invert_yaxis()
    _axis(axes, "x", chart.x)
    if chart.legend:
        _legend(axes, seen)
