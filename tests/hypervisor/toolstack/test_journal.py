"""What `--out` keeps, line by line, and what happens when it cannot."""

import json

import pytest

from hypervisor.toolstack.journal import Journal
from shm.errors import UsageProblem


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_there_as_soon_as_they_are_written(tmp_path):
    journal = Journal(tmp_path)
    journal.open()
    journal.event("swap", "go", pid=3)
    journal.sample("swap", "maps", 0.5, kernel_bytes=4096)
    event = lines(tmp_path / "events.jsonl")[0]
    assert event.pop("time") > 0
    assert event == {"phase": "swap", "event": "go", "pid": 3}
    assert lines(tmp_path / "samples.jsonl") == [
        {"phase": "swap", "kind": "maps", "at": 0.5, "kernel_bytes": 4096}]
    journal.close()


def test_summary_is_one_object(tmp_path):
    journal = Journal(tmp_path / "new" / "folder")
    journal.open()
    journal.summary({"version": 1})
    journal.close()
    assert json.loads((tmp_path / "new" / "folder" / "summary.json").read_text()) == {"version": 1}


def test_after_the_first_failure_nothing_more_is_written(tmp_path):
    journal = Journal(tmp_path)
    journal.open()
    journal._files["samples"].close()
    journal._files["samples"] = open("/dev/full", "w", encoding="utf-8")        # noqa: SIM115
    journal.sample("swap", "maps", 0.0)
    journal.event("swap", "go")
    journal.summary({"version": 1})
    journal.close()
    assert journal.problem == f"--out: {tmp_path}: No space left on device; the files there are incomplete"
    assert (tmp_path / "events.jsonl").read_text() == ""
    assert not (tmp_path / "summary.json").exists()


def test_without_a_folder_it_keeps_nothing():
    journal = Journal()
    journal.open()
    journal.event("swap", "go")
    journal.summary({})
    journal.close()
    assert journal.problem is None


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageProblem, match=r"^--out: .*/file: File exists; give a folder that can be written$"):
        Journal(tmp_path / "file").open()


def test_where_it_came_from_is_there_from_the_start(tmp_path):
    (tmp_path / "summary.json").write_text("of another run")
    journal = Journal(tmp_path, {"command": "memcommons run x.toml"})
    journal.open()
    assert json.loads((tmp_path / "origin.json").read_text()) == {"command": "memcommons run x.toml"}
    assert not (tmp_path / "summary.json").exists(), "it does not belong to the lines that begin now"
    journal.close()
