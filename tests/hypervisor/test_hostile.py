"""Guests that break the rules: an error to them, or their end; the others keep their pages, pools and turns."""

import os
import struct
import threading
from contextlib import contextmanager
from time import monotonic

import msgpack
import numpy as np
import posix_ipc
import pytest
from peers import OID, Peer, flood, statuses, touch_holes, write_entries

from guests import Guest
from hypervisor.toolstack.connection import call
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, U64, Op, Status
from shm.arena import SharedObject
from shm.counters import HostCount
from shm.pagestate import REFERENCED, Essa

DEADLINE_S = 20.0


class Honest:
    """A guest with something to lose; `prove_unharmed` can be asked again and again."""

    def __init__(self, guest):
        self.guest = guest
        self.pages = np.random.default_rng(8).integers(0, 256, (8, PAGE_SIZE), np.uint8)
        self.pool = guest.tmem.new_pool(persistent=True)
        guest.memory.write_many(range(8), self.pages)
        assert self.pool.put_many(OID, range(8), self.pages).all()

    def prove_unharmed(self):
        assert (self.guest.memory.read_many(range(8)) == self.pages).all()
        hits, pages = self.pool.get_many(OID, range(8))
        assert hits.all() and (pages == self.pages).all()


@pytest.fixture
def stage(machine):
    running = machine(budget=1024)
    return running, Honest(running.guest("honest", pages=16, max_pages=64))


def attached(running):
    return {domain.name for domain in running.inside(lambda: list(running.machine.domains.values()))}


# Too much

def test_a_guest_that_asks_and_never_listens_is_ended(stage):
    """Its reply queue fills: that is its own fault, and nobody waits for it."""
    running, honest = stage
    running.expects_ended = {"liar"}
    with Peer(running.cluster) as peer:
        assert flood(peer) < 100
        assert peer.is_cut_off()
        honest.prove_unharmed()
    assert running.machine.events[-1]["why"] == "its reply queue is full: it asks and does not listen"
    assert attached(running) == {"honest"}


FLOODER = """
import sys
sys.path.insert(0, "tests/hypervisor")
from peers import Peer, flood
peer = Peer(sys.argv[1], name="flooder")
print("attached", flush=True)
flood(peer, 10**9)
"""


def test_a_flooding_process_is_killed_and_said(hypervisor_process, python_process):
    host = hypervisor_process()
    child = python_process(FLOODER, host.cluster)
    assert child.line() == "attached"
    event = host.event()
    assert (event["event"], event["name"], event["pid"]) == ("guest-ended", "flooder", child.pid)
    assert "does not listen" in event["why"]
    assert child.process.wait(DEADLINE_S) == -9
    assert call(host.cluster, {"call": "list"})["guests"] == []


GREEDY = """
import sys
sys.path.insert(0, "tests/hypervisor")
import msgpack
from peers import Peer
peer = Peer(sys.argv[1], name=sys.argv[2])
ping = msgpack.packb([1, 200])
for _ in range(3):
    peer.send(ping)
print("asking", flush=True)
while True:
    peer.send(ping)
    peer.answer()
"""


def test_guests_that_never_stop_asking_leave_the_others_their_turn(hypervisor_process, python_process):
    """Three that keep their request queues full, and one that works: its calls are all answered."""
    host = hypervisor_process(budget=1024)
    for name in "abc":
        assert python_process(GREEDY, host.cluster, name).line() == "asking"
    with Guest.connect(host.cluster, "honest", 16 * PAGE_SIZE, 64 * PAGE_SIZE) as guest:
        honest = Honest(guest)
        for _ in range(50):
            honest.prove_unharmed()
        assert len(call(host.cluster, {"call": "list"})["guests"]) == 4, "nobody was ended for asking"


# Wrong

