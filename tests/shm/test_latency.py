"""The histogram of operations' times: buckets, percentiles, and what is believed of one that was reported."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.latency import BUCKETS, LONGEST_NS, bucket_of, checked, empty, figures, merged, percentile, trimmed, upper_ns

TIMES = st.integers(0, LONGEST_NS)


@given(TIMES)
def test_a_time_lies_in_its_bucket_which_is_an_eighth_wide_at_most(ns: int) -> None:
    bucket = bucket_of(ns)
    below = upper_ns(bucket - 1) if bucket else -1
    assert below < ns <= upper_ns(bucket)
    assert upper_ns(bucket) - below <= max(1, ns // 8 + 1)


def test_the_buckets_are_all_there_in_order() -> None:
    edges = [upper_ns(bucket) for bucket in range(BUCKETS)]
    assert edges == sorted(set(edges)) and edges[-1] == LONGEST_NS
    assert [bucket_of(edge) for edge in edges] == list(range(BUCKETS))
    assert bucket_of(LONGEST_NS + 1) == bucket_of(1 << 60) == BUCKETS - 1
    assert len(empty()) == BUCKETS and not any(empty())


@given(st.lists(TIMES, min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_not_below_the_true_one_and_an_eighth_above_at_most(times: list[int], percent: int) -> None:
    counts = empty()
    for ns in times:
        counts[bucket_of(ns)] += 1
    true = sorted(times)[max(0, -(-percent * len(times) // 100) - 1)]
    found = percentile(counts, percent)
    assert found is not None and true <= found <= true + true // 8 + 1
    assert percentile(trimmed(counts), percent) == found


def test_figures_of_nothing_are_none() -> None:
    assert figures(empty()) == figures([]) == {"p50": None, "p99": None, "max": None}


def test_merging_adds_bucket_by_bucket() -> None:
    assert merged([[1, 2], [], [0, 1, 5]]) == [1, 3, 5]
    assert merged([]) == []


@pytest.mark.parametrize(("raw", "operations", "believed"), [
    ([1, 2], 3, True), ([], 0, True), ([1, 2], 4, False), ([3, -1], 2, False), ([1.0], 1, False), ([True], 1, False),
    ("12", 3, False), (None, 0, False), ({"0": 1}, 1, False), ([0] * (BUCKETS + 1), 0, False),
    ([0] * BUCKETS, 0, True)])
def test_only_what_can_be_is_believed(raw: object, operations: int, believed: bool) -> None:
    assert (checked(raw, operations) is not None) == believed
