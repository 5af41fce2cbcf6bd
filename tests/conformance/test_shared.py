"""T71-T82: pools that several guests share."""

import pytest
from caller import EP, ES, MISS, PS, TIGHT, UUID, noise

from hypervisor.tmem.clients import MAX_AUTHORISED
from hypervisor.tmem.pools import MAX_SHARED, NO_UUID
from shm.abi import MAX_POOLS, PoolFlag, Status


@pytest.fixture
def shared(a, b):
    """Two guests that share a pool: (guest, its number of the pool) each."""
    b.new_pool(EP)
    return (a, a.new_pool(ES)), (b, b.new_pool(ES))


def test_t71_what_one_puts_the_other_gets_and_it_stays(shared):
    (a, mine), (b, theirs) = shared
    for data in range(8):
        a.put(mine, data, index=data)
    assert [b.get(theirs, index=data) for data in range(8)] == list(range(8))
    assert [a.get(mine, index=data) for data in range(8)] == list(range(8))


@pytest.mark.parametrize("uuid", [NO_UUID, (0, 0)])
def test_t72_the_uuid_of_nobody_makes_a_private_pool(a, b, uuid):
    for who in (a, b):
        assert who.ask_pool(ES, uuid).status == Status.OK
    a.put(0, 1)
    assert b.get(0) == MISS
    assert (a.get(0), a.get(0)) == (1, MISS), "not as a private pool's page"


@pytest.mark.parametrize("other", [(5, 7), (4, 6), (6, 5)])
def test_t73_another_uuid_is_another_pool(a, b, other):
    mine, theirs = a.new_pool(ES), b.new_pool(ES, other)
    a.put(mine, 1)
    assert b.get(theirs) == MISS


def test_t74_each_member_has_its_own_number(shared):
    (a, mine), (b, theirs) = shared
    assert (mine, theirs) == (0, 1)
    assert a.pool(mine) is b.pool(theirs)


def test_t75_a_seventeenth_shared_pool_is_refused(ample, new_caller):
    guests = [new_caller(ample) for _ in range(3)]
    for number in range(MAX_SHARED):
        guests[number % 2].new_pool(ES, (number + 1, 0))
    third = guests[2]
    third.control.authorise(0xFFFF, (0, 0), True)
    third.client.authorised_all = True
    assert third.ask_pool(ES, (99, 0)).status == Status.EPERM
    assert third.ask_pool(ES, (3, 0)).status == Status.OK
    assert len(third.pool(0).members) == 2
    assert MAX_SHARED <= 2 * MAX_POOLS


def test_t76_without_permission_the_pool_is_private(a, b):
    mine, reply = a.new_pool(ES), b.ask_pool(ES, UUID)
    assert reply.status == Status.OK
    a.put(mine, 1)
    assert b.get(reply.value) == MISS
    assert not b.pool(reply.value).shared


def test_t76_who_must_share_is_told(a, b):
    a.new_pool(ES)
    assert b.ask_pool(ES | PoolFlag.MUST_SHARE, UUID).status == Status.EACCES
    assert b.new_pool(EP) == 0, "the refused pool took a slot"


def test_t77_permission_is_given_and_taken(a, b):
    a.new_pool(ES)
    b.new_pool(EP)
    assert a.control.authorise(b.number, UUID, True) == Status.OK
    assert b.pool(b.ask_pool(ES, UUID).value) is a.pool(0)
    assert b.control.authorise(b.number, UUID, False) == Status.OK
    assert b.control.authorise(b.number, UUID, False) == b.control.authorise(b.number, (8, 8), False) == Status.NO
    assert not b.pool(b.ask_pool(ES, UUID).value).shared


def test_t77_limits_of_permission(a):
    a.new_pool()
    assert a.control.authorise(77, UUID, True) == Status.EINVAL
    granted = [a.control.authorise(a.number, (number, 1), True) for number in range(MAX_AUTHORISED + 1)]
    assert granted == [Status.OK] * MAX_AUTHORISED + [Status.ENOMEM]
    assert a.control.authorise(a.number, (3, 1), True) == Status.OK, "one that it has already"
    a.control.authorise(a.number, (3, 1), False)
    assert a.control.authorise(a.number, (99, 1), True) == Status.OK


def test_t78_what_a_member_touched_last_goes_with_it(shared):
    (a, mine), (b, theirs) = shared
    for number in range(6):
        (a if number % 2 else b).put(mine if number % 2 else theirs, number, (number, 0, 0))
    assert b.get(theirs, (1, 0, 0)) == 1                     # b is the last that touched it
    assert a.get(mine, (4, 0, 0)) == 4
    assert b.destroy(theirs) == Status.OK
    assert [a.get(mine, (number, 0, 0)) for number in range(6)] == [MISS, MISS, MISS, 3, 4, 5]


def test_t78_with_the_last_member_the_pool_is_gone(shared):
    (a, mine), (b, theirs) = shared
    a.put(mine, 1)
    assert (a.destroy(mine), b.destroy(theirs)) == (Status.OK, Status.OK)
    assert a.get(a.new_pool(ES)) == MISS
    assert len(a.store.catalogue) == 0


def test_t79_the_next_member_owns_what_remains(shared):
    (a, mine), (b, theirs) = shared
    own = a.new_pool(EP)
    for index in range(4):
        a.put(own, index, index=index)
        b.put(theirs, 10 + index, index=index)
        a.put(mine, 20 + index, (9, 9, 9), index)
    assert a.pool(mine).owner == a.number
    assert a.destroy(mine) == Status.OK
    assert b.pool(theirs).owner == b.number
    assert (b.store.pages_of(a.number, False), b.store.pages_of(b.number, False)) == (4, 4)
    assert [b.get(theirs, index=index) for index in range(4)] == [10, 11, 12, 13]
    assert [a.get(own, index=index) for index in range(4)] == [0, 1, 2, 3], "the owner's other pool was hit"


def test_t79_the_new_owner_pays(tight, new_caller):
    """Pages that were counted to the old owner are among the new owner's oldest."""
    a, b = new_caller(tight), new_caller(tight)
    mine, theirs = a.new_pool(ES), b.new_pool(ES)
    for index in range(TIGHT):
        b.put(theirs, noise(index), index=index)
    a.destroy(mine)
    b.store.shelf.pressure.evict_own(b.number, 3)
    assert b.held(theirs, range(TIGHT)) == list(range(3, TIGHT))


def test_t80_a_flush_is_everybodys(shared):
    (a, mine), (b, theirs) = shared
    for index in range(3):
        a.put(mine, index, index=index)
    assert b.flush(theirs, index=1) == Status.OK
    assert [a.get(mine, index=index) for index in range(3)] == [0, MISS, 2]
    b.flush_object(theirs)
    assert [a.get(mine, index=index) for index in range(3)] == [MISS] * 3


def test_t81_a_put_over_anothers_page_is_what_all_get(shared):
    (a, mine), (b, theirs) = shared
    a.put(mine, 1)
    assert b.put(theirs, 2) == Status.OK
    assert (a.get(mine), b.get(theirs)) == (2, 2)


@pytest.mark.parametrize(("first", "then"), [(ES, PS), (PS, ES)])
def test_t82_who_joins_does_not_change_the_type(a, b, first, then):
    mine, theirs = a.new_pool(first), b.new_pool(then)
    assert a.pool(mine) is b.pool(theirs)
    assert a.pool(mine).persistent == (first == PS)
    b.put(theirs, 1)
    assert (b.store.persistent, b.store.ephemeral) == ((1, 0) if first == PS else (0, 1))
