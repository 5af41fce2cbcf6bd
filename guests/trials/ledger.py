"""The I/O ledger of CMM2 (reference 2.7), row by row: the table, and what is counted where each row is played (R43).

    python -m guests.trials.ledger CLUSTER [--pages N] [--faults ...]    the rows that a cluster's scheme has

    swap       the column without hints            balloon    ... and the balloon beside it
    cmm2       the column with hints               tmem       ... and tmem

F is the guest's disk, file or swap, H the host's.  The table is per page; N pages are played, and N times the table
must have crossed, exactly.  A cell with a range is one that the table leaves open; one without a table is not in 2.7.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from guests.guest import MODES
from guests.mappings.operator import Operator
from guests.trials import ledger_plays as plays
from guests.trials.vm import Transfers, Vm
from shm.errors import MemcommonsError, UsageProblem

PAGES, MOST_PAGES = 32, 256
ROOM = 8                         # times the pages played are the guest's, so that nothing else is short


class Crossed(NamedTuple):
    """Transfers of one page: F reads, F writes, H reads, H writes."""

    f_reads: float
    f_writes: float
    h_reads: float
    h_writes: float

    def __str__(self) -> str:
        parts = [f"{count:g} {name}" for count, name in
                 zip(self, ("F read", "F write", "H read", "H write"), strict=True) if count]
        return f"{sum(self):g}" + (f" = {' + '.join(parts)}" if parts else "")


class Cell(NamedTuple):
    """One cell: which of ROWS, which column, who plays it, and what the table says (from, to; None: nothing)."""

    row: str
    column: str
    scheme: str
    scene: plays.Scene
    take: plays.Take
    least: Crossed | None
    most: Crossed | None


def _cell(row: str, column: str, scheme: str, scene: plays.Scene, take: plays.Take, table: Sequence[int] | None,
          most: Sequence[int] | None = None) -> Cell:
    least = None if table is None else Crossed(*table)
    return Cell(row, column, scheme, scene, take, least, least if most is None else Crossed(*most))


ROWS = {
    "1": "clean file page evicted by host, later used",
    "2": "clean file page evicted, never used",
    "3": "free page evicted, then reallocated and written whole",
    "4 S": "anonymous page (S): taken, then swapped by the guest",
    "4 V": "page clean in swap cache (V): taken, then dropped",
    "4 V+": "... dropped, and used again",
    "5": "dirty P page evicted, then used",
}
NO_HINTS, HINTS = "no hints", "with hints"
_HOST, _BALLOON, _GUEST = plays.host_evicts, plays.balloon_inflates, plays.guest_reclaims
_FORGETS, _REFUSES = plays.guest_reclaims_and_tmem_forgets, plays.guest_reclaims_and_tmem_refuses
_ANON = plays.anonymous_page_swapped

CELLS: tuple[Cell, ...] = (
    # what crosses: F reads, F writes, H reads, H writes
    _cell("1", NO_HINTS, "swap", plays.clean_file_page_used, _HOST, (0, 0, 1, 1)),
    _cell("1", HINTS, "cmm2", plays.clean_file_page_used, _HOST, (1, 0, 0, 0)),
    _cell("1", "balloon", "balloon", plays.clean_file_page_used, _BALLOON, (1, 0, 0, 0)),
    _cell("1", "tmem, hit", "tmem", plays.clean_file_page_used, _GUEST, (0, 0, 0, 0)),
    _cell("1", "tmem, miss", "tmem", plays.clean_file_page_used, _FORGETS, (1, 0, 0, 0)),
    _cell("2", NO_HINTS, "swap", plays.clean_file_page_never_used, _HOST, (0, 0, 0, 1)),
    _cell("2", HINTS, "cmm2", plays.clean_file_page_never_used, _HOST, (0, 0, 0, 0)),
    _cell("2", "balloon", "balloon", plays.clean_file_page_never_used, _BALLOON, (0, 0, 0, 0)),
    _cell("2", "tmem", "tmem", plays.clean_file_page_never_used, _GUEST, (0, 0, 0, 0)),
    _cell("3", NO_HINTS, "swap", plays.free_page_written_whole, _HOST, (0, 0, 0, 1), (0, 0, 1, 1)),
    _cell("3", HINTS, "cmm2", plays.free_page_written_whole, _HOST, (0, 0, 0, 0)),
    _cell("3", "balloon", "balloon", plays.free_page_written_whole, _BALLOON, (0, 0, 0, 0)),
    _cell("3", "tmem", "tmem", plays.free_page_written_whole, _GUEST, (0, 0, 0, 0)),
    _cell("4 S", NO_HINTS, "swap", _ANON, _HOST, (0, 1, 1, 1)),
    _cell("4 S", HINTS, "cmm2", _ANON, _HOST, (0, 1, 1, 1)),
    _cell("4 S", "balloon", "balloon", _ANON, _BALLOON, (0, 1, 0, 0)),
    _cell("4 S", "preswap accepted", "tmem", _ANON, _GUEST, (0, 0, 0, 0)),
    _cell("4 S", "preswap refused", "tmem", _ANON, _REFUSES, (0, 1, 0, 0)),
    _cell("4 V", NO_HINTS, "swap", plays.swap_cache_page_dropped, _HOST, None),
    _cell("4 V", HINTS, "cmm2", plays.swap_cache_page_dropped, _HOST, (0, 0, 0, 0)),
    _cell("4 V+", NO_HINTS, "swap", plays.swap_cache_page_used, _HOST, None),
    _cell("4 V+", HINTS, "cmm2", plays.swap_cache_page_used, _HOST, (1, 0, 0, 0)),
    _cell("5", HINTS, "cmm2", plays.dirty_p_page_used, _HOST, (0, 0, 1, 1)),
)
SCHEMES = tuple(dict.fromkeys(cell.scheme for cell in CELLS))


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Play every cell of the cluster's scheme, each in a guest of its own; options: pages, faults."""
    pages = int(options.get("pages", PAGES))
    if not 1 <= pages <= MOST_PAGES:
        raise UsageProblem(f"the ledger cannot be played with {pages} pages; allowed: 1 to {MOST_PAGES}")
    with Operator(cluster) as operator:
        scheme = operator.order("list")["scheme"]
        cells = [cell for cell in CELLS if cell.scheme == scheme]
        if not cells:
            raise UsageProblem(f"the ledger has no column for scheme {scheme!r}; allowed: {', '.join(SCHEMES)}")
        return {"pages": pages, "rows": [_played(operator, cell, pages, options) for cell in cells]}


