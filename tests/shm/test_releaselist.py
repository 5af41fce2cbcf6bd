"""The release list, of well-meaning sides and of scribblers."""

import numpy as np
import pytest

from shm.releaselist import RELEASES, ReleaseList


@pytest.fixture
def releases():
    return ReleaseList(np.zeros(512, np.int64))


def test_it_takes_511_and_is_emptied(releases):
    assert (len(releases), releases.room) == (0, 511)
    releases.append(np.arange(500))
    releases.append(np.arange(500, 511))
    assert (len(releases), releases.room) == (511, 0)
    assert releases.listed(1000).tolist() == list(range(511))
    releases.clear()
    assert (len(releases), releases.listed(1000).tolist()) == (0, [])


def test_what_is_listed_is_sorted_each_once_and_a_copy(releases):
    releases.append(np.array([7, 3, 7]))
    listed = releases.listed(8)
    releases.slots[:] = 5
    assert listed.tolist() == [3, 7]


@pytest.mark.parametrize(("count", "believed"), [(-1, 0), (-(1 << 63), 0), (512, 511), ((1 << 63) - 1, 511)])
def test_a_count_that_cannot_be_is_bounded(releases, count, believed):
    releases.slots[RELEASES] = count
    assert len(releases) == believed


def test_pages_outside_the_guest_are_ignored(releases):
    releases.append(np.array([-1, 0, 15, 16, 1 << 62]))
    assert releases.listed(16).tolist() == [0, 15]
