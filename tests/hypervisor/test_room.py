"""No room, no queues, no descriptors, no name: one clear line each, nothing left behind, and the others go on."""

import errno
import os

import posix_ipc
import pytest
from peers import own_names, prove_open, refusal

from guests import Guest, OutOfMemory
from hypervisor import domains
from hypervisor.machine import Machine, Settings
from shm import names
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem


def refuse_allocation(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "posix_fallocate", refuse)


def test_no_room_in_dev_shm_for_a_guest(machine, monkeypatch):
    running = machine()
    before = own_names(running.cluster)
    with monkeypatch.context() as full:
        refuse_allocation(full)
        error = refusal(running.cluster)
    assert "no room in /dev/shm" in error and "--shm-size" in error
    assert own_names(running.cluster) == before
    prove_open(running)


def test_no_room_in_dev_shm_to_begin_with(new_cluster_name, monkeypatch):
    name = new_cluster_name()
    with monkeypatch.context() as full:
        refuse_allocation(full)
        with pytest.raises(UsageProblem, match="no room in /dev/shm"):
            Machine(Settings(name, 64))
    assert own_names(name) == []
    Machine(Settings(name, 64)).close()                      # the name is free again


def test_no_room_in_dev_shm_for_a_page(machine, monkeypatch):
    """A frame that the budget has and the machine has not: an error to that guest, and nothing is lost or left."""
    running = machine()
    guest = running.guest()
    guest.memory.write(0, b"\x11" * PAGE_SIZE)
    pool = guest.tmem.new_pool(persistent=False)
    with monkeypatch.context() as full:
        refuse_allocation(full)
        with pytest.raises(OutOfMemory):
            guest.memory.write(1, b"\x22" * PAGE_SIZE)
        assert not pool.put(1, 1, bytes(PAGE_SIZE))
    assert guest.memory.read(0) == b"\x11" * PAGE_SIZE
    guest.memory.write(1, b"\x22" * PAGE_SIZE)
    assert pool.put(1, 1, bytes(PAGE_SIZE))


@pytest.mark.parametrize("made", [0, 1], ids=["no queue", "one queue of two"])
def test_no_more_message_queues(machine, monkeypatch, made):
    """The queue that was made before the refusal is given back: its bytes count against the user."""
    running = machine()
    before, real, calls = own_names(running.cluster), domains.make_queue, iter(range(made))

    def make_queue(name):
        if next(calls, None) is None:
            raise UsageProblem("no more message queues: stop other clusters")
        return real(name)

    with monkeypatch.context() as full:
        full.setattr(domains, "make_queue", make_queue)
        assert refusal(running.cluster).startswith("no more message queues")
    assert own_names(running.cluster) == before
    for end in names.QUEUES:
        with pytest.raises(posix_ipc.ExistentialError):
            posix_ipc.MessageQueue(f"/{running.machine.stem}.g0.{end}")
    prove_open(running)


@pytest.mark.parametrize("error", [lambda: OSError(errno.EMFILE, "Too many open files"),
                                   lambda: posix_ipc.Error("cannot be had"),
                                   lambda: ProcessLookupError(errno.ESRCH, "No such process")],
                         ids=["EMFILE", "posix_ipc", "ESRCH"])
@pytest.mark.parametrize("step", ["pidfd_open", "Semaphore"])
def test_whatever_else_cannot_be_had(machine, monkeypatch, step, error):
    running = machine()
    before = own_names(running.cluster)

    def refuse(*_, **__):
        raise error()

    with monkeypatch.context() as broken:
        broken.setattr(*{"pidfd_open": (os, "pidfd_open"), "Semaphore": (domains.posix_ipc, "Semaphore")}[step], refuse)
        assert "'liar' cannot be attached" in refusal(running.cluster)
    assert own_names(running.cluster) == before
    prove_open(running)


DIES_AT_ONCE = """
import sys
from shm import door
from shm.abi import ABI_VERSION
link = door.connect(sys.argv[1])
door.send(link, {"call": "attach", "abi": ABI_VERSION, "name": "brief", "pages": 16, "max_pages": 16, "weight": 1})
"""


