"""What the hypervisor makes for a guest: all of it, or nothing; grace; and how it waits for a guest's lock."""

import os
import socket

import numpy as np
import posix_ipc
import pytest

from hypervisor import domains
from hypervisor.domains import GRACE_S, LOCK_LIMIT_S, NO_SLOT, Grace, close_domain, make_domain
from shm import names
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject
from shm.channel import make_queue
from shm.errors import UsageProblem
from shm.pagestate import State


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(domains, "monotonic", lambda: now[0])
    return now


def test_grace_lasts_its_time_and_no_longer(clock):
    grace = Grace(8)
    grace.begin(np.array([1, 2]))
    clock[0] += GRACE_S / 2
    grace.begin(np.array([5]))
    assert np.flatnonzero(grace.current()).tolist() == [1, 2, 5]
    clock[0] += GRACE_S * 0.6
    assert np.flatnonzero(grace.current()).tolist() == [5]
    clock[0] += GRACE_S / 2
    assert not grace.current().any()


def test_grace_keeps_no_record_of_what_is_over(clock):
    """Though no census ever asks: grants of a machine with frames to spare must not pile up."""
    grace = Grace(8)
    for _ in range(100):
        clock[0] += GRACE_S
        grace.begin(np.array([1]))
    assert len(grace._until) <= 2


class Made:
    """Makes domains as the gate does, and closes those that a test did not."""

    def __init__(self, stem):
        self.stem, self.domains, self.links = stem, [], []

    def __call__(self, number=0, pages=16):
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.links += [here, there]
        self.domains.append(make_domain(number, f"g{number}", os.getpid(), there, pages, pages, 1, self.stem))
        return self.domains[-1]

    def close(self, domain):
        self.domains.remove(domain)
        close_domain(domain)

    def close_all(self):
        for domain in list(self.domains):
            self.close(domain)
        for link in self.links:
            link.close()


@pytest.fixture
def make(cluster_name, stems):
    stems.append(names.stem(cluster_name, "00000a"))
    made = Made(stems[0])
    yield made
    made.close_all()


def test_a_new_guest_is_all_stable_and_zero_and_costs_no_frame(make):
    domain = make(pages=5000)
    assert set(domain.map.states(slice(None)).tolist()) == {State.Sz}
    assert domain.ram.resident() == 0
    assert (domain.pages, domain.map.pages, len(domain.slots)) == (5000, 5000, 5000)
    assert (domain.slots == NO_SLOT).all() and not domain.resident_mask().any()
    assert domain.map.lock.acquire(0)
    domain.unlock()


def test_control_objects_have_their_frames_so_that_no_touch_can_fail(make):
    domain = make(pages=5000)
    control = {kind: held for kind, held in domain.objects.items() if kind not in ("ram", "content_read_only")}
    assert set(control) == {"usage", "content", "transfer", "count"}
    assert all(held.resident() == held.pages for held in control.values())
    assert control["usage"].pages == control["content"].pages == 2, "a byte a page"


def test_control_objects_have_no_name_and_nobody_can_cut_them(make, stems):
    """A page of theirs that went away would be the hypervisor's SIGBUS."""
    domain = make(pages=5000)
    assert {item.name.split(".", 3)[3] for item in names.objects(stems[0].split(".")[1])} == {
        "g0.ram", "g0.req", "g0.rep", "g0.lock"}
    for kind in ("usage", "content", "transfer", "count"):
        for size in (0, 1 << 30):
            with pytest.raises(PermissionError):
                os.ftruncate(domain.objects[kind].fd, size)


def test_what_is_handed_over_of_content_cannot_be_written(make):
    held = make().objects["content_read_only"]
    with pytest.raises(PermissionError):
        held.map(writable=True)
    with pytest.raises(OSError):
        os.pwrite(held.fd, b"\0", 0)


def test_a_domain_costs_eight_bytes_a_page_or_less(make):
    """Goal of the hypervisor's own memory: usage, content, swap slot, grace, and one to spare."""
    domain = make(pages=1 << 16)
    private = domain.slots.nbytes + domain.grace.mask.nbytes
    shared = domain.map.usage.nbytes + domain.map.content.nbytes
    assert (private + shared) / domain.pages <= 8


def test_a_closed_domain_leaves_no_name_and_no_frame(make, stems):
    domain = make()
    domain.ram.allocate([(0, 4)])
    kept = os.dup(domain.ram.fd)                     # a guest's own mapping outlives the domain
    again = make(number=1)
    assert again.stem != domain.stem
    make.close(domain)
    assert os.fstat(kept).st_blocks == 0, "its frames are gone, whoever holds the object"
    os.close(kept)
    assert {item.name.split(".")[3] for item in names.objects(stems[0].split(".")[1])} == {"g1"}


class Failing:
    """Lets the n-th making of an object, queue or lock fail."""

    def __init__(self, monkeypatch, fails_at):
        self.left = fails_at
        self.real = SharedObject.create, make_queue, posix_ipc.Semaphore, SharedObject.sealed
        monkeypatch.setattr(domains.SharedObject, "create", lambda *a, **k: self.step(0)(*a, **k))
        monkeypatch.setattr(domains.SharedObject, "sealed", lambda *a, **k: self.step(3)(*a, **k))
        monkeypatch.setattr(domains, "make_queue", lambda *a: self.step(1)(*a))
        monkeypatch.setattr(domains.posix_ipc, "Semaphore", lambda *a, **k: self.step(2)(*a, **k))

    def step(self, kind):
        self.left -= 1
        if self.left < 0:
            raise UsageProblem("no room")
        return self.real[kind]


PARTS = ["ram", "usage", "content", "transfer", "count", "req", "rep", "lock"]


@pytest.mark.parametrize("fails_at", range(len(PARTS)), ids=PARTS)
def test_a_guest_that_cannot_be_made_leaves_nothing(make, stems, monkeypatch, fails_at):
    """Whatever part finds no room: no name, no queue, no descriptor (the test's own look at what is left)."""
    with monkeypatch.context() as patch:
        Failing(patch, fails_at)
        with pytest.raises(UsageProblem, match="no room"):
            make()
    assert names.objects(stems[0].split(".")[1]) == []
    assert make().ram.resident() == 0, "and the next one can be"


def test_a_guest_that_is_dead_already_is_not_made(cluster_name, python_process):
    child = python_process("print('up', flush=True)\ninput()")
    child.line()
    child.kill()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, pytest.raises(ProcessLookupError):
        make_domain(0, "g", child.pid, there, 16, 16, 1, names.stem(cluster_name, "00000a"))


def test_the_hypervisor_waits_briefly_for_a_lock_and_remembers_since_when(make, clock):
    domain = make()
    assert domain.lock()
    assert not domain.lock()
    assert domain.lock_missed_since == 1000.0
    clock[0] += LOCK_LIMIT_S
    assert not domain.lock()
    assert domain.lock_missed_since == 1000.0, "since the first time"
    assert not domain.keeps_lock_too_long
    clock[0] += 0.001
    assert domain.keeps_lock_too_long
    domain.unlock()
    assert domain.lock()
    assert domain.lock_missed_since is None and not domain.keeps_lock_too_long
    domain.unlock()


def test_residency_is_read_off_the_content_array(make):
    domain = make()
    domain.map.content[[3, 5]] = 0
    domain.map.content[7] = 2
    domain.map.usage[9] = 0xFF                       # whatever the guest scribbles
    assert np.flatnonzero(domain.resident_mask()).tolist() == [3, 5]
    assert domain.ram.pages * PAGE_SIZE == os.fstat(domain.ram.fd).st_size
