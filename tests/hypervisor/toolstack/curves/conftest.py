"""Outcomes made by hand, from times alone."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from hypervisor.toolstack.compare.outcome import Outcome, Ran, outcome
from hypervisor.toolstack.compare.points import Point

Times = Mapping[str, Sequence[Sequence[float | None] | None]]


@pytest.fixture
def made() -> Callable[..., Outcome]:
    """Return an outcome of times for equal work: of each scheme, at each overcommit, with each seed from 1 on.

    A time of None did not finish; None in the place of all seeds was not run.
    """
    def made_of(factors: Sequence[float], times: Times) -> Outcome:
        runs = [Ran(Point(scheme, seed, factor), None if time else "out of time", False,
                    {"slowdown": time, "throughput": 1 / time} if time else {})
                for scheme, rows in times.items() for factor, row in zip(factors, rows, strict=True)
                for seed, time in enumerate(row or (), 1)]
        return outcome(list(times), list(factors), sorted({run.point.seed for run in runs}), runs, [])
    return made_of
