"""Pools: flags, numbers, and what belongs to whom (T1-T11, T25, T83, T101)."""

import pytest
from stores import EPHEMERAL, OID, PERSISTENT, A, B, a_store, counts, get, new_pool, page, put

from shm.abi import MAX_POOLS, U32, PoolFlag, Status

BAD_FLAGS = [
    ("T1 version 0", 0),
    ("T1 version 2", 2 << 24),
    ("T1 version 255", 0xFF << 24),
    ("T2 lowest reserved bit", EPHEMERAL | 0x100),
    ("T2 highest reserved bit", EPHEMERAL | 0x800000),
    ("T3 pages of 8 KiB", EPHEMERAL | 1 << 4),
    ("T3 page size field all ones", EPHEMERAL | 0xF << 4),
    ("T4 precompressed", EPHEMERAL | PoolFlag.PRECOMPRESSED),
    ("all ones", U32),
]
NO_POOL = [("never created", 1), ("16", MAX_POOLS), ("the largest signed number", (1 << 31) - 1), ("-1", U32)]


@pytest.mark.parametrize("flags", [flags for _, flags in BAD_FLAGS], ids=[name for name, _ in BAD_FLAGS])
def test_bad_flags_are_refused_and_use_no_slot(flags):
    with a_store() as store:
        assert store.create_pool(A, flags) == (Status.EPERM, 0)
        assert store.pools.of(A) == []
        assert new_pool(store, A) == 0


@pytest.mark.parametrize("flags", [EPHEMERAL, PERSISTENT, EPHEMERAL | 8, PERSISTENT | 8])
def test_good_flags_say_the_kind_and_bit_3_of_a_private_pool_says_nothing(flags):
    with a_store() as store:
        number = new_pool(store, A, flags)
        assert store.pools.get(A, number).persistent == bool(flags & PoolFlag.PERSIST)


def test_numbers_are_the_lowest_free_ones():
    """T5."""
    with a_store() as store:
        assert [new_pool(store, A) for _ in range(3)] == [0, 1, 2]
        assert store.destroy_pool(A, 1) == Status.OK
        assert [new_pool(store, A) for _ in range(2)] == [1, 3]


def test_a_guest_has_16_pools_and_no_more():
    """T6."""
    with a_store() as store:
        assert [new_pool(store, A) for _ in range(MAX_POOLS)] == list(range(MAX_POOLS))
        assert store.create_pool(A, EPHEMERAL) == (Status.EPERM, 0)
        assert new_pool(store, B) == 0, "another guest has its own 16"
        store.destroy_pool(A, 9)
        assert new_pool(store, A) == 9


@pytest.mark.parametrize("number", [number for _, number in NO_POOL], ids=[name for name, _ in NO_POOL])
def test_a_pool_that_does_not_exist(number):
    """T7: ENODEV, and no counter of any pool moves."""
    with a_store() as store:
        pool = new_pool(store, A)
        put(store, A, pool, 1)
        before = counts(store, A, pool)
        assert put(store, A, number, 2) == Status.ENODEV
        assert get(store, A, number) == Status.ENODEV
        assert store.flush_page(A, number, OID, 0) == Status.ENODEV
        assert store.flush_object(A, number, OID) == Status.ENODEV
        assert counts(store, A, pool) == before
        assert get(store, A, pool) == 1


def test_a_guest_without_pools_has_no_pool_0():
    with a_store() as store:
        new_pool(store, A)
        assert put(store, B, 0, 1) == Status.ENODEV
        assert get(store, B, 0) == Status.ENODEV
        assert store.destroy_pool(B, 0) == Status.NO


def test_destroying():
    """T10: OK for a live pool, NO for a free slot, and afterwards ENODEV."""
    with a_store() as store:
        pool = new_pool(store, A)
        assert store.destroy_pool(A, pool + 1) == Status.NO
        assert store.destroy_pool(A, U32) == Status.NO
        assert store.destroy_pool(A, pool) == Status.OK
        assert store.destroy_pool(A, pool) == Status.NO
        assert get(store, A, pool) == Status.ENODEV


@pytest.mark.parametrize("flags", [EPHEMERAL, PERSISTENT], ids=["ephemeral", "persistent"])
def test_a_number_given_again_finds_nothing_of_the_old_pool(flags):
    """T11."""
    with a_store() as store:
        handles = [((word, 0, 0), index) for word in range(4) for index in (0, 7, U32)]
        pool = new_pool(store, A, flags)
        for oid, index in handles:
            assert store.put(A, pool, oid, index, page(index)) == Status.OK
        store.destroy_pool(A, pool)
        assert store.heap.in_use == 0, "its frames are free at once"
        assert new_pool(store, A, PERSISTENT) == pool
        assert get(store, A, pool, *handles[0]) == Status.EEMPTY
        put(store, A, pool, 1, oid=(9, 9, 9))
        assert [get(store, A, pool, oid, index) for oid, index in handles] == [Status.NO] * len(handles)


@pytest.mark.parametrize("flags", [EPHEMERAL, PERSISTENT], ids=["ephemeral", "persistent"])
def test_the_same_handle_in_two_pools_and_two_guests_is_three_pages(flags):
    """T25, and invariant 6: no guest is answered with another guest's bytes."""
    with a_store() as store:
        places = [(A, new_pool(store, A, flags)), (A, new_pool(store, A, flags)), (B, new_pool(store, B, flags))]
        for value, (owner, pool) in enumerate(places):
            assert put(store, owner, pool, value) == Status.OK
        assert store.flush_page(A, places[0][1], OID, 0) == Status.OK
        assert [get(store, *place) for place in places] == [Status.EEMPTY, 1, 2]


def test_a_guest_that_is_gone_leaves_nothing_and_the_others_everything():
    """T83, T101."""
    with a_store() as store:
        pools = [(owner, new_pool(store, owner, flags)) for owner in (A, B) for flags in (EPHEMERAL, PERSISTENT)]
        for value, (owner, pool) in enumerate(pools):
            for index in range(10):
                put(store, owner, pool, value, index=index)
        store.forget(A)
        assert store.pools.of(A) == [] and len(store.catalogue) == 20
        assert [put(store, A, pool, 1) for owner, pool in pools if owner == A] == [Status.ENODEV] * 2
        assert [get(store, B, pool, index=3) for owner, pool in pools if owner == B] == [2, 3]
        store.forget(B)
        assert (len(store.catalogue), len(store.catalogue.objects), store.ephemeral, store.heap.in_use) == (0, 0, 0, 0)
        assert store.pools.all() == []


def test_forgetting_a_guest_that_never_made_a_pool():
    with a_store() as store:
        store.forget(A)
        assert store.audit() == []
