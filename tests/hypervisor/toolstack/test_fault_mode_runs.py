"""Real runs in both fault modes: they verify, and however they end, neither process nor name is left; pagers too."""

import json
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from time import monotonic

import psutil
import pytest
from harness.children import MEMCOMMONS

from shm import names
from shm.errors import UsageProblem
from shm.userfault import open_userfault

DEADLINE_S = 60.0
SCENARIO = """
name = "both"
budget = "6MiB"
scheme = "cmm2+tmem"
seconds = {seconds}
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
MODES = ["software", "hardware"]


class Run:
    """A `memcommons run` of its own; what it starts is known by its events."""

    def __init__(self, start, folder, mode, seconds):
        (folder / "both.toml").write_text(SCENARIO.format(seconds=seconds))
        self._events = folder / "out" / "events.jsonl"
        self.child = start(MEMCOMMONS, "run", str(folder / "both.toml"), "--faults", mode, "--json", "--out",
                           str(folder / "out"))
        self.mode = mode

    def events(self):
        with suppress(OSError):
            return [json.loads(line) for line in self._events.read_text().split("\n")[:-1]]
        return []

    def at_work(self):
        """Wait until the guests of the scheme's run have begun; return its pids: who -> pid, pagers as "its pager"."""
        until = monotonic() + DEADLINE_S
        while not any((event["phase"], event["event"]) == ("cmm2+tmem", "go") for event in self.events()):
            assert monotonic() < until, self.events()[-3:]
            with suppress(subprocess.TimeoutExpired):
                self.child.process.wait(0.05)
                raise AssertionError(f"it ended before the guests were at work: {self.events()[-3:]}")
        pids = {}
        for event in self.events():
            if event["phase"] == "cmm2+tmem" and event["event"] == "start":
                pids[event.get("guest", "hypervisor")] = event["pid"]
            elif event["phase"] == "cmm2+tmem" and event["event"] == "said" and "pager" in event["said"]:
                pids[f"pager of {event['who']}"] = event["said"]["pager"]
        assert len(pids) == (5 if self.mode == "hardware" else 3)
        return pids

    def ended(self):
        """Wait for the end; return (exit status, lines on standard error).  Nothing is left."""
        out, said = self.child.process.communicate(timeout=DEADLINE_S)
        self.summary = json.loads(out) if out else {}
        started = [event for event in self.events() if event["event"] == "start"]
        pids = [event["pid"] for event in started]
        pids += [event["said"]["pager"] for event in self.events() if "pager" in event.get("said", {})]
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                assert process.status() == psutil.STATUS_ZOMBIE or process.wait(DEADLINE_S) is None
        assert [names.objects(event["cluster"]) for event in started if "cluster" in event] == [[], []]
        return self.child.process.returncode, said.decode().splitlines()


@pytest.fixture(params=MODES)
def run(request, python_process, tmp_path):
    if request.param == "hardware":
        try:
            open_userfault().close()
        except UsageProblem as problem:
            pytest.skip(str(problem))
    return lambda seconds=1.0: Run(python_process, tmp_path, request.param, seconds)


def test_run_verifies_and_leaves_nothing(run):
    one = run(0.5)
    status, lines = one.ended()
    assert (status, lines) == (0, [])
    counters = one.summary["counters"]
    assert one.summary["faults"] == one.mode
    assert sum(guest["mismatches"] for guest in one.summary["guests"]) == 0 == one.summary["audit"]["max_drift_frames"]
    assert counters["discards"] > 0 and counters["volatile_swap_writes"] == 0
    assert (counters["hardware_faults"] > 0) == (one.mode == "hardware")
    assert counters["discard_faults"] >= counters["pager_restored"]
    pagers = one.summary["processes"]["measured"]["pagers_uss_bytes"]["mean"]
    assert (pagers > 1 << 20) == (one.mode == "hardware")


def test_kernels_count_and_psutil_agree_on_the_baseline(run):
    """All memory granted, no reclaim: what the guests map is what the kernel has given, whoever else maps it."""
    one = run(0.5)
    one.ended()
    seen, counted = one.summary["rss"]["baseline_bytes"]["peak"], one.summary["kernel"]["baseline_bytes"]["peak"]
    assert seen == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_at_work(run, signum):
    one = run()
    one.at_work()
    os.kill(one.child.pid, signum)
    assert one.ended() == (128 + signum, [f"stopped by {signum.name}: guests and hypervisor have been ended"])


def test_guest_killed_at_work(run):
    one = run()
    pids = one.at_work()
    os.kill(pids["scan"], signal.SIGKILL)
    status, lines = one.ended()
    assert (status, lines) == (1, [f"cmm2+tmem: guest 'scan' (pid {pids['scan']}) was killed by signal 9"])
    assert {guest["name"]: guest["seconds"] is None for guest in one.summary["guests"]} == {
        "stress": False, "scan": True}


def test_hypervisor_killed_at_work(run):
    one = run()
    pids = one.at_work()
    os.kill(pids["hypervisor"], signal.SIGKILL)
    status, lines = one.ended()
    assert status == 1
    assert lines[0] == f"cmm2+tmem: the hypervisor (pid {pids['hypervisor']}) was killed by signal 9"
    assert re.fullmatch(r"cmm2\+tmem: cluster '.*' had left \d+ names behind; now removed", lines[1])
    for name, line in zip(("stress", "scan"), lines[2:], strict=True):
        assert re.fullmatch(rf"cmm2\+tmem: guest '{name}' \(pid {pids[name]}\) (ended with status 1: .*|"
                            r"was killed by signal 9)", line)


@pytest.mark.parametrize("run", ["hardware"], indirect=True)
def test_pager_killed_at_work(run):
    one = run()
    pids = one.at_work()
    os.kill(pids["pager of guest 'scan'"], signal.SIGKILL)
    status, lines = one.ended()
    assert status == 1
    assert lines == [f"cmm2+tmem: guest 'scan' (pid {pids['scan']}) was killed by signal 9 (the hypervisor ended it: "
                     "its pager is gone, and discarded pages could not be restored)"]


def test_killed_toolstack_takes_everybody_along(run):
    one = run()
    pids = one.at_work()
    one.child.kill()
    for pid in pids.values():
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(DEADLINE_S)
    clusters = {event["cluster"] for event in one.events() if "cluster" in event}
    assert [names.objects(cluster) for cluster in clusters] == [[], []]


AS_NOBODY = """
import os, sys
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.execv(sys.executable, [sys.executable, "-m", "hypervisor.toolstack.cli", *sys.argv[1:]])
"""


def test_an_unprivileged_user_runs_with_hardware_faults_of_user_mode(python_process, tmp_path):
    """Where another user may start our interpreter at all."""
    if not all(os.stat(folder).st_mode & 0o005 == 0o005 for place in (Path(os.path.realpath(os.sys.executable)),
                                                                         Path(__file__)) for folder in place.parents):
        pytest.skip("another user cannot reach this interpreter")
    scenario = tmp_path / "both.toml"
    scenario.write_text(SCENARIO.format(seconds=0.5))
    for folder in tmp_path.parents[:3]:
        if folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    child = python_process(AS_NOBODY, "run", str(scenario), "--faults", "auto", "--json")
    summary = json.loads(child.line(DEADLINE_S))
    assert child.leave() == 0
    if summary["faults"] == "software":
        pytest.skip(summary["faults_why"])
    assert sum(guest["mismatches"] for guest in summary["guests"]) == 0
    assert summary["counters"]["hardware_faults"] > 0
