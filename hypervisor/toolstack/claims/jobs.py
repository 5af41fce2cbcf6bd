"""What can be run for a claim, as data: equal jobs have equal keys, so that claims share them.

    Run      a scenario under a scheme, against the baseline of the same work
    Trial    a guest program of `guests.trials` on a cluster of its own, which it drives step by step

The key is made of all that a job is; the seed is part of the scenario.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.keep import digest
from hypervisor.toolstack.reading import built
from hypervisor.toolstack.scenario import Scenario

KEY_DIGITS = 16
MODEL_CLOCKS = {"steps", "steady", "growth", "slabs"}        # trials of tenants (`guests.trials.tenant`)
# Nothing of this changes what is done where all memory is granted.
OF_NO_BASELINE = {"budget", "scheme", "hypervisor", "tmem", "balloon", "name"}


@dataclass(frozen=True)
class Run:
    """A scenario, as its file would have it (without `scheme`), under a scheme."""

    table: Mapping[str, Any]
    scheme: str

    @property
    def scenario(self) -> Scenario:
        """The checked scenario; UsageProblem when it is none."""
        return built(dict(self.table) | ({} if self.scheme == BASELINE else {"scheme": self.scheme}),
                     f"claims ({self.table.get('name', 'a scenario')})", Path("/"))

    @property
    def key(self) -> str:
        left_out = OF_NO_BASELINE if self.scheme == BASELINE else {"name", "scheme"}
        known = self.scenario.table.model_dump(mode="json", exclude=left_out)
        return f"{self.scheme}-{digest(known)[:KEY_DIGITS]}"

    @property
    def said(self) -> str:
        return f"{self.table.get('name', 'run')}, {self.scheme}, seed {self.scenario.table.seed}"

    @property
    def baseline(self) -> "Run":
        """The run that it is compared with."""
        return Run(self.table, BASELINE)


@dataclass(frozen=True)
class Trial:
    """A guest program on a hypervisor with `order` (sizes in bytes, as `hypervisor.__main__` reads them)."""

    name: str                                   # of `guests.trials`
    order: Mapping[str, Any]                    # at least budget and scheme; the cluster's name is given by us
    options: Mapping[str, Any] = field(default_factory=dict)
    limit_s: float = 120.0

    @property
    def key(self) -> str:
        known = {"name": self.name, "order": dict(self.order), "options": dict(self.options)}
        return f"trial-{self.name}-{digest(known)[:KEY_DIGITS]}"

    @property
    def said(self) -> str:
        return f"trial {self.name}, {self.order['scheme']}"


Job = Run | Trial


def kinds(jobs: Collection[Job]) -> str:
    """Return in words what kinds of jobs there are: what their figures leave out hangs on that."""
    runs = sum(isinstance(job, Run) for job in jobs)
    modelled = sum(isinstance(job, Trial) and job.name in MODEL_CLOCKS for job in jobs)
    counts = {"run{} of guests that are processes": runs,
              "trial{} on clocks of the model, on which calls, copies and traps take no time": modelled,
              "trial{} of single guests, or of the calls alone": len(jobs) - runs - modelled}
    return "; ".join(f"{count} {words.format('' if count == 1 else 's')}" for words, count in counts.items() if count)


def planned(wanted: Mapping[str, Mapping[str, Job]]) -> list[Job]:
    """Return the jobs of all claims (claim -> label -> job), each once, in the order of the claims.

    A baseline comes before the first run that is compared with it, as a job of its own.
    """
    found: dict[str, Job] = {}
    for jobs in wanted.values():
        for job in jobs.values():
            if isinstance(job, Run):
                found.setdefault(job.baseline.key, job.baseline)
            found.setdefault(job.key, job)
    return list(found.values())
