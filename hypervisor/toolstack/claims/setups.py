"""The guests that claims have in common, as a scenario file would have them.  Pure data; sizes are small on purpose.

    bank        SQLite transactions (OLTP): file pages, some of them dirty
    scan        a tree of files, read through again and again: clean file pages
    numbers     tables in numpy: anonymous pages, and columns that can be computed again

Rule 1: work is given in operations, so that every scheme does the same.
Rule 2: the budget follows from the overcommit: RAM of all guests / budget.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.toolstack.claims.claim import Size
from hypervisor.toolstack.claims.jobs import Run
from hypervisor.toolstack.compare.points import budget_for
from shm.units import parse_size

Table = dict[str, Any]
RAM = "16MiB"
BANK: Table = {"name": "bank", "ram": RAM, "workload": "sqlite", "options": {"database": "14MiB"}}
SCAN: Table = {"name": "scan", "ram": RAM, "workload": "scan", "options": {"size": "14MiB"}}
NUMBERS: Table = {"name": "numbers", "ram": RAM, "workload": "analytics",
                  "options": {"table": "10MiB", "derived": "5MiB"}}
COMMON = (BANK | {"count": 2}, SCAN, NUMBERS)
OPERATIONS = 8000


def ram_of(guests: Sequence[Table]) -> int:
    """Return the RAM of all guests in bytes."""
    return sum(parse_size(guest["ram"]) * guest.get("count", 1) for guest in guests)


def run(name: str, scheme: str, overcommit: float, seed: int, guests: Sequence[Table] = COMMON,
        operations: int = OPERATIONS, **tables: Any) -> Run:
    """Return a run; `tables` are further tables of the scenario: hypervisor, tmem, balloon, disk."""
    budget = f"{budget_for(ram_of(guests), overcommit)}B"
    return Run({"name": name, "budget": budget, "operations": operations, "seed": seed, "guest": list(guests),
                **tables}, scheme)


def grid(name: str, schemes: Sequence[str], overcommits: Sequence[float], seeds: Sequence[int], size: Size,
         guests: Sequence[Table] = COMMON, operations: int = OPERATIONS, **tables: Any) -> Mapping[str, Run]:
    """Return runs under "SCHEME/OVERCOMMIT/SEED"."""
    return {label(scheme, overcommit, seed): run(name, scheme, overcommit, seed, guests, size.operations(operations),
                                                 **tables)
            for seed in seeds for overcommit in overcommits for scheme in schemes}


def label(scheme: str, overcommit: float, seed: int) -> str:
    return f"{scheme}/{overcommit:g}/{seed}"
