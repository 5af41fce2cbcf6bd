"""T92-T97: what the forms of storage promise; T91, that they look the same, is in `test_trace`."""

import numpy as np
import pytest
from caller import EP, KINDS, PP, Caller, noise

from hypervisor.tmem.forms import KIND_SHIFT, Form, Kind, length_of
from shm.abi import PAGE_SIZE, Op, Status

SHRINKS, ZERO = 4, 0         # a content that every form makes shorter, and all zeros
TZE_LIMIT = 4032             # bytes that remain (T93)


@pytest.fixture
def storing(still_machine, way):
    """`storing(form)`: a guest of an ample machine whose pages are stored so."""
    return lambda form, **more: Caller(still_machine(1024, "tmem", 0, form=form, **more), way, max_pages=256)


def place(a: Caller, pool: int, index: int = 0) -> int:
    serial = a.pool(pool).serial
    return int(a.store.catalogue.places[a.store.catalogue.find(serial, (1, 2, 3), index)])


def kind(a: Caller, pool: int, index: int = 0) -> Kind:
    return Kind(place(a, pool, index) >> KIND_SHIFT)


def tail(length: int) -> np.ndarray:
    """Return a page whose first `length` bytes are not zero."""
    made = np.zeros(PAGE_SIZE, np.uint8)
    made[:length] = 7
    return made


def put_bytes(a: Caller, pool: int, data: np.ndarray, index: int = 0) -> int:
    a.transfer.pages[0] = data
    return a.one(Op.PUT_PAGE, pool, index=index)


def test_t92_what_does_not_shrink_is_stored_raw(storing):
    a = storing("lz4")
    pool = a.new_pool(EP)
    assert [a.put(pool, noise(index), index=index) for index in range(3)] == [Status.OK] * 3
    assert a.put(pool, SHRINKS, index=3) == Status.OK
    assert [kind(a, pool, index) for index in range(4)] == [Kind.RAW, Kind.RAW, Kind.RAW, Kind.LZ4]
    assert a.store.storage.figures()["cn"] == 3


@pytest.mark.parametrize("form", ["lz4", "dedup", "tze"])
def test_t93_an_all_zero_page_costs_no_data(storing, form):
    a = storing(form)
    pool = a.new_pool(EP)
    for index in range(200):
        assert a.put(pool, ZERO, index=index) == Status.OK
    assert (a.store.heap.in_use, a.pool(pool).pages) == (0, 200)
    assert [a.get(pool, index=index) for index in range(200)] == [ZERO] * 200


@pytest.mark.parametrize("length", [1, 7, 8, 9, 64, 1000, 2048, 4025, TZE_LIMIT - 1, TZE_LIMIT])
def test_t93_trailing_zeros_are_cut_off_in_words(storing, length):
    a = storing("tze")
    pool = a.new_pool(EP)
    put_bytes(a, pool, tail(length))
    assert kind(a, pool) == Kind.TZE
    assert length_of(place(a, pool)) == -(-length // 8) * 8
    a.transfer.pages[0] = 0xEE
    assert a.get_status(pool) == Status.OK
    assert np.array_equal(a.transfer.pages[0], tail(length))


@pytest.mark.parametrize("length", [TZE_LIMIT + 1, TZE_LIMIT + 8, PAGE_SIZE])
def test_t93_a_page_with_few_trailing_zeros_stays_raw(storing, length):
    a = storing("tze")
    pool = a.new_pool(EP)
    put_bytes(a, pool, tail(length))
    assert kind(a, pool) == Kind.RAW


def test_t94_equal_pages_share_a_frame_until_the_last_goes(storing):
    a = storing("dedup")
    pool = a.new_pool(EP)
    for index in range(10):
        assert a.put(pool, SHRINKS, index=index) == Status.OK
    assert a.store.heap.in_use == 1
    for index in range(9):
        a.flush(pool, index=index)
    assert a.store.heap.in_use == 1
    assert a.get(pool, index=9) == SHRINKS
    assert a.store.heap.in_use == 0


def test_t94_persistent_pages_do_not_share(storing):
    a = storing("dedup")
    pool = a.new_pool(PP)
    for index in range(10):
        a.put(pool, SHRINKS, index=index)
    assert a.store.heap.in_use == 10


@pytest.mark.parametrize("other", [SHRINKS + 4, ZERO, noise(3)])
def test_t95_overwriting_one_of_two_equal_pages(storing, other):
    a = storing("dedup")
    pool = a.new_pool(EP)
    for index in (0, 1):
        a.put(pool, SHRINKS, index=index)
    assert a.put(pool, other, index=0) == Status.OK
    assert [a.get(pool, index=index) for index in (0, 1)] == [other, SHRINKS]


def test_t96_compression_ends_tze(storing):
    a = storing("tze")
    pool = a.new_pool(EP)
    put_bytes(a, pool, tail(100))
    assert a.control.set_compress(a.number, 1) == 0
    assert a.client.form == Form.LZ4
    put_bytes(a, pool, tail(100), 1)
    put_bytes(a, pool, tail(100), 2)
    put_bytes(a, pool, tail(200), 0)
    assert [kind(a, pool, index) for index in range(3)] == [Kind.LZ4] * 3


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("room", [True, False], ids=["room", "no room"])
def test_t97_no_answer_tells_what_others_hold(still_machine, way, form, flags, room):
    """The same calls with and without another guest that holds the same pages: the same answers."""
    def answers(others: bool) -> list[int]:
        still = still_machine(1024, "tmem", 0, form=form)
        b, a = Caller(still, way, max_pages=256), Caller(still, way, max_pages=256)
        theirs = b.new_pool(flags, (9, 9))
        for index in range(8):
            b.put(theirs, noise(index if others else 100 + index), index=index)
        mine = a.new_pool(flags)
        if not room:
            a.store.heap.room = lambda frames: False
            a.store.heap.trim(a.store.heap.spare)
        puts = [(a.put(mine, noise(index), index=index), a.refusal) for index in range(8)]
        return [*puts, *(a.get(mine, index=index) for index in range(8)), *a.counts(mine).items(), a.flush(mine)]

    assert answers(True) == answers(False)


@pytest.mark.parametrize(("across", "frames"), [(False, 2), (True, 1)])
def test_t97_equal_pages_of_two_guests_share_a_frame_only_when_asked(still_machine, way, across, frames):
    """Off by default: the time that a put takes would tell what others hold."""
    still = still_machine(1024, "tmem", 0, form="dedup", **({"dedup_across": True} if across else {}))
    for guest in (Caller(still, way), Caller(still, way)):
        guest.put(guest.new_pool(EP), SHRINKS)
    assert still.machine.store.heap.in_use == frames
