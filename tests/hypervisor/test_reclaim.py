"""Reclaim on a machine that stands still: what is found, how far it goes, and whom it passes by."""

import errno
import os

import numpy as np
import pytest

from hypervisor import domains, reclaim
from hypervisor.ledger import HEAP
from hypervisor.policy import POLICIES
from hypervisor.policy.census import EPHEMERAL, Hand, Plan
from hypervisor.reclaim import BACKGROUND_BATCH, HIGH_FACTOR, LEAST_LOW, PASSES, PAUSE_S
from shm.abi import PAGE_SIZE
from shm.errors import OutOfMemory
from shm.pagestate import Essa, State


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until a test moves it: grace ends when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(domains, "monotonic", lambda: now[0])
    monkeypatch.setattr(reclaim, "monotonic", lambda: now[0])
    return now


def page(number):
    return bytes([number % 251 + 1]) * PAGE_SIZE


def fill(guest, *gfns, clean=False):
    for gfn in gfns:
        guest.memory.write(gfn, page(gfn), clean=clean)


def forget_references(guest):
    """As if the hand had come by: no page is referenced, none in its grace."""
    guest.map.usage[:] &= 0xFF ^ 0x10
    guest.domain.grace.mask[:] = False


def resident(guest):
    return np.flatnonzero(guest.domain.resident_mask()).tolist()


def test_room_that_is_free_costs_no_reclaim(still_machine):
    still = still_machine(budget=16)
    guest = still.guest()
    assert still.machine.reclaim.room(guest.domain.number, 16)
    assert guest.counts.direct_reclaims == 0
    still.machine.ledger.release(guest.domain.number, 16)


def test_room_that_is_not_free_is_found_and_the_asker_is_counted(still_machine, clock):
    still = still_machine(budget=16)
    guest = still.guest(pages=32)
    fill(guest, *range(16))
    forget_references(guest)
    fill(guest, 20)
    assert guest.counts.direct_reclaims == 1
    assert guest.memory.read(20) == page(20)
    assert still.machine.ledger.used <= 16


def test_room_for_the_heap_is_nobodys_direct_reclaim(still_machine, clock):
    still = still_machine(budget=16)
    guest = still.guest(pages=32)
    fill(guest, *range(16))
    forget_references(guest)
    assert still.machine.reclaim.room(HEAP, 4)
    assert guest.counts.direct_reclaims == 0
    still.machine.ledger.release(HEAP, 4)


def test_what_cannot_be_met_is_an_error_to_the_asker_and_no_overrun(still_machine):
    still = still_machine(budget=8, swap=0)
    guest = still.guest(pages=32)
    fill(guest, *range(8))
    with pytest.raises(OutOfMemory):
        fill(guest, 8)
    assert (still.machine.ledger.used, still.machine.ledger.peak, guest.counts.refused_faults) == (8, 8, 1)
    assert [guest.memory.read(gfn) for gfn in range(8)] == [page(gfn) for gfn in range(8)]


def test_a_batch_is_granted_in_part_when_there_is_room_for_a_part(still_machine):
    still = still_machine(budget=8, swap=0)
    guest = still.guest(pages=32)
    fill(guest, 0, 1, 2)
    guest.transfer.gfns[:8] = np.arange(8, 16)
    reply = guest.channel.call(201, 8)
    assert (reply.status, reply.value) == (1, 4), "halved until it fits"
    assert resident(guest) == [0, 1, 2, 8, 9, 10, 11]


def test_unused_pages_go_first_whatever_was_referenced(still_machine, clock):
    still = still_machine(budget=32)
    guest = still.guest(pages=32)
    fill(guest, *range(12))
    forget_references(guest)
    guest.memory.read(5)
    guest.essa(Essa.SET_UNUSED, [5, 9])
    assert still.machine.reclaim.free_up(2) == 2
    assert resident(guest) == [gfn for gfn in range(12) if gfn not in (5, 9)]
    assert guest.counts.swap_out == 0


def test_free_heap_frames_go_before_any_page(still_machine):
    still = still_machine(budget=64)
    guest = still.guest(pages=32)
    fill(guest, *range(4))
    pool = guest.tmem.new_pool(persistent=False)
    assert pool.put(1, 1, page(1))
    pool.flush(1, 1)
    spare = still.machine.heap.spare
    assert spare > 0
    assert still.machine.reclaim.free_up(spare) == spare
    assert (still.machine.heap.spare, resident(guest)) == (0, [0, 1, 2, 3])


