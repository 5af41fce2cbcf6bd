"""Who holds which frames, from the hypervisor's list; and that a run's samples have it."""

import json

from hypervisor.toolstack.holdings import holdings

LISTED = {
    "frames_free": 10, "heap_frames": 60,
    "tmem": {"frames": 50, "ephemeral": 30, "persistent": 70},
    "guests": [{"name": "a", "frames": 30, "states": {"Sr": 10, "Sp": 5, "Vr": 12, "Ur": 3, "Uz": 900, "Pr": 0}},
               {"name": "b", "frames": 0, "states": {"Sz": 100}}]}


def test_resident_pages_by_usage_and_what_is_being_filled():
    held = holdings(LISTED)
    assert held["guests"] == {"a": {"S": 10, "V": 12, "U": 3, "other": 5}, "b": {}}
    assert held["free"] == 10


def test_frames_of_the_store_are_shared_out_by_pages():
    assert holdings(LISTED)["tmem"] == {"ephemeral": 15, "persistent": 35, "spare": 10}


def test_all_frames_have_an_owner():
    held = holdings(LISTED)
    assert sum(sum(states.values()) for states in held["guests"].values()) == 30
    assert sum(held["tmem"].values()) == LISTED["heap_frames"]


def test_an_empty_list_is_no_holding():
    assert holdings({}) == {"guests": {}, "tmem": {}, "free": 0}


def test_samples_of_a_run_have_it(typed, stand_ins, tmp_path):
    assert typed("run", str(stand_ins), "--out", str(tmp_path / "out"))[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    maps = [line for line in lines if line["kind"] == "maps"]
    assert maps and all(line["frames"] == {"guests": {}, "tmem": {}, "free": 0} for line in maps)
