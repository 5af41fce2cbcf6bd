"""Targets of persistent tmem: each policy by hand, and what holds for every census."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.policy.targets import TARGET_POLICIES, Putter, TargetCensus, demand, reconfigured, static


def putter(owner, target=0, held=0, refused=0, used=True):
    return Putter(owner, target, held, refused, used)


def census(*guests, pool=1000):
    return TargetCensus(guests, pool)


CASES = {
    "static: all alike, whether they use it or not": (
        static, census(putter(0, held=900), putter(1, used=False), putter(2)), {0: 333, 1: 333, 2: 333}),
    "reconfigured: users alone": (reconfigured, census(putter(0), putter(1)), {0: 500, 1: 500}),
    "who has not used it may begin": (
        reconfigured, census(putter(0), putter(1, used=False), putter(2, used=False)), {0: 1000, 1: 500, 2: 500}),
    "nobody has": (reconfigured, census(putter(0, used=False), putter(1, used=False)), {0: 1000, 1: 1000}),
    "demand: a refused guest gets 2 % of the pool more": (
        demand, census(putter(0, 100, 100, refused=1), putter(1, 100, 90)), {0: 120, 1: 100}),
    "slack loses 2 % of the target": (demand, census(putter(0, 500, 400)), {0: 490}),
    "but not a little slack": (demand, census(putter(0, 500, 480)), {0: 500}),
    "nobody sinks below what it holds": (demand, census(putter(0, 500, 479)), {0: 490}),
    "the first one starts at nothing": (demand, census(putter(0, refused=3)), {0: 20}),
    "a pool of a few pages still grows": (demand, census(putter(0, refused=3), pool=10), {0: 1}),
    "what is too much is cut pro rata": (
        demand, census(putter(0, 780, 780, refused=9), putter(1, 400, 400)), {0: 666, 1: 333}),
    "there is no pool": (demand, census(putter(0, 100, 100, refused=1), pool=0), {0: 0}),
}


@pytest.mark.parametrize(("policy", "told", "targets"), CASES.values(), ids=list(CASES))
def test_cases(policy, told, targets):
    assert policy(told) == targets


@pytest.mark.parametrize("policy", [static, reconfigured, demand])
def test_nobody_there(policy):
    assert policy(census()) == {}


PUTTER = st.builds(Putter, st.just(0), st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 3), st.booleans())


@pytest.mark.parametrize("policy", [static, demand])
@given(st.lists(PUTTER, max_size=6), st.integers(0, 3000))
def test_the_sum_is_within_the_pool_and_every_guest_has_a_target(policy, guests, pool):
    told = census(*(guest.__class__(n, guest.target, guest.held, guest.refused, guest.used)
                    for n, guest in enumerate(guests)), pool=pool)
    targets = policy(told)
    assert set(targets) == set(range(len(guests)))
    assert all(pages >= 0 for pages in targets.values()) and sum(targets.values()) <= pool


@given(st.lists(PUTTER, min_size=1, max_size=6), st.integers(0, 3000))
def test_those_that_use_it_share_the_pool(guests, pool):
    told = census(*(Putter(n, guest.target, guest.held, guest.refused, guest.used)
                    for n, guest in enumerate(guests)), pool=pool)
    shares = {targets for owner, targets in reconfigured(told).items() if told.guests[owner].used}
    assert len(shares) <= 1 and sum(shares) * sum(guest.used for guest in guests) <= pool


def test_names_that_people_write():
    assert list(TARGET_POLICIES) == ["greedy", "static", "reconfigured", "demand"]
    assert TARGET_POLICIES["greedy"] is None
