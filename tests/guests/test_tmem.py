"""The tmem stubs: what they refuse before anything is sent, how they cut batches, and what they make of each answer."""

from uuid import UUID

import numpy as np
import pytest

from guests import TmemRefused
from guests.tmem import secret_words
from shm.abi import MAX_POOLS, MULTICALL_LIMIT, PAGE_SIZE, U32, U64, Refusal, Status
from shm.counters import Count

PAGE = b"\x5a" * PAGE_SIZE
MANY = 2 * MULTICALL_LIMIT + 88                              # three multicalls


def pages_of(numbers):
    """A page for each number, each different."""
    words = np.asarray(numbers, np.uint64).reshape(-1, 1).repeat(PAGE_SIZE // 8, axis=1)
    return words.view(np.uint8).reshape(-1, PAGE_SIZE)


@pytest.fixture
def guest(still_machine):
    return still_machine(budget=2048).guest(pages=16, max_pages=1500)


@pytest.fixture(params=[False, True], ids=["ephemeral", "persistent"])
def pool(guest, request):
    return guest.tmem.new_pool(persistent=request.param)


@pytest.fixture
def keep(guest):
    return guest.tmem.new_pool(persistent=True)


BAD_HANDLES = {
    "oid -1": (-1, 0, "object id -1"), "oid 2^64": (U64 + 1, 0, "object id 18446744073709551616"),
    "two words": ((1, 2), 0, r"use one number from 0 to 2\^64 - 1, or three"),
    "four words": ((1, 2, 3, 4), 0, "or three"),
    "a word below 0": ((0, 0, -1), 0, "or three"), "a word beyond": ((0, U64 + 1, 0), 0, "or three"),
    "index -1": (1, -1, "index -1: use 0 to 2\\^32 - 1"), "index 2^32": (1, U32 + 1, "index 4294967296"),
}
SINGLE = {"put": lambda pool, oid, index: pool.put(oid, index, PAGE), "get": lambda pool, *handle: pool.get(*handle),
          "flush": lambda pool, *handle: pool.flush(*handle)}


@pytest.mark.parametrize("call", SINGLE)
@pytest.mark.parametrize(("oid", "index", "words"), BAD_HANDLES.values(), ids=BAD_HANDLES.keys())
def test_a_handle_that_cannot_be(guest, keep, call, oid, index, words):
    before = guest.counters[Count.HYPERCALLS]
    with pytest.raises(ValueError, match=words):
        SINGLE[call](keep, oid, index)
    assert guest.counters[Count.HYPERCALLS] == before, "nothing was sent"


@pytest.mark.parametrize("oid", [-1, U64 + 1, (1, 2), (1, 2, 3, 4)])
def test_an_object_that_cannot_be(keep, oid):
    with pytest.raises(ValueError, match="object id"):
        keep.flush_object(oid)


@pytest.mark.parametrize("page", [b"", b"x", PAGE + b"x", np.zeros(10, np.uint8), np.zeros((2, PAGE_SIZE), np.uint8)])
def test_a_page_that_is_none(keep, page):
    with pytest.raises(ValueError, match=r"a page is 4096 bytes, not \d+"):
        keep.put(1, 0, page)


BAD_BATCHES = {
    "index -1": (1, [0, -1], r"indexes: use 0 to 2\^32 - 1"),
    "index 2^32": (1, [0, U32 + 1], r"indexes: use 0 to 2\^32 - 1"),
    "one oid too few": (np.zeros((1, 3), np.uint64), [0, 1], r"\(2, 3\), not \(1, 3\)"),
    "oids of two words": (np.zeros((2, 2), np.uint64), [0, 1], r"not \(2, 2\)"),
    "an oid of two words": ((1, 2), [0, 1], "or three"),
}


@pytest.mark.parametrize(("oids", "indexes", "words"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
def test_a_batch_that_cannot_be(guest, keep, oids, indexes, words):
    before = guest.counters[Count.HYPERCALLS]
    for call, more in ((keep.put_many, [pages_of([0, 1])]), (keep.get_many, []), (keep.flush_many, [])):
        with pytest.raises(ValueError, match=words):
            call(oids, indexes, *more)
    assert guest.counters[Count.HYPERCALLS] == before


@pytest.mark.parametrize("shape", [(1, PAGE_SIZE), (3, PAGE_SIZE), (2, 100), (2 * PAGE_SIZE,)])
def test_pages_that_do_not_fit_their_handles(guest, keep, shape):
    before = guest.counters[Count.HYPERCALLS]
    with pytest.raises(ValueError, match=r"2 pages are an array of \(2, 4096\), not"):
        keep.put_many(1, [0, 1], np.zeros(shape, np.uint8))
    assert guest.counters[Count.HYPERCALLS] == before


# Single pages

@pytest.mark.parametrize("page", [PAGE, bytearray(PAGE), memoryview(PAGE), np.frombuffer(PAGE, np.uint8)],
                         ids=["bytes", "bytearray", "memoryview", "array"])
def test_pages_of_every_kind_of_bytes(pool, page):
    assert pool.put(1, 0, page)
    got = pool.get(1, 0)
    assert type(got) is bytes and got == PAGE


@pytest.mark.parametrize("oid", [5, (5, 0, 0), [5, 0, 0], np.int64(5), np.array([5, 0, 0], np.uint64)],
                         ids=["int", "tuple", "list", "numpy int", "array"])
def test_one_object_under_every_spelling_of_its_id(keep, oid):
    keep.put(5, 7, PAGE)
    assert keep.get(oid, np.int64(7)) == PAGE
    assert keep.get_many(oid, [7])[0].tolist() == [True]


@pytest.mark.parametrize("handle", [(U64, U32), ((U64, U64, U64), U32), (0, 0)])
def test_the_largest_and_smallest_handles(pool, handle):
    assert pool.put(*handle, PAGE)
    assert pool.get(*handle) == PAGE


def test_a_get_takes_an_ephemeral_page_out_and_leaves_a_persistent_one(guest):
    ephemeral, persistent = guest.tmem.new_pool(persistent=False), guest.tmem.new_pool(persistent=True)
    for pool in (ephemeral, persistent):
        pool.put(1, 0, PAGE)
    assert [ephemeral.get(1, 0), ephemeral.get(1, 0)] == [PAGE, None]
    assert [persistent.get(1, 0), persistent.get(1, 0)] == [PAGE, PAGE]


def test_a_source_may_be_changed_at_once(keep):
    """T19."""
    source = bytearray(PAGE)
    keep.put(1, 0, source)
    source[:] = bytes(PAGE_SIZE)
    assert keep.get(1, 0) == PAGE


def test_flushing(pool):
    pool.put_many(1, [0, 1], pages_of([1, 2]))
    pool.put(2, 0, PAGE)
    pool.flush(1, 0)
    pool.flush(1, 0)
    assert pool.get(1, 0) is None
    pool.flush_object(1)
    assert pool.get(1, 1) is None
    assert pool.get(2, 0) == PAGE


# Batches

def test_a_batch_is_cut_into_multicalls_and_put_together_again(guest, pool):
    before = guest.counters[Count.MULTICALLS]
    pages = pages_of(range(MANY))
    assert pool.put_many(3, range(MANY), pages).tolist() == [True] * MANY
    order = np.random.default_rng(1).permutation(MANY)
    hits, got = pool.get_many(3, order)
    assert hits.all() and (got == pages[order]).all()
    pool.flush_many(3, range(MANY))
    assert not pool.get_many(3, range(MANY))[0].any()
    assert guest.counters[Count.MULTICALLS] - before == 4 * 3


@pytest.mark.parametrize("count", [1, MULTICALL_LIMIT, MULTICALL_LIMIT + 1])
def test_batches_at_the_limit(pool, count):
    pages = pages_of(range(100, 100 + count))
    assert pool.put_many(1, range(count), pages).all()
    hits, got = pool.get_many(1, range(count))
    assert hits.all() and (got == pages).all()


def test_no_pages_at_all(guest, pool):
    before = guest.counters[Count.HYPERCALLS]
    assert pool.put_many(1, [], np.zeros((0, PAGE_SIZE), np.uint8)).tolist() == []
    hits, pages = pool.get_many(1, [])
    assert (hits.shape, pages.shape) == ((0,), (0, PAGE_SIZE))
    pool.flush_many(1, [])
    assert guest.counters[Count.HYPERCALLS] == before


def test_rows_of_misses_are_zero(pool):
    """Never what lay in the buffer from the call before."""
    pool.put_many(1, range(40), np.full((40, PAGE_SIZE), 0xEE, np.uint8))
    pool.flush_many(1, range(0, 40, 2))
    hits, pages = pool.get_many(1, range(40))
    assert hits.tolist() == [False, True] * 20
    assert not pages[~hits].any() and (pages[hits] == 0xEE).all()


def test_an_object_id_for_every_page(pool):
    """Ids that differ in one word each, the indexes all the same."""
    oids = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [U64, U64, U64]], np.uint64)
    assert pool.put_many(oids, [9] * 5, pages_of(range(5))).all()
    assert pool.get((0, 1, 0), 9) == pages_of([2]).tobytes()
    hits, pages = pool.get_many(oids[::-1], [9] * 5)
    assert hits[[0, 1, 3, 4]].all() and (pages[hits] == pages_of(range(5))[::-1][hits]).all()


def test_one_handle_twice_in_a_batch_holds_the_later_page(pool):
    assert pool.put_many(1, [4, 5, 4], pages_of([10, 11, 12])).all()
    assert pool.get(1, 4) == pages_of([12]).tobytes()


def test_pages_that_do_not_lie_together(pool):
    """Every other row of an array, columns of a wider one."""
    wide = np.arange(20 * 2 * PAGE_SIZE, dtype=np.uint32).astype(np.uint8).reshape(20, 2 * PAGE_SIZE)
    pages = wide[::2, PAGE_SIZE:]
    assert pool.put_many(1, range(10), pages).all()
    assert (pool.get_many(1, range(10))[1] == pages).all()


# Refusals

def test_a_refused_put_says_so_and_stores_nothing(still_machine):
    guest = still_machine(budget=1000).guest(pages=16, max_pages=18)
    pool = guest.tmem.new_pool(persistent=True)
    guest.memory.write_many(range(10), np.zeros((10, PAGE_SIZE), np.uint8))
    assert pool.put_many(1, range(6), pages_of(range(6))).all()
    assert pool.put_many(1, range(6, 12), pages_of(range(6, 12))).tolist() == [True] * 2 + [False] * 4
    assert pool.put(1, 20, PAGE) is False
    assert pool.get(1, 20) is None
    assert pool.refusal == Refusal.MAX_MEM
    assert pool.refusals.tolist() == [Refusal.NONE] * 2 + [Refusal.MAX_MEM] * 4
    assert pool.put(1, 0, PAGE) is True, "a replacement needs no room"
    assert pool.new_page(1, 20) is False and pool.write(1, 20, 0, b"x") is False
    assert pool.get_many(1, range(12))[0].tolist() == [True] * 8 + [False] * 4


@pytest.mark.parametrize("batch", [False, True], ids=["single", "in a batch"])
def test_a_replacement_that_is_refused_leaves_nothing(guest, pool, batch):
    """T33 as the guest sees it: False, and then a miss; never the old page."""
    pool.put(1, 0, PAGE)
    guest.machine.store.clients.get(guest.domain.number).replacing_flushes = True
    assert not (pool.put_many(1, [0], pages_of([9]))[0] if batch else pool.put(1, 0, bytes(PAGE_SIZE)))
    assert pool.refusal == Refusal.MIGRATING
    assert pool.get(1, 0) is None


# Parts of pages

def test_a_new_page_is_zeros(pool):
    """T29."""
    assert pool.new_page(1, 0)
    assert pool.get(1, 0) == bytes(PAGE_SIZE)


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 1), (100, 50), (0, PAGE_SIZE), (PAGE_SIZE - 1, 1),
                                                (PAGE_SIZE, 0)])
