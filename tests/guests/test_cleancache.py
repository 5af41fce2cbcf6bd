"""Cleancache over a pool that may refuse and forget."""

import random

import numpy as np
import pytest
from fakes import FakeTmem, block_contents

from guests.cleancache import Cleancache
from shm.abi import U32
from shm.counters import Count


class Calls:
    """A pool that notes what is called."""

    def __init__(self, pool) -> None:
        self.pool, self.made = pool, []

    def __getattr__(self, name):
        self.made.append(name)
        return getattr(self.pool, name)


@pytest.fixture
def counters() -> np.ndarray:
    return np.zeros(512, np.uint64)


@pytest.fixture
def tmem() -> FakeTmem:
    return FakeTmem(random.Random(1), capacity=1000, refuse=0, forget=0, pools=16)


@pytest.fixture
def pool(tmem) -> Calls:
    return Calls(tmem.new_pool(persistent=False))


@pytest.fixture
def cleancache(pool, counters) -> Cleancache:
    return Cleancache(pool, counters.data)


def put(cleancache, *handles) -> None:
    cleancache.put_many(list(handles), block_contents([inode * 100 + index for inode, index in handles]))


def contents(*handles) -> np.ndarray:
    return block_contents([inode * 100 + index for inode, index in handles])


def test_a_get_takes_the_page_out(cleancache, counters):
    put(cleancache, (1, 5))
    assert cleancache.get(1, 5) == contents((1, 5))[0].tobytes()
    assert cleancache.get(1, 5) is None
    assert counters[Count.CLEANCACHE_PUTS] == 1
    assert (counters[Count.CLEANCACHE_GETS], counters[Count.CLEANCACHE_HITS]) == (2, 1)


def test_a_batch_of_several_files_is_one_call(cleancache, pool, counters):
    put(cleancache, (1, 5), (2, 5), (1, 6))
    assert pool.made == ["put_many"]
    hit, pages = cleancache.get_many(1, [4, 5, 6])
    assert hit.tolist() == [False, True, True]
    assert np.array_equal(pages[hit], contents((1, 5), (1, 6)))
    assert cleancache.get(2, 5) == contents((2, 5))[0].tobytes()
    assert (counters[Count.CLEANCACHE_GETS], counters[Count.CLEANCACHE_HITS]) == (4, 3)


def test_an_invalidate_makes_gets_miss_and_costs_a_call_only_where_there_was_a_put(cleancache, pool, counters):
    put(cleancache, (1, 5), (1, 6), (1, 7))
    pool.made.clear()
    cleancache.invalidate(1, [0, 5, 6, 99])
    cleancache.invalidate(1, [5, 6])
    cleancache.invalidate(9, [5])
    assert pool.made == ["flush_many"]
    assert counters[Count.CLEANCACHE_INVALIDATES] == 2
    assert [cleancache.get(1, index) is not None for index in (5, 6, 7)] == [False, False, True]


@pytest.mark.parametrize(("cut", "calls", "left"), [
    (0, ["flush_object"], []),
    (6, ["flush_many"], [5]),
    (8, [], [5, 6, 7]),
])
def test_a_truncation_invalidates_what_lies_behind_it(cleancache, pool, tmem, cut, calls, left):
    put(cleancache, (1, 5), (1, 6), (1, 7), (2, 0))
    pool.made.clear()
    cleancache.invalidate_from(1, cut)
    assert pool.made == calls
    assert sorted(tmem.handles()) == [(1, index) for index in left] + [(2, 0)]


def test_a_page_that_was_taken_out_needs_no_invalidate(cleancache, pool):
    put(cleancache, (1, 5), (1, 6), (1, 7))
    cleancache.get_many(1, [5, 6])
    cleancache.get(1, 7)
    pool.made.clear()
    cleancache.invalidate(1, [5, 6, 7])
    cleancache.invalidate_from(1, 0)
    assert pool.made == []


def test_a_refused_put_is_nobodys_concern(cleancache, tmem):
    tmem.refuse = 1.0
    put(cleancache, (1, 5))
    put(cleancache, (1, 6), (1, 7))
    assert cleancache.get(1, 5) is None and not cleancache.get_many(1, [6, 7])[0].any()


def test_an_index_beyond_32_bits_is_never_stored(cleancache, tmem, pool, counters):
    put(cleancache, (1, U32), (1, U32 + 1))
    assert tmem.handles() == {(1, U32)}
    pool.made.clear()
    assert cleancache.get(1, U32 + 1) is None and not cleancache.get_many(1, [U32, U32 + 1])[0].any()
    assert pool.made == []
    assert counters[Count.CLEANCACHE_PUTS] == 1


def test_without_a_pool_everything_misses(counters):
    cleancache = Cleancache(None, counters.data)
    assert not cleancache.on
    put(cleancache, (1, 5))
    cleancache.invalidate(1, [5])
    cleancache.invalidate_from(1, 0)
    assert cleancache.get(1, 5) is None and not cleancache.get_many(1, [5])[0].any()
    cleancache.close()
    assert not counters.any()


def test_closing_destroys_the_pool(cleancache, pool):
    put(cleancache, (1, 5))
    cleancache.close()
    assert pool.destroyed and not cleancache.on
