"""Multicalls: entries in order, each with its status, whatever they say and however they change in flight."""

import numpy as np
import pytest
from peers import OID, Stage, multicall, statuses, write_entries

from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, U32, Op, Refusal, Status

PUT, GET, FLUSH = Op.PUT_PAGE, Op.GET_PAGE, Op.FLUSH_PAGE


@pytest.fixture
def stage(still_machine):
    return Stage(still_machine(budget=1024))


def test_nothing_at_all(stage):
    assert stage.liar.channel.call(Op.MULTICALL, 0)[1:] == (Status.OK, 0)


def test_entries_are_carried_out_in_order(stage):
    """Put, get, get, put, flush, get of one handle, and a stranger between: as if called one after the other."""
    guest, pool = stage.liar, stage.ephemeral.number
    guest.transfer.pages[0], guest.transfer.pages[1] = 0x11, 0x22
    other = (8, 8, 8)
    assert multicall(guest, (PUT, pool, OID, 0, 0), (PUT, pool, other, 0, 1), (GET, pool, OID, 0, 5),
                     (GET, pool, OID, 0, 6), (PUT, pool, OID, 0, 1), (FLUSH, pool, OID, 0, 0),
                     (GET, pool, OID, 0, 7)) == [Status.OK, Status.OK, Status.OK, Status.NO, Status.OK, Status.OK,
                                                 Status.NO]
    assert (guest.transfer.pages[5] == 0x11).all() and not guest.transfer.pages[6:8].any()
    assert stage.ephemeral.get(other, 0) == b"\x22" * PAGE_SIZE


def test_pools_and_operations_may_be_mixed(stage):
    guest, here, there = stage.liar, stage.ephemeral.number, stage.persistent.number
    guest.transfer.pages[0], guest.transfer.pages[1] = 0x11, 0x22
    assert multicall(guest, (PUT, here, OID, 0, 0), (PUT, there, OID, 0, 1), (GET, here, OID, 0, 2),
                     (GET, there, OID, 0, 3)) == [Status.OK] * 4
    assert [int(guest.transfer.pages[slot][9]) for slot in (2, 3)] == [0x11, 0x22]


def test_one_handle_put_twice_in_one_multicall_holds_the_second_page(stage):
    """T32 within a batch."""
    guest, pool = stage.liar, stage.persistent.number
    guest.transfer.pages[:3] = np.array([[1], [2], [3]], np.uint8)
    assert multicall(guest, (PUT, pool, OID, 0, 0), (PUT, pool, OID, 1, 1), (PUT, pool, OID, 0, 2)) == [Status.OK] * 3
    assert stage.persistent.get(OID, 0)[0] == 3
    assert guest.counts.tmem_puts == guest.counts.tmem_puts_stored == 3


def test_one_handle_got_twice_in_one_multicall_hits_once(stage):
    """T14 within a batch."""
    guest, pool = stage.liar, stage.ephemeral.number
    stage.ephemeral.put(OID, 0, b"\x07" * PAGE_SIZE)
    stage.ephemeral.put(OID, 1, b"\x08" * PAGE_SIZE)
    assert multicall(guest, (GET, pool, OID, 0, 0), (GET, pool, OID, 0, 1)) == [Status.OK, Status.NO]
    assert (guest.counts.tmem_gets, guest.counts.tmem_hits) == (2, 1)


@pytest.mark.parametrize("slot", [MULTICALL_LIMIT, MULTICALL_LIMIT + 1, 0x7FFFFFFF, U32])
def test_a_slot_outside_the_buffer(stage, slot):
    """T28b, T37: EFAULT for that entry; a bad put of a known handle flushes it; the neighbours go on."""
    guest, pool = stage.liar, stage.persistent.number
    guest.transfer.pages[0] = 0x11
    assert multicall(guest, (PUT, pool, OID, 0, 0), (PUT, pool, OID, 1, slot), (PUT, pool, OID, 2, 0)) == [
        Status.OK, Status.EFAULT, Status.OK]
    assert multicall(guest, (GET, pool, OID, 0, slot), (GET, pool, OID, 2, 4)) == [Status.EFAULT, Status.OK]
    assert multicall(guest, (PUT, pool, OID, 2, slot), (GET, pool, OID, 0, 5)) == [Status.EFAULT, Status.OK]
    assert multicall(guest, (FLUSH, pool, OID, 0, slot)) == [Status.OK], "a flush needs no page"
    assert stage.persistent.get(OID, 2) is None
    stage.prove_honest_unharmed()


NO_PAGE_OPERATIONS = [
    (Op.CONTROL, Status.EPERM), (Op.AUTH, Status.EPERM), (Op.RESTORE_NEW, Status.EPERM), (Op.NEW_POOL, Status.EINVAL),
    (Op.DESTROY_POOL, Status.EINVAL), (Op.PING, Status.EINVAL), (Op.FAULT, Status.EINVAL),
    (Op.MULTICALL, Status.EINVAL), (U32, Status.EINVAL), (10, Status.NO), (199, Status.NO),
]


