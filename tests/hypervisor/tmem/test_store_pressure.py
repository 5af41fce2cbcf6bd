"""Eviction, caps and allowances: who loses what, and in which order (T27, T36, T49, T55, T56, T63, T65, T67-T69)."""

import numpy as np
import pytest
from stores import EPHEMERAL, OID, PERSISTENT, A, B, a_store, counts, get, new_pool, page, put

from hypervisor.ledger import HEAP
from hypervisor.tmem.shelf import PAGES_A_FRAME
from shm.abi import Status


def fill(store, owner, pool, indexes, oid=OID):
    return [put(store, owner, pool, index, oid, index) for index in indexes]


def there(store, owner, pool, indexes, oid=OID):
    """Say which indexes are stored, without getting them."""
    serial = store.pools.get(owner, pool).serial
    return [index for index in indexes if store.catalogue.find(serial, oid, index) >= 0]


@pytest.mark.parametrize("limits", [{"cap": 4}, {"budget": 4}], ids=["by the cap", "by the budget"])
def test_the_oldest_goes_first_over_all_guests_and_pools(limits):
    """T56: strict global order of puts."""
    with a_store(**limits) as store:
        pools = [(A, new_pool(store, A)), (B, new_pool(store, B)), (A, new_pool(store, A))]
        puts = [(*pools[n % 3], n) for n in range(9)]
        for n, (owner, pool, index) in enumerate(puts):
            assert put(store, owner, pool, index, index=index) == Status.OK
            stored = [i for i, (o, p, at) in enumerate(puts) if there(store, o, p, [at])]
            assert stored == list(range(max(0, n - 3), n + 1))
        assert store.evictions == 5


def test_a_duplicate_put_does_not_make_young():
    """T36: it still goes first."""
    with a_store(cap=3) as store:
        pool = new_pool(store, A)
        fill(store, A, pool, range(3))
        put(store, A, pool, 99, index=0)
        put(store, A, pool, 3, index=3)
        assert there(store, A, pool, range(4)) == [1, 2, 3]


def test_a_get_and_a_new_put_do():
    with a_store(cap=3) as store:
        pool = new_pool(store, A)
        fill(store, A, pool, range(3))
        assert get(store, A, pool, OID, 0) == 0
        fill(store, A, pool, [0, 3])
        assert there(store, A, pool, range(4)) == [0, 2, 3]


def test_evict_takes_the_oldest_and_no_more_than_asked():
    with a_store() as store:
        pool = new_pool(store, A)
        fill(store, A, pool, range(6))
        assert [store.evict(n) for n in (0, -3, 2)] == [0, 0, 2]
        assert there(store, A, pool, range(6)) == [2, 3, 4, 5]
        assert (store.evict(99), store.evict(1)) == (4, 0)


def test_flush_after_eviction_is_done():
    """T27."""
    with a_store() as store:
        pool = new_pool(store, A)
        fill(store, A, pool, range(2))
        store.evict(1)
        assert store.flush_page(A, pool, OID, 0) == Status.OK
        assert counts(store, A, pool) == {"pt": 2, "ps": 2, "ft": 1}


def test_the_last_page_of_an_object_takes_the_object_along():
    """T63."""
    with a_store() as store:
        pool = new_pool(store, A)
        for word in range(5):
            fill(store, A, pool, range(3), oid=(word, 0, 0))
        store.evict(7)
        assert len(store.catalogue.objects) == 3
        store.evict(99)
        assert len(store.catalogue.objects) == len(store.catalogue.pages) == 0


@pytest.mark.parametrize("limits", [{"cap": 4, "budget": 8}, {"budget": 6}], ids=["by the cap", "by the budget"])
def test_persistent_pages_never_go(limits):
    """T55, T69: two of another guest's, while ephemeral ones come and go."""
    with a_store(**limits) as store:
        keep, churn = new_pool(store, A, PERSISTENT), new_pool(store, B)
        assert fill(store, A, keep, range(2)) == [Status.OK] * 2
        assert fill(store, B, churn, range(40)) == [Status.OK] * 40
        store.evict(99)
        assert [get(store, A, keep, OID, index) for index in range(2)] == [0, 1]
        assert store.evictions == 40


def test_the_cap_does_not_count_persistent_pages():
    with a_store(cap=2) as store:
        keep, pool = new_pool(store, A, PERSISTENT), new_pool(store, A)
        fill(store, A, keep, range(10))
        assert fill(store, A, pool, range(2)) == [Status.OK] * 2
        assert there(store, A, pool, range(2)) == [0, 1]


def test_the_cap_holds_at_every_moment():
    with a_store(cap=5) as store:
        pool, rng = new_pool(store, A), np.random.default_rng(2)
        for _ in range(100):
            count = int(rng.integers(1, 12))
            indexes = rng.choice(40, count, replace=False).astype(np.uint64)
            store.put_many(A, pool, np.array([OID] * count, np.uint64), indexes, np.stack([page(1)] * count))
            assert store.ephemeral <= 5 and store.heap.in_use == store.ephemeral
        assert store.ephemeral == 5, "a full cap stays full"


