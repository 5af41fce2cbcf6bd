"""`memcommons compare`: checks everything, runs the points in their order, and puts them together.

It decides nothing that a pure module can decide (`points`, `outcome`), and starts nothing itself (`series`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.schemes import BASELINE, SCHEMES
from hypervisor.toolstack.compare.outcome import Outcome, Ran, document, outcome, ran
from hypervisor.toolstack.compare.pictures import drawn
from hypervisor.toolstack.compare.points import Point, scenario_at
from hypervisor.toolstack.compare.series import Baseline, Series
from hypervisor.toolstack.compare.session import Manner, Session, folder, progress_for, show
from hypervisor.toolstack.compare.table import comparison
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.preflight import check_guests, check_memory_room, check_swap_room, room_in
from hypervisor.toolstack.scenario import Scenario
from shm.arena import free_bytes


def check_all(scenario: Scenario, points: Sequence[Point], means: Means) -> None:
    """Raise UsageProblem for the first point that will not do, before anything is started."""
    for point in points:
        if point.scheme != BASELINE:
            at = scenario_at(scenario, point)
            check_memory_room(at, [point.scheme], free_bytes())
            check_swap_room(at, [point.scheme], room_in)
    check_guests(scenario, means)


def compare(scenario: Scenario, points: Sequence[Point], series: Series) -> Outcome:
    """Run all points.  Raise Interrupted after a signal; what was finished is kept then."""
    baselines: dict[int, Baseline] = {}
    runs: list[Ran] = []
    problems: list[str] = []
    for point in points:
        if point.scheme == BASELINE:
            baselines[point.seed] = found = series.baseline(point, scenario_at(scenario, point))
            problems += [f"{point.said}: {found.failed}"] if found.failed else []
        else:
            runs.append(_measured(scenario, point, baselines[point.seed], series))
    measured = [point for point in points if point.scheme != BASELINE]
    schemes = sorted({point.scheme for point in measured}, key=list(SCHEMES).index)
    factors = sorted({point.overcommit for point in measured if point.overcommit is not None})
    return outcome(schemes, factors, sorted(baselines), runs, problems)


def _measured(scenario: Scenario, point: Point, baseline: Baseline, series: Series) -> Ran:
    if baseline.failed:
        series.skipped()
        return Ran(point, f"its baseline failed: {baseline.failed}", wrong=False)
    return ran(point, series.measured(point, scenario_at(scenario, point), baseline))


def facts_of(scenario: Scenario, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the documents say of where figures come from."""
    return {"name": scenario.name, "guests": len(scenario.guests), "ram_bytes": scenario.total_ram,
            "seconds": scenario.table.seconds, "operations": scenario.table.operations,
            "disk": scenario.table.disk.model_dump(mode="json"), **identity}


def run_compare(session: Session, points: Sequence[Point], means: Means, manner: Manner) -> int:
    """Do all of it, and show it; return the exit status."""
    check_all(session.scenario, points, means)
    progress = progress_for(manner, len(points))
    with folder(session.identity, manner, session.path) as keep:
        try:
            found = compare(session.scenario, points, Series(keep, means, session.mode, progress))
        finally:
            progress.close()
        facts = facts_of(session.scenario, session.identity)
        notes = drawn(found, facts, manner.out) if manner.out else []
        return show(document(found, facts), comparison(found, facts), found.problems, session.mode, manner, notes)
