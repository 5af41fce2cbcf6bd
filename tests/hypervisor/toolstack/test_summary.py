"""The summary's arithmetic, on phases made by hand."""

import json

import pytest

from hypervisor.toolstack.reading import load
from hypervisor.toolstack.summary import check_equal_work, counters_of, saved, slowdown, spread, summarise
from shm.errors import BrokenInvariant

MIB = 1 << 20
TEXT = """
name = "two"
budget = "64MiB"
seconds = 4
[[guest]]
name = "bank"
count = 2
ram = "64MiB"
workload = "sqlite"
"""


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(TEXT)
    return load(path)


@pytest.fixture
def summary(scenario, results, guest):
    baseline = results("baseline", [100.0, 120.0], [100.0, 120.0], budget=130 * MIB, audit_checks=2)
    measured = results(
        "cmm2+tmem", [50.0, 60.0], [60.0, 62.0],
        guests=(guest("bank-1", seconds=6.0), guest("bank-2", seconds=4.0)), seconds=6.5)
    return summarise(scenario, baseline, measured, {"cpus": 2})


PROMISED = {
    "": ["version", "name", "scheme", "faults", "seed", "budget_bytes", "duration_s", "guests", "rss", "arena",
         "counters", "audit"],
    "guests.0": ["name", "pid", "workload", "ram_bytes", "operations", "operations_per_s", "pages_verified",
                 "mismatches", "exit_status", "rss_bytes", "pss_bytes", "slowdown"],
    "guests.0.rss_bytes": ["mean", "peak"],
    "guests.0.pss_bytes": ["mean", "peak"],
    "rss": ["source", "baseline_bytes", "measured_bytes", "saved_bytes", "saved_percent"],
    "rss.baseline_bytes": ["mean", "peak"],
    "rss.measured_bytes": ["mean", "peak"],
    "arena": ["peak_frames", "budget_frames", "kernel_peak_bytes"],
    "counters": ["hypercalls", "multicalls", "essa", "discards", "discard_faults", "volatile_swap_writes", "swap_out",
                 "swap_in", "guest_disk_reads", "guest_disk_writes", "tmem_puts", "tmem_gets", "tmem_hits",
                 "tmem_evictions"],
    "audit": ["checks", "max_drift_frames"],
}


@pytest.mark.parametrize("place", PROMISED)
def test_version_1_has_every_promised_key(summary, place):
    table = json.loads(json.dumps(summary))
    for part in filter(None, place.split(".")):
        table = table[int(part) if part.isdigit() else part]
    assert set(PROMISED[place]) <= table.keys()


def test_head(summary):
    head = {key: summary[key] for key in ("version", "name", "scheme", "faults", "seed", "budget_bytes", "duration_s")}
    assert head == {"version": 1, "name": "two", "scheme": "cmm2+tmem", "faults": "software", "seed": 1,
                    "budget_bytes": 64 * MIB, "duration_s": 6.5}
    assert summary["arena"] == {"peak_frames": 16000, "budget_frames": 16384, "kernel_peak_bytes": 63 * MIB}
    assert summary["audit"] == {"checks": 5, "max_drift_frames": 0}
    assert summary["problems"] == []


def test_memory_is_mean_and_peak_over_samples(summary):
    rss = summary["rss"]
    assert rss["baseline_bytes"] == {"mean": 110 * MIB, "peak": 120 * MIB}
    assert rss["measured_bytes"] == {"mean": 55 * MIB, "peak": 60 * MIB}
    assert summary["kernel"]["measured_bytes"] == {"mean": 61 * MIB, "peak": 62 * MIB}
    assert summary["processes"]["measured"]["rss_bytes"] == {"mean": 85 * MIB, "peak": 90 * MIB}
    guest = summary["guests"][0]
    assert guest["rss_bytes"] == {"mean": round(37.5 * MIB), "peak": 40 * MIB}
    assert guest["arena_pss_bytes"] == {"mean": round(27.5 * MIB), "peak": 30 * MIB}


def test_saving_is_the_lesser_of_two_claims(summary):
    """psutil: 55 of 110 MiB, 50 %; the kernel: 49 of 110 MiB, 44.5 %."""
    rss = summary["rss"]
    assert (rss["saved_by"], rss["saved_bytes"]) == ("kernel", 49 * MIB)
    assert rss["saved_percent"] == pytest.approx(100 * 49 / 110)
    assert rss["saved_percent_by_source"] == pytest.approx({"psutil": 50.0, "kernel": 100 * 49 / 110})