def test_a_guest_that_dies_while_it_asks(still_machine, python_process):
    """Its process is gone, and reaped, before the hypervisor reads what it said."""
    still = still_machine()
    machine = still.machine
    child = python_process(DIES_AT_ONCE, still.cluster)
    assert child.leave() == 0
    for _ in range(3):                                       # its connection, its word, its end
        for fd, _ in machine._poller.poll(0):
            machine._watched[fd]()
    assert machine.domains == {} and machine.gate._links == {}
    assert len(own_names(still.cluster)) == 2


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_MSGQUEUE, (int(sys.argv[2]), int(sys.argv[2])))
sys.path.insert(0, os.getcwd())
import threading
import guests.guest
from guests import Guest, OutOfMemory
from hypervisor.machine import Machine, Settings
from shm import names
from shm.errors import UsageProblem
if os.geteuid() == 0:                        # after the imports: the interpreter may lie where nobody else may look
    os.setgid(65534); os.setuid(65534)
machine = Machine(Settings(sys.argv[1], 4096, folder="/tmp"))
loop = threading.Thread(target=machine.run)
loop.start()
guests, refused = [], 0
try:
    for n in range(int(sys.argv[3])):
        try:
            guests.append(Guest.connect(sys.argv[1], f"g{n}", 16 * 4096))
        except UsageProblem as error:
            refused += 1
            if refused == 1:
                print(error)
    print("attached", len(guests))
    kept = {item.name.split(".")[3] for item in names.objects(sys.argv[1]) if ".g" in item.name}
    print("kept", len(kept))
    guests.pop().close()
    guests.append(Guest.connect(sys.argv[1], "again", 16 * 4096))
    print("again", len(guests))
finally:
    for guest in guests:
        guest.close()
    machine.stopping = True
    loop.join()
    machine.close()
print("left", names.objects(sys.argv[1]))
"""
QUEUE_BYTES = 4 * 512 + 4 * 48 + 4 * 8       # what Linux counts at the most for one queue of ours


def test_the_queue_limit_of_a_user(new_cluster_name, python_process):
    """RLIMIT_MSGQUEUE for three guests, asked for five: one clear line, nothing left, and the room is used again."""
    child = python_process(LIMITED, new_cluster_name(), str(7 * QUEUE_BYTES), "5")
    error = child.line()
    assert error.startswith("no more message queues") and "ulimit -q" in error and "fewer guests" in error
    assert [child.line() for _ in range(4)] == ["attached 3", "kept 3", "again 3", "left []"]


def test_32_guests_of_an_unprivileged_user_with_default_limits(new_cluster_name, python_process):
    child = python_process(LIMITED, new_cluster_name(), "819200", "32")
    assert [child.line() for _ in range(4)] == ["attached 32", "kept 32", "again 32", "left []"]


# Names of clusters

def test_a_cluster_name_in_use(machine):
    running = machine()
    before = own_names(running.cluster)
    with pytest.raises(UsageProblem, match=f"'{running.cluster}' is in use.*choose another"):
        Machine(Settings(running.cluster, 64))
    assert own_names(running.cluster) == before
    prove_open(running)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 41, "ä", "a\0b"])
def test_a_cluster_name_that_cannot_be(name):
    with pytest.raises(UsageProblem, match="1 to 40 letters"):
        Machine(Settings(name, 64))


def test_no_such_cluster(cluster_name):
    with pytest.raises(UsageProblem, match=f"no cluster '{cluster_name}' is running; start one with"):
        Guest.connect(cluster_name, "g", "64KiB")


@pytest.mark.parametrize(("ram", "words"), [("64MB", "B, KiB, MiB or GiB"), (-1, "not negative"), ("0B", "pages 0")])
def test_ram_that_cannot_be(machine, ram, words):
    running = machine()
    with pytest.raises(UsageProblem, match=words):
        Guest.connect(running.cluster, "g", ram)
