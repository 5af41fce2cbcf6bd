"""`memcommons density`: how many guests fit in the budget while each keeps within a slow-down.

Guests are added in the scenario's proportions.  n guests under a scheme are compared with the same n guests with all
memory granted, guest by guest: so what it costs that n guests share the processors is no fault of the scheme.
A count is run with each seed; it fits if no guest's median slow-down is above the limit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.toolstack import reading
from hypervisor.toolstack.compare.density_table import density_document, density_table
from hypervisor.toolstack.compare.fitting import Found, Tried, tried
from hypervisor.toolstack.compare.points import Point, scenario_at
from hypervisor.toolstack.compare.search import next_count
from hypervisor.toolstack.compare.series import Baseline, Series
from hypervisor.toolstack.compare.session import Manner, Session, folder, progress_for, show
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.preflight import check_guests, check_memory_room, check_swap_room, room_in
from hypervisor.toolstack.scenario import Scenario
from shm.abi import MAX_GUESTS
from shm.arena import free_bytes
from shm.errors import UsageProblem

Body = Mapping[str, Any]


class Counts:
    """The scenario with 1, 2, 3 ... guests, as far as the machine has room for them."""

    def __init__(self, session: Session, schemes: Sequence[str], most: int | None) -> None:
        """UsageProblem when there is no room for a single guest."""
        self.why_no_more = f"{most} guests are the most that were asked for" if most else f"{MAX_GUESTS} are allowed"
        self._scenarios: list[Scenario] = []
        for count in range(1, min(most or MAX_GUESTS, MAX_GUESTS) + 1):
            try:
                self._scenarios.append(self._checked(session, schemes, count))
            except UsageProblem as problem:
                if count == 1:
                    raise
                self.why_no_more = str(problem)
                break

    def _checked(self, session: Session, schemes: Sequence[str], count: int) -> Scenario:
        scenario = reading.load(session.path, session.options, count)
        check_memory_room(scenario, schemes, free_bytes())
        check_swap_room(scenario, schemes, room_in)
        return scenario

    @property
    def limit(self) -> int:
        return len(self._scenarios)

    def of(self, count: int) -> Scenario:
        return self._scenarios[count - 1]

    @property
    def start(self) -> int:
        """How many guests the budget holds with all their RAM; at least one."""
        return max([count for count in range(1, self.limit + 1)
                    if self.of(count).total_ram <= self.of(count).table.budget], default=1)


class Density:
    """The search, scheme by scheme; baselines are shared.  One use."""

    def __init__(self, counts: Counts, seeds: Sequence[int], series: Series, slowdown: float) -> None:
        self.problems: list[str] = []
        self._counts, self._seeds, self._series, self._slowdown = counts, seeds, series, slowdown
        self._baselines: dict[Point, Baseline] = {}

    def search(self, scheme: str) -> Found:
        """Return how many guests fit under `scheme`.  Raise Interrupted after a signal."""
        known = self._known(scheme)
        while isinstance(answer := next_count({n: one.fits for n, one in known.items()}, self._counts.start,
                                              self._counts.limit), int):
            known[answer] = self._try(scheme, answer)
        return Found(scheme, answer, known)

    def _known(self, scheme: str) -> dict[int, Tried]:
        """Return what was tried before with every seed, on the way of this search or of another."""
        known = {}
        for count in range(1, self._counts.limit + 1):
            bodies = [self._series.known_pair(point) for point in self._points(scheme, count)]
            finished = [body for body in bodies if body is not None]
            if len(finished) == len(bodies):
                known[count] = self._judged(count, finished)
        return known

    def _points(self, scheme: str, count: int) -> list[Point]:
        return [Point(scheme, seed, guests=count) for seed in self._seeds]

    def _judged(self, count: int, bodies: Sequence[Body]) -> Tried:
        scenario = self._counts.of(count)
        return tried(count, bodies, self._slowdown, scenario.total_ram / scenario.table.budget)

    def _try(self, scheme: str, count: int) -> Tried:
        return self._judged(count, [self._body(point, scenario_at(self._counts.of(count), point))
                                    for point in self._points(scheme, count)])

    def _body(self, point: Point, scenario: Scenario) -> Body:
        """Run one point, or take it from before."""
        baseline = self._baseline(point.baseline, scenario)
        if baseline.failed:
            self._series.skipped()
            return {"failed": f"its baseline failed: {baseline.failed}", "wrong": False}
        body = self._series.measured(point, scenario, baseline)
        if body["wrong"]:
            self.problems.append(f"{point.said}: {body['failed'] or 'pages were wrong'}")
        return body

    def _baseline(self, point: Point, scenario: Scenario) -> Baseline:
        """Run the baseline of a count and a seed, once for all schemes."""
        if point not in self._baselines:
            self._baselines[point] = found = self._series.baseline(point, scenario)
            self.problems += [f"{point.said}: {found.failed}"] if found.failed else []
        return self._baselines[point]


def run_density(session: Session, schemes: Sequence[str], seeds: Sequence[int], slowdown: float, most: int | None,
                means: Means, manner: Manner) -> int:
    """Do all of it, and show it; return the exit status."""
    counts = Counts(session, schemes, most)
    check_guests(session.scenario, means)
    progress = progress_for(manner, None)
    with folder(session.identity, manner, session.path) as keep:
        search = Density(counts, seeds, Series(keep, means, session.mode, progress), slowdown)
        try:
            found = [search.search(scheme) for scheme in schemes]
        finally:
            progress.close()
        document = density_document(session, found, seeds, slowdown, (counts.limit, counts.why_no_more),
                                    search.problems)
        return show(document, density_table(document), search.problems, session.mode, manner)


def checked_slowdown(slowdown: float) -> float:
    """Return a slow-down that can be kept within; UsageProblem for others."""
    if not 1.0 <= slowdown <= 10.0:
        raise UsageProblem(f"--slowdown: {slowdown:g} is not possible; allowed: 1 to 10, times the baseline")
    return slowdown
