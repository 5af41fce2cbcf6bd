"""The curves as people read them: a table a picture, who passes whom, and what did not finish; 100 columns.

A figure is throughput relative to the baseline of the same seed, the mean over the seeds and half of its 95 % interval.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hypervisor.toolstack.compare.outcome import Cell, Outcome
from hypervisor.toolstack.compare.statistics import DOUBTFUL, Estimate, doubtful
from hypervisor.toolstack.curves.crossings import crossings, sentence, why_none
from hypervisor.toolstack.curves.grid import Picture
from hypervisor.toolstack.table import DASH, plain_table
from shm.units import format_size

UNFINISHED = "did not finish"


Facts = Mapping[str, Any]


def curves_table(found: Mapping[Picture, Outcome], facts: Facts, each: Mapping[Picture, Facts]) -> RenderableType:
    """Return all of it; `facts` are of the whole, `each` of every picture."""
    parts: list[RenderableType] = [Text(header(facts), style="bold"), Text(
        "throughput, all memory granted = 1; mean over the seeds and 95 % interval; disks in virtual time")]
    for picture, one in found.items():
        parts += [Text(), Text(title(picture, each[picture]), style="bold"), throughputs(one), *_crossings(one),
                  *_failures(one), *_doubts(one)]
    return Group(*parts)


def header(facts: Facts) -> str:
    return f"curves: {facts['done']} of {facts['of']} runs finished; {facts['faults']} faults"


def title(picture: Picture, facts: Facts) -> str:
    """Return what a picture is of: "oltp, disk ssd: 2 guests with 32.0 MiB together, 8,000 operations each"."""
    work = f"{facts['seconds']:g} s of baseline" if facts["seconds"] else f"{facts['operations']:,} operations each"
    return f"{picture.said}: {facts['guests']} guests with {format_size(facts['ram_bytes'])} together, {work}"


def throughputs(found: Outcome) -> Table:
    """Return a picture's throughputs: a row a scheme, a column an overcommit."""
    table = plain_table("overcommit", *(f"{factor:g}" for factor in found.overcommits), title="")
    for scheme in found.schemes:
        table.add_row(scheme, *(_cell(found.cell(scheme, factor)) for factor in found.overcommits))
    return table


def _cell(cell: Cell) -> str:
    """Return a figure; where some seeds did not finish, how many did; a dash where nothing was run yet."""
    of = cell.finished + len(cell.failed)
    if not cell.finished:
        return UNFINISHED if of else DASH
    return shown(cell.figures["throughput"]) + (f" ({cell.finished} of {of})" if cell.failed else "")


def shown(value: Estimate | None) -> str:
    """Return a throughput and half its interval: 0.81 ±0.04, 0.012 ±0.003."""
    if value is None:
        return DASH
    digits = 2 if value.mean >= 0.095 else 3
    return f"{value.mean:.{digits}f}" + ("" if value.half is None else f" ±{value.half:.{digits}f}")


def _crossings(found: Outcome) -> list[Text]:
    lines = [sentence(crossing) for crossing in crossings(found)]
    return [Text(line) for line in lines] or [Text(why_none(found), style="dim")]


def _failures(found: Outcome) -> list[Text]:
    """Say who did not finish, and why the first did not; the document has all the reasons."""
    failed = [(f"{scheme} at {factor:g} ({line.partition(':')[0]})", line) for scheme in found.schemes
              for factor in found.overcommits for line in found.cell(scheme, factor).failed]
    if not failed:
        return []
    names, (_, first) = ", ".join(name for name, _ in failed), failed[0]
    return [Text(f"{UNFINISHED}: {names}", style="yellow"), Text(f"the first of them, {first}", style="yellow")]


def _doubts(found: Outcome) -> list[Text]:
    """Say where less memory was faster by far than all memory."""
    times = {(cell.scheme, cell.overcommit): cell.figures["slowdown"] for cell in found.cells}
    names = [f"{scheme} at {factor:g}" for (scheme, factor), mean in times.items() if mean and doubtful(mean.mean)]
    return [Text(f"{', '.join(names)}: less than {DOUBTFUL:g} of the time with all memory granted, more than a scheme "
                 f"explains: the machine did other work during the baseline, or the runs are too short",
                 style="yellow")] if names else []
