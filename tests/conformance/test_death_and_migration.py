"""Death and migration (T83-T90), by hypercalls on one side and the orders of the door on the other.

A save is -1 or an error number in Xen where it is a line that says why here: `refused` gives the line.
"""

import json

import numpy as np
import pytest
from caller import EP, ES, MISS, OID, PP, UUID, Caller, noise

from guests import Guest
from hypervisor.migration import ROOM
from hypervisor.tmem.saving import LEAST_ROOM
from hypervisor.tmem.stream import HANDLE, HEADER, ClientFacts, Kind, PoolFacts, Reader, Writer
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE, Op, Status
from shm.errors import UsageProblem

TOKEN = "7" * 32
# A guest that puts for ever; it says so once it has begun.
PUTTING = """
import sys
import numpy as np
from guests import Guest
with Guest.connect(sys.argv[1], "victim", "16KiB", "4MiB") as guest:
    pools = [guest.tmem.new_pool(persistent=persistent) for persistent in (True, False)]
    for turn in range(1 << 40):
        for pool in pools:
            pool.put(1, turn % 50, np.full(4096, turn % 251, np.uint8))
            pool.put_many(2, range(64), np.full((64, 4096), turn % 251, np.uint8))
        if turn == 3:
            print("again", flush=True)
"""


class Door:
    """One connection to a machine that stands still."""

    def __init__(self, machine):
        self.machine = machine

    def ask(self, order, **message):
        return self.machine.migration.table[order](self, message)

    def refused(self, order, **message):
        with pytest.raises(UsageProblem) as refused:
            self.ask(order, **message)
        return str(refused.value)

    def close(self):
        self.machine.migration.hang_up(self)


@pytest.fixture
def door(ample):
    made = Door(ample.machine)
    yield made
    made.close()


@pytest.fixture
def there(still_machine, form):
    """The target of migrations."""
    return still_machine(1024, "tmem", 0, form=form)


def name_of(caller):
    return caller.guest.domain.name


def save(door, caller, mode="stop"):
    """Save a guest to the end; return the stream."""
    assert door.ask("tmem-save-begin", guest=name_of(caller), mode=mode)["begun"] == 1
    return drain(door)


def drain(door):
    data, done = b"", False
    while not done:
        answer = door.ask("tmem-save-next")
        data, done = data + answer["data"], answer["done"]
    return data


def restore(there, data, way):
    """Restore a stream, and attach in the place of who waits then."""
    door = Door(there.machine)
    door.ask("tmem-restore-begin")
    for at in range(0, len(data), ROOM):
        door.ask("tmem-restore-next", data=data[at:at + ROOM])
    waiting = there.machine.migration.expected(door.ask("tmem-restore-commit")["token"])
    there.machine.migration.adopted(waiting)
    there.machine.gate._guests = waiting.number              # the number that the next guest gets
    return Caller(there, way, max_pages=waiting.max_pages)


def records(data):
    return list(Reader().feed(data))


def handles_sent(data, kind=Kind.PAGES):
    return [(record.value.pool, *oid, index) for record in records(data) if record.kind == kind
            for oid, index in zip(record.value.oids.tolist(), record.value.indexes.tolist(), strict=True)]


def test_t83_nothing_of_a_dead_guest_is_left(a, b):
    a.new_pool(ES), b.new_pool(ES)
    private = [a.new_pool(PP), a.new_pool(EP)]
    for pool in (0, *private):
        a.put(pool, noise(pool), index=pool)
    b.put(0, noise(9), index=9)
    a.machine.bury(a.guest.domain, "died")
    for pool in (0, *private):
        assert [a.put(pool, 1), a.get_status(pool), a.flush(pool), a.flush_object(pool)] == [Status.ENODEV] * 4
    assert b.pool(0).members == [b.number]
    assert a.store.clients.known(a.number) is None
    assert a.store.catalogue.of_pool(b.pool(0).serial).size == b.pool(0).pages == len(a.store.catalogue)
    assert a.machine.ledger.held.get(a.number, 0) == 0


