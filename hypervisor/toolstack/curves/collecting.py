"""Takes the runs that were finished before, and runs those that are missing while the part lasts.

Rule 1: when the part is over nothing is started any more, but what is known is still taken: every figure that there
        is gets shown.
Rule 2: a baseline is run once, before the first spot that needs it; one that fails is tried again by the next part.
"""

from collections.abc import Mapping, Sequence

from hypervisor.toolstack.compare.outcome import Outcome, Ran, outcome, ran
from hypervisor.toolstack.compare.progress import SeriesProgress
from hypervisor.toolstack.compare.series import Baseline, Series
from hypervisor.toolstack.curves.grid import Picture, Spot, scenario_for
from hypervisor.toolstack.curves.part import Part
from hypervisor.toolstack.scenario import Scenario


class Collecting:
    """What was found so far.  One use."""

    def __init__(self, scenarios: Mapping[Picture, Scenario], series: Series, progress: SeriesProgress,
                 part: Part) -> None:
        self._scenarios, self._series, self._progress, self._part = scenarios, series, progress, part
        self._baselines: dict[Spot, Baseline] = {}
        self._runs: dict[Picture, list[Ran]] = {picture: [] for picture in scenarios}
        self._problems: dict[Picture, list[str]] = {picture: [] for picture in scenarios}
        self.done = 0                # spots that are kept, with their baseline
        self.left = 0                # spots for which the part had no time

    def collect(self, spots: Sequence[Spot]) -> None:
        """Go through all of them.  Raise Interrupted after a signal; what was finished is kept then."""
        for spot in spots:
            known = self._series.known_pair(spot)
            if known is not None:
                self._progress.known(spot.said)
                self._take(spot, ran(spot.point, known))
            elif not self._part.over(self._progress.took):
                self._run(spot)
            else:
                self.left += 1

    def _take(self, spot: Spot, found: Ran) -> None:
        self._runs[spot.picture].append(found)
        self.done += 1

    def _run(self, spot: Spot) -> None:
        baseline = self._baseline(spot.baseline)
        if baseline.failed:
            self._series.skipped()
            self._runs[spot.picture].append(Ran(spot.point, f"its baseline failed: {baseline.failed}", wrong=False))
        elif self._part.over(self._progress.took):
            self.left += 1
        else:
            scenario = scenario_for(self._scenarios[spot.picture], spot)
            self._take(spot, ran(spot.point, self._series.measured(spot, scenario, baseline)))

    def _baseline(self, spot: Spot) -> Baseline:
        if spot not in self._baselines:
            scenario = scenario_for(self._scenarios[spot.picture], spot)
            self._baselines[spot] = found = self._series.baseline(spot, scenario)
            self._problems[spot.picture] += [f"{spot.point.said}: {found.failed}"] if found.failed else []
        return self._baselines[spot]

    def outcome(self, picture: Picture, schemes: Sequence[str], factors: Sequence[float]) -> Outcome:
        """Return what the runs of a picture come to so far."""
        runs = self._runs[picture]
        seeds = sorted({run.point.seed for run in runs})
        return outcome(schemes, factors, seeds, runs, self._problems[picture])
