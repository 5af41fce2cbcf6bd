"""T32-T38: a put over a known handle replaces, or fails and leaves nothing: never the old page."""

import pytest
from caller import EP, ES, KINDS, MISS, PP, Caller, noise

from shm.abi import Op, Refusal, Status

EVERY_KIND = pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
PAIRS = [(1, 2), (4, 5), (5, 4), (0, 5), (5, 0), (6, 7), (7, 7), (0, 0)]


def leave_no_frame(a: Caller) -> None:
    """From now on the heap gets no frame, and has none to spare."""
    a.store.heap.room = lambda frames: False
    a.store.heap.trim(a.store.heap.spare)


def put_and_fail(a: Caller, pool: int) -> int:
    """Put a page that costs no frame, then one over it that finds none; return the answer."""
    a.one(Op.NEW_PAGE, pool)
    leave_no_frame(a)
    return a.put(pool, noise(1))


@EVERY_KIND
@pytest.mark.parametrize("pair", PAIRS)
def test_t32_the_second_page_is_got_never_the_first(a, flags, pair):
    pool = a.new_pool(flags)
    assert [a.put(pool, data) for data in pair] == [Status.OK] * 2
    assert a.get(pool) == pair[1]
    assert a.pool(pool).pages == (flags != EP)


FAILURES = {
    "no frame": put_and_fail,
    "bad source": lambda a, pool: (a.put(pool, 1), a.put_bad(pool))[1],
    "bad source of a part": lambda a, pool: (a.put(pool, 1), a.one(Op.WRITE, pool, slot=1 << 31))[1],
}


@EVERY_KIND
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_t33_a_failed_duplicate_put_leaves_nothing(a, flags, failure):
    pool = a.new_pool(flags)
    a.put(pool, 3, index=1)
    assert failure(a, pool) < 0
    assert a.get(pool) == MISS
    assert a.get(pool, index=1) in ((3,) if flags == PP else (3, MISS))


@pytest.mark.parametrize("flags", [PP, EP, ES], ids=["PP", "EP", "ES"])
def test_t34_no_room_for_a_duplicate_is_no_space(a, flags):
    pool = a.new_pool(flags)
    assert put_and_fail(a, pool) == Status.ENOSPC
    assert a.counts(pool) == {"pt": 2, "ps": 1, "pd": 1}
    assert a.refusal == Refusal.NO_FRAME
    assert a.pool(pool).pages == 0


@EVERY_KIND
@pytest.mark.parametrize("pair", PAIRS)
def test_t35_a_replacement_is_counted_and_adds_no_page(a, flags, pair):
    pool = a.new_pool(flags)
    for data in pair:
        assert a.put(pool, data) == Status.OK
    assert a.counts(pool) == {"pt": 2, "ps": 2, "pr": 1}
    assert a.pool(pool).pages == len(a.store.catalogue) == 1


@pytest.mark.parametrize("flags", [EP, ES], ids=["EP", "ES"])
def test_t36_a_duplicate_put_makes_nothing_younger(tight, new_caller, flags):
    a = new_caller(tight)
    pool = a.new_pool(flags)
    for index in range(8):
        a.put(pool, noise(index), index=index)
    assert a.put(pool, noise(20)) == Status.OK
    a.put(pool, noise(8), index=8)
    assert a.held(pool, range(9)) == list(range(1, 9))


@EVERY_KIND
@pytest.mark.parametrize("op", [Op.PUT_PAGE, Op.WRITE])
def test_t37_a_bad_source_stores_nothing(a, flags, op):
    pool = a.new_pool(flags)
    assert a.one(op, pool, slot=1000) == Status.EFAULT
    assert (a.count("CF"), a.pool(pool).pages) == (1, 0)
    a.put(pool, 1)
    assert a.one(op, pool, slot=1000) == Status.EFAULT
    assert (a.count("CF"), a.pool(pool).pages) == (2, 0)
    assert a.get(pool) == MISS
    assert a.counts(pool) == {"pt": 3, "ps": 1, "px": 1, "pd": 1}


def test_t38_replacing_at_the_limit_of_memory(a):
    """Here it replaces: a page that is there is allowed already."""
    pool, index = a.new_pool(PP), 0
    while a.put(pool, noise(index), index=index) == Status.OK:
        index += 1
    assert a.refusal == Refusal.MAX_MEM
    assert [a.put(pool, noise(1000 + known), index=known) for known in range(index)] == [Status.OK] * index
    assert [a.get(pool, index=known) for known in range(index)] == [noise(1000 + known) for known in range(index)]
    assert a.put(pool, noise(index), index=index) == Status.ENOMEM