def test_junk_through_the_queue(stage):
    running, honest = stage
    with Peer(running.cluster) as peer:
        no_calls = msgpack.packb([1, "999"]), msgpack.packb([1, int(Op.PUT_PAGE), -1])
        for message in (b"", b"\xc1", b"\xff" * 512, *no_calls):
            assert peer.ask(message).status == Status.EINVAL
        assert peer.call(Op.PUT_PAGE, 0, U64, U64, U64, 0).status == Status.ENODEV
        assert peer.call(Op.PING).status == Status.OK, "it goes on as if nothing had been"
        honest.prove_unharmed()
        counts = running.domain("liar").counts
        assert counts[HostCount.ERRORS] == 6


def test_handles_of_another_guest_find_nothing(stage):
    running, honest = stage
    with Peer(running.cluster) as peer:
        pool = peer.call(Op.NEW_POOL, 1 << 24, 0, 0).value
        for op in (Op.GET_PAGE, Op.FLUSH_PAGE):
            count = write_entries(peer.transfer, [(op, number, OID, index, index)
                                                  for number in (pool, 1, 15) for index in range(8)])
            assert peer.call(Op.MULTICALL, count).status == Status.OK
            assert Status.ENODEV in statuses(peer.transfer, count)
        assert not peer.transfer.pages.any(), "not a byte came over"
        honest.prove_unharmed()


@contextmanager
def in_the_background(work):
    """Have `work` done again and again by another thread."""
    stop = threading.Event()

    def run():
        while not stop.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("seed", range(3))
def test_a_transfer_buffer_scribbled_on_in_flight(stage, seed):
    """Entries, frame numbers and pages change all the time: every call is answered, and nobody else notices."""
    running, honest = stage
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (16, MULTICALL_LIMIT * 64), np.uint8)
    with Peer(running.cluster, pages=64) as peer:
        for flags in (1 << 24, 1 << 24 | 1):
            peer.call(Op.NEW_POOL, flags, 0, 0)
        entries = peer.transfer.entries
        raw, plausible = entries.view(np.uint8).reshape(-1), np.random.default_rng(seed + 1)

        def scribble():
            raw[:] = noise[int(plausible.integers(16))][:raw.size]
            entries["op"][:200] = plausible.choice([Op.PUT_PAGE, Op.GET_PAGE, Op.FLUSH_PAGE], 200)
            entries["pool"][:220] = plausible.integers(0, 3, 220)
            entries["slot"][:240] %= MULTICALL_LIMIT
            peer.transfer.gfns[:] = plausible.integers(-2, 66, MULTICALL_LIMIT)

        with in_the_background(scribble):
            for _ in range(60):
                assert peer.call(Op.MULTICALL, MULTICALL_LIMIT).status == Status.OK
                answer = peer.call(Op.FAULT, int(rng.integers(0, 4)))
                assert answer.status in (Status.OK, Status.EFAULT, Status.ENOMEM), "its max_mem may be all stored"
        honest.prove_unharmed()


# States and the lock

@pytest.mark.parametrize("seed", range(6))
def test_usage_bytes_scribbled_on_under_pressure(still_machine, seed):
    """Whatever stands there decodes to some state of its own pages (R21): frames, slots and ledger stay right."""
    still, rng = still_machine(budget=160, swap=400), np.random.default_rng(seed)
    honest, liar = Honest(still.guest("honest", 16, 64)), still.guest("liar", 200)
    for _ in range(60):
        some = rng.choice(200, 40, replace=False)
        liar.map.usage[some] = rng.integers(0, 256, 40)
        liar.transfer.gfns[:30] = rng.choice(200, 30, replace=False)
        assert liar.channel.call(Op.FAULT, 30).status in (Status.OK, Status.ENOMEM)
        still.machine.reclaim.background()
        if rng.random() < 0.3:
            still.machine.reclaim.free_up(60)
        if rng.random() < 0.2:
            still.machine.check()
        honest.prove_unharmed()
        assert liar.domain.ram.resident() == still.machine.ledger.held[liar.domain.number]
        assert still.machine.ledger.used <= 160


