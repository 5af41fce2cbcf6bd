"""What put, get and flush mean, rule by rule (T12-T26, T32-T38, T98, T99)."""

import numpy as np
import pytest
from stores import (
    EPHEMERAL,
    OID,
    PERSISTENT,
    A,
    a_store,
    content,
    counts,
    get,
    new_pool,
    no_room_for_replacements,
    page,
    put,
)

from hypervisor.tmem.forms import Form
from shm.abi import PAGE_SIZE, U32, U64, Status

both_kinds = pytest.mark.parametrize("flags", [EPHEMERAL, PERSISTENT], ids=["ephemeral", "persistent"])
OTHER = (7, 7, 7)


@both_kinds
def test_get_returns_what_was_put_bit_for_bit(flags):
    """T12, T13."""
    with a_store() as store:
        pool, data = new_pool(store, A, flags), np.random.default_rng(3).integers(0, 256, PAGE_SIZE, np.uint8)
        assert store.put(A, pool, OID, 5, data) == Status.OK
        out = np.zeros(PAGE_SIZE, np.uint8)
        assert store.get(A, pool, OID, 5, out) == Status.OK
        assert (out == data).all()


@pytest.mark.parametrize(("flags", "answers"), [
    (EPHEMERAL, [1, Status.EEMPTY, Status.EEMPTY]),          # T14: a get takes the page out
    (PERSISTENT, [1, 1, 1]),                                 # T15: it does not
], ids=["ephemeral", "persistent"])
def test_getting_again_and_again(flags, answers):
    with a_store() as store:
        pool = new_pool(store, A, flags)
        put(store, A, pool, 1)
        assert [get(store, A, pool) for _ in answers] == answers
        assert store.heap.in_use == (flags == PERSISTENT), "an exclusive get frees the frame"


@both_kinds
def test_a_handle_that_was_never_put_is_a_miss(flags):
    """T17, T20 (`get` proves that the destination is untouched)."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        put(store, A, pool, 1, oid=OTHER)
        assert get(store, A, pool) == Status.NO
        assert counts(store, A, pool) == {"pt": 1, "ps": 1, "gt": 1}


@both_kinds
def test_an_empty_pool_says_so_and_does_not_count_the_get(flags):
    """T18."""
    with a_store() as store:
        pool, other = new_pool(store, A, flags), new_pool(store, A, flags)
        put(store, A, other, 1)
        assert get(store, A, pool) == Status.EEMPTY
        assert counts(store, A, pool) == {}


@both_kinds
def test_put_copies(flags):
    """T19."""
    with a_store() as store:
        pool, source = new_pool(store, A, flags), page(1)
        store.put(A, pool, OID, 0, source)
        source[:] = 0xFF
        assert get(store, A, pool) == 1


def test_get_copies():
    """A guest that changes what it got does not change what is stored."""
    with a_store() as store:
        pool, out = new_pool(store, A, PERSISTENT), np.zeros(PAGE_SIZE, np.uint8)
        put(store, A, pool, 1)
        store.get(A, pool, OID, 0, out)
        out[:] = 0xFF
        assert get(store, A, pool) == 1


@both_kinds
def test_put_flush_get_is_a_miss(flags):
    """T21, T22, T27: flushing is done, found or not, and as often as one likes."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        put(store, A, pool, 1)
        put(store, A, pool, 2, oid=OTHER)
        assert [store.flush_page(A, pool, OID, 0) for _ in range(3)] == [Status.OK] * 3
        assert get(store, A, pool) == Status.NO
        assert counts(store, A, pool) == {"pt": 2, "ps": 2, "ft": 3, "fs": 1, "gt": 1}
        assert get(store, A, pool, OTHER) == 2


@both_kinds
def test_flushing_an_object_takes_all_of_it_and_nothing_else(flags):
    """T23."""
    with a_store() as store:
        pool, other_pool = new_pool(store, A, flags), new_pool(store, A, flags)
        for index in (0, 1, 1000, U32):
            put(store, A, pool, index, index=index)
            put(store, A, pool, 7, OTHER, index)
            put(store, A, other_pool, 8, OID, index)
        assert store.flush_object(A, pool, OID) == Status.OK
        assert [get(store, A, pool, OID, index) for index in (0, 1, 1000, U32)] == [Status.NO] * 4
        assert [get(store, A, pool, OTHER, index) for index in (0, 1, 1000, U32)] == [7] * 4
        assert [get(store, A, other_pool, OID, index) for index in (0, 1, 1000, U32)] == [8] * 4
        assert store.flush_object(A, pool, OID) == Status.OK, "absent: done as well"
        assert {name: n for name, n in counts(store, A, pool).items() if name in ("ot", "os")} == {"ot": 2, "os": 1}


@both_kinds
def test_every_word_of_a_handle_counts(flags):
    """T24."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        handles = [(oid, index) for oid in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (U64, U64, U64), (U64, 0, 0))
                   for index in (0, 1, U32)]
        for value, (oid, index) in enumerate(handles):
            assert store.put(A, pool, oid, index, page(value)) == Status.OK
        assert [get(store, A, pool, *handle) for handle in handles] == list(range(len(handles)))


@both_kinds
def test_after_a_miss_gets_miss_until_a_put(flags):
    """T26."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        put(store, A, pool, 9, oid=OTHER)
        put(store, A, pool, 1)
        store.flush_page(A, pool, OID, 0)
        assert [get(store, A, pool) for _ in range(4)] == [Status.NO] * 4
        put(store, A, pool, 2)
        assert get(store, A, pool) == 2


