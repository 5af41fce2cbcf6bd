"""Pictures for the page, drawn by ourselves: `drawn` draws any chart; curves here, areas and rows in `areas`."""

from collections.abc import Sequence
from itertools import chain

from hypervisor.toolstack.reporting.areas import rows, stack
from hypervisor.toolstack.reporting.charts import Chart, Line, Lines, Point, Rows, Stack, thinned
from hypervisor.toolstack.reporting.frame import (
    WIDTH,
    Place,
    axis_below,
    axis_left,
    names_beside,
    room_for_marks,
    room_for_names,
    rule,
    svg,
)
from hypervisor.toolstack.reporting.markup import Markup, tag
from hypervisor.toolstack.reporting.palette import DASHES, colour_class, dash, marker
from hypervisor.toolstack.reporting.scales import Scale, scale

HEIGHT = 380.0
MARKERS_A_LINE = 9               # of a line with more points only some are marked


def drawn(chart: Chart) -> Markup:
    """Return the picture of a chart."""
    match chart:
        case Lines():
            return curves(chart)
        case Stack():
            return stack(chart)
        case Rows():
            return rows(chart)


def curves(chart: Lines) -> Markup:
    """Draw curves; each is named where it ends."""
    lines = [Line(line.name, line.number, tuple(thinned(line.points))) for line in chart.lines if line.points]
    points = list(chain.from_iterable(line.points for line in lines))
    ruled = [chart.rule.value] if chart.rule else []
    up = scale(heights(points, ruled), HEIGHT - 52, 34, chart.y.log, chart.y.from_zero, 0.06)
    named = [line.name for line in lines] + ([chart.rule.name] if chart.rule else [])
    place = Place(room_for_marks(chart.y, up), WIDTH - room_for_names(named), 34, HEIGHT - 52)
    wide = 0.0 if chart.x.log else 10.0
    across = scale([point.x for point in points], place.left + wide, place.right - wide, chart.x.log,
                   chart.x.from_zero)
    ends: list[tuple[str, int | None, float, float]] = [
        (line.name, line.number, across.at(line.points[-1].x), up.at(line.points[-1].y)) for line in lines]
    ends += [(chart.rule.name, None, place.right - 5, up.at(chart.rule.value))] if chart.rule else []
    return svg(chart.key, chart.title, HEIGHT, axis_left(place, chart.y, up), axis_below(place, chart.x, across),
               rule(place, chart.rule, up, named=False), *(_curve(line, across, up) for line in lines),
               names_beside(place, ends))


def heights(points: Sequence[Point], ruled: Sequence[float]) -> list[float]:
    """Return what the vertical axis shall hold: all means, and of intervals not more than half as much above them."""
    most = max([point.y for point in points] + list(ruled), default=0.0)
    ends = [point.y + sign * point.half for point in points if point.half for sign in (-1, 1)]
    return [point.y for point in points] + list(ruled) + [min(max(end, 0.0), 1.5 * most) for end in ends if most > 0]


def _curve(line: Line, across: Scale, up: Scale) -> Markup:
    places = " ".join(f"{across.at(point.x):.1f},{up.at(point.y):.1f}" for point in line.points)
    every = max(1, len(line.points) // MARKERS_A_LINE)
    marked = [point for n, point in enumerate(reversed(line.points)) if n % every == 0]
    return tag("g", *(_interval(point, across, up) for point in line.points),
               tag("polyline", points=places, class_="curve", stroke_dasharray=DASHES[dash(line.number)] or None),
               *(_marker(line.number, point, across, up) for point in marked), class_=colour_class(line.number))


def _interval(point: Point, across: Scale, up: Scale) -> Markup | None:
    """Draw the interval of a mean, a bar with two ends; one that lies beyond the axis is left out."""
    if not point.half:
        return None
    x, ends = across.at(point.x), (point.y - point.half, point.y + point.half)
    low, high = map(up.at, ends)
    caps = "".join(f"M{x - 3:.1f} {up.at(end):.1f}h6" for end in ends if up.low <= end <= up.high)
    return tag("path", d=f"M{x:.1f} {low:.1f}V{high:.1f}{caps}", class_="interval")


def _marker(number: int, point: Point, across: Scale, up: Scale) -> Markup:
    x, y = across.at(point.x), up.at(point.y)
    class_ = "marker" if point.whole else "marker hollow"
    corners = marker(number).corners
    if not corners:
        return tag("circle", cx=x, cy=y, r=4.0, class_=class_)
    return tag("polygon", points=" ".join(f"{x + 4 * dx:.1f},{y + 4 * dy:.1f}" for dx, dy in corners), class_=class_)


