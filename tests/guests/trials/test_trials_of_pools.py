"""Trials that count what pools, copies and calls do, each for real and small: the figures are what they say."""

import numpy as np
import pytest

from guests.guest import Guest
from guests.kernel import Kernel
from guests.trials import capacity, copying, dropping, duplicates, handling, known, newcomer, probing, swap_calls
from shm.abi import PAGE_SIZE


def test_known_pages_are_all_different_and_none_is_zeros():
    pages = known.pages_of(range(3000))
    assert len({page.tobytes() for page in pages}) == 3000
    assert pages.any(axis=1).all()
    assert known.page_of(17) == pages[17].tobytes()


def test_a_reader_notices_a_wrong_page(machine):
    """The disk is one number off, and one page is written over."""
    with Guest.connect(machine(512, "tmem").cluster, "one", 128 * PAGE_SIZE) as guest, \
            known.disk_of(guest, 40) as disk, Kernel(guest) as kernel:
        reader = known.Reader(kernel.open(disk), 1)
        reader.read([3])
        reader.read_run(0, 4)
        assert reader.wrong == 5
        right = known.Reader(kernel.open(disk))
        right.file.overwrite(2, bytes(PAGE_SIZE))
        right.read_run(0, 4)
        assert right.wrong == 1


@pytest.mark.parametrize(("scheme", "larger"), [("cmm2", False), ("tmem", True)])
def test_a_guest_caches_more_than_it_has_only_in_a_pool(machine, scheme, larger):
    found = capacity.run(machine(1024, scheme).cluster, {"pages": 128, "sets": [1, 4]})
    most = max(each["cached"] for each in found["sets"])
    assert (most > 128) == larger
    assert found["sets"][1]["hits"] == (512 if larger else pytest.approx(0, abs=60))
    assert not sum(each["wrong"] for each in found["sets"])


def test_copies_follow_from_how_often_pages_leave(machine, monkeypatch):
    for name, value in {"RAM": 128, "HOT": 48, "COLD": 160, "LEAST": 100, "COPIED": 64, "STEP": 97}.items():
        monkeypatch.setattr(copying, name, value)
    found = copying.run(machine(1024, "tmem").cluster, {"every": [10, 1], "cold": 20})
    rows = {(row["load"], row["every"]): row for row in found["rows"]}
    assert found["copy_ns"] > 0
    for load in ("read", "zero-copy"):
        assert rows[load, 0]["copied"] == 0
        assert rows[load, 1]["copied"] == pytest.approx(4 * 100, rel=0.4), "two in, two out"
        assert 0 < rows[load, 10]["copied"] < rows[load, 1]["copied"] / 4
        assert rows[load, 1]["disk_reads"] == 0


def test_places_that_handle_failure_are_counted_in_the_source(monkeypatch, tmp_path):
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "a.py").write_text(
        "try:\n    pool.get(1)\nexcept (DiscardFault, OSError):\n    self._pool.put_many()\nhints.make_stable([])\n"
        "table.get(1)\n")
    (tmp_path / "cleancache.py").write_text("try:\n    pass\nexcept OSError:\n    pass\n")
    (tmp_path / "frontswap.py").write_text("")
    monkeypatch.setattr(handling, "ROOT", tmp_path)
    assert handling.places() == {"traps": 1, "asked_before": 1, "misses": 1, "refusals": 1}


@pytest.mark.parametrize(("scheme", "settings"), [("cmm2", {"swap": 0}), ("tmem", {})])
def test_a_lost_page_is_a_trap_or_told(machine, scheme, settings, monkeypatch):
    monkeypatch.setattr(handling, "RAM", 96)
    monkeypatch.setattr(handling, "FILE", 128)
    found = handling.run(machine(1024, scheme, **settings).cluster, {"operations": 120, "every": 30})
    assert (found["trapped"] > 0, found["told"] > 0, found["missed"] > 0) == (
        (True, True, False) if scheme == "cmm2" else (False, False, True))
    assert not found["wrong"]


