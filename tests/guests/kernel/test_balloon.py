"""The balloon, by hand and by itself: on a host that is played, and on the real one."""

import numpy as np
import pytest
from fakes import ALL, TMEM, FakeGuest, block_contents

from guests.disk import Disk
from guests.kernel import Kernel
from guests.kernel.balloon import LOOK_EVERY, RETRY_S, USABLE
from guests.selfballoon import INTERVAL_S, Rules, floor_of
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem
from shm.pagestate import State

PAGES = 600
BOTH = pytest.mark.parametrize("features", [ALL, TMEM, frozenset()], ids=["with hints", "tmem alone", "nothing"])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def build(new_disk, features=ALL, pages: int = PAGES, swap: bool = True, **options):
    guest = FakeGuest(pages, features)
    disk = new_disk(4 * pages, guest.counters) if swap else None
    return guest, Kernel(guest, disk, **options)


@BOTH
def test_pages_of_the_balloon_are_the_hosts_and_come_back_zero(new_disk, features):
    guest, kernel = build(new_disk, features)
    anon = kernel.anon(100)
    stored = block_contents(range(100))
    anon.write_many(range(100), stored)
    free = kernel.free_pages
    assert kernel.balloon.set_target(PAGES - 300) == PAGES - 300
    assert kernel.free_pages == free - 300 and len(set(kernel.balloon.gfns)) == 300
    assert {guest.states[gfn] for gfn in kernel.balloon.gfns} == {State.Uz}
    kernel.check()
    assert np.array_equal(anon.read_many(range(100)), stored)
    assert kernel.balloon.set_target(PAGES) == PAGES and kernel.free_pages == free
    kernel.check()
    assert np.array_equal(kernel.anon(400).read_many(range(400)), np.zeros((400, PAGE_SIZE), np.uint8))
    assert np.array_equal(anon.read_many(range(100)), stored)
    kernel.check()


@BOTH
def test_the_guests_own_reclaim_makes_room(new_disk, features):
    _, kernel = build(new_disk, features)
    anon = kernel.anon(500)
    stored = block_contents(range(500))
    anon.write_many(range(500), stored)
    assert kernel.balloon.set_target(200) == 200
    kernel.check()
    assert np.array_equal(anon.read_many(range(500)), stored)
    kernel.check()


@pytest.mark.parametrize("target", [0, 1, 40])
def test_what_the_allocator_keeps_back_stays(new_disk, target):
    """As near as reclaim gets, to the page; the guest works on."""
    _, kernel = build(new_disk)
    anon = kernel.anon(300)
    stored = block_contents(range(300))
    anon.write_many(range(300), stored)
    left = kernel.balloon.set_target(target)
    assert left == max(target, kernel.core.allocator.marks.min)
    assert kernel.balloon.set_target(120) == 120
    assert np.array_equal(anon.read_many(range(300)), stored)
    kernel.check()


def test_a_guest_without_swap_keeps_what_it_needs(new_disk):
    _, kernel = build(new_disk, swap=False)
    anon = kernel.anon(300)
    stored = block_contents(range(300))
    anon.write_many(range(300), stored)
    assert kernel.balloon.set_target(100) == 300 + kernel.core.allocator.marks.min
    assert np.array_equal(anon.read_many(range(300)), stored)


@pytest.mark.parametrize("target", [-1, PAGES + 1])
def test_a_target_that_cannot_be(new_disk, target):
    _, kernel = build(new_disk)
    with pytest.raises(ValueError, match="use 0 to 600"):
        kernel.balloon.set_target(target)


def test_frames_go_to_the_host_in_batches(new_disk):
    guest, kernel = build(new_disk)
    kernel.balloon.set_target(PAGES - MULTICALL_LIMIT)
    kernel.balloon.set_target(PAGES - MULTICALL_LIMIT)
    assert guest.memory.calls["balloon"] == 1
    kernel.balloon.set_target(PAGES - 2 * MULTICALL_LIMIT)
    assert guest.memory.calls["balloon"] == 2
    assert guest.counters[Count.BALLOON_PAGES] == 2 * MULTICALL_LIMIT
    assert guest.counters[Count.BALLOON_TARGET] == PAGES - 2 * MULTICALL_LIMIT


# By itself

BIG = 8192                                           # 32 MiB: large enough for the floor's second row


