"""Workloads: real programs on the guest kernel, each of which verifies every byte that it reads.

    base         what a workload is: options, prepare, step, finish
    proof        the comparison: pages verified, mismatches, and the one line about a wrong page
    content      pages that can be computed from a block number and a version
    choice       skewed choice, the same for the same seed
    image        a disk's first content, in a nameless file
    order        what `run` and `check` are told, checked; one line for everything that is wrong
    leave        the reasons to leave: a signal, the end of standard input, the hypervisor's end
    session      one run, from the order to the last line

    sqlite, vfs                  real SQLite on the guest kernel's page cache
    sqlite_cache                 real SQLite, whose own page cache is the guest's memory; no guest kernel
    speedtest                    SQLite's speedtest, as apsw ships it, on the guest kernel's page cache
    lmdb_store                   LMDB, whose mapped database is the guest's memory; no guest kernel
    scan, tree                   a real file tree, read again and again
    analytics                    numpy over anonymous pages and arrays that can be rebuilt
    trace, traces, formats       block traces replayed
    stress, model                random operations, for tests

The registry below names classes; a workload's module is imported when it is asked for, so that a guest that scans files
does not carry SQLite.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from shm.errors import UsageProblem

if TYPE_CHECKING:
    from guests.workloads.base import Workload

WORKLOADS: dict[str, tuple[str, str]] = {
    "sqlite": ("guests.workloads.sqlite", "Sqlite"),
    "scan": ("guests.workloads.scan", "Scan"),
    "analytics": ("guests.workloads.analytics", "Analytics"),
    "trace": ("guests.workloads.trace", "Replay"),
    "stress": ("guests.workloads.stress", "Stress"),
    "sqlite-cache": ("guests.workloads.sqlite_cache", "SqliteCache"),
    "speedtest": ("guests.workloads.speedtest", "Speedtest"),
    "lmdb": ("guests.workloads.lmdb_store", "Lmdb"),
}


def load(name: str) -> "type[Workload]":
    """Return the class of workload `name`; its checked options are its `Options`."""
    if name not in WORKLOADS:
        raise UsageProblem(f"there is no workload {name!r}; allowed: {', '.join(WORKLOADS)}")
    module, attribute = WORKLOADS[name]
    workload: type[Workload] = getattr(import_module(module), attribute)
    return workload