def test_a_pool_that_loses_pages_costs_reads_and_no_page(machine, monkeypatch):
    monkeypatch.setattr(dropping, "RAM", 96)
    monkeypatch.setattr(dropping, "FILE", 160)
    rows = dropping.run(machine(2048, "tmem").cluster, {"rates": [0.0, 1.0], "operations": 100})["rows"]
    assert [row["wrong"] for row in rows] == [0, 0]
    assert rows[0]["dropped"] == 0 < rows[1]["dropped"]
    assert rows[1]["hits"] == 0 < rows[0]["hits"]
    assert rows[0]["disk_reads"] < rows[1]["disk_reads"]


def test_what_stays_in_the_pool_is_there_twice(machine, monkeypatch):
    for name, value in {"RAM": 96, "FILE": 96, "REGION": 112}.items():
        monkeypatch.setattr(duplicates, name, value)
    found = duplicates.run(machine(2048, "tmem").cluster, {"operations": 150, "points": 1, "cap": 160})
    [exclusive], [kept], [default] = found["exclusive"], found["kept"], found["default"]
    assert default["file_doubles"] == 0 < default["anonymous_doubles"], "frontswap keeps, cleancache does not"
    assert (exclusive["file_doubles"], exclusive["anonymous_doubles"]) == (0, 0)
    assert kept["file_doubles"] > 0 and kept["anonymous_doubles"] > 0
    assert not exclusive["wrong"] and not kept["wrong"]


def test_calls_for_nothing_are_counted(machine, monkeypatch):
    monkeypatch.setattr(swap_calls, "RAM", 96)
    monkeypatch.setattr(swap_calls, "REGION", 128)
    found = swap_calls.run(machine(1024, "tmem").cluster, {"calls": 20, "operations": 60, "disks": ["ssd"]})
    assert found["worst"]["refused"] == 20 and found["worst"]["put_ns"] > 0
    frozen, open_ = found["swapping"]["ssd/frozen"], found["swapping"]["ssd/open"]
    assert frozen["disk_pages"] > 0 and frozen["disk_ns"] > 0 and frozen["calls"] > 0
    assert open_["disk_pages"] == 0 and not frozen["wrong"] + open_["wrong"]


ARRIVAL = {"guests": 2, "pages": 128, "max_mem": 512, "ram": 64}


@pytest.mark.parametrize(("what", "settings", "starts"), [
    ("preswap", {"scheme": "tmem"}, False), ("preswap", {"scheme": "tmem", "write_back": True}, True),
    ("precache", {"scheme": "tmem"}, True), ("volatile", {"scheme": "cmm2", "swap": 0}, True)])
def test_a_newcomer_finds_memory_where_the_host_may_take_it_back(machine, what, settings, starts):
    options = ARRIVAL | {"what": what} | ({"ram": 300} if what == "volatile" else {})
    found = newcomer.run(machine(512, **settings).cluster, options)
    assert (found["had"] == 128) == starts
    assert found["had_then"] == 128, "when the old guests have let go"


def test_the_host_frees_all_classes_but_the_persistent(machine):
    found = newcomer.run(machine(512, "cmm2+tmem").cluster, {"what": "classes", "pages": 32})
    assert found["freed"] == {"volatile": 32, "unused": 32, "ephemeral": 32, "persistent": 0}
    assert found["frames_flushed"] == 32


@pytest.mark.parametrize(("channel", "settings", "answers_tell"), [
    ("shared pool", {"budget": 1024, "scheme": "tmem"}, True),
    ("private pools", {"budget": 1024, "scheme": "tmem"}, False),
    ("dedup", {"budget": 1024, "scheme": "tmem", "dedup_across": True}, False),
    ("own pages", {"budget": 288, "scheme": "cmm2", "swap": 0}, True)])
def test_a_probe_is_answered_by_what_the_victim_did_where_it_can_be(machine, channel, settings, answers_tell):
    found = probing.run(machine(**settings).cluster, {"channel": channel, "probes": 24})
    assert (found["bits"] == found["answers"]) == answers_tell
    assert answers_tell or len(set(found["answers"])) == 1
    assert found["intruders"] == (0 if channel == probing.SHARED else None)
    assert len(found["ns"]) == 24 and np.all(np.array(found["ns"]) >= np.array(found["own_ns"]))
    assert np.all(np.array(found["own_ns"]) > 0)
