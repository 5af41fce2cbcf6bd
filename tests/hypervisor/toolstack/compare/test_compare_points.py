"""Which runs a comparison has, in which order, and what is refused before anything starts."""

import pytest

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.points import Point, budget_for, overcommits, planned, scenario_at, seeds
from shm.errors import UsageProblem

MIB = 1 << 20


def test_each_seed_has_its_baseline_first_and_then_everything():
    points = planned(["swap", "cmm2"], [1.0, 2.0], [7, 8])
    assert len(points) == len(set(points)) == 2 * (1 + 4)
    for seed in (7, 8):
        own = [point for point in points if point.seed == seed]
        assert own[0] == Point(BASELINE, seed)
        assert {(point.scheme, point.overcommit) for point in own[1:]} == {
            ("swap", 1.0), ("swap", 2.0), ("cmm2", 1.0), ("cmm2", 2.0)}
        assert {point.baseline for point in own[1:]} == {own[0]}
    assert [point.seed for point in points] == [7] * 5 + [8] * 5


def test_each_seed_begins_with_another_point():
    firsts = [point for before, point in zip(planned(["a", "b"], [1.0], [1, 2, 3]),
                                             planned(["a", "b"], [1.0], [1, 2, 3])[1:], strict=False)
              if before.scheme == BASELINE]
    assert [point.scheme for point in firsts] == ["a", "b", "a"]


def test_keys_are_different_for_different_points():
    points = [*planned(["swap", "cmm2+tmem"], [1.0, 1.5, 1.25, 10.0], [1, 11]), Point("swap", 1, guests=4),
              Point("swap", 1, guests=14), Point(BASELINE, 1, guests=4)]
    assert len({point.key for point in points}) == len(points)
    assert Point("cmm2+tmem", 1, 1.5).key == "cmm2+tmem-k1.5-s1"


def test_overcommits_are_numbers_each_once():
    assert overcommits("1, 1.5,2.0,2") == [1.0, 1.5, 2.0]


@pytest.mark.parametrize(("text", "line"), [
    ("1,x", "--overcommit: 'x' is not a number; give numbers such as 1,1.5,2,3"),
    ("", "--overcommit: '' is not a number"),
    ("0", "--overcommit: 0 is not possible; allowed: 0.1 to 100"),
    ("-1", "--overcommit: -1 is not possible"), ("nan", "--overcommit: nan is not possible"),
    ("inf", "--overcommit: inf is not possible"), ("1,101", "--overcommit: 101 is not possible")])
def test_impossible_overcommits_are_one_line(text, line):
    with pytest.raises(UsageProblem) as refused:
        overcommits(text)
    assert str(refused.value).startswith(line)


def test_seeds_go_on_from_the_scenarios_own():
    assert seeds(7, 3) == [7, 8, 9]
    for first, count in ((1, 0), (1, -2), (1, 1001), ((1 << 31) - 2, 3)):
        with pytest.raises(UsageProblem, match=r"^--seeds: "):
            seeds(first, count)
    assert seeds((1 << 31) - 2, 1) == [(1 << 31) - 2]


def test_the_budget_follows_from_the_overcommit(banks):
    assert budget_for(128 * MIB, 2.0) == 64 * MIB
    assert budget_for(128 * MIB, 3.0) % 4096 == 0
    at = scenario_at(banks, Point("swap", 9, 0.5))
    assert (at.table.budget, at.table.seed) == (256 * MIB, 9)
    assert (at.guests, at.table.seconds) == (banks.guests, banks.table.seconds)


def test_without_an_overcommit_the_budget_is_the_scenarios(banks):
    assert scenario_at(banks, Point(BASELINE, 9)).table.budget == 64 * MIB


def test_a_budget_too_small_for_the_guests_is_refused(banks):
    with pytest.raises(UsageProblem, match=r"^--overcommit 90: a budget: 1.4 MiB is below the floor"):
        scenario_at(banks, Point("swap", 9, 90.0))
