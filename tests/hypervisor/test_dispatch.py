"""Hypercalls, one at a time on a machine that stands still: what each answers, and what it leaves alone."""

import random
from contextlib import suppress

import msgpack
import numpy as np
import pytest
from peers import OID, Stage, multicall

from hypervisor.ledger import HEAP
from shm.abi import (
    ARGUMENTS,
    MULTICALL_LIMIT,
    PAGE_SIZE,
    TMEM_VERSION,
    U32,
    U64,
    VERSION_SHIFT,
    Op,
    PoolFlag,
    Status,
)
from shm.counters import HostCount
from shm.pagestate import Essa, State

EPHEMERAL = TMEM_VERSION << VERSION_SHIFT
PERSISTENT = EPHEMERAL | PoolFlag.PERSIST
PUT, GET, FLUSH = Op.PUT_PAGE, Op.GET_PAGE, Op.FLUSH_PAGE


def good_arguments(op):
    return [0 if limit != MULTICALL_LIMIT else 1 for limit in ARGUMENTS[op]]


def with_argument(op, place, value):
    arguments = good_arguments(op)
    arguments[place] = value
    return msgpack.packb([9, int(op), *arguments])


BYTES = {
    "nothing": b"", "no msgpack": b"\xc1", "half a message": b"\x95\x01",
    "trailing bytes": msgpack.packb([1, 200]) + b"\0", "nil": msgpack.packb(None), "a number": msgpack.packb(7),
    "a text": msgpack.packb("ping"), "a map": msgpack.packb({0: 1}), "an empty list": msgpack.packb([]),
    "only a seq": msgpack.packb([1]), "512 zeros": bytes(512), "512 times 0xff": b"\xff" * 512,
    "lists in lists": b"\x91" * 511 + b"\x01", "lists in an argument": b"\x93\x01\x04" + b"\x91" * 500 + b"\x01",
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x")), "text that is no UTF-8": b"\x92\x01\xa2\xff\xfe",
}
HEADERS = {f"seq {seq!r}": msgpack.packb([seq, 200]) for seq in (-1, 1 << 32, U64, "1", 1.0, True, None, [1])} | {
    f"operation {op!r}": msgpack.packb([9, op])
    for op in ("200", 200.0, None, True, [2])
}
UNKNOWN = (10, 11, 100, 103, 199, 255, 256, 299, -1, -200, 1 << 32, U64)


def bad_arguments(op):
    """Every place of `op`'s arguments with every wrong thing in it, and too few and too many of them."""
    for place, limit in enumerate(ARGUMENTS[op]):
        above = [limit + 1] if limit < U64 else []           # msgpack has no number after 2^64 - 1
        for value in (-1, -(1 << 63), *above, None, "0", 0.0, True, b"0", [0], {}):
            yield f"argument {place} is {value!r}", with_argument(op, place, value)
    good = good_arguments(op)
    for what, arguments in {"one too many": [*good, 0], "a hundred": [0] * 100, "one too few": good[:-1]}.items():
        if len(arguments) != len(good):
            yield what, msgpack.packb([9, int(op), *arguments])


JUNK = {"bytes": BYTES, "headers": HEADERS} | {op.name: dict(bad_arguments(op)) for op in Op}


@pytest.fixture
def stage(still_machine):
    return Stage(still_machine(budget=1024))


# Bytes that are no calls

@pytest.mark.parametrize("kind", JUNK)
def test_what_is_no_call_is_einval_and_changes_nothing(stage, kind):
    before = stage.picture()
    for errors, (what, message) in enumerate(JUNK[kind].items(), 1):
        assert stage.answer(message).status == Status.EINVAL, what
        assert stage.picture() == before, what
        assert stage.errors() == errors
    stage.prove_honest_unharmed()


@pytest.mark.parametrize("number", UNKNOWN)
def test_an_unknown_number_is_answered_with_0_and_changes_nothing(stage, number):
    """T28."""
    before = stage.picture()
    assert stage.answer(msgpack.packb([9, number])) == (9, Status.NO, 0)
    assert stage.picture() == before
    assert stage.errors() == 0
    stage.prove_honest_unharmed()


