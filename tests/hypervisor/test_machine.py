"""The machine: its loop, guests that come and go, and what its settings switch on."""

import os
import socket

import msgpack
import numpy as np
import pytest
from peers import Peer, ask

from guests import Essa, HypervisorGone
from hypervisor.allowance import SURE_PAGES
from hypervisor.machine import Machine, Settings
from shm import door, names
from shm.abi import PAGE_SIZE, Op, Status, decode_reply
from shm.channel import open_queue
from shm.counters import HostCount
from shm.errors import UsageProblem

PING = msgpack.packb([1, int(Op.PING)])


def events(held, kind):
    return [event["name"] for event in held.machine.events if event["event"] == f"guest-{kind}"]


def one_round(machine):
    """Let the loop run once over what is ready."""
    bell = os.eventfd(1)
    machine.watch(bell, lambda: setattr(machine, "stopping", True))
    machine.run()
    machine.unwatch(bell)
    os.close(bell)


# The loop

def test_a_guest_gets_one_answer_a_round(still_machine):
    """One that asks much is nobody else's wait: with four requests ahead, the other is answered in the same round."""
    still = still_machine()
    greedy, modest = still.guest("greedy"), still.guest("modest")
    queues = {guest: (open_queue(f"{guest.domain.stem}.req"), open_queue(f"{guest.domain.stem}.rep"))
              for guest in (greedy, modest)}
    for guest, asked in ((greedy, 4), (modest, 1)):
        for _ in range(asked):
            queues[guest][0].send(PING)
    one_round(still.machine)
    assert [queues[guest][1].current_messages for guest in (greedy, modest)] == [1, 1]
    for pair in queues.values():
        for queue in pair:
            queue.close()


def test_an_event_of_a_closed_descriptor_is_not_its_heirs(still_machine):
    """Race: of two events ready at once the first closes the other's descriptor, and the number is given again.

    So a guest that died together with another's arrival would have buried the newcomer.
    """
    machine = still_machine().machine
    first, second = os.eventfd(1), os.eventfd(1)
    heirs, called = [], []

    def close_the_other():
        machine.unwatch(second)
        os.close(second)
        heirs.append(os.eventfd(0))
        machine.watch(heirs[0], lambda: called.append("heir"))
        machine.stopping = True

    machine.watch(first, close_the_other)
    machine.watch(second, lambda: called.append("second"))
    machine.run()
    assert heirs == [second], "the number was given again: else this test tests nothing"
    assert called == []
    for fd in (first, second):
        machine.unwatch(fd)
        os.close(fd)


def test_guests_poll_only_while_each_party_has_a_core(still_machine):
    still = still_machine()
    still.machine._cores = 3
    flags = []
    for name in "abc":
        still.guest(name)
        flags.append([guest.transfer.may_poll for guest in still.guests])
    assert flags == [[True], [True, True], [False, False, False]]
    still.machine.bury(still.guests[0].domain, "left")
    assert [guest.transfer.may_poll for guest in still.guests[1:]] == [True, True]


def test_memory_is_reclaimed_in_the_background_before_anybody_waits(machine):
    """Few frames are free after a round: the loop frees some, and the next guest does not wait for it."""
    running = machine(budget=128)
    guest = running.guest(pages=256)
    for first in range(0, 256, 8):
        guest.memory.write_many(range(first, first + 8), np.ones((8, PAGE_SIZE), np.uint8))
        guest.essa(Essa.SET_VOLATILE, range(first, first + 8))
    counts = running.inside(running.machine.counts)
    assert counts[HostCount.BACKGROUND_RECLAIMS] > 0
    assert running.inside(lambda: running.machine.ledger.free) >= running.machine.reclaim.low


# Guests that come and go