@pytest.mark.parametrize("form", ["raw", "lz4", "dedup", "tze"])
def test_t84_killed_in_the_middle_of_a_put(machine, python_process, form):
    running = machine(2048, "tmem", 0, form=form)
    with Guest.connect(running.cluster, "witness", "16KiB", "1MiB") as witness:
        pool = witness.tmem.new_pool(persistent=True)
        assert pool.put(1, 1, bytes([5]) * PAGE_SIZE)
        victim = python_process(PUTTING, running.cluster)
        assert victim.line() == "again"
        victim.kill()
        running.until(lambda: len(running.machine.domains) == 1)
        assert pool.get(1, 1) == bytes([5]) * PAGE_SIZE
        assert running.inside(lambda: len(running.machine.store.catalogue)) == 1
        audit = call(running.cluster, {"call": "audit"})
        assert (audit["problems"], audit["drifts"]) == ([], []), json.dumps(audit)


def test_t85_save_begin_without_client_or_pools(a, door):
    assert door.ask("tmem-save-begin", guest=name_of(a)) == {"begun": 0}
    a.put(0, 1)
    assert door.ask("tmem-save-begin", guest=name_of(a)) == {"begun": 0}
    pool = a.new_pool(PP)
    assert door.ask("tmem-save-begin", guest=name_of(a), mode="stop")["begun"] == 1
    assert a.client.frozen
    assert a.put(pool, 1) == Status.EFROZEN


@pytest.mark.parametrize("mode", ["stop", "live"])
@pytest.mark.parametrize("frozen", [False, True])
def test_t85_save_end_gives_the_earlier_freeze_back(a, door, mode, frozen):
    pool = a.new_pool(PP)
    a.control.freeze(a.number, frozen)
    save(door, a, mode)
    assert a.client.frozen
    door.ask("tmem-save-end")
    assert a.client.frozen == frozen
    assert a.put(pool, 1) == (Status.EFROZEN if frozen else Status.OK)


def test_t86_every_persistent_page_once_and_no_ephemeral_one(a, door, there, way):
    pools = [a.new_pool(PP), a.new_pool(EP), a.new_pool(PP), a.new_pool(PP)]
    a.destroy(pools.pop(0))
    for pool in pools:
        for index in range(40):
            assert a.put(pool, 100 * pool + index, index=index) == Status.OK
    data = save(door, a)
    assert sorted(handles_sent(data)) == [(pool, *OID, index) for pool in (2, 3) for index in range(40)]
    c = restore(there, data, way)
    assert [(number, c.pool(number).persistent) for number in pools] == [(1, False), (2, True), (3, True)]
    for pool in (2, 3):
        assert [c.get(pool, index=index) for index in range(40)] == [100 * pool + index for index in range(40)]
    assert c.get_status(1) == Status.EEMPTY
    assert c.new_pool(PP) == 0, "the free number is free there too"


def test_t87_live_a_replacing_put_flushes_and_is_replayed(a, door, there, way):
    pool = a.new_pool(PP)
    for index in range(4):
        a.put(pool, index + 1, index=index)
    door.ask("tmem-save-begin", guest=name_of(a), mode="live")
    data = door.ask("tmem-save-next")["data"]                # all pages; then the guest goes on
    assert a.put(pool, 50, index=1) == Status.ENOSPC
    assert a.get(pool, index=1) == MISS
    assert a.flush(pool, index=2) == Status.EFROZEN          # and it was done (T42)
    assert a.put(pool, 51, index=9) == Status.EFROZEN
    data += drain(door)
    assert sorted(handles_sent(data, Kind.GONE)) == [(pool, *OID, 1), (pool, *OID, 2)]
    c = restore(there, data, way)
    assert [c.get(pool, index=index) for index in range(4)] == [1, MISS, MISS, 4]


def test_t87_tracked_a_replacing_put_replaces_and_comes_too(a, door, there, way):
    """Ours: nothing is frozen, and what changes is sent again."""
    pool = a.new_pool(PP)
    for index in range(4):
        a.put(pool, index + 1, index=index)
    door.ask("tmem-save-begin", guest=name_of(a), mode="track")
    data = door.ask("tmem-save-next")["data"]
    assert [a.put(pool, 50, index=1), a.flush(pool, index=2), a.put(pool, 51, index=9)] == [Status.OK] * 3
    data += drain(door)
    c = restore(there, data, way)
    assert [c.get(pool, index=index) for index in (0, 1, 2, 3, 9)] == [1, 50, MISS, 4, 51]


