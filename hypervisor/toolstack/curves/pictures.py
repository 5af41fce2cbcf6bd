"""The pictures of the curves: DIR/WORKLOAD-DISK.png.  matplotlib is imported late, and need not be there.

Throughput goes over orders of magnitude, and what counts is how many times one is another: its axis is logarithmic.
A scheme has the same colour, marker and dash in every picture of a folder.  Where it finished with no seed it has a
cross in a strip under the curves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.toolstack.compare.outcome import Outcome
from hypervisor.toolstack.compare.pictures import COLOURS, DASHES, DPI, GREY, HOW, MARKERS, spread
from hypervisor.toolstack.curves.document import X, Y, points_of, unfinished
from hypervisor.toolstack.curves.grid import Picture
from hypervisor.toolstack.curves.table import UNFINISHED, title

NARROW = 12.0                    # highest / lowest throughput, below which the axis has more ticks
MANY, FEW = (1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5)       # of each decade
ROW = 0.055                      # of the height of the curves, for each scheme in the strip
NAME = 0.055                     # the same, between two names beside the curves


@dataclass(frozen=True, slots=True)
class Frame:
    """The axes, and how far they go: overcommit from `first` to `last`, throughput from `low` to `high`."""

    axes: Any
    first: float
    last: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return (self.last - self.first) or 1.0

    def under(self, share: float) -> float:
        """Return the place that lies so much of the height under the curves."""
        return self.low / (self.high / self.low) ** share


def drawn(found: Mapping[Picture, Outcome], facts: Mapping[Picture, Mapping[str, Any]], folder: Path) -> list[str]:
    """Draw each picture of which anything is finished; return what there is to say of it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return [HOW]
    try:
        for picture, one in found.items():
            if any(points_of(one, scheme) for scheme in one.schemes):
                drawing(Figure, picture, one, facts[picture]).savefig(folder / f"{picture.key}.png", dpi=DPI)
    except OSError as error:
        return [f"--out: {folder}: {error.strerror}; pictures are missing there"]
    return []


def drawing(figure: Any, picture: Picture, found: Outcome, facts: Mapping[str, Any]) -> Any:
    """Return one picture."""
    canvas = figure(figsize=(7.5, 4.8), layout="constrained")
    frame = Frame(canvas.add_subplot(), min(found.overcommits), max(found.overcommits), *bounds(found))
    crossed = [scheme for scheme in found.schemes if unfinished(found, scheme)]
    frame.axes.set_yscale("log")
    frame.axes.set_ylim(frame.under(ROW * (len(crossed) + 0.4 * bool(crossed))), frame.high)
    frame.axes.axhline(1.0, color=GREY, linewidth=0.8)
    for scheme in found.schemes:
        _draw_curve(frame, found, scheme)
    _draw_strip(frame, found, crossed)
    _name_curves(frame, found)
    _finish(frame, found)
    frame.axes.set_title(f"{title(picture, facts)}, {facts['faults']} faults\n{seeds_words(found)}", fontsize=9,
                         loc="left")
    return canvas


def bounds(found: Outcome) -> tuple[float, float]:
    """Return the ends of the axis: a little beyond all that is drawn, which 1 always is; intervals to half the mean."""
    ends = [y for scheme in found.schemes for _, mean, half in points_of(found, scheme)
            for y in (max(mean - (half or 0.0), mean / 2), min(mean + (half or 0.0), 2 * mean))]
    return min([1.0, *ends]) / 1.1, max([1.0, *ends]) * 1.1


