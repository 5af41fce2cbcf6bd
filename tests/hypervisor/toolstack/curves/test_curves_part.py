"""When a part is over, by a clock of the test's own."""

import pytest

from hypervisor.toolstack.curves.part import Part, checked_minutes
from shm.errors import UsageProblem


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_run_that_would_end_too_late_is_not_begun(clock):
    part = Part(2, clock)
    clock.now += 90
    assert not part.over([5.0, 30.0, 5.0])
    clock.now += 0.5
    assert part.over([5.0, 30.0, 5.0]), "the longest run would take it past 120 s"
    assert not part.over([5.0, 29.0])


def test_the_first_run_of_a_part_is_always_begun(clock):
    part = Part(0.001, clock)
    clock.now += 3600
    assert not part.over([])
    assert part.over([1e-6])


@pytest.mark.parametrize("minutes", [0, -1, 60.5, float("nan"), float("inf")])
def test_a_part_is_an_hour_at_most(minutes):
    with pytest.raises(UsageProblem, match=r"--minutes: .* is not possible; allowed: above 0, at most 60;"):
        checked_minutes(minutes)


def test_possible_parts():
    assert [checked_minutes(minutes) for minutes in (0.5, 60)] == [0.5, 60]