def test_nothing_evictable_and_no_frame():
    """T65: ENOMEM, px counted, and no part of an object is left."""
    with a_store(budget=2) as store:
        keep, pool = new_pool(store, A, PERSISTENT), new_pool(store, A)
        fill(store, A, keep, range(2))
        objects = len(store.catalogue.objects)
        assert put(store, A, pool, 1, oid=(8, 8, 8)) == Status.ENOMEM
        assert put(store, A, keep, 1, oid=(8, 8, 8)) == Status.ENOMEM
        assert counts(store, A, pool) == {"pt": 1, "px": 1}
        assert len(store.catalogue.objects) == objects
        assert get(store, A, pool) == Status.EEMPTY


def test_a_persistent_put_evicts_ephemeral_pages_for_its_frame():
    with a_store(budget=3) as store:
        pool, keep = new_pool(store, A), new_pool(store, A, PERSISTENT)
        fill(store, A, pool, range(3))
        assert fill(store, A, keep, range(3)) == [Status.OK] * 3
        assert there(store, A, pool, range(3)) == []


# Allowances of persistent pages

class Allowances:
    """What each guest may hold, less what it holds."""

    def __init__(self, most):
        self.most, self.store = most, None

    def __call__(self, owner):
        return self.most[owner] - self.store.pages_of(owner, persistent=True)


@pytest.fixture
def two_guests():
    allowances = Allowances({A: 3, B: 5})
    with a_store(allowance=allowances) as store:
        allowances.store = store
        yield store, allowances.most


def test_persistent_puts_stop_at_the_allowance_of_their_guest(two_guests):
    """T67: and one guest's limit is not another's."""
    store, _ = two_guests
    pools = {owner: new_pool(store, owner, PERSISTENT) for owner in (A, B)}
    assert fill(store, A, pools[A], range(6)) == [Status.OK] * 3 + [Status.ENOMEM] * 3
    assert fill(store, B, pools[B], range(6)) == [Status.OK] * 5 + [Status.ENOMEM]
    assert counts(store, A, pools[A]) == {"pt": 6, "ps": 3, "px": 3}
    assert fill(store, A, new_pool(store, A), range(6)) == [Status.OK] * 6, "ephemeral pages are charged to nobody"


def test_a_batch_stops_at_the_allowance_too(two_guests):
    store, _ = two_guests
    pool = new_pool(store, A, PERSISTENT)
    statuses = store.put_many(A, pool, np.array([OID] * 5, np.uint64), np.arange(5, dtype=np.uint64),
                              np.stack([page(n) for n in range(5)]))
    assert statuses.tolist() == [Status.OK] * 3 + [Status.ENOMEM] * 2
    assert [get(store, A, pool, OID, n) for n in range(5)] == [0, 1, 2, Status.NO, Status.NO]


def test_a_second_pool_brings_no_second_allowance(two_guests):
    store, _ = two_guests
    first, second = (new_pool(store, A, PERSISTENT) for _ in range(2))
    assert fill(store, A, first, range(2)) + fill(store, A, second, range(2)) == [Status.OK] * 3 + [Status.ENOMEM]


@pytest.mark.parametrize("give_back", [
    lambda store, pool: store.flush_page(A, pool, OID, 0),
    lambda store, pool: store.flush_object(A, pool, OID),
    lambda store, pool: (store.destroy_pool(A, pool), new_pool(store, A, PERSISTENT)),
], ids=["flush", "flush object", "destroy"])
def test_what_is_flushed_may_be_put_again(two_guests, give_back):
    """T68."""
    store, _ = two_guests
    pool = new_pool(store, A, PERSISTENT)
    fill(store, A, pool, range(3))
    give_back(store, pool)
    assert put(store, A, pool, 9, oid=(4, 4, 4)) == Status.OK


def test_an_allowance_that_has_shrunk_below_what_is_held_refuses_and_takes_nothing(two_guests):
    store, most = two_guests
    pool = new_pool(store, A, PERSISTENT)
    fill(store, A, pool, range(3))
    most[A] = 1
    assert put(store, A, pool, 9, oid=(4, 4, 4)) == Status.ENOMEM
    assert [get(store, A, pool, OID, n) for n in range(3)] == [0, 1, 2]
    assert put(store, A, pool, 7, index=1) == Status.OK, "a replacement needs none"


def test_frames_go_back_to_the_machine_when_all_is_gone():
    with a_store() as store:
        pool = new_pool(store, A, EPHEMERAL)
        fill(store, A, pool, range(100))
        store.evict(100)
        store.heap.trim(store.heap.spare)
        assert store.heap.object.resident() == store.heap.ledger.held[HEAP] == 0


def test_pages_that_cost_no_frame_are_bounded_all_the_same():
    """What the store must know of a page costs memory too: a guest must not fill it with zeros."""
    with a_store(budget=8) as store:
        pool = new_pool(store, A)
        for index in range(1000):
            assert store.new_page(A, pool, OID, index) == Status.OK
        assert store.ephemeral == PAGES_A_FRAME * 8
        assert get(store, A, pool, index=999) == 0, "the oldest went"


def test_who_took_the_room_asks_for_its_part_of_what_is_made_good():
    """T58 for reclaim in the background: by what each took, whoever put last; once made good, nobody owes anything."""
    with a_store() as store:
        pressure = store.shelf.pressure
        for guest, count in ((A, 10), (B, 20), (None, 0), (A, 0), (B, 10)):
            pressure.took(guest, count)
        assert pressure.askers(8) == [(A, 2), (B, 6)]
        assert pressure.askers(5) == [(None, 5)]
        pressure.took(A, 3)
        pressure.forget(A)
        assert pressure.askers(1) == [(None, 1)]
