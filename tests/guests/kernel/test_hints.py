"""The guest half of CMM2: wishes that may be refused, and duties that are not."""

import pytest
from fakes import ALL, FakeGuest

from guests.kernel.core import Core, build_core
from guests.volatility import (
    ANONYMOUS,
    DIRTY,
    DISCARDED,
    HELD,
    KEPT,
    LISTED,
    LOCKED,
    MAPPED,
    MLOCKED,
    PRIVATE,
    RESERVED,
    SHARED,
    SWAP_CACHE,
    UPTODATE,
    VOLATILE,
    WRITABLE,
    WRITEBACK,
)
from shm.counters import Count
from shm.errors import BrokenInvariant
from shm.pagestate import Essa, Pr, Sr, Vr, Vz

FILE = MAPPED | UPTODATE | LISTED
REFUSED = [
    # condition of reference 2.3,        facts
    ("1 reserved",                       FILE | RESERVED),
    ("2 dirty",                          FILE | DIRTY),
    ("3 under write-back",               FILE | WRITEBACK),
    ("4 locked",                         FILE | LOCKED),
    ("5 anonymous",                      FILE | ANONYMOUS),
    ("6 no mapping",                     FILE & ~MAPPED),
    ("7 not up to date",                 FILE & ~UPTODATE),
    ("8 private data",                   FILE | PRIVATE),
    ("9 discarded already",              FILE | DISCARDED),
    ("10 not on a list",                 FILE & ~LISTED),
    ("11 held",                          FILE | HELD),
    ("12 of a file that was mlocked",    FILE | MLOCKED),
    ("13 shared memory in swap cache",   FILE | ANONYMOUS | SWAP_CACHE | SHARED),
]
COUNTS = [1, 3, 100]                     # the scalar, the looping and the vector form


