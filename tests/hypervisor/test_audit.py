"""The kernel is the auditor: frames taken behind our back, and drift that is our own fault."""

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest
from harness.machines import Still

from hypervisor.audit import Audit
from hypervisor.ledger import HEAP, Ledger
from hypervisor.machine import Settings
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject
from shm.errors import UsageProblem

THIEF = """
import mmap, os, sys
import numpy as np
from guests import Guest
cluster, how = sys.argv[1:]
guest = Guest.connect(cluster, "thief", "64KiB")
guest.memory.write(0, bytes([7]) * 4096)
name = next(entry for entry in os.listdir("/dev/shm") if entry.startswith(f"memcommons.{cluster}.")
            and entry.endswith(f"g1.ram"))
second = mmap.mmap(os.open(f"/dev/shm/{name}", os.O_RDWR), 16 * 4096)
print("attached", flush=True)
sys.stdin.readline()
if how == "read":
    assert second[5 * 4096] == 0
else:
    second[5 * 4096] = 1
print("took", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["read", "write"])
def test_a_guest_that_takes_a_frame_through_a_second_mapping_loses_it_and_is_ended(machine, python_process, how):
    """A mere load of a hole allocates it; it is found, punched, and the guest killed; others are not harmed."""
    running = machine(budget=64)
    honest = running.guest("honest")
    honest.memory.write(3, bytes([9]) * PAGE_SIZE)
    thief = python_process(THIEF, running.cluster, how)
    assert thief.line() == "attached"
    thief.say("go")
    assert thief.line() == "took"
    assert thief.process.wait(20) == -9, "the loop finds it by itself"
    events = running.inside(lambda: [event for event in running.machine.events if event["name"] == "thief"])
    assert [(event["event"], event["pid"], event["why"]) for event in events] == [
        ("guest-ended", thief.pid, "it took frames that were not granted")]
    assert running.inside(lambda: running.machine.audit.max_drift) == 0, "not our fault"
    assert running.inside(lambda: running.machine.ledger.used) == 1
    assert honest.memory.read(3) == bytes([9]) * PAGE_SIZE
    running.expects_ended = {"thief"}


def test_what_a_thief_took_is_punched_and_what_was_granted_is_not(still_machine):
    still = still_machine(budget=64)
    thief, honest = still.guest("thief"), still.guest("honest")
    for guest in (thief, honest):
        guest.memory.write(2, bytes([7]) * PAGE_SIZE)
    assert not thief.memory._rows[[4, 5, 9]].any()
    assert thief.domain.ram.resident() == 4
    assert still.machine.audit.check() == [thief.domain]
    assert thief.domain.ram.resident() == 1
    assert thief.memory.read(2) == bytes([7]) * PAGE_SIZE
    assert (still.machine.audit.max_drift, still.machine.audit.drifts) == (0, [])


def test_a_quiet_machine_has_no_drift_and_the_most_ever_seen_is_kept(still_machine):
    still = still_machine(budget=64)
    guest, audit = still.guest(), still.machine.audit
    pool = guest.tmem.new_pool(persistent=False)
    for gfn in range(8):
        guest.memory.write(gfn, bytes([7]) * PAGE_SIZE)
        pool.put(1, gfn, bytes([8]) * PAGE_SIZE)
    before = audit.checks
    assert audit.check() == []
    assert (audit.checks, audit.max_drift) == (before + 1, 0)
    most = audit.kernel_frames()
    assert most == still.machine.ledger.used == 8 + still.machine.ledger.held[HEAP]
    still.machine.reclaim.free_up(1000)
    assert audit.kernel_frames() < most == audit.kernel_peak


DRIFTS = {
    "the heap has a frame more": (
        lambda still, guest: still.machine.heap.object.allocate([(500, 1)]), "heap: kernel +1"),
    "the heap has frames less": (lambda still, guest: still.machine.heap.object.punch([(0, 3)]), "heap: kernel -"),
    "a guest has a frame less": (lambda still, guest: guest.domain.ram.punch([(0, 1)]), "guest 0: kernel -1"),
    "the ledger claims too much": (lambda still, guest: still.machine.ledger.reserve(0, 2), "guest 0: kernel -2"),
    "the ledger claims too little for the heap": (
        lambda still, guest: still.machine.ledger.release(HEAP, 1), "heap: kernel +1"),
}


@pytest.mark.parametrize(("break_it", "said"), DRIFTS.values(), ids=list(DRIFTS))
def test_drift_by_our_own_fault_is_reported(new_cluster_name, stems, break_it, said):
    still = Still(Settings(new_cluster_name(), 64, "cmm2+tmem", swap=64))
    stems.append(still.machine.stem)
    try:
        guest = still.guest()
        guest.memory.write(0, bytes([7]) * PAGE_SIZE)
        assert guest.tmem.new_pool(persistent=False).put(1, 1, bytes([8]) * PAGE_SIZE)
        break_it(still, guest)
        answer = still.machine.orders.audit({})
        assert answer["max_drift_frames"] >= 1
        assert len(answer["drifts"]) == 1 and answer["drifts"][0].startswith(said)
        with pytest.raises(AssertionError):
            still.prove_sound()                      # so every test that uses a machine would have failed
    finally:
        for guest in still.guests:
            guest.close()
        still.machine.close()


def test_the_probe_refuses_a_folder_whose_accounts_cannot_be_trusted(new_cluster_name, monkeypatch):
    """One page must cost one page; a machine that cannot count is not started, and leaves nothing."""
    monkeypatch.setattr(SharedObject, "resident", lambda self: 512)
    with pytest.raises(UsageProblem, match=r"gives 2048 KiB for one page .* mount it with huge=never"):
        Still(Settings(new_cluster_name(), 64))


def test_a_folder_without_room_for_one_page_is_refused(new_cluster_name, monkeypatch):
    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageProblem, match="no room in /dev/shm for 4 KiB"):
        Still(Settings(new_cluster_name(), 64))


def test_the_probe_leaves_no_frame(still_machine):
    assert still_machine().machine.heap.object.resident() == 0


def test_pages_given_back_are_seen_at_once_by_the_kernel(still_machine):
    """Invariant 2 through grants, discards, page-ins, puts and gets: kernel and ledger go together."""
    still = still_machine(budget=24, swap=256)
    guest, machine = still.guest(pages=64), still.machine
    pool = guest.tmem.new_pool(persistent=False)
    rng = np.random.default_rng(2)
    for _ in range(300):
        gfn = int(rng.integers(64))
        match rng.integers(4):
            case 0:
                guest.memory.write(gfn, bytes([gfn]) * PAGE_SIZE)
            case 1:
                guest.memory.read_many(rng.permutation(64)[:8])
            case 2:
                pool.put(1, gfn, bytes([gfn]) * PAGE_SIZE)
            case _:
                pool.get(1, gfn)
        assert guest.domain.ram.resident() == machine.ledger.held.get(0, 0)
        assert machine.heap.object.resident() == machine.ledger.held.get(HEAP, 0)
        assert machine.ledger.used <= 24


def test_a_page_that_a_pager_fills_during_the_audit_is_no_drift():
    """It is filled right after the kernel was asked: what was on its way must have been counted before."""
    restoring = {5: 0.0}
    filled: list[bool] = []

    def resident() -> int:                                   # asked for thieves, and then for drift
        filled.append(True)
        return 0

    def collect(_domain: object) -> None:
        if len(filled) == 2:
            restoring.clear()

    domain = SimpleNamespace(number=0, ram=SimpleNamespace(resident=resident),
                             hardware=SimpleNamespace(restoring=restoring, collect=collect))
    ledger = Ledger(8)
    assert ledger.reserve(0, 1)
    audit = Audit(ledger, {0: domain}, SimpleNamespace(object=SimpleNamespace(resident=lambda: 0)))
    assert audit.check() == [] and audit.max_drift == 0
