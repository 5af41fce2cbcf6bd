"""A claims run as people read it: a table of verdicts, and under it the remarks; 110 columns, on a pipe too."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hypervisor.toolstack.claims.claim import Verdict
from hypervisor.toolstack.table import plain_table

STYLES = {Verdict.SUPPORTED.value: "green", Verdict.REFUTED.value: "red", Verdict.DEPENDS.value: "yellow",
          Verdict.NOT_TESTED.value: "dim"}


def verdict_table(found: Mapping[str, Any]) -> RenderableType:
    """Return the claims, a row each, and how many have which verdict."""
    return Group(Text(header(found), style="bold"), _rows(found), Text(sums(found)))


def header(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    return (f"claims of the 2009 threads, {found['size']} run of {found['began']}: {len(found['claims'])} claims, "
            f"{found['faults']} faults, {machine['cpus']} cores, Linux {machine['kernel']}")


def sums(found: Mapping[str, Any]) -> str:
    return "verdicts: " + ", ".join(f"{count} {name}" for name, count in found["verdicts"].items() if count)


def _rows(found: Mapping[str, Any]) -> Table:
    table = plain_table("", "claim", "figure", "verdict", title="")
    for column in table.columns:
        column.justify, column.overflow, column.no_wrap = "left", "fold", False
    for row in found["claims"]:
        table.add_row(row["key"], _two(row["says"], row["who"]), _two(row["figure"], row["why"]),
                      Text(row["verdict"], style=STYLES[row["verdict"]]))
        table.add_section()
    return table


def _two(first: str, second: str) -> Text:
    """Return a cell: what counts, and a fainter remark under it."""
    cell = Text(first)
    if second:
        cell.append(f"\n{second}", style="dim")
    return cell
