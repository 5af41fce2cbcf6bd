"""Targets of persistent tmem on a machine: dealt, enforced at puts, and moved with what guests ask for."""

import numpy as np
import pytest

from hypervisor.tmem.targets import INTERVAL_S
from shm.abi import PAGE_SIZE, Refusal

BATCH = np.arange(100, dtype=np.uint8).repeat(PAGE_SIZE).reshape(100, PAGE_SIZE) + np.uint8(1)


class Putting:
    """A guest with a persistent pool, which puts on and on."""

    def __init__(self, still, name):
        self.guest = still.guest(name, pages=64, max_pages=5000)
        self.pool = self.guest.tmem.new_pool(persistent=True)
        self.asked = 0

    def put(self, count):
        """Put so many new pages; return how many were stored."""
        stored = self.pool.put_many(1, range(self.asked, self.asked + count), BATCH[:count])
        self.asked += count
        return int(stored.sum())


def start(still_machine, targets):
    """Two guests in 1064 frames: 128 for their memory and 16 for reclaim leave a pool of 920."""
    still = still_machine(budget=1064, scheme="tmem", swap=0, targets=targets)
    guests = Putting(still, "a"), Putting(still, "b")
    assert still.machine.allowance.pool == 920
    return still, *guests


def decide(still, times=1):
    machine = still.machine
    for _ in range(times):
        machine.targets.decide(machine.domains, machine.allowance.pool)


def test_greedy_is_who_comes_first(still_machine):
    still, a, b = start(still_machine, "greedy")
    assert sum(a.put(100) for _ in range(12)) == 920
    assert b.put(10) == 0 and b.pool.refusal == Refusal.RESERVED
    decide(still)
    assert still.machine.targets.targets == {}


def test_static_is_half_for_each_whatever_the_other_does(still_machine):
    _, a, b = start(still_machine, "static")
    assert sum(a.put(100) for _ in range(12)) == 460
    assert a.pool.refusal == Refusal.TARGET
    assert sum(b.put(100) for _ in range(12)) == 460
    assert b.pool.refusal == Refusal.TARGET
    assert a.guest.domain.number != b.guest.domain.number


def test_reconfigured_is_for_those_that_use_it(still_machine):
    still, a, b = start(still_machine, "reconfigured")
    assert a.put(50) == 50
    decide(still)
    assert sum(a.put(100) for _ in range(9)) == 870, "all of the pool, while nobody else has put"
    decide(still)
    assert b.put(10) == 0 and b.pool.refusal == Refusal.RESERVED, "its half is another's until that one lets go"
    decide(still)
    assert set(still.machine.targets.targets.values()) == {460}
    a.pool.flush_object(1)
    assert sum(b.put(100) for _ in range(9)) == 460


def test_demand_gives_to_who_was_refused_and_takes_from_slack(still_machine):
    still, a, b = start(still_machine, "demand")
    assert a.put(30) == 0 and a.pool.refusal == Refusal.TARGET
    targets = still.machine.targets.targets
    number = a.guest.domain.number
    decide(still)
    targets = still.machine.targets.targets
    assert targets == {number: 920 // 50, b.guest.domain.number: 0}
    for _ in range(3):
        assert a.put(60) == 18
        decide(still)
    assert still.machine.targets.targets[number] == 4 * 18
    a.pool.flush_object(1)
    decide(still, 3)
    assert 4 * 18 - 18 < still.machine.targets.targets[number] < 4 * 18


@pytest.mark.parametrize("targets", ["static", "reconfigured", "demand"])
def test_a_target_takes_nothing_that_is_stored(still_machine, targets):
    still, a, _ = start(still_machine, targets)
    for _ in range(30):
        a.put(20)
        decide(still)
    held = still.machine.store.pages_of(a.guest.domain.number, persistent=True)
    assert held > 100
    still.machine.targets.targets[a.guest.domain.number] = 10
    assert a.put(1) == 0 and a.pool.refusal == Refusal.TARGET
    assert still.machine.store.pages_of(a.guest.domain.number, persistent=True) == held
    hit, pages = a.pool.get_many(1, range(20))
    assert (pages[hit] == BATCH[:20][hit]).all()


def test_ephemeral_pages_are_under_no_target(still_machine):
    _, a, _ = start(still_machine, "demand")
    pool = a.guest.tmem.new_pool(persistent=False)
    assert pool.put_many(1, range(100), BATCH).all()


def test_the_tick_decides_once_an_interval(still_machine):
    still, a, _ = start(still_machine, "demand")
    seen = []
    for now in (1000.0, 1000.0 + INTERVAL_S / 2, 1000.0 + INTERVAL_S):
        a.put(40)
        still.machine.targets.tick(now, still.machine.domains, 920)
        seen.append(still.machine.targets.targets[a.guest.domain.number])
    assert seen == [18, 18, 36]


def test_a_guest_that_left_has_no_target(still_machine):
    still, a, b = start(still_machine, "static")
    still.machine.bury(b.guest.domain, "left")
    decide(still)
    assert still.machine.targets.targets == {a.guest.domain.number: 984}
