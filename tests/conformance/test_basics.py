"""T12-T31: put, get and flush; handles; parts of pages; what is unknown or privileged."""

import numpy as np
import pytest
from caller import BAD_SLOT, EP, ES, KINDS, MISS, OID, PP, page

from shm.abi import PAGE_SIZE, U32, U64, Op, Status

EVERY_KIND = pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
CONTENTS = range(12)         # every sort of page that `caller.page` makes
WINDOWS = [(0, 0, PAGE_SIZE), (100, 7, 900), (PAGE_SIZE - 1, 0, 1), (0, PAGE_SIZE - 8, 8), (50, 50, 0)]
BEYOND = [(PAGE_SIZE - 9, 0, 10), (0, PAGE_SIZE - 9, 10), (U32, 0, 1), (0, 0, U32), (0, PAGE_SIZE, 1)]


# put and get

@EVERY_KIND
def test_t12_a_hit_is_what_was_put_bit_for_bit(a, flags):
    pool = a.new_pool(flags)
    for data in CONTENTS:
        assert a.put(pool, data, index=data) == Status.OK
    assert [a.get(pool, index=data) in (data, MISS) for data in CONTENTS] == [True] * len(CONTENTS)


def test_t13_with_ample_memory_every_get_hits(a):
    pool = a.new_pool(EP)
    assert [a.put(pool, data, index=data) for data in range(200)] == [Status.OK] * 200
    assert [a.get(pool, index=data) for data in range(200)] == list(range(200))


def test_t14_a_get_takes_an_ephemeral_private_page_out(a):
    pool = a.new_pool(EP)
    for data in (1, 2):
        a.put(pool, data, index=data)
    assert [a.get_status(pool, index=1) for _ in range(3)] == [Status.OK, Status.NO, Status.NO]
    assert [a.get_status(pool, index=2) for _ in range(2)] == [Status.OK, Status.EEMPTY]


def test_t15_a_get_leaves_a_persistent_page(a):
    pool = a.new_pool(PP)
    a.put(pool, 7)
    assert [a.get(pool) for _ in range(4)] == [7] * 4


def test_t16_a_get_leaves_an_ephemeral_shared_page(a):
    pool = a.new_pool(ES)
    a.put(pool, 7)
    assert [a.get(pool) for _ in range(4)] == [7] * 4


@EVERY_KIND
def test_t17_a_get_of_what_was_never_put(a, flags):
    pool = a.new_pool(flags)
    a.put(pool, 1, index=1)
    assert a.get_status(pool, index=2) == a.get_status(pool, (9, 9, 9), 1) == Status.NO
    assert a.counts(pool)["gt"] == 2


@EVERY_KIND
def test_t18_a_get_from_an_empty_pool_is_not_counted(a, flags):
    pool = a.new_pool(flags)
    assert a.get_status(pool) == Status.EEMPTY
    a.put(pool, 1)
    a.flush(pool)
    assert a.get_status(pool) == Status.EEMPTY
    assert "gt" not in a.counts(pool)


def test_t18_a_multicall_empties_the_pool_on_its_way(a):
    """What follows the last hit finds the pool empty, as it would by single calls."""
    pool = a.new_pool(EP)
    for index in (0, 1):
        a.put(pool, 1, index=index)
    asked = (5, 0, 1, 7, 8)
    for row, index in enumerate(asked):
        a.enter(row, Op.GET_PAGE, pool, OID, index, row)
    a.call(Op.MULTICALL, len(asked))
    told = a.transfer.entries["status"][:len(asked)].tolist()
    assert told == [Status.NO, Status.OK, Status.OK, Status.EEMPTY, Status.EEMPTY]
    assert a.counts(pool)["gt"] == 3


@EVERY_KIND
def test_t19_a_put_copies(a, flags):
    pool = a.new_pool(flags)
    for data in CONTENTS:
        a.put(pool, data, index=data)
        a.transfer.pages[:] = 0xEE
    assert [a.get(pool, index=data) for data in CONTENTS] == list(CONTENTS)


