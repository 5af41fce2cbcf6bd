"""Does jobs, each once, in the order that was planned, and keeps what is finished: the only part that starts anything.

Rule 1: a job that does not finish is a result too, with its reason; only a signal and bad usage end the series.
Rule 2: a run is kept with the checksum of its baseline: with another baseline it is run again.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.claims.claim import Found
from hypervisor.toolstack.claims.jobs import Job, Run, Trial
from hypervisor.toolstack.claims.trial import run_trial
from hypervisor.toolstack.compare.keep import Keep
from hypervisor.toolstack.compare.progress import SeriesProgress
from hypervisor.toolstack.compare.series import Baseline, Series
from hypervisor.toolstack.means import Means

FRAMES = "frames"                        # of a run's body: the frames of each owner over time


class Bench:
    """What was found so far.  One writer: the process that holds the folder."""

    def __init__(self, keep: Keep, means: Means, series: Series, progress: SeriesProgress) -> None:
        self._keep, self._means, self._series, self._progress = keep, means, series, progress
        self._baselines: dict[str, Baseline] = {}
        self.found: dict[str, Found] = {}            # by key of the job
        self.took: dict[str, float] = {}             # seconds, of a job that was run now or before
        self.problems: list[str] = []                # what makes a figure doubtful: wrong pages, failed baselines

    def do(self, jobs: Iterable[Job]) -> None:
        """Do all of them.  Raise Interrupted after a signal; what was finished is kept then."""
        for job in jobs:
            began = time.monotonic()
            if isinstance(job, Trial):
                self.found[job.key] = self._trial(job)
            elif job.scheme == BASELINE:
                self._baseline(job)
            else:
                self.found[job.key] = self._run(job)
            self.took.setdefault(job.key, time.monotonic() - began)

    def _baseline(self, job: Run) -> None:
        self._baselines[job.key] = found = self._series.baseline(job, job.scenario)
        self.problems += [f"{job.said}: {found.failed}"] if found.failed else []

    def _run(self, job: Run) -> Found:
        baseline = self._baselines[job.baseline.key]
        if baseline.failed:
            self._series.skipped()
            return Found(job.said, None, f"its baseline failed: {baseline.failed}")
        body = self._series.measured(job, job.scenario, baseline)
        self._note_time(job, body)
        if body["wrong"]:
            self.problems.append(f"{job.said}: {body['failed'] or 'pages were wrong'}")
        if body["failed"] or "summary" not in body:
            return Found(job.said, None, body["failed"] or "its summary is missing")
        return Found(job.said, {**body["summary"], FRAMES: body.get("frames", [])})

    def _trial(self, job: Trial) -> Found:
        kept = self._keep.get(job.key)
        if kept is not None:
            self._progress.known(job.said)
            self._note_time(job, kept.body)
            return Found(job.said, kept.body.get("figures"))
        self._means.interruption.check()
        began = self._progress.begins(job.said)
        figures, failed = run_trial(job, self._means)
        self._progress.ends()
        if failed:
            self.problems.append(f"{job.said}: {failed}")
            return Found(job.said, None, failed)
        self._keep.put(job.key, {"figures": figures, "took_s": time.monotonic() - began})
        return Found(job.said, figures)

    def _note_time(self, job: Job, body: Mapping[str, Any]) -> None:
        """A job that was done before took what it took then."""
        if "took_s" in body:
            self.took[job.key] = body["took_s"]
