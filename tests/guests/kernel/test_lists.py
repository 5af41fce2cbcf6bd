"""The order in which pages grow old."""

import random
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.kernel.lists import ActiveInactive, ExactLru
from guests.kernel.pages import Pages
from guests.volatility import ACTIVE, HELD, LISTED, REFERENCED

SCRIPTS = [
    # name,                                        what is touched after 0..5 came,   first three taken
    ("never touched: in the order they came",      [],                                [0, 1, 2]),
    ("one touch saves nobody",                     [0, 1],                            [0, 1, 2]),
    ("the second touch promotes",                  [0, 0, 1, 1],                      [2, 3, 4]),
    ("a third changes nothing more",               [0, 0, 0],                         [1, 2, 3]),
]


def two_lists(count: int = 6) -> tuple[Pages, ActiveInactive]:
    pages = Pages(64)
    lists = ActiveInactive(pages)
    lists.add(range(count))
    return pages, lists


@pytest.mark.parametrize(("touched", "taken"), [row[1:] for row in SCRIPTS], ids=[row[0] for row in SCRIPTS])
def test_two_lists(touched, taken):
    _, lists = two_lists()
    lists.touch_many(touched)
    assert lists.take(3) == taken


def test_active_pages_come_back_untouched_ones_first():
    _, lists = two_lists()
    lists.touch_many([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])       # all active, in this order
    lists.touch_many([0, 1])                                     # and two of them in use again
    assert lists.take(2) == [2, 3]
    assert list(lists.active)[-2:] == [0, 1]


def test_when_all_active_pages_are_in_use_the_oldest_goes():
    _, lists = two_lists()
    lists.touch_many([gfn for gfn in range(6) for _ in range(3)])
    assert lists.take(1) == [0]


def test_the_inactive_list_is_kept_as_long_as_the_active_one():
    _, lists = two_lists(20)
    lists.touch_many([gfn for gfn in range(18) for _ in range(2)])
    lists.take(1)
    assert abs(len(lists.inactive) - len(lists.active)) <= 1


@pytest.mark.parametrize("kind", [ActiveInactive, ExactLru])
def test_a_held_page_keeps_its_place(kind):
    pages = Pages(8)
    lists = kind(pages)
    lists.add(range(4))
    with pages.held([0, 2]):
        assert lists.take(4) == [1, 3]
    assert lists.take(4) == [0, 2]


def test_holding_nests():
    pages = Pages(8)
    with pages.held([0, 1]):
        with pages.held([1, 2]):
            assert pages.having(range(8), HELD) == [0, 1, 2]
        assert pages.having(range(8), HELD) == [0, 1]
    assert not pages.array.any()


@pytest.mark.parametrize("kind", [ActiveInactive, ExactLru])
def test_the_marks_say_where_a_page_stands(kind):
    pages = Pages(8)
    lists = kind(pages)
    lists.add([1, 2, 3])
    lists.touch_many([1, 1, 2])
    taken = lists.take(1)
    lists.remove([gfn for gfn in (1, 2, 3) if gfn not in taken])
    assert len(lists) == 0 and not pages.array.any()
    lists.add(taken)
    assert pages.facts[taken[0]] == LISTED


@pytest.mark.parametrize("seed", range(20))
def test_exact_lru_is_the_order_of_last_touch(seed):
    rng, lists, model = random.Random(seed), ExactLru(Pages(16)), OrderedDict()
    for _ in range(300):
        gfn = rng.randrange(16)
        if gfn not in model:
            lists.add([gfn])
            model[gfn] = None
        elif rng.random() < 0.7:
            lists.touch(gfn)
            model.move_to_end(gfn)
        elif rng.random() < 0.5:
            lists.remove([gfn])
            del model[gfn]
        else:
            assert lists.take(2) == [model.popitem(last=False)[0] for _ in range(min(2, len(model)))]
        assert list(lists) == list(model)


@given(st.lists(st.tuples(st.sampled_from(["add", "touch", "remove", "take"]), st.integers(0, 11)), max_size=80))
def test_two_lists_lose_nobody_and_mark_them_right(steps):
    pages = Pages(12)
    lists, there = ActiveInactive(pages), set()
    for step, gfn in steps:
        if step == "add" and gfn not in there:
            lists.add([gfn])
            there.add(gfn)
        elif step == "touch" and gfn in there:
            lists.touch(gfn)
        elif step == "remove" and gfn in there:
            lists.remove([gfn])
            there.discard(gfn)
        elif step == "take":
            taken = lists.take(gfn)
            assert len(taken) == min(gfn, len(there)) and set(taken) <= there
            there -= set(taken)
        assert sorted(lists) == sorted(there)
        for page in range(12):
            assert bool(pages.facts[page] & LISTED) == (page in there)
            assert bool(pages.facts[page] & ACTIVE) == (page in lists.active)
            assert page in there or not pages.facts[page] & REFERENCED