@EVERY_KIND
def test_t20_a_miss_leaves_the_destination_alone(a, flags):
    pool = a.new_pool(flags)
    assert a.get(pool) == MISS                               # `Caller.get` looks at the page
    a.put(pool, 1, index=1)
    assert a.get(pool) == a.get(pool + 1) + MISS - Status.ENODEV == MISS


@EVERY_KIND
def test_t21_a_flushed_page_misses(a, flags):
    pool = a.new_pool(flags)
    for data in CONTENTS:
        a.put(pool, data, index=data)
        assert a.flush(pool, index=data) == Status.OK
        assert a.get(pool, index=data) == MISS


@EVERY_KIND
def test_t22_a_flush_of_what_is_not_there(a, flags):
    pool = a.new_pool(flags)
    assert a.flush(pool) == Status.OK
    a.put(pool, 1, index=1)
    assert a.flush(pool) == Status.OK
    assert a.counts(pool) == {"pt": 1, "ps": 1, "ft": 2}


@EVERY_KIND
def test_t23_flushing_an_object_drops_its_pages_alone(a, flags):
    pool, other = a.new_pool(flags), a.new_pool(PP)
    for index in (0, 1, U32):
        for where, oid in ((pool, OID), (pool, (1, 2, 4)), (other, OID)):
            a.put(where, 3, oid, index)
    assert [a.flush_object(pool), a.flush_object(pool, (8, 8, 8))] == [Status.OK, Status.OK]
    for index in (0, 1, U32):
        assert [a.get(pool, OID, index), a.get(pool, (1, 2, 4), index), a.get(other, OID, index)] == [MISS, 3, 3]
    assert (a.counts(pool)["ot"], a.counts(pool)["os"]) == (2, 1)


@EVERY_KIND
def test_t24_every_word_of_a_handle_counts(a, flags):
    pool = a.new_pool(flags)
    handles = [(oid, index) for oid in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (U64, U64, U64 - 1), (U64, 0, 0))
               for index in (0, 1, U32)]
    for data, (oid, index) in enumerate(handles):
        assert a.put(pool, data, oid, index) == Status.OK
    assert [a.get(pool, oid, index) for oid, index in handles] == list(range(len(handles)))


def test_t25_pools_and_guests_are_apart(a, b):
    places = [(who, who.new_pool(flags)) for who in (a, b) for flags in (PP, EP, PP)]
    for data, (who, pool) in enumerate(places):
        who.put(pool, data)
    a.flush(0)
    assert [who.get(pool) for who, pool in places] == [MISS, 1, 2, 3, 4, 5]


@EVERY_KIND
def test_t26_after_a_miss_nothing_comes_back(a, flags):
    pool = a.new_pool(flags)
    a.put(pool, 1)
    a.put(pool, 2, index=2)
    a.flush(pool)
    assert [a.get(pool) for _ in range(5)] == [MISS] * 5
    a.put(pool, 3)
    assert a.get(pool) == 3


@EVERY_KIND
def test_t27_flushing_twice_is_flushing_once(a, flags):
    pool = a.new_pool(flags)
    a.put(pool, 1)
    assert [a.flush(pool) for _ in range(3)] == [Status.OK] * 3
    assert a.counts(pool)["fs"] == 1


def test_t27_flushing_what_was_evicted(tight, new_caller):
    a = new_caller(tight)
    pool = a.new_pool(EP)
    for index in range(20):
        a.put(pool, 1, index=index)
    assert a.held(pool, [0]) == []
    assert a.flush(pool) == Status.OK
    assert "fs" not in a.counts(pool)


# what is unknown, privileged or bad

@pytest.mark.parametrize("number", [10, 11, 99, 103, 199, 250])
def test_t28_an_unknown_call_is_answered_with_0(a, number):
    a.new_pool()
    assert a.call(number).status == a.call(number, 1, 2, 3).status == Status.NO
    if number < 200:
        a.enter(0, number, 0)
        assert a.call(Op.MULTICALL, 1).status == Status.OK
        assert a.transfer.entries["status"][0] == Status.NO


