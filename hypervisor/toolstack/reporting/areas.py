"""Pictures of amounts: areas on each other over time, and bars of parts, filled with a colour and a texture."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from hypervisor.toolstack.reporting.charts import Layer, Part, Row, Rows, Stack, stacked, thinned
from hypervisor.toolstack.reporting.frame import (
    LINE,
    WIDTH,
    Place,
    axis_below,
    axis_left,
    name_inside,
    names_beside,
    room_for_marks,
    room_for_names,
    rule,
    short_name,
    svg,
    text_width,
    words,
)
from hypervisor.toolstack.reporting.markup import Markup, joined, tag
from hypervisor.toolstack.reporting.palette import CROSSES, DOTS, SOLID, STRIPES, colour_class
from hypervisor.toolstack.reporting.scales import Scale, scale

HEIGHT = 380.0
BAR, PITCH = 24.0, 34.0
STROKES = {STRIPES: "M-2 2l4-4M0 8l8-8M6 10l4-4", CROSSES: "M0 0l8 8M8 0l-8 8"}
Fill = tuple[int, int]           # number, texture


def stack(chart: Stack) -> Markup:
    """Draw areas on each other; owners are named beside them, and what the textures mean below."""
    places = thinned(chart.places)
    layers = [Layer(one.owner, one.part, one.number, one.texture, tuple(thinned(one.values)))
              for one in chart.layers if any(one.values)]
    edges = stacked(layers)
    top = [*(edges[-1][1] if edges else ()), *([chart.rule.value] if chart.rule else [])]
    up = scale(top, HEIGHT - 52, 34, from_zero=True, headroom=0.08)
    owners = [owner for owner, _ in groupby(layers, key=lambda layer: layer.owner)]
    place = Place(room_for_marks(chart.y, up), WIDTH - room_for_names(owners), 34, HEIGHT - 52)
    across = scale(places, place.left, place.right, from_zero=chart.x.from_zero)
    xs = [across.at(x) for x in places]
    areas = [_area(chart.key, layer, xs, [up.at(y) for y in low], [up.at(y) for y in high])
             for layer, (low, high) in zip(layers, edges, strict=True)]
    fills = [(one.part, one.number, one.texture) for one in layers]
    legend, height = _legend(chart.key, fills, HEIGHT + 4, one_colour=len(owners) > 1)
    inside, beside = _names(layers, edges, xs, up)
    return svg(chart.key, chart.title, height, _patterns(chart.key, [fill[1:] for fill in fills]),
               axis_left(place, chart.y, up), *areas, axis_below(place, chart.x, across),
               rule(place, chart.rule, up), *inside, names_beside(place, beside), legend)


def _area(key: str, layer: Layer, xs: Sequence[float], low: Sequence[float], high: Sequence[float]) -> Markup:
    there = [f"{x:.1f},{y:.1f}" for x, y in zip(xs, high, strict=True)]
    back = [f"{x:.1f},{y:.1f}" for x, y in zip(reversed(xs), reversed(low), strict=True)]
    return tag("polygon", tag("title", f"{layer.owner}: {layer.part}"), points=" ".join(there + back),
               class_=f"area {colour_class(layer.number)}", **_fill(key, (layer.number, layer.texture)))


def _names(layers: Sequence[Layer], edges: Sequence[tuple[Sequence[float], Sequence[float]]], xs: Sequence[float],
           up: Scale) -> tuple[list[Markup], list[tuple[str, int, float, float]]]:
    """Return each owner's name in its areas; of those that have no room for it, where to write it beside them."""
    inside, beside = [], []
    for owner, group in groupby(zip(layers, edges, strict=True), key=lambda pair: pair[0].owner):
        own = list(group)
        low, high = ([up.at(y) for y in edge] for edge in (own[0][1][0], own[-1][1][1]))
        written = name_inside(owner, xs, low, high)
        if written:
            inside.append(written)
        else:
            beside.append((owner, own[0][0].number, xs[-1] - 5, (low[-1] + high[-1]) / 2))
    return inside, beside


