"""Pictures: what is chosen for them; and, where matplotlib is installed, that they are drawn."""

import importlib.util
import subprocess
import sys

import pytest

from hypervisor.toolstack.compare.figures import FIGURES
from hypervisor.toolstack.compare.outcome import Ran, outcome
from hypervisor.toolstack.compare.pictures import charts_of, drawn, most_overcommitted
from hypervisor.toolstack.compare.points import Point
from hypervisor.toolstack.reporting import png
from hypervisor.toolstack.reporting.charts import Lines, Stack
from hypervisor.toolstack.reporting.png import HOW

FACTS = {"name": "two", "guests": 2, "ram_bytes": 128 << 20, "faults": "software", "disk": {"latency": "none"},
         "machine": {"cpus": 2}}
ROWS = [{"at": at, "frames": {"a": 300}, "held": {"guests": {"a": {"S": 200, "V": 100}}, "tmem": {}, "free": 300}}
        for at in (0, 1, 2)]
HERE = importlib.util.find_spec("matplotlib") is not None


@pytest.fixture
def found():
    runs = []
    for scheme in ("swap", "cmm2+tmem"):
        for factor in (1.0, 2.0):
            for seed in (1, 2):
                figures = {figure.name: 0.5 + seed / 10 for figure in FIGURES}
                failed = "too slow" if (scheme, factor, seed) == ("swap", 2.0, 1) else None
                runs.append(Ran(Point(scheme, seed, factor), failed, False, {} if failed else figures,
                                {} if failed else figures, () if failed else ROWS, 600))
    return outcome(["swap", "cmm2+tmem"], [1.0, 2.0], [1, 2], runs, [])


def test_frames_are_shown_where_most_is_overcommitted(found):
    assert [run.point.key for run in most_overcommitted(found)] == ["swap-k2-s2", "cmm2+tmem-k2-s1"]


def test_curves_and_frames(found):
    charts = {chart.key: chart for chart in charts_of(found, FACTS)}
    assert [key for key, chart in charts.items() if isinstance(chart, Lines)] == [
        "throughput", "p99", "rss-psutil", "rss-kernel"]
    assert [line.name for line in charts["rss-kernel"].lines] == ["baseline", "swap", "cmm2+tmem"]
    hollow = [(line.name, point.whole) for line in charts["throughput"].lines for point in line.points]
    assert hollow == [("swap", True), ("swap", False), ("cmm2+tmem", True), ("cmm2+tmem", True)]
    frames = charts["frames-swap-k2-s2"]
    assert isinstance(frames, Stack) and frames.title.startswith("swap overcommit 2 seed 2")


@pytest.mark.skipif(not HERE, reason="matplotlib is not installed: pip install 'memcommons[plot]'")
def test_pictures_are_drawn(found, tmp_path):
    assert drawn(found, FACTS, tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {
        "throughput.png", "p99.png", "rss-psutil.png", "rss-kernel.png", "frames-swap-k2-s2.png",
        "frames-cmm2+tmem-k2-s1.png", "states-swap-k2-s2.png", "states-cmm2+tmem-k2-s1.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in tmp_path.iterdir())


@pytest.mark.skipif(not HERE, reason="matplotlib is not installed: pip install 'memcommons[plot]'")
def test_nothing_finished_is_no_picture_of_it(tmp_path):
    runs = [Ran(Point("swap", 1, 1.0), "too slow", False)]
    assert drawn(outcome(["swap"], [1.0], [1], runs, []), FACTS, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_one_line_says_how_to_have_it(found, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert drawn(found, FACTS, tmp_path) == [HOW]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HERE, reason="matplotlib is not installed: pip install 'memcommons[plot]'")
def test_a_full_disk_ends_no_comparison(found, tmp_path, monkeypatch):
    class Full:
        def savefig(self, *_, **__):
            raise OSError(28, "No space left on device")
    monkeypatch.setattr(png, "picture", lambda *_: Full())
    assert drawn(found, FACTS, tmp_path) == [f"--out: {tmp_path}: No space left on device; pictures are missing there"]


def test_nobody_else_imports_matplotlib():
    """Importing all of the command's modules leaves it alone."""
    code = ("import sys, hypervisor.toolstack.cli, hypervisor.toolstack.compare.compare, "
            "hypervisor.toolstack.compare.density; sys.exit('matplotlib' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
