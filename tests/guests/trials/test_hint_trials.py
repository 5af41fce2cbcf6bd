"""The trials about hints, run for real and small: what is counted adds up, whatever it says about a claim."""

import pytest

from guests.trials import hintpaths, mapper, pressure, tworates
from guests.trials.mapper import CASES

SMALL = {"pages": 256, "anonymous": 360, "file": 40, "operations": 800, "seed": 1}


def test_pressure_counts_alike_for_the_same_options_and_knows_its_code(hypervisor_process):
    found = [pressure.run(hypervisor_process(170, "swap", 1024).cluster, SMALL) for _ in range(2)]
    assert found[0]["guest_code"] == found[1]["guest_code"]
    assert found[0]["swap_writes"] > 0 < found[0]["host_writes"] and found[0]["looks"] == 0
    assert found[0]["double_paged"] > 0
    assert found[0]["total"] == sum(found[0][name] for name in (
        "file_reads", "file_writes", "swap_reads", "swap_writes", "host_reads", "host_writes"))
    assert found[0]["file_reads"] == found[1]["file_reads"], "what the guest reads does not hang on the host"


def test_a_kernel_that_looks_pages_nothing_twice(hypervisor_process):
    found = pressure.run(hypervisor_process(170, "swap", 1024).cluster, SMALL | {"kernel": {"spare_evicted": True}})
    assert found["looks"] > 0 == found["double_paged"]


def test_only_a_scheme_with_hints_has_any_and_minor_faults_cost_what_they_are_told(hypervisor_process):
    cluster = hypervisor_process(1024, "cmm2").cluster
    roomy = SMALL | {"anonymous": 60, "file": 60}
    assert pressure.run(cluster, roomy)["essa"] == 0
    assert pressure.run(cluster, roomy | {"kernel": {"minor_faults": "stable"}})["essa"] > 0
    assert pressure.run(hypervisor_process(1024, "swap").cluster, roomy)["essa"] == 0


def test_a_scribbler_harms_itself_alone(hypervisor_process):
    found = hintpaths.run(hypervisor_process(2048, "cmm2").cluster, {"rounds": 2, "scribbled": 2})
    malice = found["malice"]
    assert malice["scribbles"] > 0 < malice["own_lost_pages"]
    assert [malice[name] for name in ("neighbours_wrong_pages", "audit_problems", "drift_frames", "bad_contents",
                                      "host_half_written")] == [0, 0, 0, 0, False]
    assert [(cost["batch"], cost["hypercalls"]) for cost in found["costs"]] == [
        (batch, {"shared": 0, "trap": 1}) for batch in hintpaths.BATCHES]


@pytest.mark.parametrize(("scheme", "mapped"), [("swap", True), ("cmm2", False), ("swap", False)])
def test_what_a_mapper_saves_and_what_it_breaks(hypervisor_process, scheme, mapped):
    rows = mapper.run(hypervisor_process(1024, scheme).cluster, {"pages": 4, "mapped": mapped})["rows"]
    assert set(rows) == set(CASES)
    once = mapped or scheme == "cmm2"
    assert rows["tracked"]["total"] == (4 if once else 8)
    assert rows["rewritten"]["silently_changed"] == (4 if mapped else 0)
    assert rows["mlocked"]["dropped"] == (4 if mapped else 0)
    assert rows["network"]["host_swap_writes"] == (0 if scheme == "cmm2" else 4)


def test_frames_follow_use(hypervisor_process):
    options = {"pages": 128, "working_set": 80, "rates": [1, 8], "operations": 1200, "seed": 1}
    even, uneven = tworates.run(hypervisor_process(128, "cmm2").cluster, options)["rows"]
    assert uneven["frames"][0] / uneven["frames"][1] > even["frames"][0] / even["frames"][1]
    assert uneven["touches"] == 1200 and all(sum(row["frames"]) <= 128 for row in (even, uneven))