@pytest.mark.parametrize(("op", "status"), NO_PAGE_OPERATIONS)
def test_an_entry_that_is_no_page_operation(stage, op, status):
    """A status for that entry alone: no pool is made, no multicall in a multicall; T28 for what is unknown."""
    guest, pool, before = stage.liar, stage.ephemeral.number, len(stage.machine.store.pools.all())
    assert multicall(guest, (PUT, pool, OID, 0, 0), (op, pool, OID, 0, 0), (GET, pool, OID, 0, 0)) == [
        Status.OK, status, Status.OK]
    assert len(stage.machine.store.pools.all()) == before


def test_entries_for_pools_that_are_not_its_own(stage):
    guest = stage.liar
    stage.liar.channel.call(Op.DESTROY_POOL, 1)
    rows = [(op, pool, OID, index, index) for op in (PUT, GET, FLUSH) for pool in (1, 15, 16, U32) for index in (0, 1)]
    assert multicall(guest, *rows) == [Status.ENODEV] * len(rows)
    stage.prove_honest_unharmed()


def test_entries_beyond_the_count_are_not_looked_at(stage):
    guest, pool = stage.liar, stage.ephemeral.number
    write_entries(guest.transfer, [(PUT, pool, OID, n, n) for n in range(4)])
    assert guest.channel.call(Op.MULTICALL, 2)[1:] == (Status.OK, 2)
    assert stage.machine.store.pages_of(guest.domain.number, persistent=False) == 2


# What almost is a run of neighbours: each is (first index, first slot, step of the slot), and the statuses of a put.
ALMOST = {
    "a run": (5, 3, 1, [Status.OK] * 4),
    "to the last slot": (0, MULTICALL_LIMIT - 4, 1, [Status.OK] * 4),
    "beyond the last slot": (0, MULTICALL_LIMIT - 3, 1, [Status.OK] * 3 + [Status.EFAULT]),
    "to the last index": (U32 - 3, 0, 1, [Status.OK] * 4),
    "around the last index": (U32 - 1, 0, 1, [Status.OK] * 4),
    "slots backwards": (0, 9, -1, [Status.OK] * 4),
    "one slot": (0, 2, 0, [Status.OK] * 4),
}


@pytest.mark.parametrize(("index", "slot", "step", "expected"), ALMOST.values(), ids=ALMOST)
def test_neighbours_are_put_got_and_flushed_as_one_by_one(stage, index, slot, step, expected):
    guest, pool = stage.liar, stage.ephemeral
    for at in range(4):
        guest.transfer.pages[(slot + at * step) % MULTICALL_LIMIT] = 10 + at
    rows = [(pool.number, OID, (index + at) % (U32 + 1), slot + at * step) for at in range(4)]
    assert multicall(guest, *((PUT, *row) for row in rows)) == expected
    kept = [10 + at for at in range(4)] if step else [13] * 4            # one slot: what was written to it last
    for at, row in enumerate(rows):
        if expected[at] == Status.OK:
            assert pool.get(OID, row[2]) == bytes([kept[at]]) * PAGE_SIZE
            assert pool.put(OID, row[2], bytes([at]) * PAGE_SIZE)
    guest.transfer.pages[:] = 0xEE
    assert multicall(guest, *((GET, *row) for row in rows)) == expected
    for at, row in enumerate(rows):
        if expected[at] == Status.OK and step:
            assert (guest.transfer.pages[row[3]] == at).all()
    after = multicall(guest, (PUT, *rows[0]), (GET, *rows[1]), *((FLUSH, *row) for row in rows), (GET, *rows[0]))
    assert after == [Status.OK, Status.NO, *[Status.OK] * 4, Status.EEMPTY]


def test_indexes_that_begin_again_while_slots_skip_one(stage):
    """What the index lacks, the slot has too much: the words of the entries rise as those of a run do."""
    guest, pool = stage.liar, stage.ephemeral
    guest.transfer.pages[:5] = np.arange(5, dtype=np.uint8)[:, None]
    handles = [(U32 - 1, 0), (U32, 1), (0, 3), (1, 4)]
    assert multicall(guest, *((PUT, pool.number, OID, index, slot) for index, slot in handles)) == [Status.OK] * 4
    assert [pool.get(OID, index)[0] for index, _ in handles] == [slot for _, slot in handles]


def test_a_run_of_an_operation_that_is_none(stage):
    guest, pool = stage.liar, stage.ephemeral.number
    assert multicall(guest, *((Op.AUTH, pool, OID, at, at) for at in range(3))) == [Status.EPERM] * 3
    assert multicall(guest, *((77, pool, OID, at, at) for at in range(3))) == [Status.NO] * 3


