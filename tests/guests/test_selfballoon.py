"""Self-ballooning as Linux decides it: the goal, the way to it, the floor, and frontswap's shrinking (T111)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.selfballoon import MIB, Quiet, Rules, floor_of, goal_of, shrink, target_of

SIZES = st.integers(0, 1 << 22)


def test_the_goal_is_all_that_would_have_to_be_in_memory():
    assert goal_of(committed=1000, reserve=50, frontswap=7) == 1057


# total and floor in MiB with a reserve of 4, by hand from the table of reference 3.5
@pytest.mark.parametrize(("total", "floor"), [
    (4, 4), (10, 10), (19, 19),                      # below 16 MiB of use: left alone
    (20, 4 + 16), (36, 4 + 16 + 8), (67, 4 + 16 + 23.5),
    (68, 4 + 40 + 3), (132, 4 + 40 + 11), (515, 4 + 40 + 58.875),
    (516, 4 + 99 + 12.90625), (1028, 4 + 99 + 28.90625), (4100, 4 + 99 + 124.90625),
])
def test_the_floor(total, floor):
    assert floor_of(total * MIB, 4 * MIB) == int(floor * MIB)


@pytest.mark.parametrize(("useful", "before", "at"), [(16, 16, 16), (64, 40, 43), (512, 99, 111.90625)])
def test_each_row_begins_at_its_border(useful, before, at):
    assert floor_of(useful * MIB - 1, 0) == before * MIB - 1
    assert floor_of(useful * MIB, 0) == at * MIB


@pytest.mark.parametrize(("least", "floor"), [(0, 100), (500, 600), (10_000, 1000)])
def test_the_floor_can_be_chosen(least, floor):
    assert floor_of(1000, 100, min_usable=least) == floor


@pytest.mark.parametrize(("current", "goal", "target"), [
    (1000, 200, 900), (900, 200, 813), (207, 200, 207), (208, 200, 207),     # an eighth of the way down
    (200, 200, 200), (200, 201, 201), (200, 900, 900),                       # all of the way up
    (1000, 5000, 1000),                                                      # never more than there is
])
def test_the_way_to_the_goal(current, goal, target):
    assert target_of(current, goal, floor=0, total=1000) == target


@pytest.mark.parametrize(("rules", "current", "target"), [
    (Rules(down=1), 1000, 200), (Rules(down=2), 1000, 600), (Rules(up=4), 100, 125), (Rules(), 1000, 900)])
def test_hysteresis_can_be_chosen(rules, current, target):
    assert target_of(current, 200, floor=0, total=1000, rules=rules) == target


def test_the_shrinking_of_frontswap_can_be_chosen():
    rules = Rules(inertia=1, shrink=2)
    assert shrink(Quiet(400, 1), 400, rules) == (Quiet(400, 0), 200)
    assert shrink(Quiet(300, 0), 400, rules) == (Quiet(400, 1), 400)


def test_the_floor_stops_the_way_down():
    assert target_of(1000, 0, floor=950, total=1000) == 950
    assert target_of(900, 0, floor=950, total=1000) == 950


def test_a_series_of_promises():
    """Down by eighths while little is promised, up at once when much is."""
    sizes, current = [], 800
    for committed in (0, 0, 0, 720, 720, 0):
        current = target_of(current, goal_of(committed, 0, 0), floor=100, total=800)
        sizes.append(current)
    assert sizes == [700, 613, 537, 720, 720, 630]


@given(current=SIZES, goal=SIZES, total=SIZES, reserve=st.integers(0, 1 << 14))
def test_the_target_lies_between_floor_and_all(current, goal, total, reserve):
    reserve = min(reserve, total)
    floor = floor_of(total, reserve)
    assert 0 <= floor <= total
    assert floor <= target_of(min(current, total), goal, floor, total) <= total


def shrinking(series) -> list[int]:
    """Feed what is in frontswap, before anybody shrinks it; return what may stay, interval by interval."""
    state, stays = Quiet(), []
    for pages in series:
        state, stay = shrink(state, pages)
        stays.append(stay)
    return stays


@pytest.mark.parametrize(("series", "stays"), [
    ([400, 400, 400, 400, 380], [400, 400, 400, 380, 361]),          # the third quiet interval, then each
    ([400, 400, 400, 401, 401, 401, 401], [400, 400, 400, 401, 401, 401, 381]),     # growth starts anew
    ([400, 390, 390, 390], [400, 390, 390, 371]),                    # less is not growth
    ([20, 20, 20, 20], [20, 20, 20, 0]), ([21, 21, 21, 21], [21, 21, 21, 20]),
    ([0, 0, 0, 0, 0], [0] * 5), ([400, 400, 400, 380, 0, 40, 40, 40, 40], [400, 400, 400, 361, 0, 40, 40, 40, 38]),
])
def test_frontswap_shrinks_after_three_quiet_intervals(series, stays):
    assert shrinking(series) == stays


@given(series=st.lists(SIZES))
def test_shrinking_never_asks_for_more(series):
    assert all(0 <= stay <= pages for stay, pages in zip(shrinking(series), series, strict=True))
