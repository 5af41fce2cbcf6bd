"""What a folder holds, found out by its files; whatever is wrong with them is one line and status 2."""

import json
import os

import pytest

from hypervisor.toolstack.compare.keep import digest
from hypervisor.toolstack.reporting import sources


def test_each_kind_is_found_out(run_folder, compare_folder, claims_in):
    assert isinstance(sources.found_in(run_folder("swap")), sources.RunFound)
    found = sources.found_in(compare_folder)
    assert isinstance(found, sources.CompareFound)
    assert {scheme: [key.seed for key, _ in points] for scheme, points in found.points.items()} == {
        "none": [1, 2], "swap": [1, 2]}
    assert isinstance(sources.found_in(claims_in()), sources.ClaimsFound)


def test_a_folder_keeps_where_it_came_from(run_folder, compare_folder, tmp_path):
    for folder, words in ((run_folder("swap"), "run two.toml --seed 3"), (compare_folder, "compare two.toml")):
        told = sources.found_in(folder).origin
        assert (told.command, told.text) == (f"memcommons {words}", (tmp_path / "two.toml").read_text())


def test_several_schemes_of_one_run(run_folder):
    found = sources.found_in(run_folder("none", "swap"))
    assert [summary.scheme for summary in found.summaries] == ["none", "swap"]
    assert set(found.samples) == {"baseline", "none", "swap"}


def refused(typed, folder):
    status, out, err = typed("report", str(folder))
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert not (folder / "report.html").exists()
    return err


def test_nothing_is_nothing(typed, tmp_path):
    assert "no such folder" in refused(typed, tmp_path / "nowhere")
    assert "holds no results" in refused(typed, tmp_path)


def test_a_name_that_no_folder_can_have(typed):
    status, out, err = typed("report", "x" * 5000)
    assert (status, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("name", ["summary.json", "samples.jsonl", "origin.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(typed, run_folder, name, make):
    path = run_folder("swap") / name
    path.unlink()
    make(path)
    assert f"{name}: is no ordinary file" in refused(typed, path.parent)


def test_a_run_that_did_not_end(typed, run_folder):
    folder = run_folder("swap")
    (folder / "summary.json").unlink()
    assert "summary.json: is missing: the run has not come to its end" in refused(typed, folder)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_half_a_summary(typed, run_folder, kept):
    path = run_folder("swap") / "summary.json"
    text = path.read_text()
    path.write_text(text[:int(len(text) * kept)])
    assert "summary.json: is no JSON, or only half of it" in refused(typed, path.parent)


def test_half_a_sample_says_which_line(typed, run_folder):
    path = run_folder("swap") / "samples.jsonl"
    path.write_text(path.read_text().rstrip()[:-5])
    last = len(path.read_text().splitlines())
    assert f"samples.jsonl: line {last} is no JSON" in refused(typed, path.parent)


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"runs": []}', '{"runs": 3}', '{"failed": 1}', "{}", "[" * 100000,
                                  '{"version": 1, "name": "x", "scheme": "swap"}', '"\\ud800"'])
def test_what_is_no_summary(typed, run_folder, text):
    path = run_folder("swap") / "summary.json"
    path.write_text(text)
    assert "summary.json: " in refused(typed, path.parent)


@pytest.mark.parametrize(("key", "value"), [
    ("budget_bytes", 0), ("budget_bytes", "much"), ("guests", []), ("guests", "none"), ("duration_s", float("nan")),
    ("duration_s", float("inf")), ("counters", {"discards": "many"}), ("rss", None), ("name", 7), ("seed", 10 ** 400)],
    ids=range(10))
def test_a_value_of_another_kind_is_named(typed, run_folder, key, value):
    path = run_folder("swap") / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {key: value}))
    assert f"summary.json: {key}" in refused(typed, path.parent)


def test_a_comparison_that_did_not_end(typed, compare_folder):
    (compare_folder / "summary.json").unlink()
    assert "compare has not come to its end; go on with --resume" in refused(typed, compare_folder)


def test_a_damaged_point_is_not_believed(typed, compare_folder):
    path = compare_folder / "points/swap-k2-s1.json"
    path.write_text(path.read_text().replace('"failed": null', '"failed": "x"'))
    assert "swap-k2-s1.json: is damaged" in refused(typed, compare_folder)
    path.unlink()
    assert "swap-k2-s1.json: is missing: --resume runs it again" in refused(typed, compare_folder)


def test_a_point_with_a_right_checksum_and_a_wrong_form(typed, compare_folder):
    path = compare_folder / "points/swap-k2-s1.json"
    document = {"schema": 1, "key": "swap-k2-s1", "of": "x", "body": {"failed": None, "summary": {"name": 3}}}
    path.write_text(json.dumps(document | {"checksum": digest(document)}))
    assert "swap-k2-s1.json: summary" in refused(typed, compare_folder)


@pytest.mark.parametrize("value", ["Infinity", "NaN", "-2.0", "0", "[2]"])
def test_an_overcommit_that_is_none(typed, compare_folder, value):
    path = compare_folder / "summary.json"
    path.write_text(path.read_text().replace('"overcommit": 2.0', f'"overcommit": {value}'))
    assert "summary.json: cells[2].overcommit: " in refused(typed, compare_folder)


def test_no_name_leads_out_of_the_folder(typed, compare_folder):
    path = compare_folder / "summary.json"
    path.write_text(path.read_text().replace('"swap"', '"../../swap"'))
    assert "is no name of a run" in refused(typed, compare_folder)


@pytest.mark.parametrize("changed", [
    {"claims": []}, {"claims": [{"key": "E1"}]}, {"jobs": {"cmm2-12ab": {"said": "x"}}}, {"took_s": "long"},
])
def test_claims_of_another_form(typed, claims_in, changed):
    assert "claims.json: " in refused(typed, claims_in(**changed))


@pytest.mark.parametrize("curves", [
    {"title": "x"}, {"title": "x", "x": "a", "y": "b", "lines": [{"name": "n", "points": [[1]]}]}])
def test_curves_of_another_form(typed, claims_in, curves):
    folder = claims_in()
    document = json.loads((folder / "claims.json").read_text())
    document["claims"][0]["curves"] = [curves]
    assert "claims.json: claims[0].curves[0]." in refused(typed, claims_in(claims=document["claims"]))


def test_an_unknown_verdict_is_refused(typed, claims_in):
    folder = claims_in()
    path = folder / "claims.json"
    path.write_text(path.read_text().replace('"refuted"', '"probably"'))
    assert "verdict: 'probably' is not allowed; allowed: supported, refuted, depends, not tested here" in refused(
        typed, folder)