def test_a_read_gives_just_its_window(keep, offset, length):
    """T30."""
    page = np.random.default_rng(1).bytes(PAGE_SIZE)
    keep.put(1, 0, page)
    assert keep.read(1, 0, offset, length) == page[offset:offset + length]
    assert keep.read(1, 9, offset, length) is None


def test_a_read_is_a_get(guest):
    """It takes the page out of an ephemeral pool."""
    pool = guest.tmem.new_pool(persistent=False)
    pool.put(1, 0, PAGE)
    assert pool.read(1, 0, 0, 8) == PAGE[:8]
    assert pool.read(1, 0, 0, 8) is None and pool.get(1, 0) is None


@pytest.mark.parametrize("data", [b"abc", np.frombuffer(b"abc", np.uint8)], ids=["bytes", "array"])
def test_a_write_keeps_the_rest_of_a_known_page_and_zeroes_that_of_a_new_one(keep, data):
    """T31."""
    keep.put(1, 0, PAGE)
    assert keep.write(1, 0, 10, data) and keep.write(1, 1, 10, data)
    assert keep.get(1, 0) == PAGE[:10] + b"abc" + PAGE[13:]
    assert keep.get(1, 1) == bytes(10) + b"abc" + bytes(PAGE_SIZE - 13)


@pytest.mark.parametrize(("offset", "length"), [(0, PAGE_SIZE + 1), (PAGE_SIZE, 1), (-1, 2), (0, -1), (4000, 97)])
def test_a_part_that_is_in_no_page(guest, keep, offset, length):
    before = guest.counters[Count.HYPERCALLS]
    with pytest.raises(ValueError, match="do not lie in a page of 4096"):
        keep.read(1, 0, offset, length)
    if length >= 0:
        with pytest.raises(ValueError, match="do not lie in a page of 4096"):
            keep.write(1, 0, offset, bytes(length))
    assert guest.counters[Count.HYPERCALLS] == before


