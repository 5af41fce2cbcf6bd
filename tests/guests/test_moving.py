"""Following the tmem: what is asked of whom, what is kept, and what is let go of."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from guests import Guest, HypervisorGone, TmemRefused
from guests.moving import Moving
from hypervisor.toolstack import migrate
from shm import door
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem

PAGE = bytes([7]) * PAGE_SIZE


@pytest.fixture
def home(machine):
    return machine(budget=2048, scheme="cmm2+tmem", swap=256)


@pytest.fixture
def away(machine):
    return machine(budget=2048, scheme="cmm2+tmem", swap=256)


@pytest.fixture
def guest(home):
    return home.guest("mine", pages=16, max_pages=1000)


@pytest.fixture
def pool(guest):
    made = guest.tmem.new_pool(persistent=True)
    assert made.put(1, 0, PAGE)
    return made


def move(home, away):
    return migrate.migrate(home.cluster, "mine", away.cluster)


# Each kind of call, as the first after the move: (what is called, what it answers, what a get finds then).
CALLS = {
    "put": (lambda pool: pool.put(1, 1, PAGE), True),
    "replacing put": (lambda pool: pool.put(1, 0, PAGE), True),
    "get": (lambda pool: pool.get(1, 0), PAGE),
    "miss": (lambda pool: pool.get(1, 9), None),
    "read": (lambda pool: pool.read(1, 0, 4000, 96), PAGE[:96]),
    "write": (lambda pool: pool.write(1, 0, 8, b"abc"), True),
    "new page": (lambda pool: pool.new_page(1, 5), True),
    "flush": (lambda pool: (pool.flush(1, 0), pool.get(1, 0))[1], None),
    "flush object": (lambda pool: (pool.flush_object(1), pool.get(1, 0))[1], None),
    "new pool": (lambda pool: pool.client.new_pool(persistent=False).number, 1),
    "destroy": (lambda pool: pool.destroy(), None),
    "put many": (lambda pool: pool.put_many(1, range(600), np.full((600, PAGE_SIZE), 3, np.uint8)).all(), True),
    "get many": (lambda pool: pool.get_many(1, [0, 1])[0].tolist(), [True, False]),
}


@pytest.mark.parametrize("what", CALLS)
def test_whatever_is_called_first_after_the_move(home, away, guest, pool, what):
    call, answer = CALLS[what]
    move(home, away)
    assert call(pool) == answer
    assert home.inside(lambda: home.machine.heap.in_use) == 0


def test_entries_and_pages_of_a_multicall_go_along(home, away, guest, pool):
    pages = np.random.default_rng(1).integers(0, 256, (MULTICALL_LIMIT, PAGE_SIZE), np.uint8)
    move(home, away)
    assert pool.put_many(2, range(MULTICALL_LIMIT), pages).all()
    hits, found = pool.get_many(2, range(MULTICALL_LIMIT))
    assert hits.all() and (found == pages).all()


def test_it_attaches_once_with_one_page_and_leaves_with_the_guest(home, away, guest, pool):
    move(home, away)
    for _ in range(3):
        assert pool.get(1, 0) == PAGE
    assert [(domain.name, domain.pages) for domain in away.inside(lambda: list(away.machine.domains.values()))] == [
        ("mine", 1)]
    guest.close()
    away.until(lambda: not away.machine.domains)


def test_its_memory_and_its_counters_are_at_home(home, away, guest, pool):
    before = int(guest.counters[Count.HYPERCALLS])
    move(home, away)
    pool.get(1, 0)
    guest.memory.write(3, PAGE)
    assert guest.memory.read(3) == PAGE
    assert int(guest.counters[Count.HYPERCALLS]) >= before + 2
    assert home.domain("mine").ram.resident() == 1


def test_who_waits_for_the_homes_end_is_not_told_of_one(home, away, guest, pool):
    told = []
    waiting = threading.Thread(target=lambda: told.append(guest.wait_gone(1.0)))
    waiting.start()
    move(home, away)
    assert pool.get(1, 0) == PAGE
    waiting.join(20)
    assert told == [False]


def test_the_new_home_gone_is_told(home, hypervisor_process, guest, pool):
    child = hypervisor_process(budget=256, scheme="tmem", swap=0)
    migrate.migrate(home.cluster, "mine", child.cluster)
    assert pool.get(1, 0) == PAGE
    child.kill()
    with pytest.raises(HypervisorGone):
        pool.get(1, 0)
    guest.memory.write(0, PAGE)


def test_a_new_home_that_is_gone_before_anybody_came_is_told(home, hypervisor_process, guest, pool):
    child = hypervisor_process(budget=256, scheme="tmem", swap=0)
    migrate.migrate(home.cluster, "mine", child.cluster)
    child.kill()
    with pytest.raises(TmemRefused, match="cannot be reached there"):
        pool.get(1, 0)
    guest.memory.write(0, PAGE)


def test_what_cannot_be_reached_now_may_be_later(home, away, guest, pool, monkeypatch):
    move(home, away)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "connect", lambda *_: (_ for _ in ()).throw(UsageProblem("no descriptors")))
        with pytest.raises(TmemRefused, match="no descriptors"):
            pool.get(1, 0)
    assert pool.get(1, 0) == PAGE


class Fake:
    """An attachment that only notes that it was closed."""

    def __init__(self, cluster, stem="s"):
        self.cluster, self.stem, self.closed = cluster, stem, False
        self.channel = SimpleNamespace(transfer=f"transfer of {cluster}")

    def close(self):
        self.closed = True


@pytest.fixture
def moving(monkeypatch):
    """A `Moving` among fakes, each cluster sending on to the next; and the attachments it made."""
    made, asked = [], []

    def attach(cluster, token):
        if token == "bad":
            raise UsageProblem("no guest waits here")
        made.append(Fake(cluster))
        return made[-1]

    following = Moving(Fake("c0"), attach)
    monkeypatch.setattr(Moving, "_ask", staticmethod(
        lambda left: (asked.append(left.cluster), (f"c{int(left.cluster[1:]) + 1}", following.token))[1]))
    following.token = "good"
    return following, made, asked


def test_one_attachment_at_most(moving):
    following, made, asked = moving
    for step in (1, 2, 3):
        assert following()[1] == f"transfer of c{step}"
    assert asked == ["c0", "c1", "c2"]
    assert [fake.closed for fake in made] == [True, True, False]
    following.close()
    following.close()
    assert made[2].closed


def test_a_failure_lets_go_of_nothing(moving):
    following, made, asked = moving
    following()
    following.token = "bad"
    with pytest.raises(TmemRefused, match="no guest waits"):
        following()
    assert not made[0].closed
    following.token = "good"
    following()
    assert asked == ["c0", "c1", "c1"]


def test_resume_is_refused_without_a_token_that_waits(home):
    with pytest.raises(UsageProblem, match="no guest waits here under that token"):
        Guest.connect(home.cluster, "mine", "16KiB", resume="f" * 32)
