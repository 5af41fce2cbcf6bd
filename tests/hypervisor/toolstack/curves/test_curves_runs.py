"""`memcommons curves` as it is typed: with stand-ins for hypervisor and guests, and once for real, very small."""

import json

import pytest
from harness.children import MEMCOMMONS

from hypervisor.toolstack.curves import grid, part
from hypervisor.toolstack.phase import Phase
from hypervisor.toolstack.reporting.png import HOW

WORDS = ("--schemes", "none,swap", "--overcommit", "1,2", "--seeds", "1", "--faults", "software", "--disks", "ssd")
DEADLINE_S = 60.0


@pytest.fixture
def behave(stand_ins, monkeypatch):
    """Let the guests of both workloads be stand-ins, which behave as they are told."""
    def behaves(how):
        guests = [{"name": "a", "ram": "8MiB", "workload": "stress", "options": {"behave": how}}]
        for name in list(grid.WORKLOADS):
            monkeypatch.setitem(grid.WORKLOADS, name, {"name": name, "budget": "8MiB", "operations": 100,
                                                       "guest": guests})
    behaves("brisk")
    return behaves


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def drawn(typed, behave, out):
    """Type `memcommons curves`; return (status, output, lines on standard error but the one of pictures)."""
    def type_(*words):
        status, text, err = typed("curves", *WORDS, "--out", str(out), *words)
        return status, text, [line for line in err.splitlines() if line != HOW]
    return type_


@pytest.fixture
def labels(monkeypatch):
    """The schemes of the phases that were really run; `labels.minutes` pass in each by the part's clock."""
    class Labels(list):
        minutes = 0.0
        now = 0.0
    found = Labels()
    run = Phase.run

    def noted(self):
        found.append(self._plan.label)
        found.now += 60 * found.minutes
        return run(self)
    monkeypatch.setattr(Phase, "run", noted)
    monkeypatch.setattr(part, "Part", lambda minutes, made=part.Part: made(minutes, lambda: found.now))
    return found


def test_all_is_run_once_and_shown(drawn, out, labels):
    status, text, err = drawn()
    assert (status, err) == (0, [])
    assert labels == ["baseline", "none", "swap", "none", "swap"] * 2
    assert "curves: 8 of 8 runs finished" in text and "oltp, disk ssd" in text and "scan, disk ssd" in text
    told = json.loads((out / "summary.json").read_text())
    assert [curve["title"] for curve in told["curves"]] == [
        "throughput against overcommit: oltp, disk ssd", "throughput against overcommit: scan, disk ssd"]
    assert [point[0] for point in told["curves"][0]["lines"][0]["points"]] == [1, 2]


def test_a_part_ends_by_itself_and_resume_goes_on(drawn, labels):
    labels.minutes = 10
    status, text, err = drawn("--minutes", "25", "--workloads", "oltp")
    assert (status, labels) == (0, ["baseline", "none", "swap"])
    assert err == ["2 of 4 runs are done, and this part of 25 min is over; go on with the same command and --resume"]
    assert "curves: 2 of 4 runs finished" in text and "no crossing shown" in text
    labels.clear()
    status, text, err = drawn("--minutes", "60", "--workloads", "oltp", "--resume")
    assert (status, labels, err) == (0, ["none", "swap"], [])
    assert "4 of 4 runs finished" in text


def test_what_is_known_is_shown_though_the_part_is_over(drawn, labels):
    """A further scheme stands before known runs in the order."""
    drawn("--workloads", "oltp", "--schemes", "swap")
    labels.clear()
    labels.minutes = 10
    status, text, err = drawn("--workloads", "oltp", "--minutes", "1", "--resume", "--json")
    assert (status, labels) == (0, ["none"])
    assert err[0].startswith("3 of 4 runs are done")
    lines = {line["name"]: line["points"] for line in json.loads(text)["curves"][0]["lines"]}
    assert [len(lines["none"]), len(lines["swap"])] == [1, 2]


def test_a_run_that_fails_is_a_result(drawn, behave):
    behave("out-of-memory-when-cut")
    status, text, err = drawn("--workloads", "oltp")
    assert (status, err) == (0, [])
    assert "did not finish: none at 2 (seed 1)\nthe first of them, seed 1: guest 'a'" in text


def test_a_baseline_that_fails_is_status_1(drawn, behave, labels):
    behave("failed")
    status, text, err = drawn("--workloads", "oltp")
    assert (status, labels) == (1, ["baseline"])
    assert "curves: 0 of 4 runs finished" in text
    [line] = err
    assert line.startswith("oltp, disk ssd, baseline seed 1: guest 'a'")


@pytest.mark.parametrize(("words", "line"), [
    (["--workloads", "oltp,web"], "--workloads: 'web' is not a workload of the curves; allowed: oltp, scan"),
    (["--disks", "tape"], "--disks: 'tape' is not a disk with a cost; allowed: ssd, hdd, network"),
    (["--schemes", "xen"], "--schemes: 'xen' is not a scheme; allowed: none"),
    (["--overcommit", "1,a"], "--overcommit: 'a' is not a number"),
    (["--overcommit", "50"], "--overcommit 50: a budget: "),
    (["--seeds", "0"], "--seeds: 0 is not possible; allowed: 1 to 1000"),
    (["--minutes", "61"], "--minutes: 61 is not possible; allowed: above 0, at most 60"),
    (["--seconds", "1", "--ops", "2"], "--seconds and --ops exclude each other"),
    (["--ops", "0"], "--ops: 0 is too small; at least 1"),
    (["--faults", "soft"], "--faults: 'soft' is not allowed")])
def test_wrong_use_is_one_line_and_nothing_is_run(drawn, labels, out, words, line):
    status, text, err = drawn(*words)
    assert (status, text, len(err)) == (2, "", 1)
    assert err[0].startswith(line)
    assert labels == [] and not out.exists()


def test_a_folder_is_needed(typed):
    assert typed("curves") == (2, "", "memcommons curves: Missing option '--out'; see memcommons curves --help\n")


def test_resume_of_something_else_is_one_line(drawn):
    drawn("--workloads", "oltp", "--schemes", "swap", "--overcommit", "1")
    status, _, err = drawn("--resume", "--ops", "50")
    assert status == 2
    assert "this differs: operations (not given then, 50 now)" in err[0]


def test_a_real_run(python_process, tmp_path):
    child = python_process(
        MEMCOMMONS, "curves", "--workloads", "scan", "--disks", "hdd", "--schemes", "swap", "--overcommit", "3",
        "--seeds", "1", "--ops", "100", "--faults", "software", "--out", str(tmp_path / "out"), "--json")
    told = json.loads(child.line(DEADLINE_S))
    assert child.process.wait(DEADLINE_S) == 0, told["problems"]
    [(overcommit, throughput, half)] = told["curves"][0]["lines"][0]["points"]
    assert (overcommit, half) == (3, None)
    assert 0 < throughput < 1, "what an hdd costs is in the guests' clocks"
