"""Ballooning, the host's half: targets where guests can read them, and what the host finds out by itself."""

import numpy as np
import pytest

from guests import Guest
from guests.disk import Disk
from guests.kernel import Kernel
from hypervisor.ballooning import SAMPLE
from hypervisor.policy.balloon import SOFT, Rules
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem

PAGES = 1000


def rules(controller="timed", **more):
    return Rules(controller=controller, **{"interval": 1.0, "step": 160} | more)


def content(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, PAGE_SIZE), np.uint8)


def test_a_target_is_the_guests_to_read_and_not_to_write(machine):
    running = machine(budget=64, scheme="balloon", balloon=rules(interval=1000.0))
    guest = running.guest(pages=PAGE_SIZE)               # its content fills a page to the last byte
    assert guest.target is None
    running.domain().target[0] = 77
    assert guest.target == 77
    listed = running.inside(lambda: running.machine.orders.list({}))["guests"]
    assert [shown["target"] for shown in listed] == [77 * PAGE_SIZE]
    with pytest.raises(TypeError, match="read-only"):
        guest._target[0] = 1
    guest.memory.write(PAGE_SIZE - 1, bytes(PAGE_SIZE))
    assert guest.target == 77 and guest.memory.read(PAGE_SIZE - 1) == bytes(PAGE_SIZE)


def test_no_other_scheme_sets_targets(still_machine):
    still = still_machine(budget=64, scheme="swap", balloon=rules())
    assert still.machine.ballooning is None
    guest = still.guest(pages=64)
    guest.memory.write_many(range(64), content(64, 1))
    still.machine._tick()
    assert int(guest.domain.target[0]) == 0


@pytest.mark.parametrize(("controller", "targets"), [
    ("timed", [0, 40]), ("shares", [0, 70]), ("self", [0, 0])])
def test_the_machines_tick_tells_guests_when_the_interval_is_over(still_machine, controller, targets):
    """100 frames, 80 of them held: plentiful.  All are: short."""
    still = still_machine(budget=100, scheme="balloon", balloon=rules(controller, step=60))
    guest, seen = still.guest(pages=100), []
    guest.memory.write_many(range(80), content(80, 1))
    still.machine.ballooning.tick(10.0)
    seen.append(int(guest.domain.target[0]))
    guest.memory.write_many(range(80, 100), content(20, 2))
    still.machine.ballooning.tick(10.9)
    assert int(guest.domain.target[0]) == seen[0], "the interval is not over"
    still.machine.ballooning.tick(11.0)
    seen.append(int(guest.domain.target[0]))
    assert seen[0] == 0 and (seen[1] > 0) == (targets[1] > 0)
    if controller == "timed":
        assert seen == targets
    if controller == "shares":
        assert seen[1] == 100 - 5, "what makes it half-way between short and plentiful"


def test_an_order_makes_the_controller_decide_now(machine):
    """With a long interval nothing else does: so an experiment can play the clock."""
    running = machine(budget=400, scheme="cmm2+balloon", swap=0, balloon=rules(interval=1000.0, step=100))
    guest = running.guest("one", pages=400)
    running.until(lambda: running.machine.ballooning._next > 0.0)
    guest.memory.write_many(range(395), content(395, 1))
    assert guest.target is None
    assert call(running.cluster, {"call": "balloon-decide"}) == {"targets": {"one": 300}} and guest.target == 300
    assert call(running.cluster, {"call": "balloon-decide"}) == {"targets": {"one": 200}}


def test_an_order_to_balloons_that_are_none(machine):
    with pytest.raises(UsageProblem, match=r"scheme 'cmm2' has no balloons; allowed with balloon, cmm2\+balloon"):
        call(machine(scheme="cmm2").cluster, {"call": "balloon-decide"})


