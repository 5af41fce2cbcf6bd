"""Pictures: what is chosen for them and where labels go; and, where matplotlib is installed, that they are drawn."""

import importlib.util
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.toolstack.compare import pictures
from hypervisor.toolstack.compare.figures import FIGURES
from hypervisor.toolstack.compare.outcome import Ran, outcome
from hypervisor.toolstack.compare.pictures import HOW, drawn, most_overcommitted, owners_of, paler, spread
from hypervisor.toolstack.compare.points import Point

FACTS = {"name": "two", "guests": 2, "ram_bytes": 128 << 20, "faults": "software", "disk": {"latency": "none"}}
ROWS = [{"at": at, "frames": {"b": 100, "a": 200, "tmem store": 50 * at, "idle": 0}} for at in (0, 1, 2)]
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


def test_owners_come_in_one_order_and_the_store_on_top(found):
    assert owners_of(found.runs[0]) == ["a", "b", "tmem store"], "who never had a frame is no owner"


@given(st.lists(st.floats(-100, 100), max_size=12), st.floats(0.01, 10))
def test_labels_keep_their_order_and_distance(places, gap):
    moved = spread(places, gap)
    order = sorted(range(len(places)), key=lambda n: places[n])
    assert all(moved[b] - moved[a] >= gap - 1e-6 for a, b in pairwise(order))


def test_labels_that_are_apart_stay():
    assert spread([5.0, 1.0, 9.0], 1.0) == [5.0, 1.0, 9.0]
    assert spread([1.0, 1.0], 1.0) == [0.5, 1.5]


def test_paler_is_nearer_to_white():
    assert (paler("#0072B2", 1.0), paler("#000000", 0.5), paler("#123456", 0.0)) == ("#0072b2", "#808080", "#ffffff")


@pytest.mark.skipif(not HERE, reason="matplotlib is not installed: pip install 'memcommons[plot]'")
def test_pictures_are_drawn(found, tmp_path):
    assert drawn(found, FACTS, tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {
        "throughput.png", "rss.png", "frames-swap-k2-s2.png", "frames-cmm2+tmem-k2-s1.png"}
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


def test_a_full_disk_ends_no_comparison(found, tmp_path, monkeypatch):
    class Full:
        def savefig(self, *_, **__):
            raise OSError(28, "No space left on device")
    for name in ("throughput", "rss", "frames"):
        monkeypatch.setattr(pictures, name, lambda *_: Full())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", type(sys)("figure"))
    sys.modules["matplotlib.figure"].Figure = None
    assert drawn(found, FACTS, tmp_path) == [f"--out: {tmp_path}: No space left on device; pictures are missing there"]


def test_nobody_else_imports_matplotlib():
    """Importing all of the command's modules leaves it alone."""
    code = ("import sys, hypervisor.toolstack.cli, hypervisor.toolstack.compare.compare, "
            "hypervisor.toolstack.compare.density; sys.exit('matplotlib' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
