"""What a phase is to do, decided before anything starts: pure functions from a scenario to orders.

    baseline   all memory granted, for the scenario's seconds or operations
    measured   the scheme under its budget, for exactly the operations that the baseline did

`faults` is the mode that was decided for the whole run (`faultmode`), "software" or "hardware".
A phase is one cluster from start to stop.  The measured run has ten times the baseline's time, and no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.schemes import BASELINE, SCHEMES
from hypervisor.toolstack.faultmode import SOFTWARE
from hypervisor.toolstack.scenario import FLOOR_BYTES, FLOOR_PAGES_A_GUEST, GuestSpec, Scenario
from shm.abi import PAGE_SIZE

SLOWDOWN_LIMIT = 10.0
LEAST_LIMIT_SECONDS = 30.0      # a short baseline says little about how long the same work may take
OPERATIONS_LIMIT_SECONDS = 3600.0
CONTROL_BYTES_A_GUEST = 1_363_149    # 1.3 MiB: states, transfer buffer, counters; beside the budget


@dataclass(frozen=True, slots=True)
class GuestOrder:
    """The order line of one guest, and what we hold it to."""

    name: str
    workload: str
    ram: int                    # what the scenario promises
    line: dict[str, Any]
    exact: bool                 # the baseline may run out of work before its number; the measured run may not

    @property
    def operations(self) -> int | None:
        return self.line["operations"]

    @property
    def limit_seconds(self) -> float:
        return self.line["limit_seconds"]


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One cluster, from start to stop."""

    label: str                  # "baseline", or the scheme
    cluster: str
    budget: int
    hypervisor: dict[str, Any]  # its order line
    guests: tuple[GuestOrder, ...]
    folder: Path


@dataclass(frozen=True, slots=True)
class Work:
    """How long one guest shall work: either number is None."""

    seconds: float | None
    operations: int | None
    limit_seconds: float


def baseline_budget(scenario: Scenario) -> int:
    """Return a budget that does not bind: all RAM, and the slack that a hypervisor and its guests need at least."""
    return scenario.total_ram + FLOOR_BYTES + len(scenario.guests) * FLOOR_PAGES_A_GUEST * PAGE_SIZE


def baseline_plan(scenario: Scenario, cluster: str, faults: str = SOFTWARE) -> PhasePlan:
    table = scenario.table
    limit = OPERATIONS_LIMIT_SECONDS if table.seconds is None else _limit(table.seconds)
    work = Work(table.seconds, table.operations, limit)
    works = {guest.name: work for guest in scenario.guests}
    return _plan(scenario, BASELINE, cluster, baseline_budget(scenario), works, faults)


def measured_plan(scenario: Scenario, scheme: str, cluster: str, done: Mapping[str, tuple[int, float]],
                  faults: str = SOFTWARE) -> PhasePlan:
    """Plan the scheme's run; `done`: guest -> (operations, seconds) of the baseline."""
    works = {name: Work(None, operations, _limit(scenario.table.seconds or seconds))
             for name, (operations, seconds) in done.items()}
    return _plan(scenario, scheme, cluster, scenario.table.budget, works, faults)


def _limit(seconds: float) -> float:
    return max(SLOWDOWN_LIMIT * seconds, LEAST_LIMIT_SECONDS)


def _plan(scenario: Scenario, scheme: str, cluster: str, budget: int, works: Mapping[str, Work],
          faults: str) -> PhasePlan:
    guests = tuple(_guest_order(scenario, scheme, cluster, ram, guest, n, works[guest.name], faults)
                   for n, (guest, ram) in enumerate(zip(scenario.guests, scenario.rams(scheme, budget), strict=True)))
    order = hypervisor_order(scenario, scheme, cluster, budget)
    return PhasePlan(scheme, cluster, budget, order, guests, scenario.folder)


def hypervisor_order(scenario: Scenario, scheme: str, cluster: str, budget: int) -> dict[str, Any]:
    table = scenario.table
    return {"cluster": cluster, "budget": budget, "scheme": scheme, "reclaim": table.hypervisor.reclaim,
            "bias": table.hypervisor.bias, "swap": scenario.swap_bytes, "ephemeral_pages": table.tmem.ephemeral_pages,
            "quirks": table.tmem.quirks, "form": table.tmem.form, "write_back": table.tmem.write_back,
            "dedup_across": table.tmem.dedup_across, "cmma": table.hypervisor.cmma, "folder": table.hypervisor.folder,
            "targets": table.tmem.targets,
            "balloon": table.balloon.model_dump() | {"step": table.balloon.step // PAGE_SIZE},
            "disk": table.disk.latency, "disk_time": table.disk.time, "direct": table.disk.direct}


def _selfballoons(scenario: Scenario, scheme: str) -> bool:
    row, table = SCHEMES[scheme], scenario.table
    return (table.tmem.selfballoon and row.tmem) or (row.balloon and table.balloon.controller == "self")


def _guest_order(scenario: Scenario, scheme: str, cluster: str, ram: int, guest: GuestSpec, number: int,
                 work: Work, faults: str) -> GuestOrder:
    line = {"cluster": cluster, "name": guest.name, "workload": guest.workload, "ram": ram, "max_mem": guest.ram,
            "weight": guest.weight or 0, "selfballoon": _selfballoons(scenario, scheme),
            "options": guest.options, "seed": scenario.table.seed * 1000 + number, "seconds": work.seconds,
            "operations": work.operations, "limit_seconds": work.limit_seconds, "faults": faults,
            "disk": scenario.table.disk.model_dump()}
    return GuestOrder(guest.name, guest.workload, guest.ram, line, exact=scheme != BASELINE)