def test_an_error_names_the_request_that_it_answers(stage):
    assert stage.answer(msgpack.packb([77, 999])).seq == 77
    assert stage.answer(msgpack.packb([U32, int(Op.PUT_PAGE), -1])).seq == U32
    assert stage.answer(b"\xc1").seq == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_bytes_at_all_break_anything(stage, seed):
    """Real calls with bytes turned, cut, or all made up: an answer comes, and the honest guest loses nothing."""
    rng = random.Random(seed)
    for _ in range(200):
        op = rng.choice(list(Op))
        good = bytearray(msgpack.packb([7, int(op), *(rng.choice([0, 1, limit]) for limit in ARGUMENTS[op])]))
        for _ in range(rng.randint(0, 3)):
            good[rng.randrange(len(good))] = rng.randrange(256)
        message = rng.choice([bytes(good), bytes(good[:rng.randrange(len(good))]), rng.randbytes(rng.randrange(40))])
        assert stage.answer(message).status in set(Status)
    stage.prove_honest_unharmed()


def test_the_largest_numbers_allowed_are_used_as_they_are(stage):
    guest, top = stage.liar, (U64, U64, U64)
    guest.transfer.pages[0] = 0x77
    number = stage.ephemeral.number
    assert guest.channel.call(Op.PUT_PAGE, number, *top, U32).status == Status.OK
    assert guest.channel.call(Op.GET_PAGE, number, *top, U32 - 1).status == Status.NO
    assert guest.channel.call(Op.GET_PAGE, number, *top, U32).status == Status.OK


def test_ping(stage):
    assert stage.liar.channel.call(Op.PING)[1:] == (Status.OK, 0)


# Pools

@pytest.mark.parametrize("op", [PUT, GET, FLUSH, Op.FLUSH_OBJECT, Op.DESTROY_POOL])
def test_a_pool_that_is_not_its_own(stage, op):
    """T7, T10: no number of the liar's leads to a pool of the honest guest's."""
    before = stage.picture()
    for number in (2, 15, 16, 0x7FFFFFFF, U32):
        status = stage.liar.channel.call(op, number, *good_arguments(op)[1:]).status
        assert status == (Status.NO if op == Op.DESTROY_POOL else Status.ENODEV), number
        assert stage.picture() == before, number


def test_own_pools_with_the_honest_guests_handles_find_nothing(stage):
    """The same pool numbers, object ids and indexes: another guest's pages all the same (invariant 6)."""
    liar, transfer = stage.liar, stage.liar.transfer
    for pool in (0, 1):
        transfer.pages[0] = 0xEE
        assert liar.channel.call(PUT, pool, 9, 9, 9, 9).status == Status.OK
        assert liar.channel.call(GET, pool, *OID, 0).status == Status.NO
        assert liar.channel.call(FLUSH, pool, *OID, 1).status == Status.OK
        assert liar.channel.call(Op.FLUSH_OBJECT, pool, *OID).status == Status.OK
        assert liar.channel.call(Op.DESTROY_POOL, pool).status == Status.OK
    stage.prove_honest_unharmed()


@pytest.mark.parametrize("scheme", ["none", "swap", "cmm2", "baseline"])
def test_a_scheme_without_tmem_is_enodev_for_every_call(still_machine, scheme):
    """T8."""
    guest = still_machine(scheme=scheme).guest()
    for op in (Op.NEW_POOL, Op.DESTROY_POOL, PUT, GET, FLUSH, Op.FLUSH_OBJECT):
        arguments = [EPHEMERAL, 0, 0] if op == Op.NEW_POOL else good_arguments(op)
        assert guest.channel.call(op, *arguments).status == Status.ENODEV, op
    assert multicall(guest, *((op, 0, OID, 0, 0) for op in (PUT, GET, FLUSH))) == [Status.ENODEV] * 3


# Faults

BAD_GFNS = {"the page after the last": [300], "-1": [-1], "2^63 - 1": [(1 << 63) - 1], "-2^63": [-(1 << 63)],
            "a good one and a bad one": [3, 300], "a bad one and a good one": [-1, 3], "none": []}


@pytest.mark.parametrize("gfns", BAD_GFNS.values(), ids=BAD_GFNS.keys())
def test_a_fault_outside_the_guest_grants_nothing(stage, gfns):
    stage.liar.transfer.gfns[:len(gfns)] = gfns
    before = stage.picture()
    assert stage.liar.channel.call(Op.FAULT, len(gfns)).status == Status.EFAULT
    assert stage.picture() == before