def _played(operator: Operator, cell: Cell, pages: int, options: Mapping[str, Any]) -> dict[str, Any]:
    with Vm(operator, ROOM * pages, pages, ROOM * pages, faults=options.get("faults", "software")) as vm:
        crossed = cell.scene(vm, pages, cell.take)
        found = a_page(crossed, pages)
        vm.kernel.check()
        volatile = vm.hosts()["volatile_swap_writes"]
    return {"key": cell.row, "row": ROWS[cell.row], "column": cell.column, "transfers": crossed._asdict(),
            "counted": list(found), "said": str(found),
            "table": cell.least and list(cell.least), "most": cell.most and list(cell.most),
            "same": within(cell, found), "volatile_swap_writes": volatile}


def a_page(crossed: Transfers, pages: int) -> Crossed:
    """Return what crossed for each page."""
    sums = (crossed.file_reads + crossed.swap_reads, crossed.file_writes + crossed.swap_writes, crossed.host_reads,
            crossed.host_writes)
    return Crossed(*(count / pages for count in sums))


def within(cell: Cell, found: Crossed) -> bool | None:
    """Say whether a count is what the table says; None where it says nothing."""
    if cell.least is None or cell.most is None:
        return None
    return found in (cell.least, cell.most)


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0, 1 where a row is not as the table says, 2 where it cannot be played here."""
    parser = argparse.ArgumentParser(prog="python -m guests.trials.ledger", description="The I/O ledger, row by row.")
    parser.add_argument("cluster", help=f"a cluster of scheme {', '.join(SCHEMES)}")
    parser.add_argument("--pages", type=int, default=PAGES, help="pages that each row is played with")
    parser.add_argument("--faults", choices=MODES, default="software", help="how touches of missing pages are noticed")
    wanted = parser.parse_args(arguments)
    try:
        rows = run(wanted.cluster, {"pages": wanted.pages, "faults": wanted.faults})["rows"]
    except MemcommonsError as problem:
        print(problem, file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 120).print(shown(rows, wanted.pages))
    return int(any(row["same"] is False for row in rows))


def shown(rows: Sequence[Mapping[str, Any]], pages: int) -> Table:
    """Show rows: the table's word beside what was counted."""
    table = Table(title=f"transfers a page; file, swap, host: pages in/out where {pages} were played")
    for column in ("row", "column", "table", "counted", "file", "swap", "host", ""):
        table.add_column(column, overflow="fold")
    for row in rows:
        says = "-" if row["table"] is None else _said(row["table"], row["most"])
        crossed = Transfers(**row["transfers"])
        table.add_row(row["row"], row["column"], says, row["said"], f"{crossed.file_reads}/{crossed.file_writes}",
                      f"{crossed.swap_reads}/{crossed.swap_writes}", f"{crossed.host_reads}/{crossed.host_writes}",
                      {True: "as it says", False: "differs", None: "not in it"}[row["same"]])
    return table


def _said(least: Sequence[float], most: Sequence[float]) -> str:
    return str(Crossed(*least)) + (f" to {Crossed(*most)}" if list(most) != list(least) else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
