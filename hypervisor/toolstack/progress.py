"""What a person sees while it runs: a bar a guest, and one for the memory.  On standard error, on a terminal only.

`Progress` itself shows nothing: for pipes, --quiet and --json.  Neither class decides anything.
"""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from hypervisor.toolstack.plan import PhasePlan
from hypervisor.toolstack.results import MapSample
from shm.units import format_size


class Progress:
    """Show nothing."""

    def phase(self, plan: PhasePlan) -> None:
        """A phase begins."""

    def sample(self, sample: MapSample, operations: Mapping[str, int]) -> None:
        """The guests have worked for `sample.at` seconds, and done so many operations."""

    def phase_over(self) -> None:
        """The phase has ended, in whatever way."""


class BarProgress(Progress):
    """Show bars on `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None

    def phase(self, plan: PhasePlan) -> None:
        self._console.print(f"{plan.label}: cluster {plan.cluster}, {len(plan.guests)} guests, budget "
                            f"{format_size(plan.budget)}", highlight=False)
        self._plan = plan
        self._bars = Bars(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
                          TimeElapsedColumn(), console=self._console, transient=True,
                          refresh_per_second=2)
        self._guests = {guest.name: self._bars.add_task(guest.name, total=1.0, note="prepares")
                        for guest in plan.guests}
        self._memory = self._bars.add_task("memory", total=plan.budget, note="")
        self._bars.start()

    def sample(self, sample: MapSample, operations: Mapping[str, int]) -> None:
        if not self._bars:
            return
        for guest in self._plan.guests:
            done = operations.get(guest.name, 0)
            share = done / guest.operations if guest.operations else sample.at / (guest.line["seconds"] or 1.0)
            self._bars.update(self._guests[guest.name], completed=min(1.0, share), note=f"{done:,} operations")
        held = sample.kernel_bytes or 0
        self._bars.update(self._memory, completed=held, note=f"{format_size(held)} resident")

    def phase_over(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None