# Frozen, and a disk that cannot be read

def test_a_frozen_pool_refuses_and_says_so_and_flushes_all_the_same(guest, keep):
    """T39, T42: EFROZEN of a flush is no error, and the page is gone."""
    keep.put_many(1, range(4), pages_of(range(4)))
    guest.machine.control.freeze(guest.domain.number)
    assert not keep.put(1, 9, PAGE) and keep.refusal == Refusal.FROZEN
    keep.flush(1, 0)
    keep.flush_many(1, [1])
    assert keep.get_many(1, range(4))[0].tolist() == [False, False, True, True]
    keep.flush_object(1)
    assert not keep.get_many(1, range(4))[0].any()


@pytest.mark.parametrize("call", ["get", "read", "get_many", "write"])
def test_a_page_that_cannot_be_read_back_is_no_miss(guest, keep, monkeypatch, call):
    keep.put(1, 0, PAGE)
    storage = guest.machine.store.shelf.storage
    for name in ("read", "read_many"):
        monkeypatch.setattr(storage, name, lambda *_: (_ for _ in ()).throw(OSError(5, "disk")))
    asked = {"get": lambda: keep.get(1, 0), "read": lambda: keep.read(1, 0, 0, 8),
             "get_many": lambda: keep.get_many(1, [0, 1]), "write": lambda: keep.write(1, 0, 0, b"x")}
    with pytest.raises(OSError, match="it is still there"):
        asked[call]()
    monkeypatch.undo()
    assert keep.get(1, 0) == PAGE