# Duplicate puts


@both_kinds
def test_the_second_put_replaces_the_first(flags):
    """T32, T35."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        assert [put(store, A, pool, value) for value in (1, 2)] == [Status.OK] * 2
        assert counts(store, A, pool) == {"pt": 2, "ps": 2, "pr": 1}
        assert store.pools.get(A, pool).pages == len(store.catalogue) == store.heap.in_use == 1
        assert get(store, A, pool) == 2


@both_kinds
def test_a_duplicate_put_that_finds_no_memory_leaves_nothing(flags):
    """T33, T34: ENOSPC, the old copy gone, pd and pt counted, ps not."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        put(store, A, pool, 1)
        put(store, A, pool, 5, oid=OTHER)
        no_room_for_replacements(store)
        assert put(store, A, pool, 2) == Status.ENOSPC
        assert counts(store, A, pool) == {"pt": 3, "ps": 2, "pd": 1}
        assert get(store, A, pool) == Status.NO
        assert get(store, A, pool, OTHER) == 5


@both_kinds
def test_a_duplicate_put_in_bulk_that_finds_no_memory_leaves_nothing(flags):
    """T33, T34 for a multicall."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        oids, indexes = np.array([OID] * 3, np.uint64), np.arange(3, dtype=np.uint64)
        first, second = (np.stack([page(value + n) for n in range(3)]) for value in (10, 20))
        assert store.put_many(A, pool, oids, indexes, first).tolist() == [Status.OK] * 3
        put(store, A, pool, 5, oid=OTHER)
        no_room_for_replacements(store)
        assert store.put_many(A, pool, oids, indexes, second).tolist() == [Status.ENOSPC] * 3
        assert counts(store, A, pool) == {"pt": 7, "ps": 4, "pd": 3}
        assert [get(store, A, pool, OID, n) for n in range(3)] == [Status.NO] * 3
        assert get(store, A, pool, OTHER) == 5


@both_kinds
def test_a_frame_may_move_under_a_duplicate_put(flags):
    """A storage form may need another frame for the new data; the old one is not read again."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        put(store, A, pool, 1)
        store.clients.get(A).form = Form.LZ4
        assert put(store, A, pool, 2) == Status.OK
        assert get(store, A, pool) == 2


@both_kinds
def test_a_bad_source(flags):
    """T37: EFAULT; of a new handle nothing is stored, of a known one the old copy is gone."""
    with a_store() as store:
        pool = new_pool(store, A, flags)
        put(store, A, pool, 5, oid=OTHER)
        assert store.put(A, pool, OID, 0, None) == Status.EFAULT
        assert get(store, A, pool) == Status.NO
        put(store, A, pool, 1)
        assert store.put(A, pool, OID, 0, None) == Status.EFAULT
        assert get(store, A, pool) == Status.NO
        assert counts(store, A, pool) == {"pt": 4, "ps": 2, "px": 1, "pd": 1, "gt": 2}
        assert get(store, A, pool, OTHER) == 5


def test_a_replacement_that_is_put_while_the_guest_is_at_its_limit():
    """T38: a persistent page is replaced, for it needs no allowance."""
    with a_store(allowance=lambda owner: 1 - store.pages_of(owner, persistent=True)) as store:
        pool = new_pool(store, A, PERSISTENT)
        assert [put(store, A, pool, value) for value in (1, 2)] == [Status.OK, Status.OK]
        assert get(store, A, pool) == 2


def test_the_sums_hold_after_a_long_trace():
    """T98, T99: `a_store` recounts at the end; here the letters are worked out by hand."""
    with a_store(budget=8) as store:
        pool = new_pool(store, A)
        for index in range(10):                              # 8 fit, the oldest two are evicted
            put(store, A, pool, index, index=index)
        for index in (0, 1, 2, 3):                           # two misses, two hits
            get(store, A, pool, OID, index)
        put(store, A, pool, 44, index=4)                     # a duplicate
        store.put(A, pool, OID, 5, None)                     # one that fails
        store.flush_page(A, pool, OID, 6)
        store.flush_page(A, pool, OID, 6)
        expected = {"pt": 12, "ps": 11, "pr": 1, "pd": 1, "gt": 4, "gs": 2, "ft": 2, "fs": 1}
        assert counts(store, A, pool) == expected
        evicted, hits, flushed, failed = 2, 2, 1, 1
        assert store.evictions == evicted
        assert store.pools.get(A, pool).pages == 11 - 1 - evicted - hits - flushed - failed == 4
        assert store.ephemeral == 4


def test_an_audit_finds_a_wrong_page_count():
    with a_store() as store:
        pool = store.pools.get(A, new_pool(store, A))
        put(store, A, 0, 1)
        pool.pages = 2
        assert store.audit() == ["store: pool 1 counts 2 pages, has 1"]
        pool.pages = 1


def test_content_helper_notices_a_torn_page():
    """The witness of these tests can fail."""
    torn = page(1)
    torn[2048:] = page(2)[2048:]
    with pytest.raises(AssertionError, match="torn"):
        content(torn)
