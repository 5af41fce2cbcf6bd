"""Controllers: what each guest is told, as cases by hand and as rules that hold for every census."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.policy.balloon import (
    CHUNKS,
    CONTROLLERS,
    WORTH_MOVING,
    Activity,
    BalloonCensus,
    Client,
    Rules,
    itself,
    price,
    shares,
    timed,
)
from hypervisor.schemes import dealt

RULES = Rules(step=160, tax=0.75)
BUDGET = 1000                # short below 40 free, plentiful above 60, half-way is 50


def client(owner, pages=800, target=None, frames=None, shares=1, active=1.0):
    target = pages if target is None else target
    return Client(owner, pages, target, target if frames is None else frames, shares, active)


def census(*clients, free=0):
    return BalloonCensus(clients, BUDGET, free)


@pytest.mark.parametrize(("free", "missing"), [
    (-10, 60), (0, 50), (39, 11), (40, 0), (50, 0), (60, 0), (61, -11), (1000, -950)])
def test_when_frames_are_short_and_when_plentiful(free, missing):
    assert census(free=free).missing == missing


TIMED = {
    # census, targets
    "neither short nor plentiful": (census(client(0), free=50), {}),
    "pools grow pro rata of what is held": (
        census(client(0, frames=300), client(1, frames=100), free=10), {0: 680, 1: 760}),
    "however little is missing": (census(client(0), free=39), {0: 640}),
    "no guest below its floor": (census(client(0, target=110), free=0), {0: 100}),
    "a guest at its floor is told nothing new": (census(client(0, target=100), free=0), {}),
    "who holds nothing gives nothing": (census(client(0, frames=0), client(1), free=0), {1: 640}),
    "nobody holds anything": (census(client(0, frames=0), free=0), {}),
    "pools drain pro rata of their size": (
        census(client(0, target=400), client(1, target=700), free=100), {0: 528, 1: 732}),
    "and end empty": (census(client(0, target=700), free=900), {0: 800}),
    "there is nothing to drain": (census(client(0), free=900), {}),
    "nobody there": (census(free=0), {}),
}


@pytest.mark.parametrize(("told", "targets"), TIMED.values(), ids=list(TIMED))
def test_timed(told, targets):
    assert timed(told, RULES) == targets


@pytest.mark.parametrize(("share", "pages", "active", "tax", "rho"), [
    (100, 50, 1.0, 0.75, 2.0),       # all active: shares a page
    (100, 50, 0.0, 0.75, 0.5),       # all idle: k = 4
    (100, 50, 0.5, 0.75, 0.8),       # 1 / (0.5 + 4 * 0.5) = 0.4 of 2
    (100, 50, 0.0, 0.0, 2.0),        # no tax: shares alone
    (100, 0, 1.0, 0.75, 100.0)])     # who has nothing pays for one page
def test_price_is_waldspurgers(share, pages, active, tax, rho):
    assert price(share, pages, active, tax) == pytest.approx(rho)


SHARES = {
    "equal guests give in turn": (census(client(0, target=400), client(1, target=400), free=0), {0: 370, 1: 380}),
    "who has more shares gives last": (
        census(client(0, target=400, shares=2), client(1, target=400), free=0), {1: 350}),
    "who has more pages gives first": (census(client(0, target=400), client(1, target=500), free=0), {1: 450}),
    "an idle page costs four": (
        census(client(0, target=400), client(1, target=400, active=0.0), free=0), {1: 350}),
    "a balloon of what was never there gives nothing: held to what it has": (
        census(client(0, frames=300), client(1, target=200), free=0), {0: 250}),
    "no guest below its floor, the next one pays": (
        census(client(0, target=120, active=0.0), client(1, target=150, shares=9), free=0), {0: 100, 1: 120}),
    "nobody has any": (census(client(0, target=100), free=0), {}),
    "no more than a step at once": (census(client(0, target=800), free=-500), {0: 640}),
    "plenty goes to who pays most": (census(client(0, target=400, shares=3), client(1, target=400), free=90), {0: 440}),
    "and the rest to the next": (census(client(0, pages=410, target=400, shares=3), client(1, target=400), free=90),
                                 {0: 410, 1: 430}),
    "in between an idle guest gives to a busy one": (
        census(client(0, target=400), client(1, target=400, active=0.0), free=50), {0: 560, 1: 240}),
    "but nothing for a little": (census(client(0, target=400), client(1, target=420), free=50), {}),
    "nor where the one would overtake the other": (
        census(client(0, pages=100, target=20), client(1, pages=100, target=29), free=50), {}),
    "but as near as it can": (
        census(client(0, pages=100, target=20), client(1, pages=100, target=42), free=50), {0: 30, 1: 32}),
    "nor what none can take": (census(client(0, pages=400), client(1, target=400, active=0.0), free=50), {}),
    "nobody there": (census(free=0), {}),
}


@pytest.mark.parametrize(("told", "targets"), SHARES.values(), ids=list(SHARES))
def test_shares(told, targets):
    assert shares(told, RULES) == targets


def test_without_a_tax_idleness_costs_nothing():
    idle = census(client(0, target=400), client(1, target=390, active=0.0), free=45)
    assert shares(idle, RULES._replace(tax=0.0)) == {}
    assert shares(idle, RULES) != {}


def test_a_guest_that_balloons_itself_is_told_nothing():
    assert itself(census(client(0), free=0), RULES) == {}


# rules for every census

CLIENT = st.integers(8, 900).flatmap(lambda pages: st.tuples(
    st.just(pages), st.integers(max(1, pages // 8), pages), st.integers(0, pages), st.integers(1, 9), st.floats(0, 1)))


@st.composite
def any_census(draw):
    clients = [Client(2 * n, *facts) for n, facts in enumerate(draw(st.lists(CLIENT, max_size=4)))]
    return BalloonCensus(tuple(clients), BUDGET, draw(st.integers(-200, BUDGET)))


@pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=list(CONTROLLERS))
@given(told=any_census(), step=st.integers(1, 400), tax=st.floats(0, 0.99))
def test_targets_are_within_bounds_and_news(controller, told, step, tax):
    targets = controller(told, Rules(step=step, tax=tax))
    clients = {one.owner: one for one in told.clients}
    assert set(targets) <= set(clients)
    assert all(clients[owner].floor <= pages <= clients[owner].pages for owner, pages in targets.items())
    assert all(pages != clients[owner].target for owner, pages in targets.items())
    assert targets == controller(told, Rules(step=step, tax=tax)), "a function"


@pytest.mark.parametrize("controller", [timed, shares])
@given(told=any_census(), step=st.integers(1, 400))
def test_short_frames_raise_no_target_and_plenty_lowers_none(controller, told, step):
    targets = controller(told, Rules(step=step))
    moved = [pages - next(one.target for one in told.clients if one.owner == owner) for owner, pages in targets.items()]
    assert all(by < 0 for by in moved) or told.missing <= 0
    assert all(by > 0 for by in moved) or told.missing >= 0
    if told.missing < 0:
        assert sum(moved) <= step + len(moved)       # a pool's part of a step is rounded up


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=2, max_size=4))
def test_exchanges_end_where_prices_are_alike(guests):
    """Min-funding revocation: what it tends to is memory dealt by shares, an idle page counted k times."""
    clients = [client(n, pages=4096, target=1024, shares=share, active=active)
               for n, (share, active) in enumerate(guests)]
    for _ in range(400):
        targets = shares(census(*clients, free=50), RULES)
        if not targets:
            break
        clients = [replace(one, target=targets.get(one.owner, one.target)) for one in clients]
    assert not targets, "it comes to rest"
    assert sum(one.target for one in clients) == 1024 * len(clients)
    weights = [int(1e6 * price(share, 1, active, RULES.tax)) for share, active in guests]
    ideal = dealt(1024 * len(clients), [4096] * len(clients), weights, clients[0].floor)
    rhos = [price(one.shares, one.target, one.active, RULES.tax) for one in clients]
    bounded = any(one.target <= one.floor + RULES.step // CHUNKS for one in clients)
    assert max(rhos) <= WORTH_MOVING * min(rhos) * 1.1 or bounded
    near = (abs(one.target - share) <= 0.3 * share + 20 for one, share in zip(clients, ideal, strict=True))
    assert bounded or all(near)


def test_activity_rises_quickly_and_falls_slowly():
    seen, found = Activity(), []
    for sampled in (0.0, 0.0, 0.0, 1.0):
        seen = seen.after(sampled)
        found.append((seen.slow, seen.fast, seen.active))
    assert found == [(0.875, 0.5, 0.875), (0.765625, 0.25, 0.765625), (0.669921875, 0.125, 0.669921875),
                     (0.711181640625, 0.5625, 0.711181640625)]
    for _ in range(50):
        seen = seen.after(0.0)
    assert seen.active < 0.01
    assert seen.after(1.0).active > 0.5