def test_a_pool_of_a_guest_that_is_being_migrated_is_not_destroyed(guest, keep):
    """T88."""
    guest.machine.store.clients.get(guest.domain.number).changed = {}
    with pytest.raises(TmemRefused, match="while its guest is being migrated"):
        keep.destroy()
    assert keep.put(1, 0, PAGE)


# Shared pools

SECRET = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
WORDS = (0x80B400C04FD430C8, 0x6BA7B8109DAD11D1)


@pytest.mark.parametrize("secret", [SECRET, SECRET.bytes, SECRET.int], ids=["UUID", "bytes", "int"])
def test_a_secret_under_every_spelling_is_the_same_two_words(secret):
    assert secret_words(secret) == WORDS


@pytest.mark.parametrize(("secret", "words"), [
    ((1 << 128) - 1, "zeros or ones"), (b"\xff" * 16, "zeros or ones"), (UUID(int=0), "zeros or ones"),
    (1 << 128, "128 bits"), (-1, "128 bits"), (b"x" * 15, "16 bytes, not 15"),
])
def test_a_secret_that_cannot_be(guest, secret, words):
    before = guest.counters[Count.HYPERCALLS]
    with pytest.raises(ValueError, match=words):
        guest.tmem.new_pool(persistent=False, shared=secret)
    assert guest.counters[Count.HYPERCALLS] == before