def test_a_lock_posted_too_often(stage):
    """Then it excludes nobody from that guest's own states; the hypervisor's accounts never rested on it."""
    running, honest = stage
    with Peer(running.cluster) as peer:
        lock = peer.lock()
        for _ in range(50):
            lock.release()
        peer.transfer.gfns[:10] = range(10)
        assert peer.call(Op.FAULT, 10)[1:] == (Status.OK, 10)
        lock.close()
        honest.prove_unharmed()


def test_a_lock_set_to_its_maximum_while_the_hypervisor_holds_it(still_machine, monkeypatch):
    """Releasing it overflows (EOVERFLOW); that is the liar's lock, and no end of the hypervisor."""
    still = still_machine()
    liar = still.guest("liar")
    fd = os.open(f"/dev/shm/sem.{liar.domain.stem}.lock", os.O_RDWR)
    real = still.machine.cmm2._void

    def meanwhile(*arguments):
        os.pwrite(fd, struct.pack("<I", 0x7FFFFFFF), 0)
        return real(*arguments)

    monkeypatch.setattr(still.machine.cmm2, "_void", meanwhile)
    liar.transfer.gfns[0] = 3
    assert liar.channel.call(Op.FAULT, 1)[1:] == (Status.OK, 1)
    assert liar.domain.ram.resident() == still.machine.ledger.used == 1
    os.close(fd)


def test_a_lock_that_is_held_under_pressure_is_passed_by(still_machine):
    """Its pages cannot be taken now; the others' can, and nobody waits longer than the lock's patience."""
    still = still_machine(budget=128, swap=0)
    holder, other = still.guest("holder", 100), still.guest("other", 100)
    holder.memory.write_many(range(60), np.ones((60, PAGE_SIZE), np.uint8))
    holder.essa(Essa.SET_VOLATILE, range(60))
    other.memory.write_many(range(60), np.ones((60, PAGE_SIZE), np.uint8))
    other.essa(Essa.SET_VOLATILE, range(50))
    holder.semaphore.acquire(0)
    other.memory.write_many(range(70, 100), np.full((30, PAGE_SIZE), 9, np.uint8))
    assert (other.memory.read_many(range(70, 100)) == 9).all()
    assert holder.domain.ram.resident() == 60 and holder.counts.lock_passed_by > 0
    holder.semaphore.release()


# Frames behind our back

@pytest.mark.parametrize("how", ["read of a hole", "write", "fallocate"])
def test_frames_that_were_not_granted_are_found_and_end_the_thief(stage, how):
    """Within a second or so: taken back, and the guest ended; ledger and kernel agree again."""
    running, honest = stage
    running.expects_ended = {"liar"}
    with Peer(running.cluster, pages=64) as peer:
        ram = running.domain("liar").ram
        if how == "read of a hole":
            assert touch_holes(peer.ram.fd, 64) == 64
        elif how == "write":
            os.pwrite(peer.ram.fd, b"\x01" * 20 * PAGE_SIZE, 0)
        else:
            os.posix_fallocate(peer.ram.fd, 0, 20 * PAGE_SIZE)
        start = monotonic()
        assert peer.is_cut_off()
        assert monotonic() - start < DEADLINE_S
        assert peer.ram.resident() == 0, "cut to nothing, though the thief still maps it"
        honest.prove_unharmed()
        assert ram.name not in os.listdir("/dev/shm")
    assert running.machine.events[-1]["why"] == "it took frames that were not granted"


def test_a_thief_who_takes_again_while_it_is_ended_gets_nothing(stage):
    """The object is cut to length 0: a touch after that is a SIGBUS of the thief's own, and no frame."""
    running, _ = stage
    running.expects_ended = {"liar"}
    with Peer(running.cluster, pages=64) as peer:
        touch_holes(peer.ram.fd, 64)
        assert peer.is_cut_off()
        size = os.fstat(peer.ram.fd).st_size
        assert size == 0 and peer.ram.resident() == 0


