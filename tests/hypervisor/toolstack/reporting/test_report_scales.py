"""Axes: every value has its place, marks are round and lie on the axis, and words have units."""

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypervisor.toolstack.reporting.scales import number_words, scale, spread, ticks, time_words, within

VALUES = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=20)
POSITIVE = st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=20)


@given(VALUES, st.booleans())
@example([0.0, 703687441777.0059], False)        # rounding led beyond the end
def test_every_value_has_its_place_in_order(values, from_zero):
    axis = scale(values, 0.0, 100.0, from_zero=from_zero)
    places = [axis.at(value) for value in sorted(values)]
    assert all(0 <= place <= 100 for place in places)
    assert places == sorted(places)


@given(POSITIVE)
def test_logarithms_too(values):
    axis = scale(values, 0.0, 100.0, log=True)
    places = [axis.at(value) for value in sorted(values)]
    assert all(0 <= place <= 100 for place in places)
    assert places == sorted(places)


def test_upwards_is_upwards():
    axis = scale([0, 10], 300.0, 0.0)
    assert (axis.at(0), axis.at(5), axis.at(10)) == (300.0, 150.0, 0.0)


def test_what_lies_outside_is_drawn_at_the_border():
    axis = scale([1, 2], 0.0, 10.0)
    assert (axis.at(-5), axis.at(99)) == (0.0, 10.0)


@pytest.mark.parametrize("values", [[], [0.0], [5.0], [0.0, 0.0], [-3.0], [math.inf, math.nan]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_of_nothing_or_of_one_value_is_an_axis(values, log):
    axis = scale(values, 0.0, 10.0, log)
    assert axis.high > axis.low
    assert ticks(axis)


@given(VALUES, st.booleans())
def test_marks_lie_on_the_axis_and_are_few(values, from_zero):
    axis = scale(values, 0.0, 100.0, from_zero=from_zero)
    marks = ticks(axis)
    slack = 1e-6 * max(abs(axis.low), abs(axis.high))
    assert all(axis.low - slack <= mark <= axis.high + slack for mark in marks)
    assert len(marks) <= 12


def test_marks_are_round():
    assert ticks(scale([0, 47], 0, 1)) == [0, 10, 20, 30, 40]
    assert ticks(scale([0.2, 1.1], 0, 1)) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(scale([1e-6, 1e-1], 0, 1, log=True)) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])


@given(st.lists(st.floats(-100, 100), max_size=12), st.floats(0.01, 10))
def test_labels_keep_their_order_and_distance(places, gap):
    moved = spread(places, gap)
    order = sorted(range(len(places)), key=lambda n: places[n])
    assert all(moved[b] - moved[a] >= gap - 1e-6 for a, b in pairwise(order))


def test_labels_stay_in_the_picture():
    assert within([5.0, 20.0, 35.0], 0.0, 30.0) == [0.0, 15.0, 30.0]
    assert within([-4.0, 3.0], 0.0, 30.0) == [0.0, 7.0]
    assert within([1.0], 0.0, 30.0) == [1.0]


@pytest.mark.parametrize(("value", "words"), [
    (0, "0"), (0.25, "0.25"), (1500, "1,500"), (20_000, "20,000"), (3e6, "3M"), (0.1 + 0.2, "0.3"), (-2.5, "-2.5")])
def test_numbers(value, words):
    assert number_words(value) == words


@pytest.mark.parametrize(("seconds", "words"), [
    (5e-6, "5 µs"), (0.02, "20 ms"), (1.0, "1 s"), (1e-3, "1 ms"), (3e-9, "3 ns"), (120, "120 s"), (0, "0")])
def test_times_have_a_unit(seconds, words):
    assert time_words(seconds) == words
