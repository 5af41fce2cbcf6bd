"""What a person sees while a series of runs goes on: one bar, the run at work, and an estimate of the rest.

`SeriesProgress` itself shows nothing, and keeps the time; it is also the `Progress` of the phases, so that their own
bars stay away.  The estimate: what runs took on the mean so far, for each that is left; none before one has ended.
"""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from hypervisor.toolstack.plan import PhasePlan
from hypervisor.toolstack.progress import Progress
from hypervisor.toolstack.results import MapSample


def rest_seconds(took: Sequence[float], left: int | None) -> float | None:
    """Return the seconds that `left` more runs will take, from what those that ended took; None: nobody knows."""
    return None if left is None or not took else sum(took) / len(took) * left


def rest_words(seconds: float | None) -> str:
    """Return the estimate for people."""
    if seconds is None:
        return ""
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    if seconds < 100:
        return f"about {max(1, round(seconds))} s left"
    return f"about {minutes} min left" if minutes < 100 else f"about {hours} h left"


class SeriesProgress(Progress):
    """Show nothing; know how long runs take.  `total` is None where nobody knows how many there will be."""

    def __init__(self, total: int | None = None) -> None:
        self.total, self.done = total, 0
        self.took: list[float] = []
        self.name = ""
        self._began = 0.0

    def known(self, name: str) -> None:
        """A run need not be run: it was before."""
        self.name, self.done = name, self.done + 1
        self.changed()

    def begins(self, name: str) -> float:
        """A run begins; return when (monotonic)."""
        self.name, self._began = name, time.monotonic()
        self.changed()
        return self._began

    def ends(self) -> None:
        """The run that began has ended, in whatever way."""
        self.took.append(time.monotonic() - self._began)
        self.done += 1
        self.changed()

    def skipped(self) -> None:
        """A run will not be run, because its baseline failed."""
        self.done += 1
        self.changed()

    @property
    def rest(self) -> float | None:
        return rest_seconds(self.took, None if self.total is None else self.total - self.done)

    def changed(self, note: str = "") -> None:
        """Show how it stands."""

    def close(self) -> None:
        """Show nothing any more."""


class SeriesBar(SeriesProgress):
    """Show a bar on `console`."""

    def __init__(self, console: Console, total: int | None = None) -> None:
        super().__init__(total)
        self._bars = Bars(TextColumn("{task.description}"), BarColumn(bar_width=12), TextColumn("{task.fields[note]}"),
                          console=console, transient=True, refresh_per_second=2)
        self._task: TaskID | None = None

    def changed(self, note: str = "") -> None:
        if self._task is None:
            self._task = self._bars.add_task("", total=self.total, note="")
            self._bars.start()
        place = f"{self.done}" if self.total is None else f"{self.done} of {self.total}"
        words = [word for word in (self.name, note, rest_words(self.rest)) if word]
        self._bars.update(self._task, completed=self.done, description=f"{place} runs", note="; ".join(words))

    def phase(self, plan: PhasePlan) -> None:
        self.changed(f"{len(plan.guests)} guests prepare")

    def sample(self, _sample: MapSample, operations: Mapping[str, int]) -> None:
        self.changed(f"{sum(operations.values()):,} operations")

    def close(self) -> None:
        self._bars.stop()
