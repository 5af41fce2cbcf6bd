"""The page allocator: the free list, its marks, and the hints at both ends."""

import pytest
from fakes import HINTS, FakeGuest
from hypothesis import given
from hypothesis import strategies as st

from guests.kernel.allocator import watermarks
from guests.kernel.core import build_core
from guests.volatility import LISTED
from shm.errors import AddressingException, BrokenInvariant, OutOfMemory
from shm.pagestate import UNUSED as U
from shm.pagestate import Essa, State, usage_of

MARKS = [
    # pages,    min,  low,  high
    (16,        1,    2,    3),
    (64,        4,    5,    6),
    (4096,      128,  160,  192),
    (16384,     256,  320,  384),        # 64 MiB: 4 * sqrt(65536) = 1024 KiB
    (262144,    1024, 1280, 1536),       # 1 GiB
]


@pytest.mark.parametrize(("pages", "least", "low", "high"), MARKS)
def test_watermarks(pages, least, low, high):
    assert watermarks(pages) == (least, low, high)


def is_unused(guest: FakeGuest, gfn: int) -> bool:
    return usage_of(guest.states[gfn]) == U


def test_at_boot_every_page_is_free_and_unused():
    guest = FakeGuest(64)
    core = build_core(guest)
    assert core.allocator.free_pages == 64
    assert all(is_unused(guest, gfn) for gfn in range(64))
    assert len(guest.orders) == 1, "one batch"


def test_free_pages_are_unused_and_allocated_ones_are_not():
    """R40, and each batch is one ESSA."""
    guest = FakeGuest(64)
    allocator = build_core(guest).allocator
    guest.orders.clear()
    gfns = allocator.alloc(10)
    assert not any(is_unused(guest, gfn) for gfn in gfns)
    allocator.free(gfns[:4])
    assert [is_unused(guest, gfn) for gfn in gfns] == [True] * 4 + [False] * 6
    assert guest.orders == [(Essa.SET_STABLE, tuple(gfns)), (Essa.SET_UNUSED, tuple(gfns[:4]))]
    allocator.check()


def test_without_the_hint_nothing_is_hinted():
    guest = FakeGuest(64, features=())
    allocator = build_core(guest).allocator
    allocator.free(allocator.alloc(10))
    assert guest.orders == [] and set(guest.states) == {State.Sz}


def test_a_free_page_is_not_to_be_touched():
    guest = FakeGuest(64)
    allocator = build_core(guest).allocator
    gfn, = allocator.alloc(1)
    guest.memory.write(gfn, bytes(4096))
    allocator.free([gfn])
    with pytest.raises(AddressingException):
        guest.memory.read(gfn)


def test_a_volatile_page_is_made_stable_when_it_is_freed_without_the_unused_hint():
    """Its next owner must not lose it to the host."""
    guest = FakeGuest(64, features={"hint-volatile"})
    core = build_core(guest)
    gfn, = core.allocator.alloc(1)
    guest.memory.write(gfn, bytes(4096))
    core.pages.claim([gfn], object(), [0])
    core.pages.facts[gfn] |= LISTED
    core.hints.make_volatile([gfn])
    assert guest.states[gfn] == State.Vr
    core.allocator.free([gfn])
    assert guest.states[gfn] == State.Sr


def test_reclaim_is_asked_below_low_and_for_enough_to_reach_high():
    guest = FakeGuest(256, features=())
    allocator = build_core(guest).allocator
    asked = []
    allocator.reclaim = lambda wanted: asked.append(wanted) or 0
    marks = allocator.marks
    allocator.alloc(256 - marks.low)
    assert asked == [] and allocator.free_pages == marks.low
    allocator.alloc(1)
    assert asked == [marks.high - (marks.low - 1)]


def test_what_is_kept_back_is_not_given():
    guest = FakeGuest(256, features=())
    allocator = build_core(guest).allocator
    held = allocator.alloc(256 - allocator.marks.min)
    with pytest.raises(OutOfMemory, match=r"no page left: 16 of 256 are free, 1 are wanted and 16 are kept back"):
        allocator.alloc(1)
    allocator.reclaim = lambda wanted: allocator.free(held[:wanted]) or wanted
    assert len(allocator.alloc(1)) == 1


def test_reclaim_may_not_ask_for_reclaim():
    guest = FakeGuest(256, features=())
    allocator = build_core(guest).allocator
    depth = []

    def reclaim(wanted: int) -> int:
        depth.append(wanted)
        allocator.alloc(1)
        return 0

    allocator.reclaim = reclaim
    allocator.alloc(256 - allocator.marks.low)
    allocator.alloc(1)
    assert len(depth) == 1


def test_with_room_tries_once_more_and_holds_the_pages():
    guest = FakeGuest(64, features=())
    core = build_core(guest)
    seen, calls = [], []

    def reclaim(wanted: int) -> int:
        seen.append([gfn for gfn in range(64) if core.pages.facts[gfn]])
        return wanted

    def access(gfn: int) -> str:
        calls.append(gfn)
        if len(calls) == 1:
            raise OutOfMemory("full")
        return "done"

    core.allocator.reclaim = reclaim
    assert core.allocator.with_room([7], access, 7) == "done"
    assert seen == [[7]] and not core.pages.array.any()


@pytest.mark.parametrize(("freed", "tries"), [(0, 1), (32, 2)])
def test_with_room_lets_the_second_failure_through(freed, tries):
    core = build_core(FakeGuest(64, features=()))
    core.allocator.reclaim = lambda _: freed
    calls = []

    def access() -> None:
        calls.append(1)
        raise OutOfMemory("full")

    with pytest.raises(OutOfMemory):
        core.allocator.with_room([], access)
    assert len(calls) == tries


def test_the_audit_finds_a_page_freed_twice():
    allocator = build_core(FakeGuest(64, features=())).allocator
    gfn, = allocator.alloc(1)
    allocator.free([gfn])
    allocator.free([gfn])
    with pytest.raises(BrokenInvariant, match="twice"):
        allocator.check()


@given(st.lists(st.integers(-20, 20), max_size=40), st.sampled_from([(), HINTS]))
def test_pages_are_conserved(steps, features):
    guest = FakeGuest(128, features)
    allocator, mine = build_core(guest).allocator, []
    for step in steps:
        if step > 0 and allocator.free_pages - step >= allocator.marks.min:
            mine += allocator.alloc(step)
        elif step < 0:
            allocator.free(mine[step:])
            del mine[step:]
        assert sorted([*allocator.free_list(), *mine]) == list(range(128))
        allocator.check()
        if features:
            assert {gfn for gfn in range(128) if is_unused(guest, gfn)} == set(allocator.free_list())