def test_what_was_accessed_lately_outlives_what_was_not(still_machine, clock):
    """Second chance, by the bits that real accesses set."""
    still = still_machine(budget=32)
    guest = still.guest(pages=16)
    fill(guest, *range(16))
    forget_references(guest)
    guest.memory.read_many([1, 3])
    guest.memory.write_part(7, 0, b"x")
    assert still.machine.reclaim.free_up(13) == 13
    assert resident(guest) == [1, 3, 7]
    assert not (guest.map.usage[[1, 3, 7]] & 0x10).any(), "their chance is used up"
    assert still.machine.reclaim.free_up(1) == 1
    assert resident(guest) == [3, 7]


def test_the_hand_goes_on_where_it_stopped(still_machine, clock):
    still = still_machine(budget=32)
    first, second = still.guest("a", pages=4), still.guest("b", pages=4)
    for guest in (first, second):
        fill(guest, *range(4))
        forget_references(guest)
    taken = []
    for _ in range(8):
        before = {(guest.domain.number, gfn) for guest in (first, second) for gfn in resident(guest)}
        assert still.machine.reclaim.free_up(1) == 1
        taken += before - {(guest.domain.number, gfn) for guest in (first, second) for gfn in resident(guest)}
    assert taken == [(number, gfn) for number in (0, 1) for gfn in range(4)]


def test_a_page_just_granted_is_no_victim_until_it_was_accessed_or_its_time_is_over(still_machine, clock):
    still = still_machine(budget=32)
    guest = still.guest(pages=8)
    guest.transfer.gfns[:3] = [0, 1, 2]
    assert guest.channel.call(201, 3).value == 3
    assert still.machine.reclaim.free_up(3) == 0
    guest.memory.read(1)
    assert still.machine.reclaim.free_up(3) == 1, "accessed: a page like any other"
    assert resident(guest) == [0, 2]
    clock[0] += domains.GRACE_S
    assert still.machine.reclaim.free_up(3) == 2


def test_ephemeral_pages_give_their_frames_oldest_first(still_machine):
    still = still_machine(budget=64, swap=0)
    guest = still.guest(pages=8)
    pool = guest.tmem.new_pool(persistent=False)
    assert all(pool.put(1, index, page(index)) for index in range(6))
    still.machine.reclaim.free_up(still.machine.heap.spare)
    used = still.machine.ledger.used
    assert still.machine.reclaim.free_up(2) == 2
    assert still.machine.ledger.used == used - 2
    assert [pool.get(1, index) for index in range(6)] == [None, None] + [page(index) for index in range(2, 6)]


def test_persistent_pages_are_never_taken(still_machine):
    still = still_machine(budget=64, swap=0)
    guest = still.guest(pages=8, max_pages=32)
    pool = guest.tmem.new_pool(persistent=True)
    assert all(pool.put(1, index, page(index)) for index in range(6))
    still.machine.reclaim.free_up(1000)
    assert [pool.get(1, index) for index in range(6)] == [page(index) for index in range(6)]


def test_a_guest_that_holds_its_lock_is_passed_by_and_another_gives(still_machine, clock):
    still = still_machine(budget=32)
    holder, other = still.guest("holder", pages=8), still.guest("other", pages=8)
    for guest in (holder, other):
        fill(guest, *range(8))
        forget_references(guest)
    with holder.map.lock:
        assert still.machine.reclaim.free_up(4) == 4
    assert (len(resident(holder)), len(resident(other))) == (8, 4)


def test_planning_again_for_what_is_missing_has_an_end(still_machine, clock):
    still = still_machine(budget=32)
    guest = still.guest(pages=8)
    fill(guest, *range(8))
    forget_references(guest)
    wanted = []

    def hopeful(census, frames):
        wanted.append(frames)
        return Plan(Hand(), evict=((guest.domain.number, np.array([8 - frames])),)) if frames else Plan(Hand())

    still.machine.reclaim.policy = hopeful
    with guest.map.lock:
        assert still.machine.reclaim.free_up(8) == 0
    assert wanted == [8] * PASSES
    assert still.machine.reclaim.free_up(8) == PASSES
    assert wanted[PASSES:] == [8, 7, 6, 5], "what is missing is planned again"


def test_a_plan_that_hopes_for_nothing_is_the_last(still_machine):
    still = still_machine(budget=32)
    plans = []
    still.machine.reclaim.policy = lambda census, frames: plans.append(frames) or Plan(Hand())
    assert still.machine.reclaim.free_up(5) == 0
    assert plans == [5]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_swap_disk_that_fails_leaves_the_volatile_pages_to_be_taken(still_machine, clock, monkeypatch, number):
    still = still_machine(budget=32)
    guest = still.guest(pages=16)
    fill(guest, *range(16))
    guest.essa(Essa.SET_VOLATILE, range(8))
    forget_references(guest)

    def fail(fd, data, at):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fail)
    assert still.machine.reclaim.free_up(16) == 8
    assert resident(guest) == list(range(8, 16))
    assert [guest.memory.read(gfn) for gfn in range(8, 16)] == [page(gfn) for gfn in range(8, 16)]