def test_an_idle_guest_is_found_out_and_taxed(still_machine):
    still = still_machine(budget=700, scheme="balloon", balloon=rules("shares", step=64))
    busy, idle = still.guest("busy", pages=400), still.guest("idle", pages=400)
    for guest in (busy, idle):
        guest.memory.write_many(range(340), content(340, guest.domain.number))
    now = 0.0
    for _ in range(12):
        now += 1.0
        still.machine.ballooning.tick(now)
        busy.memory.read_many(range(340))
    activity = still.machine.ballooning.activity
    assert activity[busy.domain.number].active > 0.95
    assert activity[idle.domain.number].active < 0.25
    assert int(idle.domain.target[0]) < 340
    assert int(busy.domain.target[0]) > int(idle.domain.target[0]) + 50
    assert all((guest.memory.read_many(range(340)) == content(340, guest.domain.number)).all()
               for guest in (busy, idle))


def test_samples_are_of_resident_pages_and_few(still_machine):
    still = still_machine(budget=600, scheme="balloon", balloon=rules("shares"))
    guest = still.guest(pages=500)
    guest.memory.write_many(range(300), content(300, 3))
    still.machine.ballooning.tick(0.0)
    unreferenced = np.flatnonzero(~guest.domain.referenced()[:300])
    assert len(unreferenced) == SAMPLE
    guest.memory.write_many(unreferenced[:30], content(30, 4))
    still.machine.ballooning.tick(1.0)
    assert still.machine.ballooning.activity[guest.domain.number].fast == pytest.approx(1 - 0.5 * 0.7)


def test_a_guest_that_left_is_forgotten(still_machine):
    still = still_machine(budget=600, scheme="balloon", balloon=rules("shares"))
    guest = still.guest(pages=100)
    guest.memory.write_many(range(100), content(100, 3))
    still.machine.ballooning.tick(0.0)
    still.machine.bury(guest.domain, "left")
    still.machine.ballooning.tick(1.0)
    assert still.machine.ballooning.activity == {}


@pytest.mark.parametrize("controller", ["timed", "shares"])
def test_frames_go_back_by_the_balloon_and_every_page_is_right(machine, controller):
    """A guest of 1000 pages in 700 frames: its driver gives back what the host asks for, its pages go to its swap."""
    running = machine(budget=700, scheme="balloon", swap=2000, balloon=rules(controller, interval=0.0))
    guest = running.guest(pages=PAGES)
    domain = running.domain()
    with Disk.create(2 * PAGES, guest.counters) as disk:
        kernel, stored = Kernel(guest, disk), content(900, 5)
        anon = kernel.anon(900)
        for at in range(0, 900, 50):
            anon.write_many(range(at, at + 50), stored[at:at + 50])
            kernel.tick()

        def settled() -> bool:
            kernel_has = guest.target == kernel.balloon.current
            return kernel_has and running.machine.ledger.free >= 700 * SOFT
        while not running.inside(settled):
            kernel.tick()
        assert kernel.balloon.current < PAGES            # reclaim alone stops at a smaller share
        held = running.inside(lambda: running.machine.ledger.held[domain.number])
        assert held <= kernel.balloon.current
        assert guest.counters[Count.BALLOON_PAGES] == PAGES - kernel.balloon.current
        for at in range(0, 900, 50):
            assert np.array_equal(anon.read_many(range(at, at + 50)), stored[at:at + 50])
            kernel.tick()
        kernel.check()
        kernel.close()


def test_a_guest_that_pays_no_heed_loses_by_host_swap(machine):
    running = machine(budget=300, scheme="balloon", swap=1000, balloon=rules(interval=0.0))
    guest: Guest = running.guest(pages=500)
    stored = content(500, 6)
    for at in range(0, 500, 100):
        guest.memory.write_many(range(at, at + 100), stored[at:at + 100])
    domain = running.domain()
    running.until(lambda: domain.target[0] > 0)
    assert guest.target < 500
    for at in range(0, 500, 100):
        assert np.array_equal(guest.memory.read_many(range(at, at + 100)), stored[at:at + 100])
    assert running.inside(lambda: running.machine.swap.used) >= 200
