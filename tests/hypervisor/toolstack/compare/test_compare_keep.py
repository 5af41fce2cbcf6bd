"""Finished points are believed, and nothing else; what is written is written whole."""

import json
import os
import subprocess
import sys

import pytest

from hypervisor.toolstack.compare import keep as keeping
from hypervisor.toolstack.compare.keep import Keep, digest, write_whole
from shm.errors import MemcommonsError, UsageProblem

IDENTITY = {"command": "compare", "scenario": "aa", "code": "bb", "faults": "software", "options": {"seconds": 1.0},
            "machine": {"cpus": 2}}
BODY = {"failed": None, "x": [1, 2.5, None, "ü"]}


@pytest.fixture
def opened(tmp_path):
    """Open the folder, each time as another process would: the one before is closed."""
    held = []

    def open_(resume=True, **changed):
        for before in held:
            before.close()
        held.append(Keep(tmp_path / "out", IDENTITY | changed))
        held[-1].open(resume)
        return held[-1]
    yield open_
    for before in held:
        before.close()


def file_of(opened, key="swap-k2-s1"):
    return opened.folder / "points" / f"{key}.json"


def test_a_point_comes_back_as_it_was(opened):
    kept = opened(False).put("swap-k2-s1", BODY)
    assert opened().get("swap-k2-s1") == kept
    assert kept.body == BODY


def test_without_resume_nothing_is_known(opened, tmp_path):
    first = opened(False)
    first.put("swap-k2-s1", BODY)
    assert first.get("swap-k2-s1") is None


def test_a_cut_file_is_not_believed_wherever_it_was_cut(opened):
    opened(False).put("swap-k2-s1", BODY)
    keep = opened()
    whole = file_of(keep).read_bytes()
    for length in range(len(whole) - 1):         # the last byte is the newline
        file_of(keep).write_bytes(whole[:length])
        assert keep.get("swap-k2-s1") is None
    file_of(keep).write_bytes(whole)
    assert keep.get("swap-k2-s1") is not None


@pytest.mark.parametrize("change", [
    {"key": "swap-k3-s1"}, {"schema": 0}, {"of": "other"}, {"body": {"x": 1}}, {"body": []}, {"checksum": "0" * 64},
    {"checksum": None}, {"more": 1}])
def test_an_edited_file_is_not_believed(opened, change):
    opened(False).put("swap-k2-s1", BODY)
    keep = opened()
    file_of(keep).write_text(json.dumps(json.loads(file_of(keep).read_text()) | change))
    assert keep.get("swap-k2-s1") is None


@pytest.mark.parametrize("change", [{"key": "swap-k3-s1"}, {"schema": 0}, {"of": "other"}, {"body": []}])
def test_a_foreign_file_is_not_believed_though_its_checksum_is_right(opened, change):
    opened(False).put("swap-k2-s1", BODY)
    keep = opened()
    document = json.loads(file_of(keep).read_text()) | change
    del document["checksum"]
    file_of(keep).write_text(json.dumps(document | {"checksum": digest(document)}))
    assert keep.get("swap-k2-s1") is None


@pytest.mark.parametrize("junk", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_junk_is_not_believed(opened, junk):
    keep = opened()
    file_of(keep).write_bytes(junk)
    assert keep.get("swap-k2-s1") is None


def test_a_finished_comparison_is_not_taken_up_by_chance(opened):
    opened(False)
    with pytest.raises(UsageProblem, match="holds finished points; --resume goes on with them"):
        opened(False)


@pytest.mark.parametrize(("changed", "said"), [
    ({"scenario": "cc"}, "this differs: scenario;"), ({"code": "cc"}, "this differs: code;"),
    ({"options": {"seconds": 2.0}}, r"this differs: seconds \(1.0 then, 2.0 now\);"),
    ({"options": {}}, r"this differs: seconds \(1.0 then, not given now\);"),
    ({"faults": "hardware"}, r"this differs: faults \(software then, hardware now\);"),
    ({"machine": {"cpus": 4}, "code": "cc"}, r"this differs: code; cpus \(2 then, 4 now\);")])
def test_what_differs_is_said(opened, changed, said):
    opened(False)
    with pytest.raises(UsageProblem, match=said) as refused:
        opened(**changed)
    assert "\n" not in str(refused.value)
    assert opened(), "the refusal changed nothing"


def test_a_folder_of_another_form_is_refused(opened, monkeypatch):
    opened(False)
    monkeypatch.setattr(keeping, "SCHEMA", 99)
    with pytest.raises(UsageProblem, match="was written in another form"):
        opened()


def test_a_folder_in_use_is_refused_and_left_as_it_is(opened, tmp_path):
    opened(False)
    other = Keep(tmp_path / "out", IDENTITY)
    with pytest.raises(UsageProblem, match="another process is writing there"):
        other.open(True)


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageProblem, match=r"^--out: .*give a folder that can be written"):
        Keep(tmp_path / "out", IDENTITY).open(False)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_whole(path, {"x": 1})

    def full(_fd):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_whole(path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_is_one_line(opened, monkeypatch):
    keep = opened(False)

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(keeping, "write_whole", full)
    with pytest.raises(MemcommonsError, match=r"^--out: .*: No space left on device; the points finished so far"):
        keep.put("swap-k2-s1", BODY)


def test_a_file_is_replaced_and_not_written_over(tmp_path):
    """Who has the old one open reads it to its end: at no moment is there half a file under the name."""
    path = tmp_path / "a.json"
    write_whole(path, {"x": 1})
    with path.open() as old:
        write_whole(path, {"x": 2})
        assert json.load(old) == {"x": 1}
    assert json.loads(path.read_text()) == {"x": 2}


WRITER = """
import sys
from pathlib import Path
from hypervisor.toolstack.compare.keep import write_whole
n = 0
while True:
    n += 1
    write_whole(Path(sys.argv[1]), {"n": n, "filling": "x" * 200_000})
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.json"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(20):
            assert writer.stdout.readline()
    finally:
        writer.kill()
        writer.communicate()
    found = json.loads(path.read_text())
    assert found["n"] >= 20
    assert len(found["filling"]) == 200_000
