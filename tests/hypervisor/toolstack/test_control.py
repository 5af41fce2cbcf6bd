"""`ctl` and `clean` against real hypervisors, and against what dead ones left."""

import json
import re
from pathlib import Path

import posix_ipc
import pytest

from shm import names

PAGE = 4096


def test_list_shows_the_cluster_and_its_guests(typed, machine):
    running = machine(budget=1024)
    with running.guest("mine", pages=256) as guest:
        guest.memory.write(7, b"x" * PAGE)
        status, out, err = typed("ctl", running.cluster, "list")
    assert (status, err) == (0, "")
    assert f"cluster {running.cluster}: scheme cmm2+tmem" in out
    assert "budget 4.0 MiB: " in out
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("mine"))
    assert row[2:6] == ["1.0", "1", "0", "0"]
    assert row[6:] == ["software", "Sr", "1", "Sz", "255"]


def test_list_without_guests(typed, machine):
    status, out, _ = typed("ctl", machine().cluster, "list")
    assert status == 0
    assert out.endswith("no guests\n")


def test_list_as_json_is_the_reply(typed, machine):
    running = machine(budget=1024)
    with running.guest("mine", pages=256):
        status, out, _ = typed("ctl", running.cluster, "list", "--json")
    answer = json.loads(out)
    assert (status, answer["budget"], [guest["name"] for guest in answer["guests"]]) == (0, 1024 * PAGE, ["mine"])


def test_set_budget_gives_memory_back_at_once(typed, machine):
    running = machine(budget=1024, swap=1024)
    with running.guest("mine", pages=512) as guest:
        for gfn in range(512):
            guest.memory.write(gfn, b"x" * PAGE)
        status, out, _ = typed("ctl", running.cluster, "set-budget", "1MiB")
        kernel = running.inside(running.machine.audit.kernel_frames)
    said = re.fullmatch(r"budget 1\.0 MiB, (\d+) frames used; (\d+) frames \(.*\) went back to the machine\n", out)
    assert said, out
    assert status == 0
    assert int(said[1]) + int(said[2]) == 512
    assert kernel <= int(said[1]) <= 256


def test_budget_that_cannot_be(typed, machine):
    status, out, err = typed("ctl", machine().cluster, "set-budget", "4KiB")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_audit_of_a_sound_machine(typed, machine):
    status, out, _ = typed("ctl", machine().cluster, "audit")
    assert status == 0
    assert out.endswith("ledger and kernel at most 0 frames apart\n")


def test_audit_that_finds_something_is_status_1(typed, machine):
    running = machine()
    running.expects_drift = True
    with running.guest("mine", pages=16) as guest:
        guest.memory.write(3, b"x" * PAGE)
        ram = running.domain("mine").ram
        running.inside(lambda: ram.punch([(3, 1)]))      # behind the ledger's back
        status, out, _ = typed("ctl", running.cluster, "audit")
        running.inside(lambda: ram.allocate([(3, 1)]))
    assert status == 1
    assert "kernel -1 frames" in out


def test_stop(typed, machine):
    running = machine()
    assert typed("ctl", running.cluster, "stop") == (0, "told to stop\n", "")
    running.thread.join(20)
    assert not running.thread.is_alive()


@pytest.fixture
def dead_cluster(cluster_name):
    """What a killed hypervisor leaves: two objects, a lock and a queue.  Yields (name, stem)."""
    stem = names.stem(cluster_name, names.new_run())
    made = [Path(f"/dev/shm/{stem}.{end}") for end in ("cluster", "heap", "g0.ram")]
    for path in made:
        path.write_bytes(b"")
    posix_ipc.Semaphore(f"/{stem}.g0.lock", posix_ipc.O_CREX).close()
    posix_ipc.MessageQueue(f"/{stem}.g0.req", posix_ipc.O_CREX).close()
    return cluster_name, stem


def test_clean_removes_what_a_dead_cluster_left(typed, dead_cluster):
    cluster, stem = dead_cluster
    status, out, err = typed("clean", cluster)
    assert (status, err) == (0, "")
    assert set(out.splitlines()) == {
        f"removed {kind} {stem}.{end} of cluster {cluster}" for kind, end in (
            ("memory", "cluster"), ("memory", "heap"), ("memory", "g0.ram"), ("semaphore", "g0.lock"),
            ("queue", "g0.req"))}
    assert typed("clean", cluster) == (0, "nothing to remove\n", "")
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.MessageQueue(f"/{stem}.g0.req")


def test_clean_spares_the_living(typed, machine, dead_cluster):
    running = machine()
    with running.guest("mine"):
        before = names.objects(running.cluster)
        status, out, err = typed("clean", running.cluster)
        typed("clean", dead_cluster[0])
        assert names.objects(running.cluster) == before != []
    assert (status, out) == (2, "")
    assert err == (f"cluster {running.cluster!r} is not ours to clean: it is alive, or another user's; stop it with "
                   f"`memcommons ctl {running.cluster} stop`\n")
