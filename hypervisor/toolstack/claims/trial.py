"""One trial: a hypervisor, and a program of `guests.trials` on it.

    the hypervisor is ready -> the program gets its order -> it says "figures" or "failed" -> both are ended

The program is as many guests as it likes, and the operator too: through the door it gives orders as a person would.

Rule 1: whatever happens, `run_trial` leaves no process and no name behind, and ends within the trial's limit.
Rule 2: a trial that fails is a result: its last words are returned, not raised.
"""

import time
from pathlib import Path
from typing import Any

from hypervisor.toolstack.child import Child
from hypervisor.toolstack.claims.jobs import Trial
from hypervisor.toolstack.crew import Crew, PhaseBroken
from hypervisor.toolstack.guestrun import one_line
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.plan import PhasePlan
from hypervisor.toolstack.run import cluster_names
from hypervisor.toolstack.watch import Happening, Junk, Left, Said, Watch

SWAP_FOLDER = "/var/tmp"


class TrialRun:
    """The program's side: what it said so far."""

    def __init__(self, trial: Trial, means: Means, cluster: str) -> None:
        self.figures: dict[str, Any] | None = None
        self.failed: str | None = None
        self._means = means
        order = {"trial": trial.name, "cluster": cluster, "options": dict(trial.options)}
        self._program = Child(f"trial {trial.name!r}", means.trial, order, Path("/"))
        self._watch = Watch(means.interruption)
        self._watch.add(self._program)

    def wait(self, deadline: float) -> None:
        """Serve the program until it has left; note why where it was no good end."""
        try:
            if not self._watch.until(lambda: not self._program.alive or self.failed is not None, deadline, self._take):
                self.failed = f"{self._program.title} had not ended in time, and was killed"
            if self.figures is None and self.failed is None:
                self.failed = self._program.how_it_ended()
        finally:
            self._end()

    def _end(self) -> None:
        self._program.kill()
        self._watch.until(lambda: not self._program.alive, time.monotonic() + self._means.patience.kill, self._take,
                          interruptible=False)
        self._watch.close()

    def _take(self, happening: Happening) -> None:
        match happening:
            case Said(_, {"event": "figures", "figures": dict(figures)}):
                self.figures = figures
            case Said(_, {"event": "failed", "error": error}):
                self.failed = one_line(error)
            case Said(_, event):
                self.failed = f"{self._program.title} said what is no event of a trial: {str(event)[:80]}"
            case Junk(_, text):
                self.failed = f"{self._program.title} wrote what is no event: {text!r}"
            case Left():
                pass


def run_trial(trial: Trial, means: Means) -> tuple[dict[str, Any] | None, str | None]:
    """Run a trial; return its figures, or None and why there are none.  Interrupted is raised when all is stopped."""
    [cluster] = cluster_names(1)
    order = {"folder": SWAP_FOLDER, **trial.order, "cluster": cluster}
    crew = Crew(PhasePlan("trial", cluster, order["budget"], order, (), Path("/")), means)
    running: TrialRun | None = None
    try:
        crew.start_hypervisor()
        running = TrialRun(trial, means, cluster)
        running.wait(time.monotonic() + trial.limit_s)
    except PhaseBroken as broken:
        return None, str(broken)
    finally:
        crew.end()
    failed = running.failed or next(iter(crew.problems), None)
    return (None, failed) if failed else (running.figures, None)