def test_more_faults_than_the_buffer_holds_are_einval(stage):
    assert stage.answer(msgpack.packb([1, int(Op.FAULT), MULTICALL_LIMIT + 1])).status == Status.EINVAL
    assert stage.answer(msgpack.packb([1, int(Op.MULTICALL), MULTICALL_LIMIT + 1])).status == Status.EINVAL


def test_a_full_buffer_of_faults_is_granted(still_machine):
    guest = still_machine(budget=600).guest(pages=300)
    guest.transfer.gfns[:] = np.arange(MULTICALL_LIMIT)[::-1]
    assert guest.channel.call(Op.FAULT, MULTICALL_LIMIT)[1:] == (Status.OK, MULTICALL_LIMIT)


def test_one_page_named_often_is_granted_once(stage):
    stage.liar.transfer.gfns[:5] = [4, 4, 2, 4, 2]
    assert stage.liar.channel.call(Op.FAULT, 5)[1:] == (Status.OK, 2)
    assert stage.machine.ledger.held[stage.liar.domain.number] == 2
    assert stage.liar.channel.call(Op.FAULT, 5)[1:] == (Status.OK, 0), "they are there: look again"


@pytest.mark.parametrize("order", [Essa.SET_UNUSED, Essa.SET_VOLATILE, Essa.SET_POT_VOLATILE])
def test_a_page_that_may_not_be_touched_is_not_granted(stage, order):
    """U without a frame, and Vz: an honest guest would not ask."""
    stage.liar.essa(order, [5])
    stage.liar.transfer.gfns[0] = 5
    assert stage.liar.channel.call(Op.FAULT, 1)[1:] == (Status.OK, 0)
    assert stage.liar.domain.map.states(np.array([5])).tolist() in ([State.Uz], [State.Vz])


def test_no_frame_even_after_reclaim_is_enomem_and_an_honest_ledger(still_machine):
    still = still_machine(budget=64, swap=0)
    guest = still.guest(pages=200)
    guest.transfer.gfns[:64] = np.arange(64)
    assert guest.channel.call(Op.FAULT, 64)[1:] == (Status.OK, 64)
    guest.transfer.gfns[0] = 100
    assert guest.channel.call(Op.FAULT, 1)[1:] == (Status.ENOMEM, 0)
    assert (still.machine.ledger.used, guest.domain.ram.resident()) == (64, 64)
    assert guest.counts.refused_faults == 1


def test_a_batch_gets_what_there_is(still_machine):
    """Ten wanted, six left: some now, and the rest is asked for again."""
    still = still_machine(budget=64, swap=0)
    guest = still.guest(pages=200)
    guest.transfer.gfns[:58] = np.arange(58)
    guest.channel.call(Op.FAULT, 58)
    guest.transfer.gfns[:10] = np.arange(100, 110)
    status, granted = guest.channel.call(Op.FAULT, 10)[1:]
    assert status == Status.OK and 0 < granted <= 6
    assert still.machine.ledger.used == guest.domain.ram.resident() == 58 + granted


# What is counted

def test_calls_are_counted_by_what_they_were(stage):
    guest, pool = stage.honest, stage.pools[1]
    before = guest.counts
    pool.put(OID, 0, bytes(PAGE_SIZE))                       # a duplicate: stored
    pool.put_many(OID, [10, 11], np.zeros((2, PAGE_SIZE), np.uint8))
    pool.get(OID, 0)
    pool.get(OID, 99)
    pool.get_many(OID, [10, 98])
    pool.flush(OID, 1)
    pool.flush_many(OID, [2, 97])
    pool.flush_object(OID)
    assert pool.get(OID, 0) is None                          # EEMPTY: an answer, not an error
    with suppress(Exception):
        guest.tmem.call(Op.FLUSH_PAGE, 9, 0, 0, 0, 0)        # ENODEV: an error
    after = guest.counts
    gained = {name: getattr(after, name) - getattr(before, name) for name in vars(after)}
    assert {name: n for name, n in gained.items() if n} == {
        "hypercalls": 10, "multicalls": 3, "errors": 1, "tmem_puts": 3, "tmem_puts_stored": 3, "tmem_gets": 5,
        "tmem_hits": 2, "tmem_flushes": 5}


def test_every_count_of_the_heap_is_the_ledgers(stage):
    held = stage.machine.ledger.held[HEAP]
    assert held == stage.machine.heap.in_use + stage.machine.heap.spare == stage.machine.heap.object.resident()
    assert stage.machine.counts()[HostCount.TMEM_PUTS_STORED] == 8