def test_memory_of_a_guest_that_left_reads_zero_for_the_next(stage):
    """Invariant 6: frames are given back to the machine between two guests, so a fresh page is zero."""
    running, _ = stage
    with Peer(running.cluster, pages=64, name="first") as peer:
        peer.transfer.gfns[:64] = range(64)
        assert peer.call(Op.FAULT, 64).value == 64
        os.pwrite(peer.ram.fd, b"\xAA" * 64 * PAGE_SIZE, 0)
    guest = running.guest("second", pages=64)
    assert not guest.memory.read_many(range(64)).any()


def test_a_page_that_was_discarded_comes_back_as_zeros(stage):
    running, _ = stage
    guest = running.guest("forgetful", pages=16)
    guest.memory.write(0, b"\xAA" * PAGE_SIZE)
    guest.essa(Essa.SET_UNUSED, [0])
    domain = running.domain("forgetful")
    assert running.inside(lambda: running.machine.cmm2.evict(domain, np.array([0]))) == 1
    guest.essa(Essa.SET_STABLE, [0])
    assert guest.memory.read(0) == bytes(PAGE_SIZE)


def test_memory_cut_short_by_its_guest_brings_no_foreign_bytes(still_machine, monkeypatch):
    """A copy out of less than a page: the rest must not be what the hypervisor had there last (invariant 6)."""
    still = still_machine()
    still.expects_drift = True                               # frames that the ledger has granted are gone
    liar = still.guest("liar")
    liar.memory.write_many(range(4), np.full((4, PAGE_SIZE), 0x11, np.uint8))
    liar.domain.map.usage[:4] &= 0xFF ^ REFERENCED
    ram = liar.domain.ram
    os.ftruncate(ram.fd, PAGE_SIZE)
    with monkeypatch.context() as reused:
        reused.setattr(np, "empty", lambda shape, *_: np.full(shape, 0xEE, np.uint8))
        assert still.machine.cmm2.evict(liar.domain, np.arange(4)) == 4
    os.ftruncate(ram.fd, liar.pages * PAGE_SIZE)
    pages = liar.memory.read_many(range(4))
    assert (pages[0] == 0x11).all() and not pages[1:].any()


def test_names_unlinked_by_a_guest_hurt_nobody(stage):
    """It is of our own user, so it can: its objects live on by descriptor, and its end leaves nothing."""
    running, honest = stage
    with Peer(running.cluster) as peer:
        for end in ("req", "rep"):
            posix_ipc.unlink_message_queue(f"/{peer.stem}.{end}")
        posix_ipc.unlink_semaphore(f"/{peer.stem}.lock")
        posix_ipc.unlink_shared_memory(f"/{peer.stem}.ram")
        assert peer.call(Op.PING).status == Status.OK
        peer.transfer.gfns[0] = 3
        assert peer.call(Op.FAULT, 1)[1:] == (Status.OK, 1)
    honest.prove_unharmed()


def test_control_objects_cannot_be_cut_short(stage):
    """The hypervisor maps them: a cut would be its SIGBUS."""
    running, honest = stage
    with Peer(running.cluster) as peer:
        objects = running.machine.domains[max(running.machine.domains)].objects
        for kind in ("usage", "content", "transfer", "count"):
            with pytest.raises(PermissionError):
                os.ftruncate(objects[kind].fd, 0)
        assert peer.call(Op.PING).status == Status.OK
    honest.prove_unharmed()


def test_control_objects_punched_by_a_guest_hurt_nobody(stage):
    """Holes in its states, buffer and counters read zero: that is a state like any other."""
    running, honest = stage
    with Peer(running.cluster, pages=64) as peer:
        peer.transfer.gfns[:20] = range(20)
        assert peer.call(Op.FAULT, 20).value == 20
        for held in (peer.usage, peer.buffer, peer.count):
            SharedObject(held.fd).punch([(0, held.pages)])
        assert peer.call(Op.PING).status == Status.OK
        assert call(running.cluster, {"call": "audit"})["problems"] == []
        assert len(call(running.cluster, {"call": "list"})["guests"]) == 2
    honest.prove_unharmed()
