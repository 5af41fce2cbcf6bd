"""A phase: one cluster from start to stop, its guests' work between go and done, and what was measured of it.

    start the hypervisor -> ready; start the guests -> all ready; go; sample until all are done; audit; quit; stop

Rule 1: whatever happens - a death, a lie, a hang, a signal - `run` leaves no process and no name behind.
Rule 2: a guest's failure is that guest's: the others go on.  The hypervisor's end is the end of the phase.
Rule 3: every step has a deadline (`Patience`); who is late is named, ended, and counted as failed.
"""

import time
from collections.abc import Mapping
from typing import Any

from hypervisor.toolstack.crew import Crew, PhaseBroken
from hypervisor.toolstack.guestrun import Stage
from hypervisor.toolstack.holdings import holdings
from hypervisor.toolstack.interruption import Interrupted
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.plan import PhasePlan
from hypervisor.toolstack.results import MapSample, PhaseResult, SharedSample
from hypervisor.toolstack.sampler import Sampler
from shm.errors import MemcommonsError, UsageProblem


class Phase:
    """Run one plan, once."""

    def __init__(self, plan: PhasePlan, means: Means) -> None:
        self._plan, self._means = plan, means
        self._crew = Crew(plan, means)
        self._sampler: Sampler | None = None
        self._audited: dict[str, Any] = {}      # the audit's answer before the guests left

    def run(self) -> PhaseResult:
        """Carry the plan out.  Raise UsageProblem if refused, Interrupted after a signal; all is stopped then."""
        self._means.progress.phase(self._plan)
        try:
            self._steps()
        except UsageProblem:
            raise
        except MemcommonsError as error:
            self._crew.problems.append(str(error))
        except Interrupted as interrupted:
            interrupted.problems = self._crew.problems
            raise
        finally:
            self._crew.end()
            self._means.progress.phase_over()
        return self._result()

    def _steps(self) -> None:
        self._crew.start_hypervisor()
        self._crew.start_guests()
        self._work()
        self._audit()
        self._crew.send_home()

    def _work(self) -> None:
        crew = self._crew
        pids = {guest.order.name: guest.child.pid for guest in crew.at(Stage.READY)}
        pagers = {guest.order.name: guest.pager for guest in crew.at(Stage.READY) if guest.pager is not None}
        if not pids:
            raise PhaseBroken("no guest is left to work")
        self._sampler = sampler = Sampler(
            crew.hypervisor.pid, pids, lambda: crew.ask("list"), self._walked, self._shared, pagers)
        sampler.begin()
        self._go()
        while crew.at(Stage.WORKING):
            crew.wait(lambda: not crew.at(Stage.WORKING), min(sampler.due, self._next_limit()))
            self._end_the_late()
            sampler.take_due()
        sampler.take()
        for guest in crew.at(Stage.DONE):
            guest.check_waits()

    def _go(self) -> None:
        crew = self._crew
        crew.began = crew.ended = time.monotonic()
        crew.note("go")
        for guest in crew.at(Stage.READY):
            guest.stage = Stage.WORKING
            guest.child.tell("go")

    def _next_limit(self) -> float:
        limits = [guest.order.limit_seconds for guest in self._crew.at(Stage.WORKING)]
        return self._crew.began + min(limits, default=0.0) + self._means.patience.grace

    def _end_the_late(self) -> None:
        elapsed = time.monotonic() - self._crew.began
        for guest in self._crew.at(Stage.WORKING):
            if elapsed >= guest.order.limit_seconds + self._means.patience.grace:
                guest.fail(guest.too_slow(guest.counters.get("operations", 0)))

    def _audit(self) -> None:
        self._audited = self._crew.ask("audit")
        self._crew.note("audit", answer=self._audited)

    # -- what the sampler saw

    def _walked(self, sample: MapSample, seen: dict[str, Any]) -> None:
        guests = self._crew.guests
        for entry in seen.get("guests", ()):
            if entry["name"] in guests:
                guests[entry["name"]].counters = entry["counters"]
                guests[entry["name"]].host_counters = entry.get("host_counters", {})
        self._means.journal.sample(
            self._plan.label, "maps", sample.at, kernel_bytes=sample.kernel_bytes,
            hypervisor=sample.hypervisor and sample.hypervisor._asdict(),
            guests={name: memory._asdict() for name, memory in sample.guests.items()},
            pagers={name: memory._asdict() for name, memory in sample.pagers.items()}, frames=holdings(seen))
        self._means.progress.sample(sample, {name: guest.operations for name, guest in guests.items()})

    def _shared(self, sample: SharedSample) -> None:
        self._means.journal.sample(self._plan.label, "shared", sample.at, shared_bytes=sample.shared_bytes)

    # -- what it comes to

    def _result(self) -> PhaseResult:
        crew, sampler, seen = self._crew, self._sampler, self._sampler.seen if self._sampler else {}
        account = crew.account or seen
        return PhaseResult(
            label=self._plan.label, cluster=self._plan.cluster, budget=self._plan.budget,
            seconds=crew.ended - crew.began,
            guests=tuple(guest.result() for guest in crew.guests.values()),
            samples=tuple(sampler.samples) if sampler else (), shared=tuple(sampler.shared) if sampler else (),
            counters=account.get("counters", {}),
            audit_checks=account.get("audit", {}).get("checks", 0), max_drift_frames=self._drift(),
            peak_frames=account.get("peak_frames", 0), kernel_peak_bytes=account.get("kernel_peak_bytes", 0),
            problems=self._problems(), tmem=self._tmem(seen, account), cpu_seconds=account.get("cpu_seconds"))

    @staticmethod
    def _tmem(seen: Mapping[str, Any], account: Mapping[str, Any]) -> dict[str, Any]:
        """Return the store's figures: what it held after the last guest's work, what it counted to the very end."""
        last = account.get("tmem", {})
        return {**seen.get("tmem", {}), "refusals": last.get("refusals", {}), "counters": last.get("counters", {})}

    def _drift(self) -> int:
        """Return the most frames that ledger and kernel were apart, at the audit and over the whole run."""
        audits = (self._audited, self._crew.account.get("audit", {}))
        return max(audit.get("max_drift_frames", 0) for audit in audits)

    def _problems(self) -> tuple[str, ...]:
        """Everything that went wrong, in lines for people: the cluster's first, then each guest's."""
        crew = self._crew
        found = [*crew.problems, *(guest.problem for guest in crew.guests.values() if guest.problem)]
        wrong = sum(guest.report.mismatches for guest in crew.guests.values() if guest.report)
        if wrong:
            found.append(f"{wrong} pages were wrong")
        if self._drift():
            found.append(f"the frame ledger and the kernel's count were {self._drift()} frames apart")
        found += dict.fromkeys([*self._audited.get("problems", ()), *crew.account.get("problems", ())])
        if not crew.account and not found:
            found.append(f"{crew.hypervisor.title} gave no account at its end: {crew.hypervisor.how_it_ended()}")
        return tuple(found)