# census


def test_the_census_is_what_there_is(still_machine, clock):
    still = still_machine(budget=64, swap=4)
    guest = still.guest(pages=8)
    fill(guest, *range(4))
    forget_references(guest)
    guest.essa(Essa.SET_VOLATILE, [1])
    guest.essa(Essa.SET_UNUSED, [2, 7])
    guest.memory.read(3)
    guest.transfer.gfns[:2] = [4, 5]
    guest.channel.call(201, 2)
    guest.memory.read(5)
    pool = guest.tmem.new_pool(persistent=False)
    pool.put(1, 1, page(1))
    census = still.machine.reclaim.census()
    [holding] = census.guests
    assert [State(state).name for state in holding.states] == ["Sr", "Vr", "Ur", "Sr", "Sr", "Sr", "Sz", "Uz"]
    assert np.flatnonzero(holding.referenced).tolist() == [3, 5]
    assert np.flatnonzero(holding.grace).tolist() == [4], "granted and not accessed"
    assert (census.ephemeral, census.aged, census.heap_free) == (1, 0, still.machine.heap.spare)
    assert census.can_preserve and census.hand == Hand(EPHEMERAL, 0)


def test_a_full_swap_disk_is_no_disk_to_the_policy(still_machine):
    still = still_machine(budget=64, swap=2)
    taken = still.machine.swap.allocate(2)
    assert not still.machine.reclaim.census().can_preserve
    still.machine.swap.release(taken)
    assert still.machine.reclaim.census().can_preserve


# background


def test_background_reclaim_starts_below_the_low_watermark_and_ends_at_the_high_one(still_machine, clock):
    still = still_machine(budget=64)
    guest = still.guest(pages=64)
    low, machine = still.machine.reclaim.low, still.machine
    assert low == LEAST_LOW
    fill(guest, *range(64 - low))
    forget_references(guest)
    machine.reclaim.background()
    assert (machine.reclaim.background_runs, machine.ledger.free) == (0, low)
    fill(guest, 63)
    forget_references(guest)
    machine.reclaim.background()
    assert (machine.reclaim.background_runs, machine.ledger.free) == (1, HIGH_FACTOR * low)
    assert guest.counts.direct_reclaims == 0


def test_background_reclaim_is_bounded_a_round(still_machine, clock):
    still = still_machine(budget=64)
    wanted = []
    still.machine.reclaim.free_up = lambda frames, for_put: wanted.append(frames) or frames
    still.machine.ledger.budget = 1 << 20
    still.machine.ledger.reserve(HEAP, 1 << 20)
    still.machine.reclaim.background()
    still.machine.ledger.release(HEAP, 1 << 20)
    assert wanted == [BACKGROUND_BATCH]


def test_fruitless_background_reclaim_pauses(still_machine, clock):
    """A machine full of what nobody can take does not count it over and over."""
    still = still_machine(budget=8, swap=0)
    guest = still.guest(pages=8)
    fill(guest, *range(8))
    runs = []
    for _ in range(3):
        still.machine.reclaim.background()
        runs.append(still.machine.reclaim.background_runs)
    clock[0] += PAUSE_S
    still.machine.reclaim.background()
    assert runs + [still.machine.reclaim.background_runs] == [1, 1, 1, 2]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_keeps_every_byte(still_machine, policy):
    """R42: which victims are chosen changes costs, never contents."""
    still = still_machine(budget=12, swap=256, reclaim=policy)
    guests = [still.guest("a", pages=48), still.guest("b", pages=48)]
    rng = np.random.default_rng(4)
    for gfn in range(48):
        for guest in guests:
            guest.memory.write(gfn, page(gfn + guest.domain.number))
    for _ in range(400):
        guest, gfn = guests[rng.integers(2)], int(rng.integers(48))
        assert guest.memory.read(gfn) == page(gfn + guest.domain.number)
    assert still.machine.ledger.peak <= 12
    assert sum(guest.counts.swap_in for guest in guests) > 0


@pytest.mark.parametrize(("bias", "taken"), [(0.0, [0, 1, 2, 3]), (0.5, [0, 1, 6, 7]), (1.0, [4, 5, 6, 7])])
def test_a_machine_has_the_bias_it_was_started_with(still_machine, clock, bias, taken):
    still = still_machine(budget=16, bias=bias)
    guest = still.guest(pages=16)
    fill(guest, *range(8), clean=True)
    guest.essa(Essa.SET_VOLATILE, np.arange(4, 8) if bias == 1.0 else np.array([6, 7]))
    forget_references(guest)
    assert still.machine.reclaim.free_up(4) == 4
    assert sorted(set(range(8)) - set(resident(guest))) == taken
