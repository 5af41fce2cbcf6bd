"""The orders that people give through the door: what each answers is a plain map."""

from collections.abc import Callable
from reprlib import repr as brief  # of what others sent: neither long nor deep
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from hypervisor.controls import Controls
from hypervisor.domains import Domain
from hypervisor.ledger import HEAP
from hypervisor.schemes import SCHEMES
from hypervisor.states import States
from hypervisor.tmem import figures
from shm.abi import PAGE_SIZE
from shm.counters import Count, HostCount, named
from shm.errors import UsageProblem
from shm.pagestate import State

if TYPE_CHECKING:
    from hypervisor.machine import Machine

LEAST_BUDGET = 64            # frames
GUESTS_A_MESSAGE = 24        # a list of many guests is asked for in parts, each below the door's message limit


class Orders:
    """Answers to orders about one machine."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.table: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "list": self.list, "set-budget": self.set_budget, "audit": self.audit, "stop": self.stop,
            "balloon-decide": self.balloon_decide,
        }
        self.table.update(Controls(machine).table | States(machine).table)

    def list(self, message: dict[str, Any]) -> dict[str, Any]:
        """Describe the cluster, and the guests from number `from` on; `next` is where to ask on, if anywhere."""
        machine, start = self.machine, message.get("from", 0)
        if type(start) is not int:
            raise UsageProblem(f"list: from {brief(start)} is not a number")
        numbers = [number for number in sorted(machine.domains) if number >= start]
        shown, rest = numbers[:GUESTS_A_MESSAGE], numbers[GUESTS_A_MESSAGE:]
        return self.summary() | {
            "guests": [self._guest(machine.domains[number]) for number in shown], "next": rest[0] if rest else None,
        }

    def summary(self) -> dict[str, Any]:
        """Return the figures of the whole cluster."""
        machine, ledger = self.machine, self.machine.ledger
        kernel = machine.audit.kernel_frames() * PAGE_SIZE
        return {
            "cluster": machine.settings.cluster, "scheme": machine.settings.scheme, "budget": ledger.budget * PAGE_SIZE,
            "waiting": [waiting.name for waiting in machine.migration.waiting.values()],
            "frames_used": ledger.used, "frames_free": ledger.free, "heap_frames": ledger.held.get(HEAP, 0),
            "ephemeral": machine.store.ephemeral, "swap_pages": machine.swap.used if machine.swap else 0,
            "peak_frames": ledger.peak, "kernel_bytes": kernel,
            "kernel_peak_bytes": machine.audit.kernel_peak * PAGE_SIZE,
            "tmem_metadata_bytes": machine.store.nbytes, "counters": named(machine.counts(), HostCount),
            "audit": self._audit(), "tmem": figures.of_store(machine.store),
        }

    def _audit(self) -> dict[str, int]:
        return {"checks": self.machine.audit.checks, "max_drift_frames": self.machine.audit.max_drift}

    def _guest(self, domain: Domain) -> dict[str, Any]:
        machine, store = self.machine, self.machine.store
        states = np.bincount(domain.map.states(slice(None)), minlength=len(State))
        return {
            "name": domain.name, "pid": domain.pid,
            "moved": domain.moved["cluster"] if domain.moved else None, "ram": domain.pages * PAGE_SIZE,
            "target": int(domain.target[0]) * PAGE_SIZE or None, "weight": domain.weight,
            "faults": "software" if domain.hardware is None else "hardware",
            "frames": machine.ledger.held.get(domain.number, 0),
            "persistent": store.pages_of(domain.number, persistent=True),
            "ephemeral": store.pages_of(domain.number, persistent=False),
            "states": {state.name: int(states[state]) for state in State},
            "counters": named(domain.counters, Count), "host_counters": named(domain.counts, HostCount),
        }

    def set_budget(self, message: dict[str, Any]) -> dict[str, Any]:
        """Change the budget; when it shrinks, memory goes back to the machine before this is answered."""
        size, machine = message.get("bytes"), self.machine
        most = len(machine.heap.pages)
        if type(size) is not int or not LEAST_BUDGET <= size // PAGE_SIZE <= most:
            raise UsageProblem(f"budget {brief(size)} bytes: use {LEAST_BUDGET * PAGE_SIZE >> 10} KiB "
                               f"to {most * PAGE_SIZE >> 20} MiB")
        before, old = machine.ledger.used, machine.ledger.budget
        machine.ledger.budget = size // PAGE_SIZE
        if machine.ledger.free < 0:
            machine.reclaim.free_up(-machine.ledger.free)
        if machine.ledger.free < 0:
            kept, machine.ledger.budget = machine.ledger.used, max(old, machine.ledger.used)
            raise UsageProblem(f"budget {size >> 10} KiB cannot be met: {kept * PAGE_SIZE >> 10} KiB are stable or "
                               f"persistent and no swap is left for them; the budget stays as it was")
        return {"budget": machine.ledger.budget * PAGE_SIZE, "frames_used": machine.ledger.used,
                "returned_frames": before - machine.ledger.used}

    def audit(self, _: dict[str, Any]) -> dict[str, Any]:
        """Audit now: the kernel against the ledger, and every structure against itself."""
        self.machine.check()
        problems = self.machine.ledger.audit() + self.machine.store.audit()
        return self._audit() | {"drifts": self.machine.audit.drifts[-20:], "problems": problems}

    def balloon_decide(self, _: dict[str, Any]) -> dict[str, Any]:
        """Let the balloons' controller decide now, as if its interval was over; answer every guest's target in pages.

        For who plays the clock: with a long interval, nothing else makes it decide.
        """
        machine = self.machine
        if machine.ballooning is None:
            raise UsageProblem(f"balloon-decide: scheme {machine.settings.scheme!r} has no balloons; allowed with "
                               f"{', '.join(name for name, row in SCHEMES.items() if row.balloon)}")
        machine.ballooning.decide()
        return {"targets": {domain.name: int(domain.target[0]) or domain.pages for domain in machine.domains.values()}}

    def stop(self, _: dict[str, Any]) -> dict[str, Any]:
        self.machine.stopping = True
        return {"ok": True}

    def last_words(self) -> dict[str, Any]:
        """Return what is worth knowing of a machine about to close."""
        machine = self.machine
        return {
            "counters": named(machine.counts(), HostCount), "audit": self._audit(),
            "problems": machine.ledger.audit() + machine.store.audit(), "peak_frames": machine.ledger.peak,
            "kernel_peak_bytes": machine.audit.kernel_peak * PAGE_SIZE, "tmem": figures.of_store(machine.store),
            "cpu_seconds": sum(psutil.Process().cpu_times()[:2]),
        }
