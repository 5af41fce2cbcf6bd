"""`memcommons report` as it is typed: a page for each kind of folder, and PNG files where matplotlib is."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness.children import MEMCOMMONS

from hypervisor.toolstack.reporting import png
from hypervisor.toolstack.reporting.png import HOW

HERE = importlib.util.find_spec("matplotlib") is not None
REAL_S = 60.0
SCENARIO = """
name = "short"
budget = "8MiB"
scheme = "cmm2+tmem"
operations = 40
seed = 1
[[guest]]
name = "numbers"
ram = "4MiB"
workload = "stress"
[[guest]]
name = "scan"
ram = "8MiB"
workload = "scan"
[guest.options]
size = "8MiB"
"""


@pytest.fixture(autouse=True)
def without_png(monkeypatch):
    """Drawing takes seconds: one test does it, the others are about the page."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture
def reported(typed):
    """Type the command; return the page's text."""
    def report(folder, *words):
        status, out, err = typed("report", str(folder), *words)
        assert (status, err) == (0, HOW + "\n")
        return Path(out.strip()).read_text(encoding="utf-8")
    return report


def stands_alone(page):
    """Nothing is fetched, whatever the page is about."""
    assert not re.search(r"@import|\bsrc=|<link|<script|<img|url\((?!#)", page)
    assert re.findall(r'href="(?!#)', page) == []
    return True


def test_a_run(reported, typed, stand_ins, tmp_path):
    assert typed("run", str(stand_ins), "--out", str(tmp_path / "run"))[0] == 0
    page = reported(tmp_path / "run")
    assert stands_alone(page)
    assert "cmm2+tmem against all memory granted" in page
    assert f"memcommons run {stand_ins}" in page and "behave = &quot;well&quot;" in page
    assert "sound" in page


def test_several_schemes(reported, run_folder):
    page = reported(run_folder("none", "swap"))
    assert "none, swap against all memory granted" in page
    assert 'id="chart-frames-none"' in page and 'id="chart-frames-swap"' in page


def test_a_run_that_failed(reported, typed, stand_ins, tmp_path):
    stand_ins.write_text(stand_ins.read_text().replace('"well"', '"failed"'))
    assert typed("run", str(stand_ins), "--out", str(tmp_path / "run"))[0] == 1
    page = reported(tmp_path / "run")
    assert "two: failed" in page and "guest &#x27;a&#x27;" in page


def test_a_run_whose_measured_half_failed(reported, typed, stand_ins, tmp_path):
    stand_ins.write_text(stand_ins.read_text().replace('"well"', '"less-when-measured"'))
    assert typed("run", str(stand_ins), "--out", str(tmp_path / "run"))[0] == 1
    page = reported(tmp_path / "run")
    assert "failed</span>" in page and "sound</span>" not in page
    assert "did 99 operations; its order was 100" in page


def test_a_comparison_has_the_pictures_of_its_runs(reported, compare_folder):
    page = reported(compare_folder)
    assert stands_alone(page)
    for picture in ("throughput", "rss-kernel", "frames-swap-k2-s1", "states-none-k2-s1", "io-again"):
        assert f'id="chart-{picture}"' in page


def test_a_comparison(reported, typed, stand_ins, tmp_path):
    brisk = 'behave = "brisk"'
    stand_ins.write_text(stand_ins.read_text().replace('behave = "well"', brisk) + f"[guest.options]\n{brisk}\n")
    assert typed("compare", str(stand_ins), "--schemes", "none,swap", "--overcommit", "1,2", "--seeds", "2",
                 "--faults", "software", "--out", str(tmp_path / "compare"))[0] == 0
    page = reported(tmp_path / "compare")
    assert stands_alone(page)
    assert "Throughput against overcommit" in page and 'id="chart-throughput"' in page
    assert "8 of 8" in page


def test_a_comparison_of_which_nothing_finished(reported, typed, stand_ins, tmp_path):
    stand_ins.write_text(stand_ins.read_text().replace('"well"', '"out-of-memory-when-cut"'))
    assert typed("compare", str(stand_ins), "--schemes", "none", "--overcommit", "2", "--seeds", "1",
                 "--faults", "software", "--out", str(tmp_path / "compare"))[0] == 0
    page = reported(tmp_path / "compare")
    assert "0 of 1" in page and "1 runs did not finish" in page


def test_a_search_for_density(reported, typed, stand_ins, tmp_path):
    stand_ins.write_text(stand_ins.read_text().replace('behave = "well"', 'behave = "brisk"'))
    assert typed("density", str(stand_ins), "--schemes", "swap", "--most", "3", "--seeds", "1", "--faults", "software",
                 "--out", str(tmp_path / "density"))[0] == 0
    page = reported(tmp_path / "density")
    assert stands_alone(page)
    assert "how many guests fit" in page and 'id="chart-density"' in page


