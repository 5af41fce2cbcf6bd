"""The search finds the most guests that fit, wherever that is, without asking twice; and whether a count fits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.toolstack.compare.fitting import tried
from hypervisor.toolstack.compare.search import Answer, next_count


def searched(fits, start, limit, known=None):
    """Return (answer, the counts that were tried)."""
    known = dict(known or {})
    asked = []
    while isinstance(step := next_count(known, start, limit), int):
        assert step not in known, "nothing is tried twice"
        assert 1 <= step <= limit
        asked.append(step)
        known[step] = fits(step)
    return step, asked


@given(st.integers(0, 130), st.integers(1, 128), st.integers(1, 128))
def test_it_finds_the_most_in_few_steps(most, start, limit):
    answer, asked = searched(lambda n: n <= most, start, limit)
    assert answer == Answer(min(most, limit), most + 1 if most < limit else None)
    assert len(asked) <= 2 * math.log2(limit) + 3


def test_the_way_of_the_search():
    assert searched(lambda n: n <= 9, 4, 128)[1] == [4, 5, 7, 11, 9, 10]
    assert searched(lambda n: n <= 2, 8, 128)[1] == [8, 7, 5, 1, 3, 2]
    assert searched(lambda n: False, 3, 128)[1] == [3, 2, 1]


@given(st.integers(1, 64), st.integers(1, 64), st.dictionaries(st.integers(1, 64), st.booleans(), max_size=20),
       st.randoms(use_true_random=False))
def test_whatever_is_known_it_ends_beside_a_count_that_does_not_fit(start, limit, known, random):
    """Measurements need not be monotone: the answer is one that was seen to fit, and the next was seen not to."""
    seen = dict(known)

    def fits(n):
        return seen.setdefault(n, random.random() < 0.5)
    answer, _ = searched(fits, start, limit, known)
    assert answer.most == 0 or seen[answer.most]
    assert answer.first_not == answer.most + 1 if answer.first_not else answer.most == limit
    assert all(seen[n] and n > answer.first_not for n in answer.contrary)


def test_what_is_known_is_not_tried_again():
    assert next_count({4: True, 5: True, 6: False}, 4, 128) == Answer(5, 6)
    assert next_count({9: True}, 4, 9) == Answer(9, None)
    assert next_count({1: False}, 4, 9) == Answer(0, 1)


def test_what_is_not_monotone_is_told_and_the_lower_count_believed():
    assert next_count({4: True, 5: False, 6: False, 7: True, 9: True}, 4, 128) == Answer(4, 5, (7, 9))


def test_counts_beyond_the_limit_do_not_count():
    assert next_count({4: True, 8: True, 9: False}, 4, 4) == Answer(4, None)


def body(**slower):
    return {"failed": None, "wrong": False,
            "summary": {"guests": [{"name": name, "slowdown": value} for name, value in slower.items()]}}


def test_a_count_fits_when_every_guest_keeps_within():
    found = tried(2, [body(a=1.1, b=1.25)], 1.25, 1.5)
    assert (found.fits, found.worst, found.worst_guest, found.promised) == (True, 1.25, "b", 1.5)
    assert not tried(2, [body(a=1.0, b=1.26)], 1.25, 1.5).fits


def test_the_median_of_the_seeds_decides_for_each_guest():
    found = tried(2, [body(a=1.0, b=9.0), body(a=9.0, b=1.0), body(a=1.1, b=1.2)], 1.25, 1.5)
    assert (found.fits, found.worst, found.worst_guest) == (True, 1.2, "b")
    assert not tried(2, [body(a=1.0, b=9.0), body(a=1.0, b=9.0), body(a=1.1, b=1.2)], 1.25, 1.5).fits


UNFINISHED = {"failed": "out of memory", "wrong": False}


def test_a_seed_that_did_not_finish_is_slower_than_any():
    found = tried(1, [body(a=1.0), body(a=1.2), UNFINISHED], 1.25, 1.5)
    assert (found.fits, found.worst, found.unfinished) == (True, 1.2, 1)
    assert not tried(1, [body(a=1.0), body(a=1.3), UNFINISHED], 1.25, 1.5).fits
    found = tried(1, [body(a=1.0), UNFINISHED], 1.25, 1.5)
    assert (found.fits, found.worst, found.failed) == (False, None, "out of memory")


@pytest.mark.parametrize(("given_body", "why"), [
    (UNFINISHED, "out of memory"), ({"failed": None, "wrong": False}, "its summ"),
    (body(a=1.0, b=None), "no time of guest 'b'"), (body(), "no guest")])
def test_a_count_that_did_not_finish_does_not_fit(given_body, why):
    found = tried(2, [given_body], 1.25, 1.5)
    assert (found.fits, found.worst) == (False, None)
    assert found.failed.startswith(why)
