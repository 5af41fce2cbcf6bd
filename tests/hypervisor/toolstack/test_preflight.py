"""What is refused before anything starts, and the way out that each line gives."""

import re
import sys
from pathlib import Path

import pytest

from hypervisor.toolstack.means import Means
from hypervisor.toolstack.preflight import check_caches, check_guests, check_memory_room, check_swap_room, room_in
from hypervisor.toolstack.reading import load
from shm.errors import UsageProblem

MIB = 1 << 20
TEXT = """
budget = "60MiB"
seconds = 4
[hypervisor]
swap = "8MiB"
[[guest]]
name = "bank"
count = 2
ram = "64MiB"
workload = "sqlite"
[guest.options]
rows = 3
[[guest]]
name = "scan"
ram = "1MiB"
workload = "scan"
"""


@pytest.fixture
def scenario(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text(TEXT)
    return load(Path("x.toml"))


def test_baseline_is_what_needs_most_memory(scenario):
    """129 MiB of RAM, 1 MiB and 64 pages a guest of slack, and 1.3 MiB a guest for control objects: 134.65 MiB."""
    check_memory_room(scenario, ["swap"], 135 * MIB)
    with pytest.raises(UsageProblem) as caught:
        check_memory_room(scenario, ["swap"], 134 * MIB)
    assert str(caught.value) == (
        "x.toml: the baseline run of 3 guests needs 134.7 MiB in /dev/shm, which has 134.0 MiB free; enlarge it "
        "(docker run --shm-size=150m, or mount -o remount,size=150m /dev/shm), or use fewer guests or less ram")


@pytest.mark.parametrize(("schemes", "free", "line"), [
    (["swap"], 8 * MIB, None),
    (["swap"], 8 * MIB - 1, "x.toml: hypervisor.swap needs 8.0 MiB in /var/tmp, which has 8.0 MiB free; make room "
                            "there, or ask for less swap (hypervisor.swap) or less ram"),
    (["none"], 70 * MIB, None),
    (["none"], 60 * MIB, "x.toml: the guests' own swap needs 69.0 MiB in /var/tmp, which has 60.0 MiB free; make room "
                         "there, or ask for less swap (hypervisor.swap) or less ram"),
    (["cmm2+tmem", "none"], 60 * MIB, "x.toml: the guests' own swap needs 69.0 MiB in /var/tmp, which has 60.0 MiB "
                                      "free; make room there, or ask for less swap (hypervisor.swap) or less ram")])
def test_swap_disks_must_fit(scenario, schemes, free, line):
    if line is None:
        check_swap_room(scenario, schemes, lambda folder: free)
        return
    with pytest.raises(UsageProblem) as caught:
        check_swap_room(scenario, schemes, lambda folder: free)
    assert str(caught.value) == line


def test_a_host_that_caches_disks_has_so_many_pools_and_no_more(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text('budget = "64MiB"\nseconds = 1\n[[guest]]\nname = "a"\nram = "4MiB"\nworkload = "scan"\n')
    check_caches(load(path, guests=16), ["none", "swapcache"])
    check_caches(load(path, guests=17), ["tmem"])
    with pytest.raises(UsageProblem, match="scheme 'swapcache' takes 16 guests at most, and there are 17; use fewer"):
        check_caches(load(path, guests=17), ["none", "swapcache"])


def test_swap_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageProblem) as caught:
        room_in(tmp_path / "nix")
    assert str(caught.value) == (f"swap folder {tmp_path}/nix: No such file or directory; set hypervisor.folder to a "
                                 f"real one")


def checker(interruption, program):
    return Means(interruption, guest_check=[sys.executable, "-S", "-c", program])


def test_guests_are_shown_their_tables_and_asked_once_each(scenario, interruption, tmp_path):
    """The check runs where the guests will, with everything on standard input."""
    check_guests(scenario, checker(interruption, "import sys; open('seen', 'w').write(sys.stdin.read())"))
    assert (tmp_path / "seen").read_text() == (
        '[{"name": "bank", "workload": "sqlite", "ram": 67108864, "options": {"rows": 3}}, '
        '{"name": "scan", "workload": "scan", "ram": 1048576, "options": {}}]\n')


@pytest.mark.parametrize(("program", "line"), [
    ("import sys; print(\"guest 'bank': workload 'sqlite' has no option 'rows'\\nmore\", file=sys.stderr); sys.exit(2)",
     "x.toml: guest 'bank': workload 'sqlite' has no option 'rows'"),
    ("import sys; sys.exit(4)", "x.toml: the check of the guests (pid N) ended with status 4"),
    ("import os; os.kill(os.getpid(), 9)", "x.toml: the check of the guests (pid N) was killed by signal 9")])
def test_finding_is_one_line_that_names_the_file(scenario, interruption, program, line):
    with pytest.raises(UsageProblem) as caught:
        check_guests(scenario, checker(interruption, program))
    assert re.sub(r"pid \d+", "pid N", str(caught.value)) == line


def test_check_that_hangs_is_ended(scenario, interruption, monkeypatch):
    monkeypatch.setattr("hypervisor.toolstack.preflight.CHECK_SECONDS", 0.2)
    with pytest.raises(Exception, match=r"the check of the guests \(pid \d+\) took more than 0 s, and was killed"):
        check_guests(scenario, checker(interruption, "import signal; signal.pause()"))
