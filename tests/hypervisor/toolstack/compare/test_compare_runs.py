"""`memcommons compare` as it is typed, with stand-ins for hypervisor and guests."""

import json
import os
import signal
from pathlib import Path

import pytest

from hypervisor.toolstack.compare import session as sessions
from hypervisor.toolstack.compare.series import Series, frames_by_owner
from hypervisor.toolstack.reporting.png import HOW

WORDS = ("--schemes", "none,swap", "--overcommit", "1,2", "--seeds", "2", "--faults", "software")


@pytest.fixture
def scenario(stand_ins):
    stand_ins.write_text(stand_ins.read_text().replace('behave = "well"', 'behave = "brisk"'))
    return stand_ins


@pytest.fixture
def compared(typed, scenario):
    """Type `memcommons compare` with the scenario."""
    return lambda *words: typed("compare", str(scenario), *WORDS, *words)


@pytest.fixture
def labels(phases):
    """The labels of the phases that were really run."""
    return lambda: [label for label, _ in phases]


def said(err: str) -> list[str]:
    """Return the lines on standard error but the one of pictures, which depends on what is installed."""
    return [line for line in err.splitlines() if line != HOW]


def points_in(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "points").iterdir()}


def test_every_point_is_run_once_and_kept(compared, tmp_path, labels):
    status, out, err = compared("--out", str(tmp_path / "out"))
    assert (status, said(err)) == (0, [])
    assert labels() == ["baseline", "none", "swap", "none", "swap", "baseline", "swap", "none", "swap", "none"]
    assert points_in(tmp_path / "out") == {f"baseline-s{seed}" for seed in (1, 2)} | {
        f"{scheme}-k{factor}-s{seed}" for scheme in ("none", "swap") for factor in (1, 2) for seed in (1, 2)}
    assert "2 schemes, 2 guests with 16.0 MiB, 2 seeds" in out
    assert json.loads((tmp_path / "out/summary.json").read_text())["version"] == 1


def test_json_is_one_object(compared):
    status, out, err = compared("--json")
    told = json.loads(out)
    assert (status, said(err)) == (0, [])
    assert (told["schemes"], told["overcommit"], told["seeds"]) == (["none", "swap"], [1.0, 2.0], [1, 2])
    assert all(run["failed"] is None for run in told["runs"])


def test_a_disk_is_part_of_what_is_compared(compared, tmp_path):
    out = ("--out", str(tmp_path / "out"))
    status, text, _ = compared("--disk", "ssd", "--json", *out)
    assert (status, json.loads(text)["disk"]["latency"]) == (0, "ssd")
    status, _, err = compared("--disk", "hdd", *out, "--resume")
    assert status == 2 and "this differs: disk (ssd then, hdd now)" in err


def test_resume_runs_only_what_is_missing(compared, tmp_path, phases, labels):
    compared("--out", str(tmp_path / "out"))
    (tmp_path / "out/points/swap-k2-s2.json").unlink()
    (tmp_path / "out/points/none-k1-s1.json").write_text("{")
    phases.clear()
    status, _, err = compared("--out", str(tmp_path / "out"), "--resume")
    assert (status, said(err)) == (0, [])
    assert labels() == ["none", "swap"]


def test_a_comparison_may_be_widened(compared, tmp_path, phases, labels):
    compared("--out", str(tmp_path / "out"))
    phases.clear()
    status, *_ = compared("--out", str(tmp_path / "out"), "--resume", "--schemes", "none,swap,cmm2", "--seeds", "3")
    assert status == 0
    assert labels() == ["cmm2", "cmm2", "cmm2", "cmm2", "baseline", *["cmm2", "none", "swap", "cmm2", "none", "swap"]]


def test_a_lost_baseline_takes_its_points_along(compared, tmp_path, phases, labels):
    """Another baseline may do other work: what was compared with the old one is run again."""
    compared("--out", str(tmp_path / "out"))
    (tmp_path / "out/points/baseline-s2.json").unlink()
    phases.clear()
    compared("--out", str(tmp_path / "out"), "--resume")
    assert labels() == ["baseline", "swap", "none", "swap", "none"]


def test_resume_of_something_else_is_one_line(compared, scenario, tmp_path):
    compared("--out", str(tmp_path / "out"))
    scenario.write_text(scenario.read_text() + "\n# changed\n")
    status, out, err = compared("--out", str(tmp_path / "out"), "--resume", "--ops", "50")
    assert (status, out) == (2, "")
    assert err == (f"--resume: {tmp_path / 'out'} is of something else, this differs: operations (not given then, 50 "
                   f"now); scenario; give another folder with --out\n")


