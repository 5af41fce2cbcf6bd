"""The frame ledger: a budget that is never exceeded, and frames that are nobody's twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.ledger import HEAP, Ledger
from shm.errors import BrokenInvariant

RESERVATIONS = {
    #                           budget  held already   wanted  had
    "an empty ledger":            (8,   [],            8,      True),
    "one too many":               (8,   [],            9,      False),
    "the last frame":             (8,   [(0, 7)],      1,      True),
    "beside others, too many":    (8,   [(0, 4), (HEAP, 3)], 2, False),
    "nothing":                    (8,   [(0, 8)],      0,      True),
    "all or none":                (8,   [(0, 5)],      4,      False),
}


@pytest.mark.parametrize(("budget", "held", "wanted", "had"), RESERVATIONS.values(), ids=list(RESERVATIONS))
def test_reserve(budget, held, wanted, had):
    ledger = Ledger(budget)
    for owner, frames in held:
        assert ledger.reserve(owner, frames)
    before = ledger.used
    assert ledger.reserve(1, wanted) is had
    assert ledger.used == before + had * wanted
    assert ledger.held.get(1, 0) == had * wanted
    assert ledger.free == budget - ledger.used


@pytest.mark.parametrize(("owner", "frames"), [(0, 4), (0, -1), (1, 1), (HEAP, 1)])
def test_releasing_what_is_not_held_is_our_bug(owner, frames):
    ledger = Ledger(8)
    ledger.reserve(0, 3)
    with pytest.raises(BrokenInvariant, match=f"owner {owner} releases {frames} frames"):
        ledger.release(owner, frames)
    assert (ledger.used, ledger.audit()) == (3, [])


def test_forgetting_an_owner_releases_all_of_his():
    ledger = Ledger(8)
    ledger.reserve(0, 3)
    ledger.reserve(1, 2)
    assert ledger.forget(0) == 3
    assert ledger.forget(0) == 0
    assert (ledger.used, ledger.free, ledger.held) == (2, 6, {1: 2})


def test_a_lowered_budget_leaves_less_than_nothing_free_and_grants_nothing():
    ledger = Ledger(8)
    ledger.reserve(0, 6)
    ledger.budget = 4
    assert ledger.free == -2
    assert not ledger.reserve(0, 1)
    ledger.release(0, 3)
    assert ledger.reserve(0, 1) and not ledger.reserve(0, 1)


def test_the_peak_is_remembered():
    ledger = Ledger(8)
    ledger.reserve(0, 6)
    ledger.release(0, 6)
    ledger.reserve(0, 1)
    assert ledger.peak == 6


def test_the_audit_recounts():
    ledger = Ledger(8)
    ledger.reserve(0, 3)
    ledger.used = 4
    assert ledger.audit() == ["ledger: 4 frames used, owners hold 3"]
    ledger.held = {0: 5, 1: -1}
    assert ledger.audit() == ["ledger: owner 1 holds -1"]


@given(st.integers(1, 12), st.lists(st.tuples(st.sampled_from(["reserve", "release", "forget"]), st.integers(-1, 2),
                                              st.integers(0, 8)), max_size=40))
def test_the_budget_holds_whatever_is_asked(budget, deeds):
    """Invariant 1."""
    ledger, model = Ledger(budget), dict.fromkeys(range(-1, 3), 0)
    for deed, owner, frames in deeds:
        if deed == "reserve":
            had = ledger.reserve(owner, frames)
            assert had == (sum(model.values()) + frames <= budget)
            model[owner] += had * frames
        elif deed == "forget":
            assert ledger.forget(owner) == model[owner]
            model[owner] = 0
        elif frames <= model[owner]:
            ledger.release(owner, frames)
            model[owner] -= frames
        assert ledger.used == sum(model.values()) <= ledger.peak <= budget
        assert ledger.audit() == []
