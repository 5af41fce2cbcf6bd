"""Which runs there are, in which order, and what is refused: pure."""

import pytest

from hypervisor.toolstack.curves import grid
from hypervisor.toolstack.curves.grid import Picture, chosen, pictures, scenario_for, scenario_of, schemes, spots
from shm.errors import UsageProblem

OLTP, SCAN = Picture("oltp", "ssd"), Picture("scan", "hdd")


def test_the_whole_grid_has_360_runs_and_12_baselines():
    from hypervisor.toolstack.compare.points import overcommits

    wanted = spots(pictures("oltp,scan", grid.DISKS), schemes(grid.SCHEMES), overcommits(grid.OVERCOMMIT), [1, 2, 3])
    assert len(wanted) == len({spot.key for spot in wanted}) == 360
    assert len({spot.baseline.key for spot in wanted}) == 12
    assert {spot.baseline.key for spot in wanted}.isdisjoint(spot.key for spot in wanted)


def test_each_picture_is_whole_with_one_seed_before_the_next_seed_begins():
    wanted = spots([OLTP, SCAN], ["swap", "cmm2"], [1.0, 2.0], [7, 8])
    order = [(spot.point.seed, spot.picture) for spot in wanted]
    assert order == [(7, OLTP)] * 4 + [(7, SCAN)] * 4 + [(8, OLTP)] * 4 + [(8, SCAN)] * 4
    assert [spot.key for spot in wanted[:4]] == [
        "oltp-ssd-swap-k1-s7", "oltp-ssd-cmm2-k1-s7", "oltp-ssd-swap-k2-s7", "oltp-ssd-cmm2-k2-s7"]


def test_each_seed_begins_with_another_point_and_has_them_all():
    wanted = spots([OLTP], ["swap", "cmm2"], [1.0, 2.0], [1, 2])
    first, second = wanted[:4], wanted[4:]
    assert first[0].point.scheme != second[0].point.scheme
    assert {(spot.point.scheme, spot.point.overcommit) for spot in first} == {
        (spot.point.scheme, spot.point.overcommit) for spot in second}


def test_a_spot_names_itself_and_its_baseline():
    spot = spots([SCAN], ["tmem"], [0.75], [3])[0]
    assert (spot.scheme, spot.key, spot.said) == (
        "tmem", "scan-hdd-tmem-k0.75-s3", "scan, disk hdd, tmem overcommit 0.75 seed 3")
    assert (spot.baseline.scheme, spot.baseline.key) == ("baseline", "scan-hdd-baseline-s3")


@pytest.mark.parametrize("workload", list(grid.WORKLOADS))
def test_scenarios_have_their_disk_and_budget(workload):
    scenario = scenario_of(Picture(workload, "hdd"), {"faults": "software"})
    assert (scenario.table.disk.latency, scenario.table.disk.time) == ("hdd", "virtual")
    assert scenario.table.operations and scenario.table.seconds is None
    at = scenario_for(scenario, spots([Picture(workload, "hdd")], ["swap"], [0.75], [5])[0])
    assert at.table.seed == 5
    assert scenario.total_ram < at.table.budget <= scenario.total_ram / 0.75


@pytest.mark.parametrize(("options", "length"), [({"seconds": 2.0}, (2.0, None)), ({"operations": 9}, (None, 9))])
def test_a_length_that_is_given_replaces_the_operations(options, length):
    table = scenario_of(OLTP, options).table
    assert (table.seconds, table.operations) == length


def test_lists_have_each_name_once():
    assert chosen("b, a,b", ["a", "b"], "--x", "letter") == ["b", "a"]
    with pytest.raises(UsageProblem, match="--disks: 'none' is not a disk with a cost; allowed: ssd, hdd, network"):
        pictures("oltp", "none")


def test_what_is_kept_depends_on_the_scenarios(monkeypatch):
    before = grid.text()
    assert before == grid.text()
    monkeypatch.setitem(grid.WORKLOADS, "oltp", grid.WORKLOADS["oltp"] | {"operations": 1})
    assert grid.text() != before
