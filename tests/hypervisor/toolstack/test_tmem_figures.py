"""What a scenario says of tmem, and what a run says of it afterwards: orders, summary, table."""

import json

import pytest

from hypervisor.toolstack.plan import baseline_plan, measured_plan
from hypervisor.toolstack.reading import load
from hypervisor.toolstack.summary import reads_avoided, summarise
from hypervisor.toolstack.table import tmem_line

TEXT = """
name = "two"
budget = "64MiB"
seconds = 4
[tmem]
{tmem}
[[guest]]
name = "bank-1"
ram = "64MiB"
workload = "sqlite"
{guest}
[[guest]]
name = "bank-2"
ram = "64MiB"
workload = "sqlite"
"""
HELD = {"pages": 30, "frames": 12, "fragmentation": 0.25, "forms": {
    "raw": {"pages": 10, "frames": 10, "data_bytes": 40960, "pages_a_frame": 1.0},
    "lz4": {"pages": 18, "frames": 4, "data_bytes": 12288, "pages_a_frame": 4.5},
    "zero": {"pages": 2, "frames": 0, "data_bytes": 0, "pages_a_frame": None}}}
DONE = {"bank-1": (10, 4.0), "bank-2": (10, 4.0)}


@pytest.fixture
def scenario(tmp_path):
    def make(tmem="", guest=""):
        path = tmp_path / "x.toml"
        path.write_text(TEXT.format(tmem=tmem, guest=guest))
        return load(path)
    return make


@pytest.mark.parametrize(("key", "value"), [
    ("form", "raw"), ("form", "lz4"), ("form", "dedup"), ("form", "tze"), ("quirks", "none"), ("quirks", "xen-4.2"),
    ("write_back", True), ("write_back", False), ("dedup_across", True)])
def test_settings_of_tmem_reach_the_hypervisor(scenario, key, value):
    plan = measured_plan(scenario(f"{key} = {json.dumps(value)}"), "tmem", "c", DONE)
    assert plan.hypervisor[key] == value


def test_only_a_weight_that_was_written_is_given_to_tmem(scenario):
    plan = measured_plan(scenario(guest="weight = 3"), "tmem", "c", DONE)
    assert [guest.line["weight"] for guest in plan.guests] == [3, 0]


def test_guests_balloon_where_there_is_tmem_to_balloon_for(scenario):
    wanted = scenario("selfballoon = true")
    ballooning = {scheme: [guest.line["selfballoon"] for guest in measured_plan(wanted, scheme, "c", DONE).guests]
                  for scheme in ("tmem", "cmm2+tmem", "swap", "cmm2")}
    assert ballooning == {"tmem": [True] * 2, "cmm2+tmem": [True] * 2, "swap": [False] * 2, "cmm2": [False] * 2}
    assert not any(guest.line["selfballoon"] for guest in baseline_plan(wanted, "c").guests)
    assert not any(guest.line["selfballoon"] for guest in measured_plan(scenario(), "tmem", "c", DONE).guests)


@pytest.mark.parametrize(("counters", "percent"), [
    ({"cleancache_hits": 30, "frontswap_loads": 10, "guest_disk_reads": 50, "guest_swap_reads": 10}, 40.0),
    ({"cleancache_hits": 5}, 100.0), ({"guest_disk_reads": 5}, 0.0), ({}, None)])
def test_reads_avoided_are_a_part_of_all_reads(counters, percent):
    assert reads_avoided(counters) == percent


@pytest.fixture
def summary(scenario, results, guest):
    def make(scheme="tmem", **changed):
        counters = {"cleancache_hits": 30, "frontswap_loads": 10, "guest_disk_reads": 30, "guest_swap_reads": 0}
        facts = {"guests": (guest("bank-1", counters=counters), guest("bank-2", counters=counters)),
                 "counters": {"hypercalls": 1234}, "cpu_seconds": 1.5,
                 "tmem": HELD | {"refusals": {"max_mem": 7}, "counters": {}}}
        baseline = results("baseline", [100.0], [100.0])
        return summarise(scenario('form = "lz4"'), baseline, results(scheme, [50.0], [60.0], **facts | changed), {})
    return make


def test_summary_says_what_tmem_did(summary):
    assert json.loads(json.dumps(summary()))["tmem"] == {
        "form": "lz4", "reads_avoided": 80, "reads_avoided_percent": pytest.approx(100 * 80 / 140), "hypercalls": 1234,
        "hypervisor_cpu_s": 1.5, "forms": HELD["forms"], "frames": 12, "fragmentation": 0.25,
        "refusals": {"max_mem": 7}}


def test_summary_of_a_run_that_ended_early(summary):
    tmem = summary(tmem={}, cpu_seconds=None)["tmem"]
    assert (tmem["forms"], tmem["refusals"], tmem["hypervisor_cpu_s"]) == ({}, {}, None)
    assert "CPU in the hypervisor -" in tmem_line(tmem)


def test_line_for_people(summary):
    assert tmem_line(summary()["tmem"]) == (
        "tmem:    reads avoided 57.1 %; 1,234 hypercalls; CPU in the hypervisor 1.50 s; raw 10 pages in 10 frames "
        "(1.00 a frame); lz4 18 pages in 4 frames (4.50 a frame); zero 2 pages; refused: max mem 7")


@pytest.mark.parametrize(("scheme", "shown"), [("tmem", True), ("cmm2+tmem", True), ("swap", False)])
def test_table_has_the_line_where_there_is_tmem(summary, scheme, shown):
    import io

    from hypervisor.toolstack.table import console_for, one_run

    stream = io.StringIO()
    console_for(stream).print(one_run(summary(scheme)))
    assert ("tmem:    reads avoided" in stream.getvalue()) == shown
    assert max(map(len, stream.getvalue().splitlines())) <= 100


def test_phase_takes_what_is_held_from_before_the_end_and_what_was_counted_from_its_end(cluster):
    listed = {"kernel_bytes": 4096, "counters": {}, "audit": {"checks": 1, "max_drift_frames": 0}, "guests": [],
              "tmem": HELD | {"refusals": {"cap": 1}}}
    cluster.answers["list"] = lambda: listed
    result = cluster.phase("well").run()
    assert result.tmem["forms"] == HELD["forms"]
    assert result.tmem["refusals"] == {"frozen": 3}, "the last words know all of them"
    assert result.cpu_seconds == 0.75
