"""The state lock, and who holds it: passed by, given up, too long, posted twice, dead."""


import numpy as np
import posix_ipc
from harness.pages import assert_sound, bring, evict, page, states, while_wanting

from hypervisor import domains
from shm.pagestate import Essa


def test_a_guest_that_holds_its_lock_keeps_its_pages_and_is_passed_by(guest, disk):
    for gfn, state in enumerate(["Ur", "Vr", "Sr", "Sp"]):
        bring(guest, gfn, state)
    guest.essa(Essa.SET_UNUSED, [3])
    io = len(disk.written)
    with guest.map.lock:
        assert evict(guest, 0, 1, 2) == 0
        assert guest.machine.cmm2.settle(guest.domain) == 0
        assert guest.machine.cmm2.wanting(guest.domain, np.array([4])) is None
        assert guest.counts.lock_passed_by == 3
    assert states(guest, 0, 1, 2, 3) == ["Ur", "Vr", "Sr", "Uz"]
    assert (len(disk.written), guest.domain.ram.resident()) == (io, 3)
    assert evict(guest, 0, 1, 2) == 3
    assert guest.domain.lock_missed_since is None


def test_a_held_lock_is_waited_for_once_however_many_pages_were_planned(guest):
    """Each wait is everybody's: the event loop stands still meanwhile."""
    for gfn in range(96):
        bring(guest, gfn, "Vr")
    with guest.map.lock:
        assert evict(guest, *range(96)) == 0
    assert guest.counts.lock_passed_by == 1
    assert evict(guest, *range(96)) == 96


def test_a_fault_while_the_lock_is_held_says_look_again(guest):
    guest.transfer.gfns[0] = 5
    with guest.map.lock:
        reply = guest.channel.call(201, 1)
    assert (reply.status, reply.value) == (1, 0)
    assert guest.machine.ledger.used == 0


def test_a_fault_for_which_all_frames_lie_behind_a_held_lock_says_look_again(still_machine):
    """Memory that a slow guest keeps for a moment is no reason to refuse another for good."""
    still = still_machine(budget=64, scheme="swap")
    holder, asker = still.guest("holder", pages=64), still.guest("asker", pages=64)
    for gfn in range(64):
        holder.memory.write(gfn, page(gfn))
    asker.transfer.gfns[0] = 5
    with holder.map.lock:
        assert asker.channel.call(201, 1)[1:] == (1, 0)
    assert asker.channel.call(201, 1)[1:] == (1, 1)


def test_a_fault_for_which_there_is_nothing_is_refused(still_machine):
    still = still_machine(budget=64, scheme="swap", swap=0)
    holder, asker = still.guest("holder", pages=64), still.guest("asker", pages=64)
    for gfn in range(64):
        holder.memory.write(gfn, page(gfn))
    asker.transfer.gfns[0] = 5
    with holder.map.lock:
        assert asker.channel.call(201, 1)[1:] == (-12, 0)


def test_a_lock_that_is_taken_while_the_copy_is_written_gives_the_eviction_up(guest, disk):
    bring(guest, 4, "Sr")
    disk.during_write = lambda: guest.map.lock.acquire(0)
    assert evict(guest, 4) == 0
    guest.map.lock.release()
    assert (states(guest, 4), disk.used) == (["Sr"], 0)
    assert_sound(guest)


def test_a_lock_that_is_taken_while_frames_are_filled_gives_the_grant_up(guest):
    bring(guest, 4, "Sp")
    assert while_wanting(guest, [4, 5], lambda: guest.map.lock.acquire(0)) == 0
    guest.map.lock.release()
    assert states(guest, 4, 5) == ["Sp", "Sz"]
    assert guest.domain.ram.resident() == 0 == guest.machine.ledger.used
    assert guest.memory.read(4) == page(4)


def test_a_guest_that_keeps_its_lock_too_long_is_ended(still, guest, monkeypatch):
    other = still.guest("other")
    other.memory.write(0, page(1))
    bring(guest, 4, "Sp")
    with guest.map.lock:
        still.machine.check()
        assert guest.machine.domains[guest.domain.number] is guest.domain, "it may have its reasons, for a while"
        late = domains.monotonic() + domains.LOCK_LIMIT_S + 1
        monkeypatch.setattr(domains, "monotonic", lambda: late)
        evict(guest, 0)
        still.machine.check()
    still.expects_ended = {"g"}
    assert still.machine.events[-1]["why"] == "it kept its state lock too long"
    assert list(still.machine.domains.values()) == [other.domain]
    assert (still.machine.ledger.used, still.machine.swap.used) == (1, 0)
    assert other.memory.read(0) == page(1)


def test_a_guest_whose_lock_was_missed_once_and_given_back_is_not_ended(still, guest, monkeypatch):
    """However long ago that was, and though nobody has asked for the lock since."""
    bring(guest, 4, "Vr")
    with guest.map.lock:
        assert evict(guest, 4) == 0
    late = domains.monotonic() + domains.LOCK_LIMIT_S + 1
    monkeypatch.setattr(domains, "monotonic", lambda: late)
    still.machine.check()
    assert still.machine.domains[guest.domain.number] is guest.domain
    assert guest.domain.lock_missed_since is None


def test_a_lock_posted_twice_confuses_its_own_guest_alone(still, guest):
    """The lock orders well-meaning parties; the ledger never relies on it."""
    other = still.guest("other")
    other.memory.write(0, page(1))
    guest.map.lock.release()
    for gfn in range(4):
        bring(guest, gfn, "Sr")
    with guest.map.lock:
        assert evict(guest, 0, 1) == 2
    assert guest.memory.read(0) == page(0)
    assert other.memory.read(0) == page(1)
    assert_sound(guest)
    assert posix_ipc.Semaphore(f"/{guest.domain.stem}.lock").value == 2


DIES_HOLDING = """
import sys
from guests import Guest, Essa
guest = Guest.connect(sys.argv[1], "dies", "64KiB")
for gfn in range(8):
    guest.memory.write(gfn, bytes([gfn + 1]) * 4096)
guest.essa(Essa.SET_VOLATILE, [0, 1])
guest._semaphore.acquire(5)
print("holds", flush=True)
sys.stdin.read()
"""


def test_a_guest_that_dies_holding_its_lock_takes_nothing_with_it(machine, python_process):
    running = machine(budget=16, swap=64)
    other = running.guest("other")
    other.memory.write(0, page(1))
    dying = python_process(DIES_HOLDING, running.cluster)
    assert dying.line() == "holds"
    domain = running.domain("dies")
    assert running.inside(lambda: running.machine.cmm2.evict(domain, np.arange(8))) == 0
    dying.kill()
    for gfn in range(16):                            # needs the frames that the dead one had
        other.memory.write(gfn, page(gfn))
    running.until(lambda: len(running.machine.domains) == 1)
    assert running.inside(lambda: running.machine.ledger.held.get(domain.number)) is None
    assert [other.memory.read(gfn) for gfn in range(16)] == [page(gfn) for gfn in range(16)]
