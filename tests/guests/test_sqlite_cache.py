"""The pages of SQLite's caches: each is worth what SQLite makes of it, and none is lost or in two places."""

import zlib

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from plain_guest import PlainGuest

from guests.sqlite_cache import RESERVE, Cache, CacheMemory, Checksums
from shm.counters import Count
from shm.pagestate import BYTE, POT_VOLATILE, STABLE, UNUSED, USAGE_MASK, VOLATILE, Essa

PAGES = 64                       # two of them are the reserve


def made(pages: int = PAGES, purgeable: bool = True, **options) -> tuple[PlainGuest, CacheMemory, Cache]:
    guest = PlainGuest(pages, **options)
    memory = CacheMemory(guest, range(pages))
    return guest, memory, memory.caches[memory.new_cache(purgeable)]


def usage(guest: PlainGuest, gfn: int) -> int:
    return BYTE[guest.states[gfn]] & USAGE_MASK


def filled(cache: Cache, keys: range, idle: bool = True) -> list[int]:
    gfns = [cache.add(key, must=True) for key in keys]
    for gfn in gfns if idle else ():
        cache.let_go(gfn)
    return gfns


def test_a_page_is_unused_then_stable_then_volatile_then_stable_then_unused() -> None:
    guest, memory, cache = made()
    assert {usage(guest, gfn) for gfn in range(PAGES)} == {UNUSED}
    gfn = cache.add(7, must=False)
    assert usage(guest, gfn) == STABLE
    cache.let_go(gfn)
    assert usage(guest, gfn) == VOLATILE
    assert cache.find(7) == gfn
    assert usage(guest, gfn) == STABLE
    cache.drop(gfn)
    assert usage(guest, gfn) == UNUSED
    assert memory.free == PAGES


def test_a_pinned_page_is_found_without_a_hint() -> None:
    guest, _, cache = made()
    gfn = cache.add(7, must=False)
    before = len(guest.orders)
    assert cache.find(7) == gfn
    assert len(guest.orders) == before


def test_a_discarded_page_is_a_miss_and_no_fault() -> None:
    guest, memory, cache = made()
    [gfn] = filled(cache, range(7, 8))
    assert guest.discard([gfn]) == [gfn]
    assert cache.find(7) is None
    assert (guest.counters[Count.STABLE_FAILURES], guest.counters[Count.DISCARD_FAULTS]) == (1, 0)
    assert not cache.gfns and not cache.idle and memory.free == PAGES
    assert usage(guest, cache.add(7, must=False)) == STABLE


def test_a_cache_that_is_not_purgeable_stays_stable() -> None:
    guest, memory, keeper = made(purgeable=False)
    kept = filled(keeper, range(PAGES))
    assert {usage(guest, gfn) for gfn in kept} == {STABLE}
    assert not keeper.idle
    other = memory.caches[memory.new_cache(True)]
    assert other.add(1, must=True) is None, "nothing of it is recycled"
    assert all(keeper.find(key) == gfn for key, gfn in enumerate(kept))


def test_refused_where_nothing_is_free_or_idle_and_the_reserve_is_for_those_who_must() -> None:
    _, memory, cache = made()
    reserve = PAGES // RESERVE
    filled(cache, range(PAGES - reserve), idle=False)
    assert cache.add(100, must=False) is None
    assert [cache.add(101 + n, must=True) is None for n in range(reserve + 1)] == [False] * reserve + [True]
    assert memory.free == 0