def test_claims(reported, claims_in):
    page = reported(claims_in())
    assert stands_alone(page)
    for verdict in ("supported", "refuted", "depends", "not tested here"):
        assert page.count(f"{verdict}</span>") == 3, "the tally, the table, the claim itself"
    assert "V pages are never swapped" in page and "4A566414" in page
    assert "time against overcommit" in page and 'class="chart"' in page
    assert "a quick run" in page


def test_what_was_run_for_a_claim_is_said(reported, claims_in):
    """And of a document that is older than the words, how many runs."""
    claims = json.loads((claims_in() / "claims.json").read_text())["claims"]
    page = reported(claims_in(claims=[claims[0] | {"work": "38 trials on clocks of the model"}, *claims[1:]]))
    assert "<th>run</th><td>38 trials on clocks of the model</td>" in page and "<th>run</th><td>1</td>" in page


def test_hostile_claims_are_text(reported, claims_in, hostile):
    def spoilt(value):
        if isinstance(value, dict):
            return {key: spoilt(one) if key not in ("verdict", "curves") else one for key, one in value.items()}
        if isinstance(value, list):
            return [spoilt(one) for one in value]
        return hostile + value if isinstance(value, str) else value

    folder = claims_in()
    document = json.loads((folder / "claims.json").read_text())
    document = spoilt(document)
    for curves in document["claims"][0]["curves"]:
        curves.update(title=hostile, x=hostile, y=hostile)
        curves["lines"][0]["name"] = hostile
    document["jobs"] = {hostile: document["jobs"]["cmm2-12ab"]}
    (folder / "claims.json").write_text(json.dumps(document))
    page = reported(folder)
    assert stands_alone(page)
    assert "alert(1)" in page and "<script" not in page


def test_the_page_goes_where_it_is_wanted(reported, claims_in, tmp_path):
    (tmp_path / "other").mkdir()
    assert "<!DOCTYPE html>" in reported(claims_in(), "--out", str(tmp_path / "other/page.html"))
    assert not (tmp_path / "claims/report.html").exists()


def test_where_it_cannot_be_written(typed, claims_in, tmp_path):
    folder = claims_in()
    status, _, err = typed("report", str(folder), "--out", str(tmp_path / "no/where.html"))
    assert (status, err) == (1, f"{tmp_path / 'no/where.html'}: No such file or directory; give another file with "
                                f"--out\n")
    status, _, err = typed("report", str(folder), "--out", str(tmp_path))
    assert (status, err.count("\n")) == (2, 1)


@pytest.mark.skipif(not HERE, reason="matplotlib is not installed: pip install 'memcommons[plot]'")
def test_pictures_are_files_too(typed, claims_in, hostile, monkeypatch):
    monkeypatch.undo()
    folder = claims_in()
    (folder / "claims.json").write_text((folder / "claims.json").read_text().replace(
        '"swap", "points"', json.dumps("_" + hostile) + ', "points"'))
    status, _, err = typed("report", str(folder))
    assert (status, err) == (0, "")
    assert [path.name for path in folder.glob("*.png")] == ["study-sweep-0.png"]
    assert (folder / "study-sweep-0.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not HERE, reason="matplotlib is not installed: pip install 'memcommons[plot]'")
def test_a_full_disk_is_said(monkeypatch, tmp_path):
    monkeypatch.undo()
    from hypervisor.toolstack.reporting.charts import Axis, Line, Lines, Point

    class Full:
        def savefig(self, *_, **__):
            raise OSError(28, "No space left on device")
    monkeypatch.setattr(png, "picture", lambda *_: Full())
    chart = Lines("a", "a", Axis("x"), Axis("y"), (Line("a", 0, (Point(1, 1),)),))
    assert png.saved([chart], tmp_path) == [f"{tmp_path}: No space left on device; pictures are missing there"]


def test_nobody_imports_matplotlib_before_it_is_needed():
    code = ("import sys, hypervisor.toolstack.cli, hypervisor.toolstack.reporting.png, "
            "hypervisor.toolstack.reporting.run_page; sys.exit('matplotlib' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_real_short_run(typed, python_process, tmp_path, reported):
    (tmp_path / "short.toml").write_text(SCENARIO)
    child = python_process(MEMCOMMONS, "run", str(tmp_path / "short.toml"), "--faults", "software", "--json", "--out",
                           str(tmp_path / "out"))
    read = json.loads(child.line(REAL_S))
    assert child.process.wait(REAL_S) == 0, read["problems"]
    page = reported(tmp_path / "out")
    assert stands_alone(page)
    for picture in ("frames-cmm2+tmem", "states-cmm2+tmem", "arena-psutil", "arena-kernel", "latency-scan",
                    "latency-stress", "io-again"):
        assert f'id="chart-{picture}"' in page
    assert page.count("<svg") > 7
    verified = sum(guest["pages_verified"] for guest in read["guests"])
    assert f"{verified:,} pages verified, 0 wrong" in page