def with_pages(count: int, facts: int, features=ALL, **options) -> tuple[FakeGuest, Core, list[int]]:
    guest = FakeGuest(256, features)
    core = build_core(guest, **options)
    gfns = core.allocator.alloc(count)
    for gfn in gfns:
        guest.memory.write(gfn, bytes([gfn]) * 4096, clean=True)
        core.pages.facts[gfn] = facts
    guest.orders.clear()
    return guest, core, gfns


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("facts", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_refused_wish_costs_no_essa(facts, count):
    """R32, one condition each."""
    guest, core, gfns = with_pages(count, facts)
    core.hints.make_volatile(gfns)
    core.hints.make_volatile_one(gfns[0])
    assert guest.orders == [] and {guest.states[gfn] for gfn in gfns} == {Sr}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("facts", [FILE, FILE | ANONYMOUS | SWAP_CACHE])
def test_a_granted_wish_is_one_essa_for_all(facts, count):
    guest, core, gfns = with_pages(count, facts)
    core.hints.make_volatile(gfns)
    core.hints.make_volatile(gfns)                   # volatile already: nothing more to say
    assert guest.orders == [(Essa.SET_VOLATILE, tuple(gfns))]
    assert all(core.pages.facts[gfn] == facts | VOLATILE and guest.states[gfn] == Vr for gfn in gfns)


@pytest.mark.parametrize("count", COUNTS)
def test_only_the_willing_of_a_batch_are_hinted(count):
    guest, core, gfns = with_pages(count, FILE)
    core.pages.facts[gfns[0]] |= DIRTY
    core.hints.make_volatile(gfns)
    assert guest.ordered(Essa.SET_VOLATILE) == gfns[1:]


@pytest.mark.parametrize("count", COUNTS)
def test_make_stable_names_what_was_discarded_and_takes_no_fault(count):
    """R34."""
    guest, core, gfns = with_pages(count, FILE)
    core.hints.make_volatile(gfns)
    lost = guest.discard(gfns[::2])
    guest.orders.clear()
    assert core.hints.make_stable(gfns) == set(lost)
    assert guest.orders == [(Essa.SET_STABLE_IF_NOT_DISCARDED, tuple(gfns))]
    assert guest.counters[Count.STABLE_FAILURES] == len(lost) and guest.counters[Count.DISCARD_FAULTS] == 0
    for gfn in gfns:
        assert guest.states[gfn] == (Vz if gfn in lost else Sr)
        assert bool(core.pages.facts[gfn] & VOLATILE) == (gfn in lost)


def test_make_stable_of_one_page():
    guest, core, (kept, lost) = with_pages(2, FILE)
    core.hints.make_volatile([kept, lost])
    guest.discard([lost])
    assert core.hints.make_stable_one(kept) and not core.hints.make_stable_one(lost)
    assert (guest.states[kept], guest.states[lost]) == (Sr, Vz)
    assert guest.counters[Count.STABLE_FAILURES] == 1


def test_a_page_believed_stable_needs_no_essa():
    guest, core, gfns = with_pages(3, FILE)
    assert core.hints.make_stable(gfns) == set() and core.hints.make_stable_one(gfns[0])
    assert guest.orders == []


def test_without_the_hint_no_page_is_ever_volatile():
    guest, core, gfns = with_pages(100, FILE, features={"hint-unused"})
    core.hints.make_volatile(gfns)
    core.hints.make_volatile_one(gfns[0])
    assert core.hints.make_stable(gfns) == set()
    assert guest.orders == []


def test_a_page_that_is_being_made_stable_cannot_be_left_volatile():
    """R35: while it is held, wishes are refused."""
    guest, core, gfns = with_pages(1, FILE)
    core.hints.make_volatile(gfns)
    with core.pages.held(gfns):
        core.hints.make_stable(gfns)
        core.hints.make_volatile(gfns)
        assert guest.states[gfns[0]] == Sr
    core.hints.make_volatile(gfns)
    assert guest.states[gfns[0]] == Vr


@pytest.mark.parametrize("count", COUNTS)
def test_a_page_that_may_be_stored_to_becomes_p_and_never_v(count):
    """R37: order 4 for these, order 3 for the others, one ESSA each."""
    guest, core, gfns = with_pages(count, FILE)
    writable = gfns[::2]
    core.pages.set(writable, WRITABLE)
    core.hints.make_volatile(gfns)
    assert guest.ordered(Essa.SET_POT_VOLATILE) == writable and len(guest.orders) <= 2
    assert all(guest.states[gfn] == (Pr if gfn in writable else Vr) for gfn in gfns)
    assert core.hints.make_stable(gfns) == set() and {guest.states[gfn] for gfn in gfns} == {Sr}


@pytest.mark.parametrize("count", COUNTS)
def test_with_dirty_bits_a_mapping_it_stays_stable(count):
    """R37."""
    guest, core, gfns = with_pages(count, FILE | WRITABLE, page_dirty_bits=False)
    core.hints.make_volatile(gfns)
    core.hints.make_volatile_one(gfns[0])
    assert guest.orders == [] and {guest.states[gfn] for gfn in gfns} == {Sr}


@pytest.mark.parametrize("many", [False, True])
def test_a_page_that_keeps_its_place_is_restored_there_before_it_is_made_stable(many, monkeypatch):
    """As in hardware mode: the touch restores it, and the host may take it again meanwhile."""
    guest, core, (gfn,) = with_pages(1, FILE | KEPT)
    core.hints.make_volatile_one(gfn)
    guest.discard([gfn])
    again = iter([Vz, Vr, None])

    def touch(touched, offset, length):
        guest.states[touched] = next(again)

    monkeypatch.setattr(guest.memory, "read_part", touch)
    assert core.hints.make_stable([gfn]) == set() if many else core.hints.make_stable_one(gfn)
    assert guest.states[gfn] == Sr and not core.pages.facts[gfn] & VOLATILE and next(again) is None


def test_a_page_that_the_host_takes_for_ever_is_given_up(monkeypatch):
    guest, core, (gfn,) = with_pages(1, FILE | KEPT)
    core.hints.make_volatile_one(gfn)
    guest.discard([gfn])
    monkeypatch.setattr(guest.memory, "read_part", lambda gfn, offset, length: None)
    with pytest.raises(BrokenInvariant, match="discarded 100 times"):
        core.hints.make_stable_one(gfn)
