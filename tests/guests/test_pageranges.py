"""Page ranges: handed out once, first fit, and one again when all have come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.pageranges import PageRanges
from shm.errors import UsageProblem

PAGES = 32


def test_the_first_range_that_is_large_enough_is_taken():
    ranges = PageRanges(PAGES)
    firsts = [ranges.take(count) for count in (4, 8, 4)]
    assert firsts == [0, 4, 12]
    ranges.give_back(0, 4)
    ranges.give_back(12, 4)
    assert (ranges.take(5), ranges.take(3), ranges.free) == (12, 0, PAGES - 16)


def test_where_no_range_is_large_enough_the_line_says_what_there_is():
    ranges = PageRanges(PAGES)
    ranges.take(16)
    ranges.take(8)
    ranges.give_back(0, 16)
    with pytest.raises(UsageProblem, match=r"68 KiB are asked for, .* largest free range has 64 KiB of 96 KiB"):
        ranges.take(17)
    assert ranges.free == 24


@pytest.mark.parametrize(("first", "count"), [(0, 1), (15, 2), (10, 30)])
def test_what_is_free_cannot_be_given_back(first, count):
    ranges = PageRanges(PAGES)
    ranges.take(16)
    ranges.give_back(0, 8)
    with pytest.raises(ValueError, match="free already"):
        ranges.give_back(first, count)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=60))
def test_ranges_are_as_a_set_of_pages_has_them(steps):
    ranges, taken, free = PageRanges(PAGES), [], set(range(PAGES))
    for take, number in steps:
        if take:
            fits = [first for first in range(PAGES) if set(range(first, first + number)) <= free]
            try:
                first = ranges.take(number)
            except UsageProblem:
                assert not fits
                continue
            assert first == fits[0]
            taken.append((first, number))
            free -= set(range(first, first + number))
        elif taken:
            first, count = taken.pop(number % len(taken))
            ranges.give_back(first, count)
            free |= set(range(first, first + count))
        assert ranges.free == len(free)
    for first, count in taken:
        ranges.give_back(first, count)
    assert ranges.take(PAGES) == 0
