"""Real runs with disks that have a cost: they verify, each clock has what was waited, and each claim is believed."""

import json

import pytest
from harness.children import MEMCOMMONS

DEADLINE_S = 60.0
SCENARIO = """
name = "slow-disks"
budget = "6MiB"
operations = 150
[disk]
{disk}
[[guest]]
name = "stress"
ram = "4MiB"
workload = "stress"
[[guest]]
name = "scan"
ram = "8MiB"
workload = "scan"
[guest.options]
size = "8MiB"
"""


@pytest.fixture
def summary(python_process, tmp_path):
    """Run the scenario, software faults, and return its summary."""
    def run(scheme, disk):
        (tmp_path / "slow.toml").write_text(SCENARIO.format(disk=disk))
        child = python_process(MEMCOMMONS, "run", str(tmp_path / "slow.toml"), "--faults", "software", "--scheme",
                               scheme, "--json")
        read = json.loads(child.line(DEADLINE_S))
        assert child.process.wait(DEADLINE_S) == 0, read["problems"]
        return read
    return run


@pytest.mark.parametrize("scheme", ["none", "swap", "swapcache"])
def test_virtual_waits_are_in_the_guests_clocks(summary, scheme):
    read = summary(scheme, 'latency = "hdd"')
    for guest in read["guests"]:
        assert guest["mismatches"] == 0 and guest["exit_status"] == 0
        assert guest["seconds"] == guest["real_seconds"] + guest["virtual_seconds"]
        assert sum(guest["latency_ns"]["buckets"]) == guest["operations"]
    assert sum(guest["virtual_seconds"] for guest in read["guests"]) > 0
    assert (read["disk"]["swap_busy_s"] > 0) == (scheme == "swap") == (read["counters"]["swap_out"] > 0)


def test_in_waited_time_nothing_is_virtual(summary):
    read = summary("swap", 'latency = "ssd"\ntime = "waited"')
    assert [guest["virtual_seconds"] for guest in read["guests"]] == [0, 0]
    assert read["counters"]["virtual_disk_ns"] == read["counters"]["virtual_swap_ns"] == 0
    assert read["counters"]["swap_wait_ns"] > 0


def test_direct_disks_verify(summary):
    assert summary("none", "direct = true")["disk"]["direct"]


def test_trim_keeps_no_dead_block_in_the_hosts_cache(summary):
    counters = summary("swapcache", "trim = true")["counters"]
    assert counters["host_cache_trimmed"] > 0 == counters["host_cache_dead"]
    assert counters["host_cache_hits"] <= counters["host_cache_gets"]
