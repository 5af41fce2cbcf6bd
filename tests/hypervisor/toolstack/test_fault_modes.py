"""Fault modes in the toolstack: what is decided, what guests are told, who may be named as a pager, what is counted."""

import io
import json
import os
import re
import subprocess
import sys

import pytest

from guests.workloads.order import order_of
from hypervisor.toolstack import run as run_module
from hypervisor.toolstack.faultmode import HARDWARE, SOFTWARE, FaultMode, decided
from hypervisor.toolstack.guestrun import started_by
from hypervisor.toolstack.plan import baseline_plan, measured_plan
from hypervisor.toolstack.reading import load
from hypervisor.toolstack.results import Memory
from hypervisor.toolstack.sampler import Sampler, memory_of
from hypervisor.toolstack.summary import counters_of, summarise
from hypervisor.toolstack.table import WIDTH, console_for, one_run
from shm.errors import UsageProblem
from shm.userfault import Userfault, open_userfault

MIB = 1 << 20
REFUSAL = "no userfaultfd (userfaultfd(2): Operation not permitted): set vm.unprivileged_userfaultfd=1"
TEXT = """
name = "two"
budget = "8MiB"
operations = 100
faults = "{faults}"
[hypervisor]
swap = "1MiB"
[[guest]]
name = "bank"
count = 2
ram = "8MiB"
workload = "stress"
"""


@pytest.fixture
def scenario(tmp_path):
    def make(faults="auto"):
        path = tmp_path / "x.toml"
        path.write_text(TEXT.format(faults=faults))
        return load(path)
    return make


# -- deciding

class Probe:
    """A kernel that gives a userfaultfd, or none."""

    def __init__(self, gives=True, user_mode_only=False):
        self.gives, self.user_mode_only, self.made = gives, user_mode_only, []

    def __call__(self):
        if not self.gives:
            raise UsageProblem(REFUSAL)
        self.made.append(Userfault(os.open(os.devnull, os.O_RDONLY), self.user_mode_only))
        return self.made[-1]


@pytest.mark.parametrize(("wanted", "probe", "mode"), [
    ("software", Probe(), FaultMode(SOFTWARE)),
    ("software", Probe(gives=False), FaultMode(SOFTWARE)),
    ("auto", Probe(), FaultMode(HARDWARE)),
    ("auto", Probe(user_mode_only=True), FaultMode(HARDWARE, user_mode_only=True)),
    ("auto", Probe(gives=False), FaultMode(SOFTWARE, why=REFUSAL)),
    ("hardware", Probe(), FaultMode(HARDWARE)),
    ("hardware", Probe(user_mode_only=True), FaultMode(HARDWARE, user_mode_only=True))])
def test_mode_is_what_is_wanted_as_far_as_the_kernel_gives_it(wanted, probe, mode):
    assert decided(wanted, probe) == mode
    for made in probe.made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(made.fd)


def test_hardware_that_cannot_be_had_is_the_line_that_says_what_to_change():
    with pytest.raises(UsageProblem, match=f"^{re.escape(REFUSAL)}$"):
        decided("hardware", Probe(gives=False))


@pytest.mark.parametrize(("mode", "facts"), [
    (FaultMode(), {"faults": "software", "user_mode_only": False}),
    (FaultMode(why="x"), {"faults": "software", "faults_why": "x", "user_mode_only": False}),
    (FaultMode(HARDWARE, user_mode_only=True), {"faults": "hardware", "user_mode_only": True})])
def test_what_the_summary_says_of_it(mode, facts):
    assert mode.facts() == facts


@pytest.fixture
def kernel_without(monkeypatch):
    """A kernel that gives no userfaultfd."""
    monkeypatch.setattr(run_module, "decided", lambda wanted: decided(wanted, Probe(gives=False)))


