"""Who passes whom: only where intervals say so on both sides."""

import pytest

from hypervisor.toolstack.curves.crossings import crossings, sentence, why_none

FAST, SLOW = (1.0, 1.01, 0.99), (1.5, 1.52, 1.48)
UNCLEAR = (0.9, 1.6, 1.3)


def test_a_crossing_lies_between_two_differences_that_are_shown(made):
    [one] = crossings(made([1, 2], {"swap": [FAST, SLOW], "cmm2": [SLOW, FAST]}))
    assert (one.passing, one.passed, one.below, one.above, one.between) == ("cmm2", "swap", 1, 2, ())
    assert (one.before[0], one.after[0]) == pytest.approx((1.5, 1 / 1.5), rel=0.001)
    assert 1 < one.before[1] < one.before[0] < one.before[2]
    assert one.after[1] < one.after[0] < one.after[2] < 1


def test_the_ratio_is_that_of_the_one_who_passes(made):
    """Whichever of the two is named first."""
    [one] = crossings(made([1, 2], {"cmm2": [SLOW, FAST], "swap": [FAST, SLOW]}))
    assert (one.passing, one.passed) == ("cmm2", "swap")
    assert one.before[0] > 1 > one.after[0]
    assert one.before[1] < one.before[0] < one.before[2]


def test_what_is_not_shown_between_makes_the_crossing_wider(made):
    [one] = crossings(made([1, 1.5, 2], {"swap": [FAST, UNCLEAR, SLOW], "cmm2": [SLOW, UNCLEAR[::-1], FAST]}))
    assert (one.below, one.above, one.between) == (1, 2, (1.5,))
    assert sentence(one).startswith("between 1 and 2 cmm2 passes swap: it takes 1.50 (")
    assert sentence(one).endswith(" at 2 (no difference shown at 1.5)")


@pytest.mark.parametrize("times", [
    {"swap": [FAST, FAST], "cmm2": [SLOW, SLOW]},
    {"swap": [FAST, UNCLEAR], "cmm2": [SLOW, UNCLEAR[::-1]]},
    {"swap": [UNCLEAR, SLOW], "cmm2": [UNCLEAR[::-1], FAST]}], ids=["never", "not-shown-above", "not-shown-below"])
def test_a_change_that_is_not_shown_on_both_sides_is_none(made, times):
    found = made([1, 2], times)
    assert crossings(found) == []
    assert why_none(found) == "no crossing shown"


def test_one_seed_shows_no_crossing(made):
    found = made([1, 2], {"swap": [FAST[:1], SLOW[:1]], "cmm2": [SLOW[:1], FAST[:1]]})
    assert crossings(found) == []
    assert why_none(found) == "no crossing shown: two seeds that two schemes finished are needed"


@pytest.mark.parametrize("missing", [None, (None, None, None)], ids=["not-run", "did-not-finish"])
def test_a_curve_that_ends_crosses_nobody(made, missing):
    assert crossings(made([1, 2], {"swap": [FAST, missing], "cmm2": [SLOW, FAST]})) == []


def test_two_curves_may_cross_twice(made):
    found = crossings(made([3, 1, 2], {"swap": [FAST, FAST, SLOW], "cmm2": [SLOW, SLOW, FAST]}))
    assert [(one.passing, one.below, one.above) for one in found] == [("cmm2", 1, 2), ("swap", 2, 3)]
