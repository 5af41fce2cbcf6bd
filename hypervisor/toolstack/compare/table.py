"""A comparison as people read it: the times first, then every figure at each overcommit, then each pair of schemes.

100 columns, on a pipe too.  A figure is its mean over the seeds and half of its 95 % interval; figures of a thousand
and more are cut to three digits, for the interval is wider than that.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.figures import FIGURES
from hypervisor.toolstack.compare.outcome import Cell, Outcome
from hypervisor.toolstack.compare.pairs import Verdict, sentence
from hypervisor.toolstack.compare.points import budget_for
from hypervisor.toolstack.compare.statistics import Estimate, doubt, doubtful
from hypervisor.toolstack.table import DASH, plain_table
from hypervisor.toolstack.table import disk_words as of_a_run
from shm.units import format_size

SCHEMES_A_TABLE = 4
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def comparison(found: Outcome, facts: Mapping[str, Any]) -> RenderableType:
    """Return all of it."""
    parts: list[RenderableType] = [
        header(found, facts),
        Text("time for equal work, baseline = 1; mean over seeds and 95 % interval", style="bold"), times(found)]
    for factor in found.overcommits:
        budget = format_size(budget_for(facts["ram_bytes"], factor))
        parts += [Text(f"overcommit {factor:g}: budget {budget}", style="bold"), *_figures(found, factor),
                  *_failures(found, factor), *_doubts(found, factor), *_pairs(found, factor), Text()]
    return Group(*parts)


def header(found: Outcome, facts: Mapping[str, Any]) -> Text:
    return Text(
        f"{facts['name']}: {len(found.schemes)} schemes, {facts['guests']} guests with "
        f"{format_size(facts['ram_bytes'])}, {len(found.seeds)} seeds; {facts['faults']} faults; "
        f"{disk_words(facts['disk'])}", style="bold")


def disk_words(disk: Mapping[str, Any]) -> str:
    """Return what the guests' disks cost, which every figure depends on."""
    return of_a_run(disk).removeprefix(", ") or "disks without a cost"


def times(found: Outcome) -> Table:
    """Return the times for equal work: a row a scheme, a column an overcommit."""
    table = plain_table("overcommit", *(f"{factor:g}" for factor in found.overcommits), title="")
    for scheme in found.schemes:
        cells = [found.cell(scheme, factor) for factor in found.overcommits]
        table.add_row(scheme, *(_time(cell) for cell in cells))
    return table


def _time(cell: Cell) -> str:
    """Return the time; where some seeds did not finish, how many did."""
    of = cell.finished + len(cell.failed)
    if not cell.finished:
        return "did not finish"
    return shown(cell.figures["slowdown"]) + (f" ({cell.finished} of {of})" if cell.failed else "")


def _figures(found: Outcome, factor: float) -> Iterator[Table]:
    """Return the tables of one overcommit, a few schemes in each; a figure that is 0 for all has no row."""
    for first in range(0, len(found.schemes), SCHEMES_A_TABLE):
        schemes = found.schemes[first:first + SCHEMES_A_TABLE]
        table = plain_table("pages, or as said", BASELINE, *schemes, title="")
        cells = [found.cell(scheme, factor) for scheme in (BASELINE, *schemes)]
        for figure in FIGURES:
            row = [cell.figures[figure.name] for cell in cells]
            if any(value and value.mean for value in row):
                table.add_row(figure.said, *map(shown, row))
        yield table


def _failures(found: Outcome, factor: float) -> list[Text]:
    return [Text(f"{scheme}, overcommit {factor:g}: did not finish: {line}", style="yellow")
            for scheme in found.schemes for line in found.cell(scheme, factor).failed]


def _doubts(found: Outcome, factor: float) -> list[Text]:
    """Say where less memory was faster by far than all memory."""
    means = {scheme: found.cell(scheme, factor).figures["slowdown"] for scheme in found.schemes}
    return [Text(f"{scheme}, overcommit {factor:g}: {doubt(mean.mean)}", style="yellow")
            for scheme, mean in means.items() if mean and doubtful(mean.mean)]


def _pairs(found: Outcome, factor: float) -> list[Text]:
    return [Text(f"overcommit {factor:g}: {sentence(pair)}", style="" if pair.verdict is Verdict.SHOWN else "dim")
            for pair in found.pairs[factor]]


def shown(value: Estimate | None) -> str:
    """Return a mean and half its interval: 1.26 ±0.10, 432k ±12k; no interval where there is none, or no width."""
    if value is None:
        return DASH
    if not value.half:
        return short(value.mean)
    return f"{short(value.mean)} ±{short(value.half)}"


def short(value: float) -> str:
    """Return a number in three digits or little more: 0, 0.987, 1.26, 432, 43.2k."""
    if value == 0 or (abs(value) >= 100 and abs(value) < 1000):
        return f"{value:.0f}"
    for scale, unit in UNITS:
        if abs(value) >= scale:
            return f"{_three(value / scale)}{unit}"
    return _three(value)


def _three(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