def rows(chart: Rows) -> Markup:
    """Draw a bar a row, its parts in a row, and at its end what it says."""
    filled = [row for row in chart.rows]
    totals = [sum(part.value for part in row.parts) for row in filled]
    left = max(text_width(short_name(row.name)) for row in filled) + 14
    right = WIDTH - max(text_width(row.said) for row in filled) - 12
    place = Place(left, right, 12, 12 + PITCH * len(filled))
    across = scale([*totals, 0.0], left, right, from_zero=True)
    bars = [_bar(chart.key, row, place.top + PITCH * n + (PITCH - BAR) / 2, across) for n, row in enumerate(filled)]
    fills = [(part.name, part.number, part.texture) for row in filled for part in row.parts if part.value]
    legend, height = _legend(chart.key, fills, place.bottom + 56) if chart.legend else (None, place.bottom + 46)
    return svg(chart.key, chart.title, height, _patterns(chart.key, [(n, texture) for _, n, texture in fills]),
               axis_below(place, chart.x, across, lines=True), *bars, legend)


def _bar(key: str, row: Row, y: float, across: Scale) -> Markup:
    parts, below = [], 0.0
    for part in row.parts:
        parts.append(_part(key, part, across.at(below), across.at(below + part.value), y))
        below += part.value
    return tag("g", words(across.start - 8, y + BAR / 2 + 4, short_name(row.name), "end", "name"), *parts,
               words(across.at(below) + 7, y + BAR / 2 + 4, row.said, class_="mark"))


def _part(key: str, part: Part, start: float, end: float, y: float) -> Markup | None:
    if not part.value:
        return None
    return tag("rect", tag("title", f"{part.name}: {part.value:,.6g}"), x=start, y=y, width=max(end - start, 0.75),
               height=BAR, class_=f"area {colour_class(part.number)}", **_fill(key, (part.number, part.texture)))


def _fill(key: str, fill: Fill) -> dict[str, str | None]:
    """Return the attribute that fills with a pattern; a solid area is filled by its class."""
    return {"fill": None if fill[1] == SOLID else f"url(#{_pattern_id(key, fill)})"}


def _pattern_id(key: str, fill: Fill) -> str:
    return f"fill-{key}-{colour_class(fill[0])}-{fill[1]}"


def _patterns(key: str, fills: Iterable[Fill]) -> Markup:
    return tag("defs", *(_pattern(key, fill) for fill in sorted(set(fills)) if fill[1] != SOLID))


def _pattern(key: str, fill: Fill) -> Markup:
    """Return strokes of the colour on a paler ground of it, both opaque: no line shines through."""
    number, texture = fill
    ground = [tag("rect", width=8, height=8, class_="ground"),
              tag("rect", width=8, height=8, class_=f"wash {colour_class(number)}")]
    strokes = tag("path", d=STROKES[texture], class_=f"stroke {colour_class(number)}") if texture in STROKES else None
    dots = [tag("circle", cx=x, cy=x, r=1.3, class_=f"dot {colour_class(number)}") for x in (2, 6)]
    return tag("pattern", *ground, strokes, *(dots if texture == DOTS else []), id=_pattern_id(key, fill), width=8,
               height=8, patternUnits="userSpaceOnUse")


def _legend(key: str, fills: Iterable[tuple[str, int, int]], y: float,
            one_colour: bool = False) -> tuple[Markup, float]:
    """Return what the fills mean, and the picture's height with it; `one_colour`: each name in its first colour."""
    named: dict[object, tuple[str, int, int]] = {}
    for name, number, texture in fills:
        named.setdefault(name if one_colour else (name, number, texture), (name, number, texture))
    parts, x = [], 8.0
    for name, number, texture in named.values():
        wide = text_width(name) + 40
        if x + wide > WIDTH:
            x, y = 8.0, y + LINE + 6
        parts += [tag("rect", x=x, y=y, width=18, height=13, class_=f"area {colour_class(number)}",
                      **_fill(key, (number, texture))), words(x + 24, y + 11, name, class_="mark")]
        x += wide
    return joined(*parts), y + LINE + 8
