"""T1-T11: pools are made and destroyed."""

import pytest
from caller import EP, MISS, PP

from shm.abi import MAX_POOLS, PAGE_BITS_SHIFT, RESERVED_FLAGS, U32, VERSION_SHIFT, Op, PoolFlag, Status

NO_POOLS = (MAX_POOLS, (1 << 31) - 1, U32, 5)                # U32 is Xen's -1; 5 was never made
RESERVED_BITS = [1 << bit for bit in range(32) if RESERVED_FLAGS >> bit & 1]


def assert_refused(a, flags) -> None:
    assert a.ask_pool(flags).status == Status.EPERM
    assert a.ask_pool(EP).value == 0, "the refused pool took a slot"


@pytest.mark.parametrize("version", [0, 2, 255])
def test_t1_another_version_is_refused(a, version):
    assert_refused(a, version << VERSION_SHIFT)


@pytest.mark.parametrize("bit", RESERVED_BITS[::5])
def test_t2_a_reserved_bit_is_refused(a, bit):
    assert_refused(a, EP | bit)


@pytest.mark.parametrize("size", [1, 8, 15])
def test_t3_another_page_size_is_refused(a, size):
    assert_refused(a, EP | size << PAGE_BITS_SHIFT)


def test_t4_precompressed_is_refused(a):
    assert_refused(a, EP | PoolFlag.PRECOMPRESSED)


def test_t5_numbers_are_the_lowest_free_slots(a):
    assert [a.new_pool() for _ in range(3)] == [0, 1, 2]
    assert a.destroy(1) == Status.OK
    assert [a.new_pool(), a.new_pool()] == [1, 3]


def test_t6_a_seventeenth_pool_is_refused(a):
    assert [a.new_pool() for _ in range(MAX_POOLS)] == list(range(MAX_POOLS))
    assert a.ask_pool().status == Status.EPERM
    assert a.destroy(7) == Status.OK
    assert a.new_pool() == 7


@pytest.mark.parametrize("number", NO_POOLS)
def test_t7_a_pool_that_is_none(a, number):
    pool = a.new_pool()
    asked = [a.put(number, 1), a.get_status(number), a.flush(number), a.flush_object(number),
             a.one(Op.NEW_PAGE, number), a.one(Op.READ, number), a.one(Op.WRITE, number)]
    assert asked == [Status.ENODEV] * len(asked)
    assert a.counts(pool) == {}


def test_t8_without_tmem_there_is_no_device(still_machine, new_caller, form):
    a = new_caller(still_machine(scheme="none", form=form))
    assert a.ask_pool().status == Status.ENODEV
    asked = [a.put(0, 1), a.get_status(0), a.flush(0), a.flush_object(0)]
    assert asked == [Status.ENODEV] * len(asked)


def test_t9_the_first_call_makes_the_client(a):
    a.store.clients.expect(a.number, 0)                      # as a guest that was attached without a weight
    assert a.store.clients.known(a.number) is None
    a.new_pool()
    client = a.store.clients.known(a.number)
    assert client is not None
    assert (client.weight, client.cap, client.frozen) == (0, 0, False)


def test_t10_destroy_says_whether_there_was_a_pool(a):
    assert a.destroy(0) == Status.NO
    pool = a.new_pool()
    assert a.destroy(pool) == Status.OK
    assert a.put(pool, 1) == a.get_status(pool) == Status.ENODEV
    assert a.destroy(pool) == Status.NO


@pytest.mark.parametrize("flags", [EP, PP])
def test_t11_a_number_given_again_brings_nothing_back(a, flags):
    pool = a.new_pool(flags)
    assert [a.put(pool, data, index=data) for data in range(8)] == [Status.OK] * 8
    assert a.destroy(pool) == Status.OK
    assert a.new_pool(flags) == pool
    assert [a.get(pool, index=data) for data in range(8)] == [MISS] * 8
    assert a.put(pool, 9, index=9) == Status.OK              # nor when the new pool holds something
    assert [a.get(pool, index=data) for data in range(8)] == [MISS] * 8
