"""Names of objects, and what a killed cluster left behind: all of it, and nothing of anybody else."""

import os

import posix_ipc
import pytest

from shm import names
from shm.errors import UsageProblem

GUEST = """
import sys
from guests import Guest
with Guest.connect(sys.argv[1], "g", "64KiB") as guest:
    guest.memory.write(0, bytes(4096))
    print("attached", flush=True)
    sys.stdin.read()
"""
# What a cluster with one guest consists of, as far as it has names.
ALL = {("memory", "cluster"), ("memory", "heap"), ("memory", "g0.ram"), ("semaphore", "g0.lock"), ("queue", "g0.req"),
       ("queue", "g0.rep")}


def kinds(items):
    return {(item.kind, item.name.split(".", 3)[3]) for item in items}


@pytest.fixture
def cluster(hypervisor_process, python_process):
    """A hypervisor with one guest, each a process of its own."""
    hypervisor = hypervisor_process(budget=128, swap=0)
    guest = python_process(GUEST, hypervisor.cluster)
    assert guest.line() == "attached"
    return hypervisor


def test_a_living_cluster_has_objects_and_no_leftovers(cluster):
    found = names.objects(cluster.cluster)
    assert kinds(found) == ALL
    assert names.leftovers(cluster.cluster) == []
    assert {(item.cluster, names.is_alive(item.cluster, item.run)) for item in found} == {(cluster.cluster, True)}


def test_a_killed_cluster_leaves_all_it_had_and_clean_removes_it(cluster, hypervisor_process):
    neighbour = hypervisor_process(budget=128, swap=0)
    cluster.kill()
    left = names.leftovers(cluster.cluster)
    assert kinds(left) == ALL
    removed = names.remove(left)
    assert sorted(removed) == sorted(left)
    assert removed[-1].name.endswith(".cluster"), "last: while it stands the rest can be found"
    assert names.objects(cluster.cluster) == [] == names.leftovers(cluster.cluster)
    for item in left:
        with pytest.raises(posix_ipc.ExistentialError):
            posix_ipc.MessageQueue("/" + item.name) if item.kind == "queue" else posix_ipc.SharedMemory("/" + item.name)
    assert kinds(names.objects(neighbour.cluster)) == {("memory", "cluster"), ("memory", "heap")}
    assert names.leftovers(neighbour.cluster) == []


def test_removing_what_is_gone_already_is_nothing(cluster):
    cluster.kill()
    left = names.leftovers(cluster.cluster)
    first, *rest = left
    assert names.remove([first]) == [first]
    assert sorted(names.remove(left)) == sorted(rest)
    assert names.remove(left) == []


def test_one_run_is_dead_while_another_of_the_same_name_lives(new_cluster_name, stems):
    """Two runs of one cluster name never share an object, and are alive or dead on their own."""
    name, runs = new_cluster_name(), ("00000a", "00000b")
    stems += [names.stem(name, run) for run in runs]
    memories = [posix_ipc.SharedMemory(f"/{names.stem(name, run)}.cluster", posix_ipc.O_CREX, size=4096)
                for run in runs]
    os.close(memories[1].fd)
    names.fcntl.flock(memories[0].fd, names.fcntl.LOCK_EX)
    assert [names.is_alive(name, run) for run in runs] == [True, False]
    assert [(item.run, item.kind) for item in names.leftovers(name)] == [("00000b", "memory")]
    os.close(memories[0].fd)
    assert [item.run for item in names.leftovers(name)] == list(runs)
    names.remove(names.leftovers(name))


def test_files_of_others_in_the_same_folder_are_never_ours(cluster_name):
    foreign = [f"memcommons.{cluster_name}", f"memcommons.{cluster_name}.xyz.heap", f"other.{cluster_name}.00000a.heap",
               f"memcommons.{cluster_name}.00000a.", f"memcommons.{cluster_name}.00000a.g0.ram~"]
    for name in foreign:
        os.close(os.open(f"/dev/shm/{name}", os.O_CREAT | os.O_EXCL, 0o600))
    try:
        assert names.objects(cluster_name) == []
    finally:
        for name in foreign:
            os.unlink(f"/dev/shm/{name}")


@pytest.mark.parametrize("name", ["a", "A-b_9", "x" * 40])
def test_good_cluster_names(name):
    assert names.checked_cluster(name) == name


@pytest.mark.parametrize("name", ["", "x" * 41, "a.b", "a/b", "../x", "a b", "ä", "a\n", "a\0b"])
def test_bad_cluster_names_are_one_clear_line(name):
    with pytest.raises(UsageProblem, match="use 1 to 40 letters") as caught:
        names.checked_cluster(name)
    assert "\n" not in str(caught.value)


def test_runs_differ_and_fit_the_pattern():
    runs = {names.new_run() for _ in range(50)}
    assert len(runs) > 45
    assert all(len(run) == 6 and int(run, 16) >= 0 for run in runs)


def test_forgetting_a_guest_removes_its_names_in_whatever_state_they_are(cluster_name):
    stem = f"{names.stem(cluster_name, '00000a')}.g3"
    posix_ipc.SharedMemory(f"/{stem}.ram", posix_ipc.O_CREX, size=4096).close_fd()
    posix_ipc.MessageQueue(f"/{stem}.rep", posix_ipc.O_CREX).close()
    names.forget_guest(stem)
    names.forget_guest(stem)
    assert names.objects(cluster_name) == []
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.MessageQueue(f"/{stem}.rep")
