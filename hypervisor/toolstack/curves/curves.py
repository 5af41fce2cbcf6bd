"""`memcommons curves`: checks everything, runs a part of the spots, and puts together whatever is finished."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypervisor.toolstack.compare.compare import check_all, facts_of
from hypervisor.toolstack.compare.identity import identity
from hypervisor.toolstack.compare.outcome import Outcome
from hypervisor.toolstack.compare.series import Series
from hypervisor.toolstack.compare.session import Manner, folder, progress_for, show
from hypervisor.toolstack.curves.collecting import Collecting
from hypervisor.toolstack.curves.document import document
from hypervisor.toolstack.curves.grid import Picture, Spot, scenario_of, spots, text
from hypervisor.toolstack.curves.part import Part
from hypervisor.toolstack.curves.pictures import drawn
from hypervisor.toolstack.curves.table import curves_table
from hypervisor.toolstack.faultmode import decided
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.run import machine
from hypervisor.toolstack.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Grid:
    """What is wanted; every name in it is known to be one."""

    pictures: Sequence[Picture]
    schemes: Sequence[str]
    overcommits: Sequence[float]
    seeds: Sequence[int]

    @property
    def spots(self) -> list[Spot]:
        return spots(self.pictures, self.schemes, self.overcommits, self.seeds)


def check_grid(grid: Grid, scenarios: Mapping[Picture, Scenario], means: Means) -> None:
    """Raise UsageProblem for what will not do; guests are asked once a workload."""
    first = {picture.workload: picture for picture in reversed(grid.pictures)}
    for picture in first.values():
        check_all(scenarios[picture], [spot.point for spot in grid.spots if spot.picture == picture], means)


def run_curves(grid: Grid, options: Mapping[str, Any], part: Part, means: Means, manner: Manner) -> int:
    """Do one part of it, and show what is finished by then; return the exit status."""
    wanted, scenarios = grid.spots, {picture: scenario_of(picture, options) for picture in grid.pictures}
    mode = decided(scenarios[grid.pictures[0]].table.faults)
    lengths = {key: value for key, value in options.items() if key != "faults"}       # faults: as they were decided
    found = identity("curves", text(), lengths, mode.name, machine())
    check_grid(grid, scenarios, means)
    progress = progress_for(manner, len(wanted) + len({spot.baseline for spot in wanted}))
    with folder(found, manner) as keep:
        collecting = Collecting(scenarios, Series(keep, means, mode, progress), progress, part)
        try:
            collecting.collect(wanted)
        finally:
            progress.close()
        outcomes = {picture: collecting.outcome(picture, grid.schemes, grid.overcommits) for picture in scenarios}
        facts = {**found, "done": collecting.done, "of": len(wanted)}
        each = {picture: facts_of(scenario, found) for picture, scenario in scenarios.items()}
        notes = drawn(outcomes, each, manner.out) if manner.out else []
        notes += [over(collecting.done, len(wanted), part.minutes)] if collecting.left else []
        return show(document(outcomes, facts, each), curves_table(outcomes, facts, each), problems(outcomes), mode,
                    manner, notes)


def problems(outcomes: Mapping[Picture, Outcome]) -> list[str]:
    """Return what makes figures doubtful: baselines that failed, pages that were wrong."""
    return [f"{picture.said}, {line}" for picture, one in outcomes.items() for line in one.problems]


def over(done: int, of: int, minutes: float) -> str:
    """Return the line for a part that was over before all was done."""
    return (f"{done} of {of} runs are done, and this part of {minutes:g} min is over; go on with the same command "
            f"and --resume")