def test_the_oldest_idle_page_goes_first() -> None:
    guest, _, cache = made()
    filled(cache, range(PAGES - PAGES // RESERVE))
    cache.let_go(cache.find(0))                      # used again: 1 is the oldest now
    assert cache.add(100, must=False) is not None
    assert cache.find(1) is None
    assert cache.find(0) is not None
    assert guest.counters[Count.RECLAIMED_PAGES] == 1


def test_a_cache_keeps_within_its_limit_and_takes_its_own() -> None:
    _, memory, cache = made()
    other = memory.caches[memory.new_cache(True)]
    filled(other, range(5))
    cache.limit = 4
    filled(cache, range(10))
    assert sorted(cache.gfns) == [6, 7, 8, 9]
    assert len(other.gfns) == 5
    for key in list(cache.gfns):
        cache.find(key)
    assert cache.add(20, must=False) is None, "all pinned, and as large as it may be"
    assert cache.add(20, must=True) is not None
    cache.let_go(cache.find(20))
    assert 20 not in cache.gfns, "what is too much goes when it is let go"


def test_idle_pages_of_others_are_taken_when_none_is_free() -> None:
    _, memory, cache = made()
    other = memory.caches[memory.new_cache(True)]
    filled(other, range(PAGES - PAGES // RESERVE))
    assert cache.add(1, must=False) is not None
    assert 0 not in other.gfns


@pytest.mark.parametrize(("features", "expected"), [
    ((), set()), (("hint-unused",), {Essa.SET_UNUSED, Essa.SET_STABLE}),
    (("hint-volatile",), {Essa.SET_VOLATILE, Essa.SET_STABLE_IF_NOT_DISCARDED, Essa.SET_STABLE})])
def test_what_the_scheme_does_not_offer_is_not_hinted(features, expected) -> None:
    guest, _, cache = made(features=features)
    for key in range(2 * PAGES):                     # more than there are, so that some are recycled
        cache.let_go(cache.find(key) or cache.add(key, must=False))
    cache.let_go(cache.find(2 * PAGES - 1))
    cache.shrink()
    assert {order for order, _ in guest.orders} == expected


def test_rekey_truncate_and_the_end() -> None:
    _, memory, cache = made()
    gfns = filled(cache, range(10), idle=False)
    cache.let_go(gfns[9])
    cache.rekey(gfns[3], 3, 9)                       # 9 was there, idle: dropped
    assert cache.find(9) == gfns[3]
    assert cache.find(3) is None
    cache.truncate(5)                                # pinned ones too
    assert sorted(cache.gfns) == [0, 1, 2, 4]
    cache.let_go(gfns[2])
    cache.shrink()
    assert sorted(cache.gfns) == [0, 1, 4]
    memory.end_cache(1)
    assert memory.free == PAGES and not memory.caches


def test_a_page_that_changed_while_it_was_idle_is_found() -> None:
    guest, heard = PlainGuest(8), []
    memory = CacheMemory(guest, range(8), Checksums(guest.memory.view, zlib.crc32,
                                                      lambda *what: heard.append(what)))
    cache = memory.caches[memory.new_cache(True)]
    for key, spoil in ((1, False), (2, True)):
        gfn = cache.add(key, must=True)
        cache.let_go(gfn)
        guest.memory.rows[gfn, 99] ^= spoil
        cache.find(key)
    assert [right for _, right in heard] == [True, False]


class Caches(RuleBasedStateMachine):
    """Three caches against a model that knows what SQLite put where, with a host that takes what it may."""

    @initialize(features=st.sampled_from([("hint-unused", "hint-volatile"), ("hint-volatile",), ()]))
    def start(self, features) -> None:
        self.guest, self.memory, _ = made(24, features=features)
        self.purgeable = {1: True, 2: True, 3: False}
        assert [self.memory.new_cache(self.purgeable[number]) for number in (2, 3)] == [2, 3]
        self.pinned: dict[tuple[int, int], int] = {}     # (cache, key) -> gfn
        self.content: dict[tuple[int, int], int] = {}    # what was written there last
        self.turn = 0

    @rule(number=st.integers(1, 3), key=st.integers(1, 12), create=st.integers(0, 2))
    def fetch(self, number, key, create) -> None:
        cache, where = self.memory.caches[number], (number, key)
        gfn = cache.find(key)
        if where in self.pinned:
            assert gfn == self.pinned[where]
            return
        if gfn is None and create:
            assert self.purgeable[number] or where not in self.content, "the only copy was lost"
            gfn = cache.add(key, must=create == 2)
            if gfn is not None:
                self.content[where] = self.turn = self.turn + 1
                self.guest.memory.rows[gfn, :8] = list(self.turn.to_bytes(8, "little"))
        if gfn is not None:
            assert int.from_bytes(bytes(self.guest.memory.rows[gfn, :8]), "little") == self.content[where]
            self.pinned[where] = gfn

    @precondition(lambda self: self.pinned)
    @rule(data=st.data(), discard=st.booleans())
    def unpin(self, data, discard) -> None:
        where = data.draw(st.sampled_from(sorted(self.pinned)))
        gfn, cache = self.pinned.pop(where), self.memory.caches[where[0]]
        if discard:
            cache.drop(gfn)
            del self.content[where]
        else:
            cache.let_go(gfn)

    @precondition(lambda self: self.pinned)
    @rule(data=st.data(), new=st.integers(1, 12))
    def rekey(self, data, new) -> None:
        number, old = where = data.draw(st.sampled_from(sorted(self.pinned)))
        if (number, new) in self.pinned or not self.purgeable[number]:
            return
        self.memory.caches[number].rekey(self.pinned[where], old, new)
        self.pinned[number, new] = self.pinned.pop(where)
        self.content[number, new] = self.content.pop(where)

    @rule(number=st.integers(1, 3), key=st.integers(1, 13))
    def truncate(self, number, key) -> None:
        self.memory.caches[number].truncate(key)
        for book in (self.pinned, self.content):
            for where in [where for where in book if where[0] == number and where[1] >= key]:
                del book[where]

    @rule(number=st.integers(1, 2), limit=st.integers(0, 12))
    def resize(self, number, limit) -> None:
        self.memory.caches[number].limit = limit

    @rule(number=st.integers(1, 3))
    def shrink(self, number) -> None:
        self.memory.caches[number].shrink()
        assert not self.memory.caches[number].idle

    @rule(gfns=st.lists(st.integers(0, 23), unique=True))
    def host_takes(self, gfns) -> None:
        self.guest.discard(gfns)

    @invariant()
    def each_page_is_in_one_place_and_worth_what_it_is(self) -> None:
        hints, held = self.guest.features, []
        for cache in self.memory.caches.values():
            held += cache.gfns.values()
            for gfn in cache.gfns.values():
                idle = gfn in cache.idle
                assert usage(self.guest, gfn) == (VOLATILE if idle and "hint-volatile" in hints else STABLE)
        free = self.memory._free
        assert sorted(held + free) == list(range(24))
        assert {usage(self.guest, gfn) for gfn in free} <= (
            {UNUSED} if "hint-unused" in hints else {STABLE, VOLATILE, POT_VOLATILE})
        assert all(self.memory.caches[number].gfns[key] == gfn for (number, key), gfn in self.pinned.items())


TestCaches = Caches.TestCase