def ticks(kernel: Kernel, clock: Clock, intervals: int = 1) -> None:
    for _ in range(intervals):
        clock.now += INTERVAL_S
        for _ in range(LOOK_EVERY):
            kernel.tick()


@pytest.fixture
def alone(new_disk):
    clock = Clock()
    guest, kernel = build(new_disk, pages=BIG, selfballooning=True, clock=clock)
    return guest, kernel, clock


def test_t111_the_target_follows_what_was_promised(alone):
    guest, kernel, clock = alone
    reserve = kernel.core.allocator.marks.high
    floor, current = floor_of(BIG, reserve), BIG
    region = kernel.anon(10)
    for _ in range(4):
        ticks(kernel, clock)
        current = max(floor, current - (current - 10 - reserve) // 8)
        assert kernel.balloon.current == current
    assert current == floor < BIG
    kernel.anon(BIG - reserve - 500), kernel.rebuildable(200, lambda indexes: block_contents(indexes.tolist()))
    assert kernel.committed_pages == BIG - reserve - 290
    ticks(kernel, clock)
    assert kernel.balloon.current == BIG - 290, "all of the way up, at once"
    region.free()
    assert kernel.committed_pages == BIG - reserve - 300
    assert guest.counters[Count.SELFBALLOON_INTERVALS] == 5
    kernel.check()


def test_t111_quiet_frontswap_comes_back(alone):
    guest, kernel, clock = alone
    anon = kernel.anon(500)
    stored = block_contents(range(500))
    anon.write_many(range(500), stored)
    kernel.core.allocator.reclaim(400)
    sizes = []
    for _ in range(5):
        ticks(kernel, clock)
        sizes.append(len(guest.tmem.handles(persistent=True)))
    assert sizes == [400, 400, 400, 380, 361]
    assert guest.counters[Count.FRONTSWAP_SHRUNK] == 39
    assert np.array_equal(anon.read_many(range(500)), stored)
    kernel.check()


def test_it_goes_by_the_rules_it_is_given(new_disk):
    """Small guests are left alone, unless it is said what they need at least."""
    clock = Clock()
    guest, kernel = build(new_disk, selfballooning=True, clock=clock,
                          selfballoon=Rules(interval_s=1.0, down=1, min_usable=100, inertia=1, shrink=2))
    reserve, anon = kernel.core.allocator.marks.high, kernel.anon(300)
    anon.write_many(range(300), block_contents(range(300)))
    kernel.core.allocator.reclaim(200)
    clock.now = 1.0
    for _ in range(LOOK_EVERY):
        kernel.tick()
    assert kernel.balloon.current == 300 + 200 + reserve, "all of the way down, to its goal"
    assert guest.counters[Count.FRONTSWAP_SHRUNK] == 0, "it grew since"
    anon.free()
    clock.now = 2.0
    for _ in range(LOOK_EVERY):
        kernel.tick()
    assert kernel.balloon.current == 100 + reserve, "and to the floor"
    kernel.check()


def test_between_intervals_nothing_is_done(alone):
    guest, kernel, clock = alone
    clock.now = INTERVAL_S - 0.1
    for _ in range(10 * LOOK_EVERY):
        kernel.tick()
    assert guest.counters[Count.SELFBALLOON_INTERVALS] == 0
    clock.now = 100 * INTERVAL_S
    for _ in range(10 * LOOK_EVERY):
        kernel.tick()
    assert guest.counters[Count.SELFBALLOON_INTERVALS] == 1, "what was missed is not made up for"


def test_a_guest_that_was_not_told_to_does_not_balloon(new_disk):
    clock = Clock()
    guest, kernel = build(new_disk, pages=BIG, clock=clock)
    ticks(kernel, clock, 3)
    assert kernel.balloon.current == BIG and guest.counters[Count.SELFBALLOON_INTERVALS] == 0


def test_self_ballooning_needs_a_swap_disk(new_disk):
    with pytest.raises(UsageProblem, match="needs a swap disk"):
        build(new_disk, swap=False, selfballooning=True)


# As the host says

TOLD = frozenset({"balloon"})


@pytest.fixture
def told(new_disk):
    clock = Clock()
    clock.now = 100.0
    guest, kernel = build(new_disk, TOLD, 2000, clock=clock)
    return guest, kernel, clock


def test_the_driver_follows_the_target_a_step_a_tick(told):
    guest, kernel, _ = told
    anon = kernel.anon(1500)
    stored = block_contents(range(1500))
    anon.write_many(range(1500), stored)
    sizes = []
    for target in [None] + [1400] * 4 + [1900] * 3:
        guest.target = target
        kernel.tick()
        sizes.append(kernel.balloon.current)
        assert target is None or guest.counters[Count.BALLOON_TARGET] == target
    assert sizes == [2000, 2000 - MULTICALL_LIMIT, 2000 - 2 * MULTICALL_LIMIT, 1400, 1400,
                     1400 + MULTICALL_LIMIT, 1900, 1900]
    kernel.check()
    assert np.array_equal(anon.read_many(range(1500)), stored)
    kernel.check()


def test_a_target_that_cannot_be_reached_is_tried_again_after_a_pause(told, monkeypatch):
    guest, kernel, clock = told
    guest.frames = 1000
    kernel.balloon.set_target(600)
    guest.memory.read_many([gfn for gfn in range(2000) if gfn not in set(kernel.balloon.gfns)])
    guest.frames, guest.target = 800, 1200
    kernel.tick()
    reached, calls = kernel.balloon.current, guest.memory.calls["deflate"]
    assert reached == 800
    kernel.tick()
    assert guest.memory.calls["deflate"] == calls, "not again at once"
    guest.frames = 1000
    clock.now += RETRY_S
    kernel.tick()
    assert kernel.balloon.current == 1000
    kernel.check()


@pytest.mark.parametrize(("target", "reached"), [(1 << 63, 2000), (1, None)])
def test_a_senseless_target_harms_nobody(told, target, reached):
    guest, kernel, clock = told
    anon = kernel.anon(300)
    stored = block_contents(range(300))
    anon.write_many(range(300), stored)
    guest.target = target
    for _ in range(20):
        clock.now += RETRY_S
        kernel.tick()
    assert kernel.balloon.current == (reached or kernel.core.allocator.marks.high + USABLE)
    assert np.array_equal(anon.read_many(range(300)), stored)
    kernel.check()


@pytest.mark.parametrize(("features", "options", "ticks"), [
    (TOLD, {}, True), (TOLD, {"selfballooning": True}, True), (ALL, {}, False), (ALL, {"selfballooning": True}, True)])
def test_a_kernel_says_whether_its_ticks_matter(new_disk, features, options, ticks):
    guest, kernel = build(new_disk, features, **options)
    assert kernel.ticks == ticks
    guest.target = 400
    kernel.tick()
    assert (kernel.balloon.current == 400) == (features == TOLD and not options), "it follows, or goes by itself"


# On the real host

@pytest.mark.parametrize("scheme", ["cmm2+tmem", "tmem"])
def test_the_host_has_the_frames_at_once(machine, scheme):
    running = machine(budget=2000, scheme=scheme)
    guest = running.guest(pages=PAGES)
    with Disk.create(4 * PAGES, guest.counters) as swap:
        kernel = Kernel(guest, swap)
        anon = kernel.anon(400)
        stored = block_contents(range(400))
        anon.write_many(range(400), stored)
        held = running.inside(lambda: running.machine.ledger.held[running.machine.domains[0].number])
        kernel.balloon.set_target(150)
        after = running.inside(lambda: running.machine.ledger.held[running.machine.domains[0].number])
        assert held >= 400 and after <= 150
        kernel.check()
        assert np.array_equal(anon.read_many(range(400)), stored)
        kernel.balloon.set_target(PAGES)
        assert np.array_equal(anon.read_many(range(400)), stored)
        kernel.check()
        kernel.close()


def test_t67_a_balloon_of_n_frames_is_room_for_n_puts(still_machine):
    guest = still_machine(budget=1000).guest(pages=64, max_pages=64)
    guest.memory.write_many(range(64), np.zeros((64, PAGE_SIZE), np.uint8))
    pool = guest.tmem.new_pool(persistent=True)
    assert not pool.put(1, 0, bytes(PAGE_SIZE))
    assert guest.memory.balloon(range(10, 30)) == 20
    assert pool.put_many(1, range(30), block_contents(range(30))).tolist() == [True] * 20 + [False] * 10
