"""Student's t against the published tables, intervals, Jain's index."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.toolstack.compare.statistics import estimate, incomplete_beta, jain, t_distribution, t_quantile

# Degrees of freedom -> t for two-sided 90, 95 and 99 %: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
PUBLISHED = {
    1: (6.314, 12.706, 63.657), 2: (2.920, 4.303, 9.925), 3: (2.353, 3.182, 5.841), 4: (2.132, 2.776, 4.604),
    5: (2.015, 2.571, 4.032), 9: (1.833, 2.262, 3.250), 10: (1.812, 2.228, 3.169), 20: (1.725, 2.086, 2.845),
    30: (1.697, 2.042, 2.750), 60: (1.671, 2.000, 2.660), 100: (1.660, 1.984, 2.626)}


@pytest.mark.parametrize("freedom", PUBLISHED)
def test_quantiles_are_the_published_ones(freedom):
    computed = [t_quantile(p, freedom) for p in (0.95, 0.975, 0.995)]
    assert [round(t, 3) for t in computed] == list(PUBLISHED[freedom])


def test_one_degree_is_cauchys_distribution():
    for p in (0.6, 0.75, 0.9, 0.999):
        assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-9)


@given(st.floats(0.001, 0.999), st.integers(1, 500))
def test_the_quantile_is_the_inverse(p, freedom):
    assert t_distribution(t_quantile(p, freedom), freedom) == pytest.approx(p, abs=1e-9)


def test_the_quantile_is_symmetric():
    assert t_quantile(0.025, 7) == -t_quantile(0.975, 7)
    assert t_quantile(0.5, 7) == pytest.approx(0, abs=1e-9)


@given(st.floats(0.01, 0.99), st.floats(0.1, 50))
def test_incomplete_beta_where_it_is_elementary(x, a):
    """I_x(a, 1) = x^a, and I_x(a, b) = 1 - I_(1-x)(b, a)."""
    assert incomplete_beta(a, 1, x) == pytest.approx(x ** a, rel=1e-9, abs=1e-12)
    assert incomplete_beta(a, 2.5, x) == pytest.approx(1 - incomplete_beta(2.5, a, 1 - x), abs=1e-9)


def test_incomplete_beta_at_its_ends():
    assert (incomplete_beta(2, 3, 0), incomplete_beta(2, 3, 1)) == (0, 1)


def test_the_interval_of_a_mean():
    """1, 2, 3: mean 2, s = 1, t(0.975; 2) = 4.303: 2 +- 4.303 / sqrt(3)."""
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.count) == (2.0, 3)
    assert found.half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert (found.low, found.high) == (found.mean - found.half, found.mean + found.half)


def test_one_value_has_no_interval():
    found = estimate([7.0])
    assert (found.mean, found.half, found.low, found.high) == (7.0, None, None, None)
    assert estimate([]) is None


def test_equal_values_have_an_interval_without_width():
    assert estimate([2.0] * 4).half == 0


def test_jains_index():
    assert jain([3.0, 3.0, 3.0]) == 1
    assert jain([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain([1.0, 2.0]) == pytest.approx(9 / 10)
    assert jain([0.0, 0.0]) is None
    assert jain([]) is None
