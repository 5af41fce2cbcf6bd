"""The page of a comparison: schemes against each other, at several overcommits, with several seeds."""

from collections.abc import Mapping, Sequence

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.figures import FIGURES
from hypervisor.toolstack.compare.table import short
from hypervisor.toolstack.reporting.avoided import ledger_rows, ledgers
from hypervisor.toolstack.reporting.charts import Chart
from hypervisor.toolstack.reporting.compare_charts import (
    counted,
    curve_charts,
    held_pictures,
    most_overcommit,
    works,
)
from hypervisor.toolstack.reporting.markup import Child, Markup, joined, tag
from hypervisor.toolstack.reporting.page import Page, Section, figures, folded, items, one_line, paragraph, table, tiles
from hypervisor.toolstack.reporting.repeat import explained, repeat
from hypervisor.toolstack.reporting.sources import CompareFound
from hypervisor.toolstack.reporting.tail import latency_charts
from hypervisor.toolstack.reporting.told import Cell, Comparison, Mean
from hypervisor.toolstack.reporting.words import FAULTS, disk_told
from shm.units import format_size

SHOWN = "difference shown"
DASH = "-"


def compare_page(found: CompareFound) -> Page:
    """Return the page of a comparison that was found."""
    told = found.told
    speed, memory = curve_charts(told)
    held = held_pictures(found)
    where = f", at overcommit {most_overcommit(found):g}" if found.points else ""
    slow, io = latency_charts(works(found), where), ledgers(counted(found), where)
    charts: list[Chart] = [*speed, *memory, *held, *slow, *io]
    length = None if told.seconds is None and told.operations is None else told.operations is None
    sections = (
        explained([BASELINE, *told.schemes]),
        Section("How fast the same work was", (figures(speed), _times(told), _did_not_finish(told))),
        Section("Which scheme is faster", (_pairs(told),)),
        Section("Memory: baseline against measured", (figures(memory),)),
        Section("Memory: who has it, and in which states", (_first_seeds(found), figures(held))),
        Section("How long operations took", (figures(slow),)),
        Section("Where each input and output went", (figures(io), _ledger(found))),
        Section("Every figure", (_figures(told),)),
        repeat(found.origin, told.machine, length))
    return Page(f"{one_line(told.name)}: {len(told.schemes)} schemes compared", _lead(told), sections, tuple(charts))


def _lead(told: Comparison) -> Markup:
    shown = sum(pair.verdict == SHOWN for pair in told.pairs)
    failed = [run for run in told.runs if run.failed is not None]
    return joined(
        paragraph(f"{told.guests} guest{'s' * (told.guests != 1)} with {format_size(told.ram_bytes)} of memory between "
                  f"them did the same work under {', '.join(told.schemes)}, in less and less memory: at overcommits of "
                  f"{', '.join(f'{factor:g}' for factor in told.overcommit)}. Every run is compared with one of the "
                  f"same seed in which all memory was granted.", class_="lead"),
        paragraph(f"{len(told.seeds)} seed{'s' * (len(told.seeds) != 1)}; faults: "
                  f"{FAULTS.get(told.faults, told.faults)}; guests' disks: {disk_told(told.disk)}.", class_="muted"),
        tiles((f"{len(told.runs) - len(failed)} of {len(told.runs)}", "runs finished"),
              (f"{shown} of {len(told.pairs)}", "pairs of schemes with a difference that all seeds show"),
              _best(told)),
        items(told.problems) if told.problems else None)


def _best(told: Comparison) -> tuple[Child, str]:
    """Return the scheme with the best mean where most is overcommitted, and where that is."""
    for factor in sorted(told.overcommit, reverse=True):
        means = {cell.scheme: mean.mean for cell in told.cells
                 if cell.overcommit == factor and cell.scheme in told.schemes and not cell.did_not_finish
                 and (mean := cell.figures.get("throughput"))}
        if means:
            best = max(means, key=means.__getitem__)
            return best, (f"is the scheme with the highest mean throughput at overcommit {factor:g}, {means[best]:.2f} "
                          f"of the baseline; whether by more than chance is said below")
    return DASH, "no scheme finished with every seed"


def _cells(told: Comparison, scheme: str) -> dict[float, Cell]:
    return {cell.overcommit: cell for cell in told.cells if cell.scheme == scheme}


def _times(told: Comparison) -> Markup:
    rows: list[list[Child]] = []
    for scheme in told.schemes:
        cells = _cells(told, scheme)
        rows.append([scheme, *(_time(cells.get(factor)) for factor in told.overcommit)])
    head = ["overcommit", *(f"{factor:g}" for factor in told.overcommit)]
    return table(head, rows, 1, "time for equal work, baseline = 1; mean over the seeds and half of its 95 % interval")


def _time(cell: Cell | None) -> str:
    if cell is None or not cell.finished:
        return "did not finish"
    missing = f" ({cell.finished} of {cell.finished + len(cell.did_not_finish)})" if cell.did_not_finish else ""
    return estimate(cell.figures.get("slowdown")) + missing


def estimate(mean: Mean | None) -> str:
    """Return a mean and half of its interval, where it has one."""
    if mean is None:
        return DASH
    return short(mean.mean) if not mean.high or mean.high == mean.mean else (
        f"{short(mean.mean)} ±{short(mean.high - mean.mean)}")


def _did_not_finish(told: Comparison) -> Markup | None:
    lines = [f"{cell.scheme}, overcommit {cell.overcommit:g}: {line}" for cell in told.cells
             for line in cell.did_not_finish]
    return folded(f"{len(lines)} runs did not finish", items(lines)) if lines else None


def _pairs(told: Comparison) -> Markup:
    """Return the differences that are shown, and folded away those that are not."""
    said = {True: [], False: []}     # type: dict[bool, list[Child]]
    for pair in told.pairs:
        said[pair.verdict == SHOWN].append(joined(tag("b", f"overcommit {pair.overcommit:g}: "), pair.says))
    how = ("A difference is shown where every seed names the same scheme the faster, and the 95 % interval of the mean "
           "difference leaves no room for none. Nothing is corrected for many pairs being looked at.")
    return joined(paragraph(how, class_="muted"),
                  items(said[True]) if said[True] else paragraph("No difference is shown."),
                  folded(f"{len(said[False])} pairs without", items(said[False])) if said[False] else None)


def _first_seeds(found: CompareFound) -> Markup:
    runs = [points[0][0].said for points in found.points.values()]
    return paragraph(f"Of each scheme one run, of its first seed where most is overcommitted: {'; '.join(runs)}.",
                     class_="muted")


def _ledger(found: CompareFound) -> Markup:
    runs = counted(found)
    return table(["what became of it", "what is counted", *(name for name, _ in runs)], ledger_rows(runs), 2,
                 "the same in pages, mean over the seeds")


def _figures(told: Comparison) -> Markup:
    tables = [_figures_at(told, factor) for factor in told.overcommit]
    return joined(*(folded(f"overcommit {factor:g}", one) for factor, one in zip(told.overcommit, tables, strict=True)))


def _figures_at(told: Comparison, factor: float) -> Markup:
    """Return every figure at one overcommit; those that are 0 for all have no row."""
    names: Sequence[str] = [BASELINE, *told.schemes]
    found: Mapping[str, Cell] = {cell.scheme: cell for cell in told.cells if cell.overcommit == factor}
    rows = []
    for figure in FIGURES:
        means = [found[name].figures.get(figure.name) if name in found else None for name in names]
        if any(mean and mean.mean for mean in means):
            rows.append([figure.said, *map(estimate, means)])
    return table(["pages, or as said", *names], rows)
