"""Where each input and output went: two ledgers, made of a run's counters.  Pure.

    again    pages that were wanted again and were not in the guest's memory: read from a disk, or spared that
    taken    pages whose frames were taken and whose content was not on a disk: written to one, or spared that

A kind names the counters that it adds, so every bar can be traced to `docs/measuring.md`.  All counts are pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypervisor.toolstack.reporting.charts import Axis, Part, Row, Rows
from hypervisor.toolstack.reporting.palette import CROSSES, DOTS, SOLID, STRIPES


@dataclass(frozen=True, slots=True)
class Kind:
    said: str
    counts: str                  # what exactly is counted
    number: int                  # of its colour
    texture: int
    spared: bool                 # no disk was used
    plus: tuple[str, ...]        # counters that are added
    minus: tuple[str, ...] = ()

    def of(self, counters: Mapping[str, float]) -> float:
        added = sum(counters.get(name, 0) for name in self.plus)
        return max(0.0, float(added - sum(counters.get(name, 0) for name in self.minus)))


AGAIN = (
    Kind("read from guests' disks", "Pages read from the guests' file-system disks, first reads and those that restore "
         "discarded pages included.", 6, SOLID, False, ("guest_disk_reads",)),
    Kind("read from guests' swap", "Pages read from the guests' own swap disks.", 8, SOLID, False,
         ("guest_swap_reads",)),
    Kind("read from the host's swap", "Pages read from the hypervisor's swap disk.", 1, SOLID, False, ("swap_in",)),
    Kind("spared: ephemeral page in tmem", "Gets of cleancache that found the page in tmem: a read of a guest's disk "
         "each.", 0, STRIPES, True, ("cleancache_hits",)),
    Kind("spared: persistent page in tmem", "Loads of frontswap from tmem: a read of a guest's swap disk each.", 5,
         STRIPES, True, ("frontswap_loads",)),
    Kind("spared: host's cache", "Blocks found in the host's cache of the guests' disks and swap disks.", 3, CROSSES,
         True, ("host_cache_hits",)),
    Kind("spared: computed again", "Discarded pages that their owner or its pager computed again instead of reading "
         "them.", 2, DOTS, True, ("rebuilt_pages", "pager_restored"), ("pager_disk_reads",)),
)
TAKEN = (
    Kind("written to guests' swap", "Pages that guests wrote to their own swap disks.", 8, SOLID, False,
         ("guest_swap_writes",)),
    Kind("written to the host's swap", "Pages that the hypervisor wrote to its swap disk.", 1, SOLID, False,
         ("swap_out",)),
    Kind("spared: discarded", "Frames of volatile pages taken by the hypervisor: without the mark it would have "
         "written them.", 2, STRIPES, True, ("discards",)),
    Kind("spared: unused", "Frames of unused pages taken by the hypervisor: without the mark it would have written "
         "them.", 5, DOTS, True, ("freed_unused",)),
    Kind("spared: put into tmem", "Stores of frontswap that tmem took: a write to a guest's swap disk each.", 0,
         STRIPES, True, ("frontswap_stores",)),
)
PAGES = Axis("pages of 4 KiB")
Counters = Mapping[str, float]


def by_disk(kinds: Sequence[Kind], counters: Counters) -> tuple[float, float]:
    """Return the pages for which a disk was used, and those for which none was."""
    spared = sum(kind.of(counters) for kind in kinds if kind.spared)
    return sum(kind.of(counters) for kind in kinds) - spared, spared


def _row(name: str, kinds: Sequence[Kind], counters: Counters) -> Row:
    disk, spared = by_disk(kinds, counters)
    said = f"{disk:,.0f} by disk, {spared:,.0f} spared" if disk or spared else "none"
    parts = tuple(Part(kind.said, kind.of(counters), kind.number, kind.texture) for kind in kinds)
    return Row(name, parts, said)


def ledgers(runs: Sequence[tuple[str, Counters]], of: str = "") -> list[Rows]:
    """Return both ledgers, a bar a run: (its name, its counters)."""
    return [
        Rows("io-again", f"Pages wanted again: where they came from{of}", PAGES,
             tuple(_row(name, AGAIN, counters) for name, counters in runs),
             "Solid: a disk was read. Patterned: no disk was, for the reason in the legend."),
        Rows("io-taken", f"Pages taken away: where their content went{of}", PAGES,
             tuple(_row(name, TAKEN, counters) for name, counters in runs),
             "Solid: a disk was written. Patterned: no disk was. Clean pages that a guest drops by itself cost nothing "
             "in any scheme and are not in here."),
    ]


def ledger_rows(runs: Sequence[tuple[str, Counters]]) -> list[list[str]]:
    """Return the same in figures: kind, what it counts, its counters' names, and each run's; without rows of zeros."""
    rows = []
    for kind in (*AGAIN, *TAKEN):
        values = [kind.of(counters) for _, counters in runs]
        if any(values):
            names = " + ".join(kind.plus) + "".join(f" - {name}" for name in kind.minus)
            rows.append([kind.said, f"{kind.counts} ({names})", *(f"{value:,.0f}" for value in values)])
    return rows