def test_t88_no_pool_is_destroyed_during_a_save(a, door):
    pool = a.new_pool(PP)
    a.put(pool, 1)
    save(door, a, "live")
    assert a.destroy(pool) == Status.EBUSY
    assert a.get(pool) == 1
    door.ask("tmem-save-end")
    assert a.destroy(pool) == Status.OK


def test_t88_quirk_a_pool_destroyed_during_a_save_is_leaked(xen, new_caller):
    a = new_caller(xen)
    door = Door(xen.machine)
    pool = a.new_pool(PP)
    a.put(pool, noise(1))
    door.ask("tmem-save-begin", guest=name_of(a), mode="live")
    assert a.destroy(pool) == Status.OK
    assert a.get_status(pool) == Status.ENODEV
    assert len(a.store.catalogue) == 1, "unreachable, and there"
    door.close()
    xen.machine.bury(a.guest.domain, "left")
    assert len(xen.machine.store.catalogue) == 0


def test_t89_weight_and_cap_come_over(a, door, there, way):
    a.new_pool(PP)
    a.control.set_weight(a.number, 5)
    a.control.set_cap(a.number, 70)
    c = restore(there, save(door, a), way)
    assert (c.client.weight, c.client.cap, c.client.form) == (5, 70, a.client.form)


def test_t89_quirk_weight_and_cap_are_lost(a, door, xen, way):
    a.new_pool(PP)
    a.control.set_weight(a.number, 5)
    a.control.set_cap(a.number, 70)
    c = restore(xen, save(door, a), way)
    assert (c.client.weight, c.client.cap) == (0, 0)


def stream(*parts):
    """A stream of one guest: its client, and whatever else."""
    writer = Writer()
    return HEADER + writer.client(ClientFacts("comes", 0, 0, 0, False, 64, TOKEN)) + b"".join(
        getattr(writer, what)(*arguments) for what, *arguments in parts)


def test_t90_restore_begin_on_an_existing_client(a, door, ample):
    a.new_pool(PP)
    data = save(door, a)
    again = Door(ample.machine)
    again.ask("tmem-restore-begin")
    assert "is here already" in again.refused("tmem-restore-next", data=data)
    assert "no restore" in again.refused("tmem-restore-commit")


@pytest.mark.parametrize("what", ["pages", "gone"])
def test_t90_restore_into_an_absent_pool(there, what):
    handles, door = np.zeros(1, HANDLE), Door(there.machine)
    record = ("pages", 3, handles, np.zeros((1, PAGE_SIZE), np.uint8)) if what == "pages" else ("gone", 3, handles)
    door.ask("tmem-restore-begin")
    assert "pool 3 is none" in door.refused(
        "tmem-restore-next", data=stream(("pool", PoolFacts(2, PP, (0, 0), 1)), record))
    assert there.machine.store.clients.all() == []


def test_t90_room_too_small_for_a_page(a, door):
    pool = a.new_pool(PP)
    a.put(pool, 1)
    door.ask("tmem-save-begin", guest=name_of(a))
    assert door.refused("tmem-save-next", room=LEAST_ROOM - 1).startswith("ENOMEM")
    data, done = b"", False
    while not done:
        answer = door.ask("tmem-save-next", room=LEAST_ROOM)
        assert len(answer["data"]) <= LEAST_ROOM
        data, done = data + answer["data"], answer["done"]
    assert handles_sent(data) == [(pool, *OID, 0)], "nothing was lost by asking for too little"


def test_a_guest_that_has_moved_is_told_so(a, door, way):
    """Whatever it asks, but for what is not tmem's."""
    pool = a.new_pool(PP)
    a.put(pool, 1)
    save(door, a, "track")
    door.ask("tmem-save-end", moved="elsewhere")
    assert [a.put(pool, 1), a.get_status(pool), a.flush(pool), a.ask_pool(PP).status] == [Status.EMOVED] * 4
    assert a.destroy(pool) == Status.EMOVED
    assert a.call(Op.PING).status == Status.OK
    assert a.guest.domain.moved["cluster"] == "elsewhere"
    assert len(a.store.catalogue) == 0 and UUID not in a.store.pools.shared