def test_auto_falls_back_with_one_line_and_in_the_summary(typed, stand_ins, kernel_without):
    status, out, err = typed("run", str(stand_ins), "--faults", "auto", "--json")
    summary = json.loads(out)
    assert (status, err) == (0, f"software faults: {REFUSAL}\n")
    assert (summary["faults"], summary["faults_why"], summary["user_mode_only"]) == ("software", REFUSAL, False)


def test_hardware_without_the_kernel_is_status_2_before_anything_starts(typed, stand_ins, kernel_without, tmp_path):
    words = ["run", str(stand_ins), "--faults", "hardware", "--out", str(tmp_path / "out")]
    assert typed(*words) == (2, "", f"{REFUSAL}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("word", ["auto", "hardware"])
def test_hardware_is_one_mode_for_the_baseline_and_the_scheme(typed, stand_ins, monkeypatch, tmp_path, word):
    monkeypatch.setattr(run_module, "decided", lambda wanted: decided(wanted, Probe(user_mode_only=True)))
    status, out, err = typed("run", str(stand_ins), "--faults", word, "--json", "--out", str(tmp_path / "out"))
    summary = json.loads(out)
    assert (status, err) == (0, "")
    assert (summary["faults"], summary["user_mode_only"]) == ("hardware", True)
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    walked = [set(sample["pagers"]) for sample in samples if sample["kind"] == "maps"]
    assert walked[0] == {"a", "b"}, "fake guests have a pager only if their order says hardware"
    assert {sample["phase"] for sample in samples} == {"baseline", "cmm2+tmem"}


def test_baseline_that_fails_tells_its_mode_too(typed, stand_ins, kernel_without):
    stand_ins.write_text(stand_ins.read_text().replace('"well"', '"killed-at-work"'))
    status, out, _ = typed("run", str(stand_ins), "--faults", "auto", "--json")
    assert (status, json.loads(out)["faults_why"]) == (1, REFUSAL)


# -- telling the guests

@pytest.mark.parametrize("faults", ["software", "hardware"])
def test_every_order_says_the_mode_that_was_decided(scenario, faults):
    plans = [baseline_plan(scenario(), "c", faults),
             measured_plan(scenario(), "swap", "c", {"bank-1": (1, 1.0), "bank-2": (1, 1.0)}, faults)]
    assert {guest.line["faults"] for plan in plans for guest in plan.guests} == {faults}
    assert {order_of(json.dumps(guest.line)).faults for plan in plans for guest in plan.guests} == {faults}


@pytest.mark.parametrize("word", ["auto", "soft", 1])
def test_a_guest_is_told_hardware_or_software(word):
    line = {"cluster": "c", "name": "g", "workload": "stress", "ram": 1 << 20, "faults": word}
    with pytest.raises(UsageProblem, match=r"^guest: the order's faults: .*; allowed: software, hardware$"):
        order_of(json.dumps(line))


# -- pagers

def test_a_pager_is_a_process_of_the_guests_session():
    with subprocess.Popen([sys.executable, "-S", "-c", "import os, sys; print(os.getpid(), flush=True); "
                           "sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert started_by(os.getsid(0), child.pid) == (os.getsid(0) != child.pid)
        assert not started_by(child.pid, child.pid), "not itself"
        assert not started_by(child.pid, os.getpid())
        child.stdin.close()


@pytest.mark.parametrize("pid", [None, True, "1", 1.5, 0, -1, 1 << 31, 1 << 80])
def test_what_is_no_pid_is_no_pager(pid):
    assert not started_by(os.getsid(0), pid)


@pytest.mark.parametrize(("misdeed", "line"), [
    ("has-no-pager", r"guest 'a' \(pid \d+\) was to work with hardware faults, and has no pager"),
    ("names-us", r"guest 'a' \(pid \d+\) named \d+ as its pager, which is no process of its own, and was ended"),
    ("names-itself", r"guest 'a' \(pid \d+\) named \d+ as its pager, .*"),
    ("names-no-number", r"guest 'a' \(pid \d+\) named 1 as its pager, .*"),
    ("names-nobody", r"guest 'a' \(pid \d+\) named 1073741824 as its pager, .*")])
def test_guest_with_a_wrong_pager_is_named_and_the_other_goes_on(cluster, misdeed, line):
    result = cluster.phase(misdeed, "well", faults="hardware").run()
    assert len(result.problems) == 1
    assert re.fullmatch(line, result.problems[0])
    assert all(set(sample.pagers) == {"b"} for sample in result.samples)
    assert result.guests[1].seconds == 0.0


def test_software_guests_have_no_pagers(cluster):
    result = cluster.phase("well").run()
    assert all(sample.pagers == {} for sample in result.samples)


@pytest.mark.parametrize("behaviour", ["well", "killed-at-work", "killed-when-done", "hangs-deaf"])
def test_a_pager_is_gone_with_its_guest(cluster, behaviour):
    """The fixtures see that no child is left; a pager is the guest's child, so it is looked for by its pid."""
    from dataclasses import replace
    cluster.patience = replace(cluster.patience, grace=0.1)
    seen = []
    phase = cluster.phase(behaviour, faults="hardware", limit=0.5)
    cluster.answers["list"] = lambda: seen.extend(guest.pager for guest in phase._crew.guests.values()) or {}
    phase.run()
    assert seen
    assert all(not started_by(os.getpid(), pid) and ended(pid) for pid in set(seen))


def ended(pid):
    """Say whether a process is dead, be it that nobody has reaped it yet; wait for what was killed."""
    import psutil
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or process.wait(20) is None
    except psutil.NoSuchProcess:
        return True


# -- counting

# (guests' counters, the hypervisor's) -> (discard faults, page faults, guest disk reads)
COUNTS = [
    ({"discard_faults": 3, "faults": 10, "guest_disk_reads": 7}, {}, (3, 10, 7)),
    ({"discard_faults": 3, "faults": 10, "guest_disk_reads": 7}, {"discard_faults": 0, "hardware_faults": 0},
     (3, 10, 7)),
    ({"faults": 10, "guest_disk_reads": 7, "pager_disk_reads": 2, "pager_restored": 5},
     {"discard_faults": 5, "hardware_faults": 40, "write_faults": 6, "prefetched": 9}, (5, 50, 9)),
    ({"discard_faults": 1}, {"discard_faults": 5}, (6, 0, 0)),
    ({}, {}, (0, 0, 0))]


@pytest.mark.parametrize(("guests", "host", "expected"), COUNTS)
def test_counts_of_both_modes_are_added_and_none_twice(results, guest, guests, host, expected):
    counters = counters_of(results("cmm2", [], [], guests=(guest(counters=guests),), counters=host))
    assert tuple(counters[name] for name in ("discard_faults", "faults", "guest_disk_reads")) == expected
    assert all(counters[name] == value for name, value in host.items() if name != "discard_faults")


@pytest.fixture
def summary(scenario, results, guest):
    """The summary of a hardware run: each pager has 11 MiB, 5 of them its own."""
    def make(mode, pagers=True):
        baseline, measured = results("baseline", [100.0], [100.0]), results(
            "cmm2+tmem", [50.0], [60.0], counters={
                "discard_faults": 41, "hardware_faults": 4321, "write_faults": 12, "prefetched": 345},
            guests=(guest("bank-1", counters={"pager_restored": 43}), guest("bank-2")))
        if pagers:
            pager = Memory(11 * MIB, 8 * MIB, 0, 0, 5 * MIB)
            for phase in (baseline, measured):
                object.__setattr__(phase, "samples", tuple(
                    type(sample)(sample.at, sample.hypervisor, sample.guests, sample.kernel_bytes,
                                 {"bank-1": pager, "bank-2": pager}) for sample in phase.samples))
        return summarise(scenario(), baseline, measured, {}, mode)
    return make


def printed(summary):
    stream = io.StringIO()
    console_for(stream).print(one_run(summary))
    return stream.getvalue()


def row(text, start):
    return re.split(r"\s{2,}", next(line for line in text.splitlines() if start in line).strip())


def test_pagers_are_counted_with_all_and_shown_apart(summary):
    made = summary(FaultMode(HARDWARE))
    assert (made["faults"], made["guests"][0]["pager_uss_bytes"]["mean"]) == ("hardware", 5 * MIB)
    processes = made["processes"]["measured"]
    assert processes["pagers_rss_bytes"] == {"mean": 22 * MIB, "peak": 22 * MIB}
    assert processes["pagers_uss_bytes"] == {"mean": 10 * MIB, "peak": 10 * MIB}
    assert processes["rss_bytes"]["mean"] == (50 + 3 * 10 + 22) * MIB
    assert processes["pss_bytes"]["mean"] == (50 + 3 * 10 + 16) * MIB
    assert made["rss"]["measured_bytes"]["mean"] == 50 * MIB, "no part of the arena"


def test_table_of_a_hardware_run(summary):
    text = printed(summary(FaultMode(HARDWARE, user_mode_only=True)))
    assert "seed 1, hardware faults in user mode only" in " ".join(text.split())
    assert row(text, "of that the pagers, RSS") == ["of that the pagers, RSS", "22.0", "22.0", "22.0", "22.0", "0.0 %"]
    assert row(text, "of that the pagers, USS")[3] == "10.0"
    for said, figure in (("hardware faults  ", "4,321"), ("write-protect faults", "12"), ("pages prefetched", "345"),
                         ("restored by pagers", "43"), ("discard faults", "41")):
        assert re.search(rf"{said} +0 +{figure}\b", text), said
    assert "; without hardware faults" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= WIDTH


def test_table_of_a_software_run_has_nothing_of_it(summary):
    text = printed(summary(FaultMode(), pagers=False))
    for said in ("pagers", "hardware", "write-protect", "prefetched"):
        assert said not in text


def test_sampler_walks_pagers_and_uss_is_what_a_process_has_alone():
    with subprocess.Popen([sys.executable, "-S", "-c", "a = bytearray(b'x' * (8 << 20)); print(flush=True); "
                           "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        sampler = Sampler(os.getpid(), {"g": os.getpid()}, dict, lambda sample, seen: None, lambda sample: None,
                          {"g": child.pid})
        sampler.begin()
        child.stdin.close()
    (sample,) = sampler.samples
    assert sample.pagers["g"].rss >= sample.pagers["g"].pss >= sample.pagers["g"].uss >= 8 << 20
    assert sample.process_rss == sum(m.rss for m in (sample.hypervisor, sample.guests["g"], sample.pagers["g"]))


def test_uss_of_a_process_that_shares_all_but_a_little():
    import psutil
    memory = memory_of(psutil.Process())
    assert 0 < memory.uss < memory.rss


# -- ctl list

def hardware_or_skip():
    try:
        open_userfault().close()
    except UsageProblem as problem:
        pytest.skip(str(problem))


@pytest.mark.parametrize("faults", ["software", "hardware"])
def test_list_says_how_a_guest_works(typed, machine, python_process, faults):
    if faults == "hardware":
        hardware_or_skip()
    running = machine(budget=256)
    child = python_process("import sys; from guests import Guest; g = Guest.connect(sys.argv[1], 'mine', '64KiB', "
                           "faults=sys.argv[2]); print('in', flush=True); sys.stdin.read(); g.close()",
                           running.cluster, faults)
    assert child.line() == "in"
    status, out, _ = typed("ctl", running.cluster, "list")
    answer = json.loads(typed("ctl", running.cluster, "list", "--json")[1])
    assert child.leave() == 0
    assert status == 0
    assert next(line for line in out.splitlines() if "mine" in line).split()[6] == faults
    assert answer["guests"][0]["faults"] == faults
