"""The rule by which one scheme is said to be faster: each row of its table."""

import math

import pytest

from hypervisor.toolstack.compare.pairs import Verdict, pair, sentence


def of(*values):
    return dict(enumerate(values, start=1))


def test_seeds_that_agree_and_lie_together_show_a_difference():
    found = pair("swap", "cmm2", of(2.0, 2.1, 2.05), of(1.0, 1.0, 1.0))
    assert (found.verdict, found.faster) == (Verdict.SHOWN, "cmm2")
    assert (found.quicker, found.slower) == (0, 3)
    mean, low, high = found.ratio
    assert low < mean < high
    assert mean == pytest.approx((2.0 * 2.1 * 2.05) ** (1 / 3))
    assert sentence(found).startswith("swap, cmm2: cmm2 is faster: swap takes 2.05 of cmm2's time (")
    assert sentence(found).endswith("all 3 seeds agree")


def test_the_order_of_the_two_does_not_matter():
    forth = pair("a", "b", of(2.0, 2.1, 2.05), of(1.0, 1.0, 1.0))
    back = pair("b", "a", of(1.0, 1.0, 1.0), of(2.0, 2.1, 2.05))
    assert (forth.faster, forth.verdict) == (back.faster, back.verdict) == ("b", Verdict.SHOWN)


def test_seeds_that_agree_but_lie_far_apart_show_none():
    found = pair("a", "b", of(1.01, 5.0), of(1.0, 1.0))
    assert (found.verdict, found.faster) == (Verdict.NOT_SHOWN, None)
    assert sentence(found).startswith("a, b: no difference shown: a takes ")


def test_seeds_that_disagree_show_none():
    found = pair("a", "b", of(2.0, 0.5, 1.5), of(1.0, 1.0, 1.0))
    assert found.verdict is Verdict.DISAGREE
    assert "no difference shown: seeds disagree (a faster with 1 of 3 seeds)" in sentence(found)


def test_seeds_that_disagree_beyond_the_interval_are_said_to():
    """Nineteen of twenty say the same, and the mean's interval is without 0: no scheme is called the faster one."""
    found = pair("a", "b", of(*[2.0] * 19, 0.99), of(*[1.0] * 20))
    assert (found.verdict, found.faster) == (Verdict.DISAGREE_BEYOND, None)
    assert "seeds disagree beyond the interval (a faster with 1 of 20 seeds): on the mean a takes" in sentence(found)


def test_equal_times_show_none():
    found = pair("a", "b", of(1.5, 1.7), of(1.5, 1.7))
    assert (found.verdict, found.quicker, found.slower) == (Verdict.NOT_SHOWN, 0, 0)


def test_a_seed_with_equal_times_agrees_with_nobody():
    found = pair("a", "b", of(*[2.0] * 19, 1.0), of(*[1.0] * 20))
    assert (found.verdict, found.quicker, found.slower) == (Verdict.NOT_SHOWN, 0, 19)


@pytest.mark.parametrize(("first", "second", "count"), [
    ({}, {}, "0 seeds"), ({1: 2.0}, {1: 1.0}, "1 seed"), ({1: 2.0, 2: 2.0}, {2: 1.0, 3: 1.0}, "1 seed")])
def test_fewer_than_two_common_seeds_show_none(first, second, count):
    found = pair("a", "b", first, second)
    assert (found.verdict, found.faster, found.ratio) == (Verdict.TOO_FEW, None, None)
    assert sentence(found) == f"a, b: no difference shown: {count} that both finished, two are needed"


def test_only_seeds_of_both_count():
    found = pair("a", "b", {1: 2.0, 2: 2.0, 3: 99.0}, {1: 1.0, 2: 1.0, 4: 1.0})
    assert found.seeds == 2
    assert found.ratio == pytest.approx((2.0, 2.0, 2.0))


def test_an_endless_interval_is_still_a_number():
    found = pair("a", "b", of(1e-200, 1e200), of(1.0, 1.0))
    assert all(math.isfinite(value) for value in found.ratio)
