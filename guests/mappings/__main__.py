"""`python -m guests.mappings CLUSTER`: try both mappings on a cluster, and print where they differ.

    memcommons serve --name demo --budget 32MiB --swap 16MiB
    python -m guests.mappings demo [--all]

Exit status 0; 2 with one line where the cluster is not fit for it.
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from guests.mappings.differences import MAPPINGS, Row, TwoSides, differences
from shm.errors import MemcommonsError


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m guests.mappings", description="Where the two mappings differ.")
    parser.add_argument("cluster", help="a cluster of scheme cmm2+tmem that nobody else uses")
    parser.add_argument("--all", action="store_true", help="print the rules that both sides keep alike, too")
    wanted = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        for mapping in MAPPINGS:
            show(console, mapping, list(differences(wanted.cluster, mapping)), wanted.all)
    except MemcommonsError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


def show(console: Console, mapping: TwoSides, rows: list[Row], everything: bool) -> None:
    """Print one mapping: the differences, and what is alike as a table or as numbers."""
    alike = [row for row in rows if row.same]
    console.print(f"{mapping.name}: {len(rows)} rules, {len(alike)} alike, {len(rows) - len(alike)} differ",
                  style="bold")
    console.print(table(mapping, [row for row in rows if everything or not row.same]))
    for name, rules in mapping.groups.items():
        same = [row.rule.number for row in alike if row.rule in rules]
        console.print(f"{name}: {len(same)} of {len(rules)} alike: {', '.join(same)}")
    console.print()


def table(mapping: TwoSides, rows: list[Row]) -> Table:
    """Show rows; of a difference each of the shortest steps, with the answers of both sides."""
    shown = Table()
    for column in ("rule", "", f"{mapping.original.name} says", f"{mapping.imitation.name} says", ""):
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(row.rule.number, row.rule.text, *_verdicts(row), "same" if row.same else "differs", style="bold")
        if not row.same:
            for step, ours, theirs in zip(row.steps, row.original, row.imitation, strict=True):
                shown.add_row("", f"  {step}", ours, theirs, "" if ours == theirs else "<")
        shown.add_section()
    return shown


def _verdicts(row: Row) -> tuple[str, str]:
    """Say of each side whether it keeps the rule; nothing of a rule that only asks."""
    if not any(row.rule.must):
        return "", ""
    original, imitation = ("keeps it" if not broken else "does not" for broken in row.broken)
    return original, imitation


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
