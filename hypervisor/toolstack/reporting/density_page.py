"""The page of a search for density: how many guests fit in the budget, while each keeps within a slow-down."""

import math

from hypervisor.toolstack.compare.statistics import doubt, doubtful
from hypervisor.toolstack.reporting.charts import Axis, Chart, Line, Lines, Part, Point, Row, Rows, Rule
from hypervisor.toolstack.reporting.markup import Child, Markup, joined
from hypervisor.toolstack.reporting.page import Page, Section, figures, items, one_line, paragraph, table, tiles
from hypervisor.toolstack.reporting.palette import number_of
from hypervisor.toolstack.reporting.repeat import explained, repeat
from hypervisor.toolstack.reporting.sources import DensityFound
from hypervisor.toolstack.reporting.told import Density, Searched, Tried
from hypervisor.toolstack.reporting.words import FAULTS, disk_told
from hypervisor.toolstack.table import DASH, ratio
from shm.units import format_size


def density_page(found: DensityFound) -> Page:
    """Return the page of a search that was found."""
    told = found.told
    charts: list[Chart] = [_most(told), _slower(told)]
    length = None if told.seconds is None and told.operations is None else told.operations is None
    sections = (
        explained(["baseline", *(one.scheme for one in told.schemes)]),
        Section("How many guests fit", (figures(charts[:1]), _table(told), _remarks(told))),
        Section("What one guest more costs", (figures(charts[1:]),)),
        repeat(found.origin, told.machine, length))
    return Page(f"{one_line(told.name)}: how many guests fit", _lead(told), sections, tuple(charts))


def _lead(told: Density) -> Markup:
    most = max(one.most for one in told.schemes)
    best = [one for one in told.schemes if one.most == most]
    count = len(told.seeds)
    return joined(
        paragraph(f"How many guests can work at once in {format_size(told.budget_bytes)}? As many as there can be "
                  f"before one of them takes more than {told.slowdown:g} times as long as it does beside the same "
                  f"guests with all memory granted.", class_="lead"),
        paragraph(f"The median of {count} seed{'s' * (count != 1)} decides; faults: "
                  f"{FAULTS.get(told.faults, told.faults)}; guests' disks: {disk_told(told.disk)}.", class_="muted"),
        tiles((_count(best[0]), f"guests at the most, under {', '.join(one.scheme for one in best)}"),
              (f"{told.slowdown:g}", "times the baseline's time were allowed"),
              (format_size(told.budget_bytes), "of memory for all of them")),
        items(told.problems) if told.problems else None)


def _count(one: Searched) -> str:
    return f"{one.most}{'+' * one.at_the_limit}"


def _most(told: Density) -> Rows:
    rows = tuple(Row(one.scheme, (Part(one.scheme, one.most, number_of(one.scheme, n)),), _count(one))
                 for n, one in enumerate(told.schemes))
    return Rows("density", "The most guests that fit", Axis("guests", marks=_whole(told)), rows,
                "A plus sign: the search ended there for another reason than a guest that was too slow.", legend=False)


def _whole(told: Density) -> tuple[tuple[float, str], ...]:
    """Return marks for numbers of guests: there is no half of one."""
    most = max([one.most for one in told.schemes] + [tried.guests for one in told.schemes for tried in one.tried])
    return tuple((float(n), str(n)) for n in range(0, most + 1, max(1, math.ceil(most / 8))))


def _slower(told: Density) -> Lines:
    lines = []
    for n, one in enumerate(told.schemes):
        known = sorted((tried.guests, tried.worst_slowdown, tried.fits) for tried in one.tried
                       if tried.worst_slowdown is not None)
        lines.append(Line(one.scheme, number_of(one.scheme, n),
                          tuple(Point(guests, slower, None, fits) for guests, slower, fits in known)))
    x = Axis("guests", from_zero=False, marks=_whole(told))
    return Lines("density-slowdown", "The slowest guest, by how many there are", x,
                 Axis("times the baseline's time, median of the seeds"), tuple(line for line in lines if line.points),
                 Rule(told.slowdown, f"limit: {told.slowdown:g}"),
                 "Hollow: that many guests do not fit. Counts with which a guest did not finish are not drawn.")


def _table(told: Density) -> Markup:
    head = ["scheme", "most guests", "slowest guest there", "which", "with one more", "promised / budget"]
    return table(head, [_row(one) for one in told.schemes])


def _row(one: Searched) -> list[Child]:
    at, following = one.at, one.next
    more = "not tried" if following is None else f"{following.guests}: {_slowness(following)}"
    return [one.scheme, _count(one), ratio(at.worst_slowdown) if at else DASH, (at.worst_guest if at else None) or DASH,
            more, ratio(at.promised) if at else DASH]


def _slowness(tried: Tried) -> str:
    return "did not finish" if tried.worst_slowdown is None else ratio(tried.worst_slowdown)


def _remarks(told: Density) -> Markup | None:
    """Say everything that the table cannot."""
    said: list[Child] = []
    for one in told.schemes:
        if one.at_the_limit:
            said.append(f"{one.scheme}: perhaps more than {one.most}: not tried, {told.limit_why}.")
        if one.next and one.next.failed:
            said.append(f"{one.scheme}: {one.next.guests} guests did not finish: {one.next.failed}.")
        if one.at and one.at.worst_slowdown is not None and doubtful(one.at.worst_slowdown):
            said.append(f"{one.scheme}: {one.most} guests: {doubt(one.at.worst_slowdown)}.")
        if one.contrary:
            said.append(f"{one.scheme}: not monotone: {', '.join(map(str, one.contrary))} guests fit, though fewer did "
                        f"not; the lower number is told.")
    return items(said) if said else None