def test_a_guest_that_leaves_gives_all_back(machine):
    running = machine(budget=300)
    stays, goes = running.guest("stays"), running.guest("goes")
    for value, guest in ((1, stays), (2, goes)):
        guest.memory.write_many(range(10), np.full((10, PAGE_SIZE), value, np.uint8))
        guest.tmem.new_pool(persistent=True).put(1, 1, bytes(PAGE_SIZE))
        guest.tmem.new_pool(persistent=False).put(1, 1, bytes(PAGE_SIZE))
    number = running.domain("goes").number
    with goes:
        pass
    Peer(running.cluster, name="later").close()              # whoever is let in after it sees it gone
    ledger, store = running.machine.ledger, running.machine.store
    held = running.inside(lambda: (ledger.held.get(number), len(store.catalogue), len(store.pools.all())))
    assert held == (None, 2, 2)
    assert (stays.memory.read_many(range(10)) == 1).all()
    assert "goes" in events(running, "left")
    assert [item.name for item in names.objects(running.cluster) if f".g{number}." in item.name] == []


def test_what_a_departed_guest_did_stays_in_the_totals(machine):
    running = machine()
    guest = running.guest()
    for _ in range(5):
        guest.ping()
    guest.close()
    running.guests.clear()
    Peer(running.cluster, name="later").close()
    assert running.inside(running.machine.counts)[HostCount.HYPERCALLS] == 5


def test_a_connection_that_breaks_is_a_death(machine):
    running = machine()
    peer = Peer(running.cluster, name="torn")
    peer.close()
    running.guest("later")
    assert events(running, "died") == ["torn"]


def test_numbers_and_names_of_objects_are_not_used_again(machine):
    """A process of a dead guest that still holds its name opens nothing of the next guest's."""
    running = machine()
    stems = []
    for _ in range(3):
        with Peer(running.cluster) as peer:
            stems.append(peer.stem)
    assert len(set(stems)) == 3


def test_a_lock_kept_too_long_ends_its_holder_alone(still_machine):
    still = still_machine()
    still.expects_ended = {"holder"}
    holder, other = still.guest("holder"), still.guest("other")
    other.memory.write(0, b"\x11" * PAGE_SIZE)
    holder.semaphore.acquire(0)
    holder.transfer.gfns[0] = 0
    assert holder.channel.call(Op.FAULT, 1)[1:] == (Status.OK, 0), "passed by: look again"
    assert holder.counts.lock_passed_by == 1
    still.machine.check()
    assert len(still.machine.domains) == 2, "not yet"
    holder.domain.lock_missed_since -= 60
    still.machine.check()
    assert [domain.name for domain in still.machine.domains.values()] == ["other"]
    assert still.machine.events[-1]["why"] == "it kept its state lock too long"
    assert other.memory.read(0) == b"\x11" * PAGE_SIZE


def test_a_lock_given_back_meanwhile_ends_nobody(still_machine):
    still = still_machine()
    guest = still.guest()
    guest.semaphore.acquire(0)
    guest.transfer.gfns[0] = 0
    guest.channel.call(Op.FAULT, 1)
    guest.semaphore.release()
    guest.domain.lock_missed_since -= 60
    still.machine.check()
    assert len(still.machine.domains) == 1
    assert guest.domain.lock_missed_since is None


# Starting and stopping

def test_stopping_tells_the_guests_and_leaves_nothing(new_cluster_name):
    machine = Machine(Settings(new_cluster_name(), 64))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(machine.gate.listener.getsockname())
        machine.gate._accept()
        machine.close()
        assert link.recv(1) == b"", "its end of the connection is closed"
    assert names.objects(machine.settings.cluster) == []


def test_calls_of_a_guest_after_the_stop(machine):
    running = machine()
    guest = running.guest()
    pool = guest.tmem.new_pool(persistent=False)
    guest.memory.write(0, bytes(PAGE_SIZE))
    running.inside(lambda: running.machine.bury(running.machine.domains[0], "stopped"))
    assert guest.wait_gone(20)
    for attempt in (guest.ping, lambda: pool.get(1, 1), lambda: guest.memory.write(1, bytes(PAGE_SIZE)),
                    lambda: guest.tmem.new_pool(persistent=True)):
        with pytest.raises(HypervisorGone):
            attempt()


