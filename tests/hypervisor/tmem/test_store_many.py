"""Bulk calls mean what the same calls mean one after the other: statuses, pages, counters, ages, evictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import EPHEMERAL, OID, PERSISTENT, A, B, a_store, content, counts, get, new_pool, page, put

from hypervisor.tmem.pools import PoolCount
from shm.abi import PAGE_SIZE, Refusal, Status

SLOTS = 12
HANDLES = [((word, 0, 0), index) for word in (0, 1) for index in range(6)]
BATCHES = st.lists(st.sampled_from(HANDLES), unique=True, min_size=1, max_size=SLOTS)
OPERATIONS = st.tuples(st.sampled_from(["put", "put", "get", "flush"]), st.sampled_from([0, 1]), BATCHES)
OPERATION_LISTS = st.lists(OPERATIONS, max_size=12)
ALLOWANCE = 5


def handles(batch):
    oids = np.array([oid for oid, _ in batch], np.uint64).reshape(-1, 3)
    return oids, np.array([index for _, index in batch], np.uint64)


def in_bulk(store, what, pool, batch, first):
    """Return the statuses and the transfer buffer's rows afterwards."""
    out = np.full((SLOTS, PAGE_SIZE), 0xEE, np.uint8)
    if what == "put":
        pages = np.stack([page(first + n) for n in range(len(batch))])
        statuses = store.put_many(A, pool, *handles(batch), pages)
    elif what == "flush":
        statuses = store.flush_many(A, pool, *handles(batch))
    else:
        slots = np.arange(len(batch))[::-1].copy()
        statuses = store.get_many(A, pool, *handles(batch), out, slots)
    return statuses.tolist(), [row.tobytes() for row in out]


def one_by_one(store, what, pool, batch, first):
    out, statuses = np.full((SLOTS, PAGE_SIZE), 0xEE, np.uint8), []
    for n, (oid, index) in enumerate(batch):
        if what == "put":
            statuses.append(store.put(A, pool, oid, index, page(first + n)))
        elif what == "flush":
            statuses.append(store.flush_page(A, pool, oid, index))
        else:
            statuses.append(store.get(A, pool, oid, index, out[len(batch) - 1 - n]))
    return statuses, [row.tobytes() for row in out]


def holdings(store):
    """Every stored page: pool, handle, content, and the ephemeral ones in their order of age."""
    found = {}
    for owner, pool in ((A, 0), (A, 1), (B, 0)):
        serial = store.pools.get(owner, pool).serial
        for oid, index in HANDLES:
            number = store.catalogue.find(serial, oid, index)
            if number >= 0:
                found[number] = (owner, pool, oid, index, content(store.heap.pages[store.catalogue.places[number]]))
    ages = [found[number] for number in store.catalogue.ages.oldest(99).tolist()]
    return set(found.values()), ages


def prepared(store):
    """Two pools of one guest, the first ephemeral and the second persistent, and old pages of another guest."""
    assert [new_pool(store, A, EPHEMERAL), new_pool(store, A, PERSISTENT), new_pool(store, B)] == [0, 1, 0]
    for index in range(3):
        put(store, B, 0, 1000 + index, (0, 0, 0), index)
    return store


def both(budget, cap):
    def allowance_of(store):
        return lambda owner: (ALLOWANCE - store.pages_of(owner, persistent=True), Refusal.MAX_MEM)

    return a_store(budget, cap), a_store(budget, cap), allowance_of


LIMITS = [("ample", 1024, 0), ("a cap of 4", 1024, 4), ("a cap of 1", 1024, 1), ("8 frames", 8, 0),
          ("3 frames", 3, 0), ("8 frames and a cap of 6", 8, 6)]


@pytest.mark.parametrize(("budget", "cap"), [limits[1:] for limits in LIMITS], ids=[limits[0] for limits in LIMITS])
@settings(max_examples=40)
@given(operations=OPERATION_LISTS)
def test_bulk_equals_one_by_one(budget, cap, operations):
    """With frames in plenty, with a cap, with scarce frames: nothing that can be seen differs."""
    bulk_store, single_store, allowance_of = both(budget, cap)
    with bulk_store as bulk, single_store as single:
        for store in (bulk, single):
            store.shelf.allowance = allowance_of(store)
            prepared(store)
        for n, (what, pool, batch) in enumerate(operations):
            arguments = what, pool, batch, 100 * n
            assert in_bulk(bulk, *arguments) == one_by_one(single, *arguments), arguments
            assert holdings(bulk) == holdings(single)
            assert [counts(bulk, A, pool) for pool in (0, 1)] == [counts(single, A, pool) for pool in (0, 1)]
            assert bulk.evictions == single.evictions


@pytest.mark.parametrize("call", ["put_many", "get_many", "flush_many"])
def test_a_pool_that_does_not_exist_is_nodev_for_every_entry(call):
    with a_store() as store:
        pool = new_pool(store, A)
        put(store, A, pool, 1)
        out = np.zeros((4, PAGE_SIZE), np.uint8)
        more = {"put_many": (out,), "get_many": (out, np.arange(4)), "flush_many": ()}[call]
        batch = handles([(OID, n) for n in range(4)])
        assert getattr(store, call)(B, pool, *batch, *more).tolist() == [Status.ENODEV] * 4
        assert getattr(store, call)(A, pool + 1, *batch, *more).tolist() == [Status.ENODEV] * 4
        assert get(store, A, pool) == 1


def test_a_batch_of_one_pool_never_touches_another_guests():
    with a_store() as store:
        pools = {owner: new_pool(store, owner) for owner in (A, B)}
        batch = handles([(OID, n) for n in range(4)])
        store.put_many(B, pools[B], *batch, np.stack([page(7)] * 4))
        out = np.zeros((4, PAGE_SIZE), np.uint8)
        assert store.get_many(A, pools[A], *batch, out, np.arange(4)).tolist() == [Status.EEMPTY] * 4
        store.flush_many(A, pools[A], *batch)
        assert not out.any()
        assert [get(store, B, pools[B], OID, n) for n in range(4)] == [7] * 4


def test_what_follows_the_last_hit_of_a_batch_finds_the_pool_empty():
    """T18 within a multicall: the last page was taken out by the entry before."""
    with a_store() as store:
        pool = new_pool(store, A)
        put(store, A, pool, 5, index=1)
        out = np.zeros((4, PAGE_SIZE), np.uint8)
        statuses = store.get_many(A, pool, *handles([(OID, n) for n in range(4)]), out, np.arange(4))
        assert statuses.tolist() == [Status.NO, Status.OK, Status.EEMPTY, Status.EEMPTY]
        assert store.pools.get(A, pool).counts[PoolCount.GT] == 2


def test_a_batch_that_finds_no_room_asks_for_it_once_and_not_for_every_entry():
    """A refusal costs a look for room over all guests: one batch must not cost 256 of them."""
    with a_store(budget=2) as store:
        keep, pool = new_pool(store, A, PERSISTENT), new_pool(store, A)
        for index in range(2):
            put(store, A, keep, 1, index=index)
        asked, plain = [], store.heap.room
        store.heap.room = lambda frames: asked.append(frames) or plain(frames)
        batch = handles([(OID, n) for n in range(200)])
        assert set(store.put_many(A, pool, *batch, np.stack([page(1)] * 200)).tolist()) == {Status.ENOMEM}
        assert len(asked) < 20
        assert counts(store, A, pool) == {"pt": 200, "px": 200}
