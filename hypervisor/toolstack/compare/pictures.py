"""The pictures of a comparison, as PNG files beside its other files: those that `memcommons report` puts on its page.

    throughput, p99             against overcommit, a curve a scheme with its 95 % interval
    rss-psutil, rss-kernel      the arena's memory against overcommit: baseline, and each scheme
    frames-KEY, states-KEY      frames by owner and state over time: of each scheme where most is overcommitted
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypervisor.toolstack.compare.outcome import Outcome, Ran, document
from hypervisor.toolstack.reporting.charts import Chart
from hypervisor.toolstack.reporting.compare_charts import curve_charts, held_of
from hypervisor.toolstack.reporting.png import saved
from hypervisor.toolstack.reporting.told import Comparison, FramesRow
from shm.abi import PAGE_SIZE


def drawn(found: Outcome, facts: Mapping[str, Any], folder: Path) -> list[str]:
    """Draw everything into `folder`; return what there is to say of it: without matplotlib, how to have it."""
    return saved(charts_of(found, facts), folder, "--out: ")


def charts_of(found: Outcome, facts: Mapping[str, Any]) -> list[Chart]:
    """Return all pictures of a comparison that is over."""
    speed, memory = curve_charts(Comparison.model_validate(document(found, facts)))
    return [*speed, *memory, *(chart for run in most_overcommitted(found) for chart in held(run))]


def held(run: Ran) -> list[Chart]:
    """Return the frames over time of one run."""
    return held_of(run.point, [FramesRow.model_validate(row) for row in run.frames], run.budget_frames * PAGE_SIZE)


def most_overcommitted(found: Outcome) -> list[Ran]:
    """Return of each scheme the run with the most overcommit that finished, of the first seed."""
    runs = []
    for scheme in found.schemes:
        finished = [run for run in found.runs if run.point.scheme == scheme and not run.failed and run.frames]
        runs += [max(finished, key=lambda run: (run.point.overcommit or 0.0, -run.point.seed))] if finished else []
    return runs
