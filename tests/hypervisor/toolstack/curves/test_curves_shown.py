"""Curves as table, as data and as pictures, from outcomes made by hand."""

import importlib.util
import io
import json
import sys

import pytest

from hypervisor.toolstack.compare.outcome import document as compared
from hypervisor.toolstack.curves.document import document
from hypervisor.toolstack.curves.grid import Picture
from hypervisor.toolstack.curves.pictures import drawn
from hypervisor.toolstack.curves.table import curves_table
from hypervisor.toolstack.reporting.curves_page import NONE_SHOWN, curves_page, pictures
from hypervisor.toolstack.reporting.page import html
from hypervisor.toolstack.reporting.png import HOW
from hypervisor.toolstack.reporting.told import Comparison, CurvesRun
from hypervisor.toolstack.table import WIDTH, console_for

PICTURE = Picture("oltp", "hdd")
WHOLE = {"done": 14, "of": 18, "faults": "software"}
EACH = {PICTURE: {"name": "oltp", "guests": 2, "ram_bytes": 32 << 20, "seconds": None, "operations": 8000,
                  "disk": {"latency": "hdd", "time": "virtual", "direct": False, "trim": False},
                  "faults": "software", "machine": {"cpus": 2, "kernel": "6.1", "python": "3.11"}}}
HERE = importlib.util.find_spec("matplotlib") is not None


@pytest.fixture
def found(made):
    return made([1, 2, 3], {
        "swap": [(1.0, 1.01, 0.99), (60.0, 62.0, 61.0), (None, None, None)],
        "cmm2": [(1.2, 1.21, 1.22), (2.0, 2.1, 2.05), (4.0, None, 4.1)],
        "tmem": [(1.1, 1.11, 1.12), (3.0, 3.1, 3.05), None]})


def printed(found):
    stream = io.StringIO()
    console_for(stream).print(curves_table({PICTURE: found}, WHOLE, EACH))
    return stream.getvalue()


def test_the_table_has_every_figure_and_who_passes_whom(found):
    text = printed(found)
    assert "curves: 14 of 18 runs finished; software faults" in text
    assert "oltp, disk hdd: 2 guests with 32.0 MiB together, 8,000 operations each" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["swap"] == ["1.00", "±0.02", "0.016", "±0.001", "did", "not", "finish"]
    assert rows["cmm2"][-5:] == ["0.25", "±0.04", "(2", "of", "3)"]
    assert rows["tmem"][-1] == "-", "not run yet is not the same as not finished"
    assert "between 1 and 2 cmm2 passes swap: it takes 1.21 (" in text
    assert "did not finish: swap at 3 (seed 1), swap at 3 (seed 2), swap at 3 (seed 3), cmm2 at 3 (seed 2)\n" in text
    assert "the first of them, seed 1: out of time" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_times_that_are_too_good_are_doubted(made):
    text = " ".join(printed(made([1, 2], {"swap": [(0.7,), (0.9,)], "cmm2": [(1.0,), (0.6,)]})).split())
    assert "swap at 1, cmm2 at 2: less than 0.8 of the time with all memory granted, more than a scheme" in text
    assert "at 2, " not in text


def test_the_document_has_curves_as_data(found):
    told = json.loads(json.dumps(document({PICTURE: found}, WHOLE, EACH)))
    [curve] = told["curves"]
    assert {"title", "x", "y", "lines"} <= curve.keys()
    lines = {line["name"]: line["points"] for line in curve["lines"]}
    assert [[x for x, _, _ in lines[name]] for name in ("swap", "cmm2", "tmem")] == [[1, 2], [1, 2, 3], [1, 2]]
    assert lines["swap"][0][1] == pytest.approx(1.0, abs=0.001) and lines["swap"][0][2] > 0
    assert curve["did_not_finish"] == [["swap", 3]]
    assert [(one["passing"], one["passed"]) for one in told["crossings"]["oltp-hdd"]] == [
        ("cmm2", "swap"), ("tmem", "swap"), ("cmm2", "tmem")]
    assert told["comparisons"]["oltp-hdd"]["schemes"] == ["swap", "cmm2", "tmem"]
    assert (told["done"], told["of"]) == (14, 18)


def test_one_seed_has_no_interval(made):
    [curve] = document({PICTURE: made([1], {"swap": [(2.0,)]})}, WHOLE, EACH)["curves"]
    assert curve["lines"] == [{"name": "swap", "points": [(1, 0.5, None)]}]


def told(found):
    return Comparison.model_validate(compared(found, EACH[PICTURE]))


def test_the_picture_is_the_one_of_the_page(found):
    chart = pictures({"oltp-hdd": told(found)})["oltp-hdd"]
    assert (chart.key, chart.y.log) == ("oltp-hdd", True)
    assert {line.name: [round(point.x) for point in line.points] for line in chart.lines} == {
        "swap": [1, 2], "cmm2": [1, 2, 3], "tmem": [1, 2]}
    assert "Did not finish: swap at 3." in chart.note


def test_what_lies_close_together_is_not_drawn_on_decades(made):
    chart = pictures({"x": told(made([1, 2], {"swap": [(1.0, 1.1), (2.0, 2.1)]}))})["x"]
    assert not chart.y.log and "Did not finish" not in chart.note


def test_the_page_says_who_passes_whom(found):
    run = CurvesRun.model_validate(json.loads(json.dumps(document({PICTURE: found}, WHOLE, EACH))))
    text = html(curves_page(run), "made by hand")
    assert "14 of 18" in text and "passes" in text and 'class="chart"' in text
    assert NONE_SHOWN not in text
    quiet = run.model_copy(update={"crossings": {}})
    assert NONE_SHOWN in html(curves_page(quiet), "made by hand")


@pytest.mark.skipif(not HERE, reason="matplotlib is not installed: pip install 'memcommons[plot]'")
def test_a_picture_is_drawn_where_anything_is_finished(found, made, tmp_path):
    nothing = made([1, 2, 3], {"swap": [None, None, (None,)]})
    assert drawn({PICTURE: found, Picture("scan", "ssd"): nothing}, EACH, tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["oltp-hdd.png"], "nothing is drawn of nothing"
    assert (tmp_path / "oltp-hdd.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_one_line_says_how_to_have_it(found, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert drawn({PICTURE: found}, EACH, tmp_path) == [HOW]
    assert list(tmp_path.iterdir()) == []
