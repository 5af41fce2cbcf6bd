"""`memcommons run`: the baseline once, then each scheme with the same work, then the summaries.

It knows the order of things and nothing of how they are done: `faultmode` and `preflight` look, `plan` decides, `phase`
carries out, `summary` computes, `table` shows.
"""

import os
import platform
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypervisor.toolstack.faultmode import SOFTWARE_MODE, FaultMode, decided
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.phase import Phase
from hypervisor.toolstack.plan import baseline_plan, measured_plan
from hypervisor.toolstack.preflight import check
from hypervisor.toolstack.results import PhaseResult
from hypervisor.toolstack.scenario import Scenario
from hypervisor.toolstack.summary import VERSION, check_equal_work, summarise


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: a summary for each scheme; none when the baseline failed."""

    scenario: Scenario
    schemes: tuple[str, ...]
    summaries: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]
    mode: FaultMode = SOFTWARE_MODE

    def document(self) -> dict[str, Any]:
        """Return the one JSON object that stands for all."""
        if not self.summaries:
            return {"version": VERSION, "name": self.scenario.name, "scheme": ",".join(self.schemes),
                    "failed": "baseline", "problems": list(self.problems), **self.mode.facts()}
        if len(self.schemes) == 1:
            return self.summaries[0]
        return {"version": VERSION, "runs": list(self.summaries)}


def run(scenario: Scenario, schemes: Sequence[str], means: Means) -> Outcome:
    """Do all of it.  Raise UsageProblem when it cannot be done, Interrupted after a signal; nothing is left then."""
    mode = decided(scenario.table.faults)
    check(scenario, schemes, means)
    means.journal.open()
    clusters = cluster_names(len(schemes) + 1)
    baseline = Phase(baseline_plan(scenario, clusters[0], mode.name), means).run()
    problems = [*baseline.problems, *idle(baseline)]
    if problems:
        return Outcome(scenario, tuple(schemes), (), tuple(f"baseline: {line}" for line in problems), mode)
    done = {guest.name: (guest.operations, guest.seconds or 0.0) for guest in baseline.guests}
    summaries = []
    for scheme, cluster in zip(schemes, clusters[1:], strict=True):
        measured = Phase(measured_plan(scenario, scheme, cluster, done, mode.name), means).run()
        check_equal_work(baseline, measured)
        summaries.append(summarise(scenario, baseline, measured, machine(), mode))
    found = tuple(line for summary in summaries for line in summary["problems"])
    return Outcome(scenario, tuple(schemes), tuple(summaries), found, mode)


def idle(baseline: PhaseResult) -> list[str]:
    """Without an operation in the baseline there is no work to compare."""
    return [f"guest {guest.name!r} finished no operation; give it more time (seconds) or set operations"
            for guest in baseline.guests if not guest.operations and guest.seconds is not None]


def cluster_names(count: int) -> list[str]:
    """Return names that no other run uses: `run`, our pid, a draw, and a number."""
    stem = f"run-{os.getpid()}-{secrets.token_hex(2)}"
    return [f"{stem}-{n}" for n in range(count)]


def machine() -> dict[str, Any]:
    """Say where it ran."""
    return {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