def test_a_refused_page_of_a_run_says_why_and_an_old_reason_is_not_read(stage):
    """The reasons in the buffer are the last refused call's until a call is refused again."""
    guest, pool = stage.liar, stage.ephemeral
    stage.machine.store.clients.frozen = True
    assert not pool.put_many(OID, range(3), guest.transfer.pages[:3].copy()).any()
    assert pool.refusals.tolist() == [Refusal.FROZEN] * 3
    stage.machine.store.clients.frozen = False
    assert pool.put_many(OID, range(3), guest.transfer.pages[:3].copy()).all()
    assert pool.refusals.tolist() == [Refusal.NONE] * 3
    stage.machine.store.clients.frozen = True
    stored = pool.put_many(OID, range(1, 5), guest.transfer.pages[:4].copy())
    assert stored.tolist() == [True, True, False, False]
    assert pool.refusals.tolist() == [Refusal.NONE] * 2 + [Refusal.FROZEN] * 2


@pytest.mark.parametrize("seed", range(10))
def test_any_numbers_in_the_entries(stage, seed):
    """Whatever 256 entries say, each gets a status, and the honest guest loses nothing."""
    rng = np.random.default_rng(seed)
    guest = stage.liar
    raw = rng.integers(0, 256, guest.transfer.entries.nbytes, np.uint8)
    guest.transfer.entries[:] = raw.view(guest.transfer.entries.dtype)
    plausible = rng.random(MULTICALL_LIMIT) < 0.7
    guest.transfer.entries["op"][plausible] = rng.choice([PUT, GET, FLUSH], np.count_nonzero(plausible))
    guest.transfer.entries["pool"][rng.random(MULTICALL_LIMIT) < 0.7] = rng.choice([0, 1])
    guest.transfer.entries["slot"][rng.random(MULTICALL_LIMIT) < 0.7] %= MULTICALL_LIMIT
    assert guest.channel.call(Op.MULTICALL, MULTICALL_LIMIT).status == Status.OK
    assert set(statuses(guest.transfer, MULTICALL_LIMIT)) <= set(Status)
    stage.prove_honest_unharmed()


# What changes in the buffer while the call is carried out

def meanwhile(monkeypatch, owner, name, work):
    """Have `work` done at the moment when `owner.name` is called, before it begins."""
    real = getattr(owner, name)

    def parked(*arguments):
        work()
        return real(*arguments)

    monkeypatch.setattr(owner, name, parked)


@pytest.mark.parametrize("name", ["put_many", "get_many", "flush_many"])
def test_entries_turned_while_they_are_carried_out(stage, monkeypatch, name):
    """The race of check and use: all of an entry is turned after it was looked at."""
    guest, pool, entries = stage.liar, stage.ephemeral.number, stage.liar.transfer.entries
    guest.transfer.pages[0], guest.transfer.pages[200] = 0x11, 0x66

    def turn():
        entries["op"], entries["pool"], entries["slot"], entries["oid"], entries["index"] = FLUSH, U32, 200, 9, 9

    statuses_of = {}
    for row, call in ((PUT, "put_many"), (GET, "get_many"), (PUT, "put"), (FLUSH, "flush_many"), (GET, "get")):
        with monkeypatch.context() as race:
            if call == name:
                meanwhile(race, stage.machine.store, name, turn)
            statuses_of[call] = multicall(guest, (row, pool, OID, 0, 0 if row == PUT else 3))
    assert statuses_of == {"put_many": [Status.OK], "get_many": [Status.OK], "put": [Status.OK],
                           "flush_many": [Status.OK], "get": [Status.EEMPTY]}
    assert (guest.transfer.pages[3] == 0x11).all()


def test_faults_turned_while_they_are_granted(stage, monkeypatch):
    """Frame numbers that were in the guest when they were checked are used as they were then."""
    guest = stage.liar
    meanwhile(monkeypatch, stage.machine.cmm2, "wanting", lambda: guest.transfer.gfns.fill(1 << 40))
    guest.transfer.gfns[:3] = [7, 3, 5]
    assert guest.channel.call(Op.FAULT, 3)[1:] == (Status.OK, 3)
    assert np.flatnonzero(guest.domain.resident_mask()).tolist() == [3, 5, 7]


@pytest.mark.parametrize("batch", [False, True], ids=["single", "in a batch"])
def test_a_page_changed_after_the_reply_is_stored_as_it_was(stage, batch):
    """T19 through the buffer: the store holds a copy, not a view."""
    guest, pool = stage.liar, stage.persistent.number
    guest.transfer.pages[:2] = 0x33
    rows = [(PUT, pool, OID, 0, 0), (PUT, pool, OID, 1, 1)]
    if batch:
        multicall(guest, *rows)
    else:
        guest.channel.call(PUT, pool, *OID, 0)
    guest.transfer.pages[:] = 0x44
    assert stage.persistent.get(OID, 0) == b"\x33" * PAGE_SIZE