PRIVILEGED = [(Op.CONTROL, (1, 0xFFFF, 0, 0)), (Op.AUTH, (0, 5, 6, 1)), (Op.RESTORE_NEW, (0, 3, EP, 0, 0))]


@pytest.mark.parametrize(("op", "arguments"), PRIVILEGED)
def test_t28_what_is_the_operators_is_refused(a, op, arguments):
    pool = a.new_pool()
    assert a.call(op, *arguments).status == Status.EPERM
    assert a.put(pool, 1) == Status.OK, "frozen by a guest"
    assert not a.client.authorised
    assert a.store.pools.get(a.number, 3) is None


@pytest.mark.parametrize(("op", "arguments"), PRIVILEGED)
def test_t28_xen_let_any_guest_do_it(xen, new_caller, op, arguments):
    a = new_caller(xen)
    a.new_pool()
    assert a.call(op, *arguments).status >= 0


@EVERY_KIND
@pytest.mark.parametrize("op", [Op.GET_PAGE, Op.READ])
def test_t28b_a_get_into_a_bad_frame(a, flags, op):
    pool = a.new_pool(flags)
    a.put(pool, 1)
    assert a.one(op, pool, slot=BAD_SLOT) == Status.EFAULT
    assert a.count("CF") == 1
    assert a.put(pool, 2) == Status.OK
    assert a.get(pool) == 2


# parts of pages

@EVERY_KIND
def test_t29_a_new_page_is_zero(a, flags):
    pool = a.new_pool(flags)
    a.put(pool, 5, index=1)
    for index in (0, 1):                                     # new, and over another
        assert a.one(Op.NEW_PAGE, pool, index=index) == Status.OK
        assert a.get(pool, index=index) == 0


@EVERY_KIND
@pytest.mark.parametrize("window", WINDOWS)
def test_t30_a_read_copies_its_window_alone(a, flags, window):
    pool, (offset, at, length) = a.new_pool(flags), window
    a.put(pool, 5)
    a.transfer.first[:] = page(6)
    assert a.one(Op.READ, pool, window=window) == Status.OK
    expected = page(6).copy()
    expected[at:at + length] = page(5)[offset:offset + length]
    assert np.array_equal(a.transfer.pages[0], expected)


@pytest.mark.parametrize("window", BEYOND)
@pytest.mark.parametrize("op", [Op.READ, Op.WRITE])
def test_t30_a_window_beyond_the_page_is_refused(a, op, window):
    pool = a.new_pool(PP)
    a.put(pool, 5)
    a.transfer.first[:] = page(6)
    assert a.one(op, pool, window=window) == Status.EINVAL
    assert np.array_equal(a.transfer.pages[0], page(6))
    assert a.get(pool) == 5


@pytest.mark.parametrize("window", BEYOND)
def test_t30_xen_copied_nothing_and_said_yes(xen, new_caller, window):
    a = new_caller(xen)
    pool = a.new_pool(PP)
    a.put(pool, 5)
    a.transfer.first[:] = page(6)
    assert a.one(Op.READ, pool, window=window) == Status.OK
    assert np.array_equal(a.transfer.pages[0], page(6))


@EVERY_KIND
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("known", [False, True])
def test_t31_a_write_leaks_nothing_around_its_window(a, b, flags, window, known):
    """Foreign data lies in the frames that the write may get; a known page keeps what is around the window."""
    theirs = b.new_pool(EP)
    for index in range(40):
        b.put(theirs, 5, index=index)
    b.flush_object(theirs)
    pool, (offset, at, length) = a.new_pool(flags), window
    expected = page(9 if known else 0).copy()
    if known:
        a.put(pool, 9)
    a.transfer.first[:] = page(6)
    assert a.one(Op.WRITE, pool, window=window) == Status.OK
    expected[offset:offset + length] = page(6)[at:at + length]
    assert a.get_status(pool) == Status.OK
    assert np.array_equal(a.transfer.pages[0], expected)