def ticks(low: float, high: float) -> list[float]:
    """Return the ticks of the logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    each = [digit * 10.0 ** decade for decade in decades for digit in (MANY if high / low < NARROW else FEW)]
    return [round(tick, 9) for tick in each if low <= tick <= high]


def style(number: int) -> dict[str, Any]:
    """Return how the scheme of a number is drawn."""
    turn = number // len(COLOURS)            # more schemes than colours differ by their dashes
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)],
            "linestyle": DASHES[(number + turn) % len(DASHES)]}


def seeds_words(found: Outcome) -> str:
    """Return what a point is the mean of; while runs are missing, some points have fewer seeds than others."""
    cells = [found.cell(scheme, factor) for scheme in found.schemes for factor in found.overcommits]
    counts = {count for cell in cells if (count := cell.finished + len(cell.failed))}
    least, most = min(counts), max(counts)
    words = "one seed, no interval" if most == 1 else (
        f"mean of {most if least == most else f'{least} to {most}'} seeds and 95 % interval")
    partly = any(cell.failed and cell.finished for cell in cells)
    return words + "; disk in virtual time" + ("; hollow: not all seeds finished" if partly else "")


def inside(places: Sequence[float], low: float, high: float) -> list[float]:
    """Return places moved together so that they lie between `low` and `high`; if they cannot, not above `high`."""
    up = max(0.0, low - min(places))
    moved = min(up, high - max(places)) if up or max(places) > high else 0.0
    return [place + moved for place in places]


def _draw_curve(frame: Frame, found: Outcome, scheme: str) -> None:
    """Draw one scheme, a little aside so that intervals do not hide each other; hollow where seeds are missing."""
    points = points_of(found, scheme)
    number = found.schemes.index(scheme)
    aside = (number - (len(found.schemes) - 1) / 2) * 0.008 * frame.width
    look = style(number)
    places, means = [x + aside for x, _, _ in points], [mean for _, mean, _ in points]
    up = [half or 0.0 for _, _, half in points]
    down = [min(half, mean - frame.low) for mean, half in zip(means, up, strict=True)]
    frame.axes.errorbar(places, means, yerr=[down, up], color=look["color"], linestyle=look["linestyle"],
                        linewidth=1.6, capsize=3, elinewidth=1)
    for place, (factor, mean, _) in zip(places, points, strict=True):
        full = not found.cell(scheme, factor).failed
        frame.axes.plot([place], [mean], marker=look["marker"], markersize=6, color=look["color"], zorder=3,
                        markerfacecolor=look["color"] if full else "white")


def _draw_strip(frame: Frame, found: Outcome, crossed: Sequence[str]) -> None:
    """Mark, in a row a scheme under the curves, where it did not finish."""
    if crossed:
        frame.axes.axhline(frame.low, color=GREY, linewidth=0.8)
    for row, scheme in enumerate(crossed):
        height, factors = frame.under(ROW * (row + 0.7)), unfinished(found, scheme)
        colour = style(found.schemes.index(scheme))["color"]
        frame.axes.plot(factors, [height] * len(factors), linestyle="", marker="x", markersize=7, color=colour,
                        markeredgewidth=2)
        frame.axes.text(min(factors) - 0.03 * frame.width, height, f"{scheme} {UNFINISHED}", color=colour, fontsize=8,
                        ha="right", va="center")


def _name_curves(frame: Frame, found: Outcome) -> None:
    """Write each scheme's name beside the end of its curve, no two over each other."""
    ends = {scheme: points[-1] for scheme in found.schemes if (points := points_of(found, scheme))}
    gap = NAME * math.log10(frame.high / frame.low)
    for factor in sorted({end[0] for end in ends.values()}):
        here = {scheme: end[1] for scheme, end in ends.items() if end[0] == factor}
        places = inside(spread([math.log10(mean) for mean in here.values()], gap),
                        math.log10(frame.low) + gap / 2, math.log10(frame.high) - gap / 2)
        for (scheme, mean), place in zip(here.items(), places, strict=True):
            colour = style(found.schemes.index(scheme))["color"]
            frame.axes.annotate(scheme, (factor, mean), (factor + 0.06 * frame.width, 10 ** place), color=colour,
                                fontsize=9, va="center", arrowprops={"arrowstyle": "-", "color": colour,
                                                                     "linewidth": 0.5},
                                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})


def _finish(frame: Frame, found: Outcome) -> None:
    """Set the axes' words and ticks, and take away what says nothing."""
    axes, marks = frame.axes, ticks(frame.low, frame.high)
    axes.set(xlabel=X, ylabel=Y, xticks=list(found.overcommits),
             xticklabels=[f"{factor:g}" for factor in found.overcommits],
             xlim=(frame.first - 0.05 * frame.width, frame.last + 0.26 * frame.width))
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.set_yticks([], minor=True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