# (arena baseline, arena measured, kernel baseline, kernel measured) -> who is believed, percent
CLAIMS = [
    ((100, 50, 100, 60), "kernel", 40.0),
    ((100, 70, 100, 60), "psutil", 30.0),
    ((100, 50, None, None), "psutil", 50.0),
    ((100, 50, 100, None), "psutil", 50.0),
    ((0, 0, 100, 60), "kernel", 40.0),
    ((100, 110, 100, 90), "psutil", -10.0),
]


@pytest.mark.parametrize(("figures", "by", "percent"), CLAIMS)
def test_claims(scenario, results, figures, by, percent):
    a, b, c, d = figures
    summary = summarise(scenario, results("baseline", [a], [c]), results("swap", [b], [d]), {})
    assert summary["rss"]["saved_by"] == by
    assert summary["rss"]["saved_percent"] == pytest.approx(percent)


def test_nothing_measured_is_none_and_not_zero(scenario, results):
    summary = summarise(scenario, results("baseline", [], []), results("swap", [], []), {})
    assert summary["rss"]["saved_percent"] is None
    assert summary["rss"]["measured_bytes"] == {"mean": None, "peak": None}


def test_slowdown_is_a_ratio_of_times_for_equal_work(summary):
    assert [guest["slowdown"] for guest in summary["guests"]] == [1.5, 1.0]
    assert [guest["operations_per_s"] for guest in summary["guests"]] == [pytest.approx(1000 / 6), 250.0]


@pytest.mark.parametrize(("changed", "ratio"), [
    ({}, 1.0), ({"seconds": 8.0}, 2.0), ({"seconds": 6.0, "virtual_seconds": 10.0}, 4.0),
    ({"seconds": None}, None), ({"operations": 5}, None)])
def test_slowdown(guest, changed, ratio):
    assert slowdown(guest(**changed), guest()) == ratio


@pytest.mark.parametrize("before", [None, {"seconds": 0.0}, {"seconds": None}])
def test_no_slowdown_without_a_baseline(guest, before):
    assert slowdown(guest(), before and guest(**before)) is None


def test_counters_are_the_guests_summed_and_the_hypervisors_own(results):
    """hypercalls is counted by both (5 + 5 and 9): the guests' word is not taken."""
    counters = counters_of(results("swap", [], []))
    assert counters["guest_disk_reads"] == 20
    assert counters["essa"] == 8
    assert counters["hypercalls"] == 9
    assert (counters["discards"], counters["swap_out"], counters["tmem_puts"]) == (7, 2, 0)


def test_waits_by_cause(summary):
    assert summary["guests"][0]["waits_s"] == {"fault": 2.0}


def test_problems_name_their_run(scenario, results):
    baseline, measured = results("baseline", [], [], problems=("x",)), results("swap", [], [], problems=("y",))
    summary = summarise(scenario, baseline, measured, {})
    assert summary["problems"] == ["baseline: x", "swap: y"]


def test_unequal_work_is_our_bug(results, guest):
    measured = results("swap", [], [], guests=(guest("bank-1", operations=999), guest("bank-2")))
    with pytest.raises(BrokenInvariant, match="guest 'bank-1' did 1000 operations in the baseline and 999 in the swap"):
        check_equal_work(results("baseline", [], []), measured)
    check_equal_work(results("baseline", [], []), results("swap", [], [], guests=(guest(operations=9, seconds=None),)))


@pytest.mark.parametrize(("values", "expected"), [
    ([], {"mean": None, "peak": None}), ([None], {"mean": None, "peak": None}), ([3], {"mean": 3, "peak": 3}),
    ([1, None, 4, 5], {"mean": 3, "peak": 5})])
def test_spread(values, expected):
    assert spread(values) == expected


@pytest.mark.parametrize(("before", "after", "expected"), [
    (200, 50, (150, 75.0)), (0, 50, None), (None, 50, None), (200, None, None), (100, 0, (100, 100.0))])
def test_saved(before, after, expected):
    assert saved(before, after) == expected