def test_out_is_not_written_over(compared, tmp_path):
    compared("--out", str(tmp_path / "out"))
    status, out, err = compared("--out", str(tmp_path / "out"))
    assert (status, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(("words", "line"), [
    (["--schemes", "xen"], "--schemes: 'xen' is not a scheme; allowed: none"),
    (["--schemes", ""], "--schemes: '' is not a scheme; allowed: none"),
    (["--overcommit", "1,a"], "--overcommit: 'a' is not a number"),
    (["--overcommit", "50"], "--overcommit 50: a budget: "),
    (["--seeds", "0"], "--seeds: 0 is not possible; allowed: 1 to 1000"),
    (["--seconds", "1", "--ops", "2"], "--seconds and --ops exclude each other"),
    (["--faults", "soft"], "--faults: 'soft' is not allowed"),
    (["--disk", "tape"], "--disk: 'tape' is not allowed"),
    (["--resume"], "--resume: nothing is known of before; give the folder with --out"),
    (["--colour"], "memcommons compare: No such option: --colour")])
def test_wrong_use_is_one_line_and_nothing_is_run(compared, phases, words, line):
    status, out, err = compared(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)
    assert phases == []


def test_a_run_that_fails_is_a_result(compared, scenario, tmp_path, phases, labels):
    scenario.write_text(scenario.read_text().replace('"brisk"', '"out-of-memory-when-cut"'))
    status, out, err = compared("--out", str(tmp_path / "out"), "--json")
    told = json.loads(out)
    failed = {(run["scheme"], run["overcommit"]): run["failed"] for run in told["runs"]}
    assert (status, said(err)) == (0, [])
    assert "out of memory" in failed["none", 2.0]
    assert [failed["none", 1.0], failed["swap", 1.0], failed["swap", 2.0]] == [None] * 3
    phases.clear()
    status, out, _ = compared("--out", str(tmp_path / "out"), "--resume")
    assert (status, labels()) == (0, []), "kept like any other"
    assert "did not finish" in out


def test_a_guest_that_refuses_at_the_baseline_is_bad_usage(compared, scenario):
    scenario.write_text(scenario.read_text().replace('"brisk"', '"refuses"'))
    status, out, err = compared()
    assert (status, out, err) == (2, "", "guest 'a': line 7 of the trace is damaged\n")


def test_a_baseline_that_fails_is_said_and_not_kept(compared, scenario, tmp_path, labels):
    scenario.write_text(scenario.read_text().replace('"brisk"', '"failed"'))
    status, out, err = compared("--out", str(tmp_path / "out"))
    assert status == 1
    assert labels() == ["baseline", "baseline"]
    assert "its baseline failed: guest 'a'" in " ".join(out.split())
    assert len(said(err)) == 2
    assert points_in(tmp_path / "out") == set()


def test_wrong_pages_are_status_1(compared, scenario):
    scenario.write_text(scenario.read_text().replace('"brisk"', '"wrong"'))
    status, _, err = compared()
    assert status == 1
    assert "pages were wrong" in err


def signal_after(monkeypatch, count):
    measured = Series.measured

    def counted(self, *args):
        counted.left -= 1
        if counted.left < 0:
            os.kill(os.getpid(), signal.SIGINT)
        return measured(self, *args)
    counted.left = count
    monkeypatch.setattr(Series, "measured", counted)


def test_a_signal_keeps_what_is_finished(compared, tmp_path, monkeypatch, phases):
    with monkeypatch.context() as patch:
        signal_after(patch, 3)
        status, out, err = compared("--out", str(tmp_path / "out"))
    assert (status, out) == (130, "")
    assert err.splitlines() == [
        f"4 finished runs kept in {tmp_path / 'out'}; go on with --out {tmp_path / 'out'} --resume",
        "stopped by SIGINT: guests and hypervisor have been ended"]
    assert len(phases) == 4
    phases.clear()
    assert compared("--out", str(tmp_path / "out"), "--resume")[0] == 0
    assert len(phases) == 10 - 4


def test_a_signal_in_the_middle_of_a_run_ends_it(compared, scenario, tmp_path):
    scenario.write_text(scenario.read_text().replace('"brisk"', '"sends-SIGINT"'))
    status, out, _ = compared("--out", str(tmp_path / "out"))
    assert (status, out) == (130, "")
    assert points_in(tmp_path / "out") == set()


def test_a_temporary_folder_goes_unless_a_signal_came(compared, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    assert compared()[0] == 0
    assert not list(tmp_path.glob("memcommons-*"))
    signal_after(monkeypatch, 2)
    status, _, err = compared()
    assert status == 130
    assert f"--out {tmp_path / 'memcommons-'} --resume" in err
    assert len(points_in(tmp_path / "memcommons-")) == 3


def test_frames_have_owners():
    listed = {"guests": [{"name": "a", "frames": 5}, {"name": "b", "frames": 7}], "tmem": {"frames": 3}}
    assert frames_by_owner(listed) == {"a": 5, "b": 7, "tmem store": 3}
