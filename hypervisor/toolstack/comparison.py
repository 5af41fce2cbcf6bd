"""Several schemes beside each other: what each read and wrote for the same work, and what it saved.

Made of the schemes' summaries, which share one baseline.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from hypervisor.toolstack.table import header, mib, number, percent, plain_table, ratio, verdict, work_rows

Summary = Mapping[str, Any]


def several_runs(summaries: Sequence[Summary]) -> RenderableType:
    """Return one table, a column a scheme and the baseline first, and a verdict for each scheme."""
    schemes = [summary["scheme"] for summary in summaries]
    title = header(summaries[0], f"{len(schemes)} schemes")
    table = plain_table("pages", "baseline", *schemes, title="the same work under each scheme")
    first = summaries[0]["baseline"]["counters"]
    for name, said in work_rows(*summaries):
        row = [first.get(name, 0), *(summary["counters"].get(name, 0) for summary in summaries)]
        table.add_row(said, *map(number, row))
    table.add_section()
    _add_costs(table, summaries)
    return Group(title, table, *(verdict(summary, summary["scheme"]) for summary in summaries))


def _add_costs(table: Table, summaries: Sequence[Summary]) -> None:
    first = summaries[0]
    table.add_row("seconds", ratio(first["baseline"]["duration_s"]), *(ratio(s["duration_s"]) for s in summaries))
    if first["disk"]["latency"] != "none":
        table.add_row("longest guest's clock, s", ratio(longest(first["baseline"]["guests"].values())),
                      *(ratio(longest(s["guests"])) for s in summaries))
    rows: list[tuple[str, str, Callable[[Summary], str]]] = [
        ("slow-down, geometric mean", "1.00", lambda s: ratio(mean_slowdown(s))),
        ("slow-down, worst guest", "1.00", lambda s: ratio(max(known_slowdowns(s), default=None))),
        ("arena, psutil PSS, MiB", mib(first["rss"]["baseline_bytes"]["mean"]),
         lambda s: mib(s["rss"]["measured_bytes"]["mean"])),
        ("arena, kernel's count, MiB", mib(first["kernel"]["baseline_bytes"]["mean"]),
         lambda s: mib(s["kernel"]["measured_bytes"]["mean"])),
        ("saved (the lesser claim)", "", lambda s: percent(s["rss"]["saved_percent"]))]
    for said, baseline, figure in rows:
        table.add_row(said, baseline, *map(figure, summaries))


def longest(guests: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the seconds of the guest that took longest by its own clock."""
    return max((guest["seconds"] for guest in guests if guest["seconds"] is not None), default=None)


def known_slowdowns(summary: Summary) -> list[float]:
    return [guest["slowdown"] for guest in summary["guests"] if guest["slowdown"]]


def mean_slowdown(summary: Summary) -> float | None:
    """Return the geometric mean over the guests that finished: of ratios, the arithmetic mean says nothing."""
    ratios = known_slowdowns(summary)
    return geometric_mean(ratios) if ratios else None
