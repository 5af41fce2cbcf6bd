"""`ctl states`, `discard` and `reset-states` against a real hypervisor."""

import json

import pytest

from guests import Essa
from shm.abi import PAGE_SIZE


@pytest.fixture
def cluster(machine):
    """A cluster, and a guest of it: 4 volatile pages, one stable one, one unused one, all resident; 10 are zero."""
    running = machine(budget=256)
    guest = running.guest("mine", pages=16)
    for gfn in range(6):
        guest.memory.write(gfn, bytes([gfn + 1]) * PAGE_SIZE)
    guest.essa(Essa.SET_VOLATILE, range(4))
    guest.essa(Essa.SET_UNUSED, [4])
    return running.cluster, guest


def test_states_shows_the_census(typed, cluster):
    status, out, err = typed("ctl", cluster[0], "states", "mine")
    assert (status, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert (rows["S"], rows["U"], rows["P"], rows["V"]) == (
        ["1", "0", "10", "11"], ["1", "0", "0", "1"], ["0", "0", "0", "0"], ["4", "0", "0", "4"])
    assert rows["sum"] == ["6", "0", "10", "16"]
    assert "66.7 % are volatile, 83.3 % can be had without a write" in out


def test_states_as_json(typed, cluster):
    status, out, _ = typed("ctl", cluster[0], "states", "mine", "--json")
    assert (status, json.loads(out)["rows"][-1]) == (0, ["sum", 6, 0, 10, 16])


def test_discard_takes_frames_and_the_guest_finds_out_when_it_looks(typed, cluster):
    name, guest = cluster
    assert typed("ctl", name, "discard", "mine", "2", "3") == (0, "took 3 frames; pages named: 3\n", "")
    assert guest.essa(Essa.GET_STATE, range(6)).tolist() == [0x0C, 0x0C, 0x0F, 0x0F, 0x07, 0x00]
    assert typed("ctl", name, "discard", "mine", "2")[1] == "took 0 frames; pages named: 1\n"


def test_reset_states(typed, cluster):
    name, guest = cluster
    assert typed("ctl", name, "reset-states", "mine") == (0, "16 pages are stable\n", "")
    assert not (guest.essa(Essa.GET_STATE, range(16)) & 0x0C).any()


@pytest.mark.parametrize("command", [["states", "nobody"], ["discard", "nobody", "0"], ["reset-states", "nobody"],
                                     ["discard", "mine", "16"], ["discard", "mine", "10", "7"]])
def test_what_cannot_be_is_one_line_and_status_2(typed, cluster, command):
    status, out, err = typed("ctl", cluster[0], *command)
    assert (status, out, err.count("\n")) == (2, "", 1)