@pytest.fixture
def members(still_machine):
    """Two guests that may share."""
    still = still_machine(budget=2048)
    guests = [still.guest(name, pages=16, max_pages=64) for name in ("a", "b")]
    for guest in guests:
        guest.machine.store.clients.get(guest.domain.number)         # it has made a call before
        assert guest.machine.control.authorise(guest.domain.number, WORDS, True) == Status.OK
    return guests


def test_members_of_a_shared_pool_see_each_others_pages(members):
    """T71, T80, T81."""
    one, other = (guest.tmem.new_pool(persistent=False, shared=SECRET) for guest in members)
    assert one.shared and one.put(1, 0, PAGE)
    assert other.get(1, 0) == PAGE and one.get(1, 0) == PAGE
    assert other.put(1, 0, bytes(PAGE_SIZE)) and one.get(1, 0) == bytes(PAGE_SIZE)
    other.flush(1, 0)
    assert one.get(1, 0) is None


def test_a_guest_that_was_not_let_in_is_told_what_to_do(guest):
    """T76, without Xen's silence: no pool is made."""
    with pytest.raises(TmemRefused, match=r"EACCES.*memcommons ctl CLUSTER tmem-shared-auth GUEST SECRET"):
        guest.tmem.new_pool(persistent=False, shared=SECRET)
    assert guest.tmem.new_pool(persistent=False).number == 0


AFTER_ITS_END = {
    "put": lambda pool: pool.put(1, 0, PAGE), "get": lambda pool: pool.get(1, 0),
    "flush": lambda pool: pool.flush(1, 0), "flush_object": lambda pool: pool.flush_object(1),
    "put_many": lambda pool: pool.put_many(1, [0], pages_of([1])), "get_many": lambda pool: pool.get_many(1, [0]),
    "flush_many": lambda pool: pool.flush_many(1, [0]),
}


@pytest.mark.parametrize("call", AFTER_ITS_END)
def test_a_destroyed_pool_is_refused(pool, call):
    pool.put(1, 0, PAGE)
    pool.destroy()
    pool.destroy()
    with pytest.raises(TmemRefused, match="pool 0 does not exist"):
        AFTER_ITS_END[call](pool)


def test_a_number_given_again_is_another_pool(guest, pool):
    """T11: what was put under the old one is not found."""
    pool.put(1, 0, PAGE)
    pool.destroy()
    again = guest.tmem.new_pool(persistent=True)
    assert again.number == pool.number
    assert again.get(1, 0) is None


def test_one_pool_too_many(guest):
    """T6."""
    pools = [guest.tmem.new_pool(persistent=bool(n % 2)) for n in range(MAX_POOLS)]
    assert [pool.number for pool in pools] == list(range(MAX_POOLS))
    with pytest.raises(TmemRefused, match=r"EPERM.*16 pools at most"):
        guest.tmem.new_pool(persistent=False)
    pools[5].destroy()
    assert guest.tmem.new_pool(persistent=False).number == 5


@pytest.mark.parametrize("scheme", ["none", "swap", "cmm2", "baseline"])
def test_a_scheme_without_tmem(still_machine, scheme):
    guest = still_machine(scheme=scheme).guest()
    with pytest.raises(TmemRefused, match=r"ENODEV.*the scheme has no tmem"):
        guest.tmem.new_pool(persistent=False)


def test_calls_and_waiting_are_counted(guest, keep):
    before = guest.counters.copy()
    keep.put(1, 0, PAGE)
    keep.get(1, 0)
    keep.put_many(1, range(10), pages_of(range(10)))
    gained = guest.counters - before
    assert (gained[Count.HYPERCALLS], gained[Count.MULTICALLS]) == (3, 1)
    assert gained[Count.WAIT_TMEM_NS] > 0
