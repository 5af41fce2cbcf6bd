"""Runs points, one at a time, and keeps each: the only part of a comparison that starts anything.

Rule 1: a run that fails is a result, "did not finish: why", and kept like any other; a baseline that fails is not kept.
Rule 2: a measured point is believed only beside the very baseline that it was compared with, by its checksum.
Rule 3: a signal ends the series between two steps of a phase, which stops what it started; finished points stay.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hypervisor.toolstack.compare.keep import Keep, Kept
from hypervisor.toolstack.compare.points import OneRun
from hypervisor.toolstack.compare.progress import SeriesProgress
from hypervisor.toolstack.faultmode import FaultMode
from hypervisor.toolstack.holdings import holdings
from hypervisor.toolstack.means import Call, Means
from hypervisor.toolstack.phase import Phase
from hypervisor.toolstack.plan import baseline_plan, measured_plan
from hypervisor.toolstack.results import PhaseResult
from hypervisor.toolstack.run import cluster_names, idle, machine
from hypervisor.toolstack.scenario import Scenario
from hypervisor.toolstack.summary import check_equal_work, summarise
from shm.errors import BrokenInvariant, UsageProblem

STORE = "tmem store"             # an owner of frames whose name no guest can have
PHASE: TypeAdapter[PhaseResult] = TypeAdapter(PhaseResult)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline that was run: what came of it, or why nothing did."""

    phase: PhaseResult | None
    failed: str | None
    checksum: str


class FramesSeen:
    """Asks in the toolstack's stead, and notes who has which frames whenever the cluster is listed."""

    def __init__(self, call: Call) -> None:
        self.rows: list[dict[str, Any]] = []
        self._call = call
        self._began = 0.0

    def __call__(self, cluster: str, question: dict[str, Any]) -> dict[str, Any]:
        answer = self._call(cluster, question)
        if question.get("call") == "list":
            now = time.monotonic()
            self._began = self._began or now
            self.rows.append({"at": now - self._began, "frames": frames_by_owner(answer), "held": holdings(answer)})
        return answer


def frames_by_owner(listed: Mapping[str, Any]) -> dict[str, int]:
    """Return the frames of each guest's memory, and of the tmem store, from the hypervisor's list."""
    guests = {guest["name"]: guest.get("frames", 0) for guest in listed.get("guests", ())}
    return guests | {STORE: listed.get("tmem", {}).get("frames", 0)}


class Series:
    """The runs of one comparison."""

    def __init__(self, keep: Keep, means: Means, mode: FaultMode, progress: SeriesProgress) -> None:
        self._keep, self._means, self._mode, self._progress = keep, replace(means, progress=progress), mode, progress

    def baseline(self, point: OneRun, scenario: Scenario) -> Baseline:
        """Run the baseline of a seed, or take it from before.  UsageProblem when it is refused."""
        found = self._known_baseline(point)
        if found:
            self._progress.known(point.said)
            return found
        self._means.interruption.check()
        began = self._progress.begins(point.said)
        [cluster] = cluster_names(1)
        phase = Phase(baseline_plan(scenario, cluster, self._mode.name), self._means).run()
        problems = [*phase.problems, *idle(phase)]
        if problems:
            self._progress.ends()
            return Baseline(phase, problems[0], "")
        kept = self._keep.put(point.key, {"phase": PHASE.dump_python(phase, mode="json"),
                                          "took_s": time.monotonic() - began})
        self._progress.ends()
        return Baseline(phase, None, kept.checksum)

    def _known_baseline(self, point: OneRun) -> Baseline | None:
        kept = self._keep.get(point.key)
        if kept is None:
            return None
        try:
            return Baseline(PHASE.validate_python(kept.body.get("phase")), None, kept.checksum)
        except ValidationError:
            return None

    def known(self, point: OneRun, baseline: Baseline) -> Kept | None:
        """Return a measured point from before, if it was compared with this very baseline."""
        kept = self._keep.get(point.key)
        return kept if kept and kept.body.get("baseline") == baseline.checksum else None

    def known_pair(self, point: OneRun) -> dict[str, Any] | None:
        """Return the body of a point that was finished before together with its baseline."""
        baseline = self._known_baseline(point.baseline)
        kept = self.known(point, baseline) if baseline else None
        return kept.body if kept else None

    def measured(self, point: OneRun, scenario: Scenario, baseline: Baseline) -> dict[str, Any]:
        """Run a scheme against its baseline, or take it from before; return the point's body."""
        known = self.known(point, baseline)
        if known:
            self._progress.known(point.said)
            return known.body
        self._means.interruption.check()
        began = self._progress.begins(point.said)
        body = self._run(point, scenario, baseline)
        self._keep.put(point.key, body | {"baseline": baseline.checksum, "took_s": time.monotonic() - began})
        self._progress.ends()
        return body

    def skipped(self) -> None:
        """A point will not be run, because its baseline failed."""
        self._progress.skipped()

    def _run(self, point: OneRun, scenario: Scenario, baseline: Baseline) -> dict[str, Any]:
        assert baseline.phase, "a baseline that failed is not compared with"
        done = {guest.name: (guest.operations, guest.seconds or 0.0) for guest in baseline.phase.guests}
        seen = FramesSeen(self._means.call)
        [cluster] = cluster_names(1)
        plan = measured_plan(scenario, point.scheme, cluster, done, self._mode.name)
        try:
            measured = Phase(plan, replace(self._means, call=seen)).run()
            check_equal_work(baseline.phase, measured)
        except UsageProblem as problem:
            return {"failed": f"it was refused: {problem}", "wrong": False}
        except BrokenInvariant as broken:
            return {"failed": str(broken), "wrong": True}
        summary = summarise(scenario, baseline.phase, measured, machine(), self._mode)
        return {"failed": next(iter(measured.problems), None), "wrong": is_wrong(summary), "summary": summary,
                "frames": seen.rows}


def is_wrong(summary: Mapping[str, Any]) -> bool:
    """Say whether a page was wrong or the ledger was: worse than a run that did not finish."""
    return bool(summary["audit"]["max_drift_frames"] or any(guest["mismatches"] for guest in summary["guests"]))
