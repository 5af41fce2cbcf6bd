"""The command line: every wrong use is one line and status 2; what a run comes to is its status."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hypervisor.toolstack import means
from hypervisor.toolstack.journal import Journal
from hypervisor.toolstack.report import progress_on, show
from hypervisor.toolstack.run import Outcome, run
from shm.errors import UsageProblem

# What is typed -> the line (its start; click's own words differ between versions).
WRONG = [
    ([], "memcommons: Missing command; see memcommons --help"),
    (["fly"], "memcommons: No such command 'fly'"),
    (["run", "--colour"], "memcommons run: No such option: --colour"),
    (["run", "--seconds", "many"], "memcommons run: Invalid value for '--seconds'"),
    (["run", "--guests", "0"], "memcommons run: Invalid value for '--guests'"),
    (["run", "a.toml", "b.toml"], "memcommons run: Got unexpected extra argument"),
    (["run", "--scheme"], "memcommons: Option '--scheme' requires an argument"),
    (["run", "nowhere.toml"], "nowhere.toml: no such file or directory; name a scenario file"),
    (["run", "--scheme", "xen"], "--scheme: 'xen' is not a scheme; allowed: none, more-ram, swap, balloon, light, "),
    (["run", "--budget", "64MB"], "--budget: '64MB' is not a size; use B, KiB, MiB or GiB"),
    (["run", "--seconds", "1", "--ops", "1"], "--seconds and --ops exclude each other; give one of them"),
    (["run", "--faults", "soft"], "--faults: 'soft' is not allowed; allowed: auto, software, hardware"),
    (["serve", "--name", "x"], "memcommons serve: Missing option '--budget'"),
    (["serve", "--name", "a/b", "--budget", "8MiB"], "cluster name 'a/b': use 1 to 40 letters"),
    (["serve", "--name", "x", "--budget", "8"], "--budget: '8' is not a size"),
    (["serve", "--name", "x", "--budget", "8KiB"], "--budget: 8.0 KiB is below the floor; use at least 1024 KiB"),
    (["serve", "--name", "x", "--budget", "8MiB", "--scheme", "y"], "--scheme: 'y' is not a scheme; allowed: none"),
    (["serve", "--name", "x", "--budget", "8MiB", "--swap", "y"], "--swap: 'y' is not a size"),
    (["serve", "--name", "x", "--budget", "8MiB", "--reclaim", "y"],
     "--reclaim: 'y' is not a policy; allowed: hint-after-choice, u-e-v-p-s"),
    (["ctl"], "memcommons ctl: Missing "),
    (["ctl", "nobody-serves-this", "fly"], "memcommons ctl: No such command 'fly'"),
    (["ctl", "nobody-serves-this", "list"], "no cluster 'nobody-serves-this' is running"),
    (["ctl", "nobody-serves-this", "set-budget", "64MB"], "set-budget: '64MB' is not a size"),
    (["ctl", "nobody-serves-this", "set-budget"], "memcommons ctl CLUSTER set-budget: Missing argument"),
    (["clean", "a/b"], "cluster name 'a/b': use 1 to 40 letters"),
]


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_use_is_one_line_and_status_2(typed, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    status, out, err = typed(*words)
    assert (status, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_version(typed):
    from importlib.metadata import version
    assert typed("--version") == (0, f"memcommons {version('memcommons')}\n", "")


@pytest.mark.parametrize("command", [[], ["run"], ["serve"], ["ctl"], ["clean"], ["ctl", "x", "list"]])
def test_help_is_no_error(typed, command):
    status, out, err = typed(*command, "--help")
    assert (status, err) == (0, "")
    assert "Usage" in out


def test_run_prints_the_table_and_nothing_else(typed, stand_ins):
    status, out, err = typed("run", str(stand_ins))
    assert (status, err) == (0, "")
    assert "two: scheme cmm2+tmem, budget 8.0 MiB for 2 guests with 16.0 MiB" in out
    assert "verdict: 10 pages verified, none wrong" in out


def test_json_is_one_object_and_nothing_else(typed, stand_ins):
    status, out, err = typed("run", str(stand_ins), "--json", "--scheme", "swap", "--seed", "5")
    summary = json.loads(out)
    assert (status, err, out.count("\n")) == (0, "", 1)
    assert (summary["version"], summary["scheme"], summary["seed"]) == (1, "swap", 5)


def test_several_schemes_are_one_object_and_one_table(typed, stand_ins):
    status, out, _ = typed("run", str(stand_ins), "--json", "--scheme", "none,swap")
    document = json.loads(out)
    assert (status, document["version"]) == (0, 1)
    assert [summary["scheme"] for summary in document["runs"]] == ["none", "swap"]
    status, out, _ = typed("run", str(stand_ins), "--scheme", "none,swap")
    assert status == 0
    assert out.count("guest disk reads") == 1


def test_out_keeps_summary_samples_and_events(typed, stand_ins, tmp_path):
    out = tmp_path / "a" / "b"
    status, text, _ = typed("run", str(stand_ins), "--json", "--out", str(out))
    assert status == 0
    assert json.loads((out / "summary.json").read_text()) == json.loads(text)
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert {(s["phase"], s["kind"]) for s in samples} == {
        (phase, kind) for phase in ("baseline", "cmm2+tmem") for kind in ("maps", "shared")}
    assert {json.loads(line)["event"] for line in (out / "events.jsonl").read_text().splitlines()} >= {"start", "go"}


def test_guest_that_fails_is_status_1_and_its_line_on_standard_error(typed, stand_ins):
    stand_ins.write_text(stand_ins.read_text().replace('"well"', '"less-when-measured"'))
    status, out, err = typed("run", str(stand_ins))
    assert status == 1
    assert "verdict: FAILED" in out
    assert err.startswith("cmm2+tmem: guest 'a' (pid ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_baseline_that_fails_is_the_end(typed, stand_ins, as_json):
    stand_ins.write_text(stand_ins.read_text().replace('"well"', '"killed-at-work"'))
    status, out, err = typed("run", str(stand_ins), *as_json)
    assert status == 1
    assert err.startswith("baseline: guest 'a' (pid ")
    if as_json:
        document = json.loads(out)
        assert (document["failed"], document["scheme"]) == ("baseline", "cmm2+tmem")
        assert document["problems"] == [err.strip()]
    else:
        assert out == ""


def test_guest_without_an_operation_is_named(typed, stand_ins):
    stand_ins.write_text(stand_ins.read_text().replace('"well"', '"idle"').replace("operations = 100", "seconds = 0.1"))
    status, _, err = typed("run", str(stand_ins))
    assert status == 1
    assert err == "baseline: guest 'a' finished no operation; give it more time (seconds) or set operations\n"


def test_refused_run_leaves_no_folder(typed, stand_ins, tmp_path):
    """What is found before the start is found before anything is made."""
    stand_ins.write_text(stand_ins.read_text().replace('ram = "8MiB"', 'ram = "512GiB"'))
    status, _, err = typed("run", str(stand_ins), "--out", str(tmp_path / "out"))
    assert status == 2
    assert "in /dev/shm, which has" in err
    assert not (tmp_path / "out").exists()


def test_out_that_cannot_be_made(typed, stand_ins, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = typed("run", str(stand_ins), "--out", str(tmp_path / "file"))
    assert (status, err) == (2, f"--out: {tmp_path / 'file'}: File exists; give a folder that can be written\n")


def test_full_disk_under_out_is_told_and_ends_no_run(typed, stand_ins, monkeypatch):
    opened = Journal.open

    def full(self):
        opened(self)
        self._files["samples"].close()
        self._files["samples"] = open("/dev/full", "w", encoding="utf-8")       # noqa: SIM115
    monkeypatch.setattr(Journal, "open", full)
    status, out, err = typed("run", str(stand_ins), "--out", str(stand_ins.parent / "out"))
    assert status == 1
    assert "pages verified, none wrong" in out
    assert err == f"--out: {stand_ins.parent / 'out'}: No space left on device; the files there are incomplete\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run(typed, stand_ins, signum):
    stand_ins.write_text(stand_ins.read_text().replace('"well"', f'"sends-{signum.name}"'))
    status, out, err = typed("run", str(stand_ins), "--json")
    assert (status, out) == (128 + signum, "")
    assert err == f"stopped by {signum.name}: guests and hypervisor have been ended\n"


def test_reader_that_goes_away_is_no_traceback(stand_ins):
    """`memcommons run --help | true`"""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "hypervisor.toolstack.cli", "run", "--help"], stdout=writer,
                          stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_closed_standard_streams(tmp_path):
    """Started with 0, 1 and 2 closed, it still works and says 2 by its status."""
    command = f"exec {sys.executable} -m hypervisor.toolstack.cli run nowhere.toml <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=False, timeout=60).returncode == 2


class Terminal:
    def isatty(self):
        return True

    def write(self, text):
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize(("stream", "silent", "shows"), [
    (Terminal(), False, True), (Terminal(), True, False), (open(os.devnull), False, False)])      # noqa: SIM115
def test_progress_is_for_terminals(stream, silent, shows):
    assert (type(progress_on(stream, silent)).__name__ == "BarProgress") is shows


def test_outcome_without_a_problem_is_0(capsys):
    from hypervisor.toolstack.scenario import Scenario
    scenario = Scenario("x.toml", Path(), None, ())
    outcome = Outcome(scenario, ("swap",), ({"scheme": "swap"},), ())
    assert show(outcome, Journal(), as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"scheme": "swap"}


def test_nothing_is_started_when_the_check_finds_something(stand_ins, interruption):
    from hypervisor.toolstack.reading import load
    bad = means.Means(interruption, guest_check=[sys.executable, "-c", "raise SystemExit(2)"])
    with pytest.raises(UsageProblem):
        run(load(stand_ins), ["swap"], bad)
    assert psutil.Process().children() == []
