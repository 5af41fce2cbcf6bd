"""A pool on volatile pages: what it does where a caller could be misled."""

import numpy as np
import pytest

from guests.mappings.volatile_pool import VolatilePool
from shm.abi import PAGE_SIZE, Refusal
from shm.errors import OutOfMemory, TmemRefused, UsageProblem
from shm.pagestate import Essa, State

ROOM = 4


def page(number: int) -> bytes:
    return bytes([number]) * PAGE_SIZE


def pages(*numbers: int) -> np.ndarray:
    return np.array([[number] * PAGE_SIZE for number in numbers], np.uint8)


@pytest.fixture
def guest(still_machine):
    return still_machine(64, "cmm2+tmem").guest(pages=16)


@pytest.fixture
def pool(guest):
    return VolatilePool(guest, range(8, 8 + ROOM))


def discard(guest, *gfns):
    guest.machine.cmm2.evict(guest.domain, np.array(gfns or range(8, 8 + ROOM), np.int64))


def states(guest):
    return [State(state).name for state in guest.map.states(np.arange(8, 8 + ROOM))]


def test_what_was_put_is_got_once_and_its_page_is_unused_then(guest, pool):
    assert pool.put(1, 0, page(5))
    assert sorted(states(guest)) == ["Uz", "Uz", "Uz", "Vr"]
    assert [pool.get(1, 0), pool.get(1, 0)] == [page(5), None]
    assert not set(states(guest)) - {"Ur", "Uz"}
    assert len(pool) == 0


def test_a_discarded_page_is_a_miss_and_a_part_of_it_is_made_of_zeros(guest, pool):
    pool.put_many(1, [0, 1], pages(1, 2))
    discard(guest)
    assert pool.get(1, 0) is None
    assert pool.write(1, 1, 4000, b"x" * 96)
    assert pool.get(1, 1) == bytes(4000) + b"x" * 96


def test_the_oldest_put_goes_first_and_a_put_over_it_makes_it_no_younger(pool):
    pool.put_many(1, range(ROOM), pages(*range(ROOM)))
    assert pool.put(1, 0, page(9))
    assert pool.put(1, ROOM, page(4))
    hits, got = pool.get_many(1, range(ROOM + 1))
    assert hits.tolist() == [False, True, True, True, True]
    assert got[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_discarded_ones_make_room_before_the_oldest(guest, pool):
    pool.put_many(1, range(ROOM), pages(*range(ROOM)))
    victim = pool._pages[(1, 0, 0), 2]
    discard(guest, victim)
    pool.put(1, ROOM, page(4))
    assert pool.get_many(1, range(ROOM + 1))[0].tolist() == [True, True, False, True, True]


def test_in_a_batch_the_last_of_one_handle_counts_and_the_first_get_has_it(pool):
    assert pool.put_many(1, [0, 1, 0], pages(1, 2, 3)).all()
    hits, got = pool.get_many(1, [0, 0, 1])
    assert hits.tolist() == [True, False, True]
    assert got[:, 0].tolist() == [3, 0, 2]


def test_a_batch_larger_than_the_region_leaves_its_youngest(pool):
    assert pool.put_many(1, range(ROOM + 2), pages(*range(1, ROOM + 3))).all()
    hits, got = pool.get_many(1, range(ROOM + 2))
    assert hits.tolist() == [False] * 2 + [True] * ROOM
    assert got[:, 0].tolist() == [0, 0, 3, 4, 5, 6]


def test_a_page_that_a_batch_drops_for_its_own_end_is_free_and_unused(guest, pool):
    pool.put_many(1, range(ROOM), pages(*range(ROOM)))
    discard(guest)
    assert pool.put_many(1, [0, ROOM, ROOM + 1], pages(9, 8, 7)).all()
    assert states(guest).count("Vr") == len(pool) == 2
    hits, got = pool.get_many(1, [0, ROOM, ROOM + 1])
    assert hits.tolist() == [False, True, True]
    assert got[:, 0].tolist() == [0, 8, 7]


@pytest.mark.parametrize("way", ["single", "many"])
def test_a_refused_put_leaves_nothing_and_gives_its_page_back(guest, pool, monkeypatch, way):
    pool.put(1, 0, page(1))
    discard(guest)
    monkeypatch.setattr(guest.memory, "_ask", lambda gfns: False)
    stored = [pool.put(1, 0, page(2))] if way == "single" else pool.put_many(1, [0, 1], pages(2, 3)).tolist()
    assert not any(stored)
    assert pool.refusal == Refusal.NO_FRAME
    assert way == "single" or (pool.refusals == Refusal.NO_FRAME).all()
    monkeypatch.undo()
    assert pool.get(1, 0) is None
    assert set(states(guest)) == {"Uz"}
    assert pool.put_many(1, range(ROOM), pages(*range(ROOM))).all()
    assert pool.get_many(1, range(ROOM))[0].all()


@pytest.mark.parametrize("way", ["single", "many"])
def test_a_page_that_the_host_took_between_make_stable_and_read_is_a_miss(guest, pool, monkeypatch, way):
    pool.put(1, 0, page(1))

    def no_frame(*_):
        raise OutOfMemory("none")

    monkeypatch.setattr(guest.memory, "read" if way == "single" else "read_many", no_frame)
    assert pool.get(1, 0) is None if way == "single" else not pool.get_many(1, [0])[0].any()
    monkeypatch.undo()
    assert pool.get(1, 0) is None
    assert not set(states(guest)) - {"Ur", "Uz"}


def test_a_destroyed_pool_answers_nobody_and_leaves_its_pages_unused(guest, pool):
    pool.put_many(1, range(ROOM), pages(*range(ROOM)))
    pool.destroy()
    assert set(states(guest)) == {"Ur"}
    for call in (lambda: pool.put(1, 0, page(1)), lambda: pool.get(1, 0), lambda: pool.flush(1, 0),
                 lambda: pool.flush_object(1), lambda: pool.get_many(1, [0])):
        with pytest.raises(TmemRefused, match="destroyed"):
            call()


def test_what_can_be_no_handle_page_or_region_is_told_before_anything_is_done(guest, pool):
    for call in (lambda: pool.put(1, -1, page(1)), lambda: pool.put(1, 0, b"short"),
                 lambda: pool.put((1, 2), 0, page(1)),
                 lambda: pool.write(1, 0, 4090, b"x" * 8), lambda: pool.put_many(1, [0], pages(1, 2))):
        with pytest.raises(ValueError):
            call()
    assert len(pool) == 0
    with pytest.raises(UsageProblem, match="one page at least"):
        VolatilePool(guest, [])


def test_the_region_alone_is_hinted(guest, pool):
    guest.memory.write(0, page(7))
    pool.put_many(1, range(ROOM + 3), pages(*range(ROOM + 3)))
    pool.destroy()
    assert guest.memory.read(0) == page(7)
    assert not guest.essa(Essa.GET_STATE, [*range(8), *range(8 + ROOM, 16)]).astype(bool)[0]