def test_a_swap_folder_that_does_not_exist(new_cluster_name, tmp_path):
    name = new_cluster_name()
    with pytest.raises(UsageProblem, match=r"no swap disk in .*nowhere"):
        Machine(Settings(name, 64, swap=64, folder=str(tmp_path / "nowhere")))
    assert names.objects(name) == []


def test_the_swap_disk_is_made_where_the_settings_say_and_has_no_name(machine, tmp_path):
    running = machine(folder=str(tmp_path), swap=100)
    assert os.readlink(f"/proc/self/fd/{running.machine.swap.file.fileno()}").startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_ephemeral_cap_of_the_settings_is_the_stores(machine):
    running = machine(budget=300, ephemeral_pages=7)
    pool = running.guest().tmem.new_pool(persistent=False)
    pool.put_many(1, range(100), np.zeros((100, PAGE_SIZE), np.uint8))
    assert running.machine.store.ephemeral == 7


# How many persistent pages a guest may put (T67, T70)

def put_persistent(guest, count):
    pages = np.arange(count, dtype=np.uint8).repeat(PAGE_SIZE).reshape(count, PAGE_SIZE)
    return int(guest.tmem.new_pool(persistent=True).put_many(1, range(count), pages).sum())


def test_ram_held_and_persistent_pages_stay_within_max_mem(still_machine):
    """T67: 10 of its 16 pages are resident, 24 are the most, so 14 may be put."""
    guest = still_machine(budget=2000).guest(pages=16, max_pages=24)
    guest.memory.write_many(range(10), np.zeros((10, PAGE_SIZE), np.uint8))
    assert put_persistent(guest, 30) == 14


def test_memory_given_up_may_be_put_page_for_page(still_machine):
    """T67: 16 resident pages fill max_mem; 5 are given up and taken; exactly 5 puts succeed."""
    still = still_machine(budget=2000)
    guest = still.guest(pages=16, max_pages=16)
    guest.memory.write_many(range(16), np.zeros((16, PAGE_SIZE), np.uint8))
    assert put_persistent(guest, 3) == 0
    guest.essa(Essa.SET_UNUSED, range(5))
    assert still.machine.cmm2.evict(guest.domain, np.arange(5)) == 5
    assert put_persistent(guest, 9) == 5


@pytest.mark.parametrize("swap", [0, 1000], ids=["without a swap disk", "with one"])
def test_persistent_pages_of_all_guests_leave_room_for_memory(still_machine, swap):
    """T70: nobody can take them back, so they stop while every guest's memory can still be had."""
    still = still_machine(budget=1500, swap=swap)
    a, b = still.guest("a", 600, 5000), still.guest("b", 300, 5000)
    sure = (600 if swap == 0 else min(600, SURE_PAGES)) + 300
    stored = put_persistent(a, 255) + put_persistent(b, 255) + put_persistent(a, 255)
    assert stored == min(3 * 255, 1500 - sure - still.machine.reclaim.low)
    for guest in (a, b):
        guest.memory.write_many(range(300), np.ones((300, PAGE_SIZE), np.uint8))


def test_leaving_is_said_at_the_door(machine):
    running = machine()
    with Peer(running.cluster) as peer:
        door.send(peer.link, {"call": "leave"})
        assert peer.is_cut_off()
    running.guest("later")
    assert events(running, "left") == ["liar"]


def test_orders_over_a_guests_own_connection(machine):
    running = machine()
    with Peer(running.cluster) as peer:
        assert len(ask(peer.link, {"call": "list"})[0]["guests"]) == 1
        assert decode_reply(msgpack.packb(peer.call(Op.PING))).status == Status.OK
