"""The age order against a plain list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.tmem.ages import Ages

IDS = st.integers(0, 19)
OWNER = 7
STEPS = st.lists(st.one_of(
    st.tuples(st.just("join"), st.lists(IDS, unique=True), st.booleans()),
    st.tuples(st.just("leave"), st.lists(IDS, unique=True), st.booleans()),
    st.tuples(st.just("oldest"), st.integers(0, 25), st.booleans()),
    st.tuples(st.just("pass_hand"), st.just(0), st.booleans()),
), max_size=60)


class Model:
    """Ids, oldest first, and which of them the hand has passed."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.aged: set[int] = set()

    def join(self, ids):
        self.ids += ids

    def leave(self, ids):
        self.ids = [number for number in self.ids if number not in ids]
        self.aged -= set(ids)

    def pass_hand(self):
        self.aged = set(self.ids)


def join(ages, ids, bulk):
    if bulk:
        ages.join(np.array(ids, np.int64), OWNER)
        return
    for number in ids:
        ages.join_one(number, OWNER)


def leave(ages, ids, bulk):
    if bulk:
        ages.leave(np.array(ids, np.int64))
        return
    for number in ids:
        ages.leave_one(number)


def agree(ages, model):
    assert ages.oldest(99).tolist() == ages.oldest_of(OWNER, 99).tolist() == model.ids
    assert (ages.count, ages.aged) == (len(model.ids), len(model.aged))
    assert ages.audit() == []


@given(STEPS)
def test_ages_agree_with_a_list(steps):
    ages, model = Ages(), Model()
    ages.cover(20)
    for what, argument, bulk in steps:
        if what == "join":
            new = [number for number in argument if number not in model.ids]
            join(ages, new, bulk)
            model.join(new)
        elif what == "leave":
            leave(ages, argument, bulk)
            model.leave(argument)
        elif what == "oldest":
            assert ages.oldest(argument).tolist() == model.ids[:argument]
        else:
            ages.pass_hand()
            model.pass_hand()
        agree(ages, model)


def test_queue_longer_than_its_array_is_swept_and_keeps_its_order():
    """More have come and gone than the array has room for; some old ones have stayed all the time."""
    ages, model = Ages(), Model()
    ages.cover(64)
    stayers = [3, 1, 2]
    join(ages, stayers, bulk=True)
    model.join(stayers)
    ages.pass_hand()
    model.pass_hand()
    for round_ in range(200):
        ids = [10 + (round_ + n) % 50 for n in range(30)]
        join(ages, ids, bulk=bool(round_ % 2))
        leave(ages, ids[:-1], bulk=bool(round_ % 3))
        model.join(ids[-1:])
        agree(ages, model)
        leave(ages, ids[-1:], bulk=False)
        model.leave(ids[-1:])
    agree(ages, model)
    assert ages.nbytes < 64 * 12 + 12 * 4096


def test_coming_back_makes_young():
    ages = Ages()
    ages.cover(3)
    join(ages, [0, 1, 2], bulk=True)
    ages.pass_hand()
    leave(ages, [0], bulk=False)
    join(ages, [0], bulk=False)
    assert ages.oldest(3).tolist() == [1, 2, 0]
    assert ages.aged == 2, "what came after the hand is not aged"


def test_who_is_not_there_cannot_leave():
    ages = Ages()
    ages.cover(4)
    join(ages, [0, 1, 2], bulk=True)
    leave(ages, [2], bulk=True)
    ages.pass_hand()
    leave(ages, [1, 2, 3], bulk=True)
    assert (ages.count, ages.aged) == (1, 1)


def test_a_long_stale_stretch_is_stepped_over():
    """Thousands of stale entries before the one that lives."""
    ages = Ages()
    ages.cover(6000)
    join(ages, list(range(6000)), bulk=True)
    leave(ages, list(range(5999)), bulk=True)
    assert ages.oldest(10).tolist() == [5999]
    assert ages.oldest(10).tolist() == [5999], "the same again"


def test_an_audit_finds_a_wrong_count():
    ages = Ages()
    ages.cover(4)
    join(ages, [0, 1], bulk=True)
    ages.count = 3
    assert ages.audit() == ["ages: 3 ids counted, 2 in the queue"]


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "refresh", "hand over", "ask"]), IDS, st.integers(1, 3)),
                max_size=80))
def test_each_owner_has_its_own_order(steps):
    """Pages of three owners against one list; their marks never hide a page."""
    ages, model = Ages(), list[tuple[int, int]]()
    ages.cover(20)
    for what, number, owner in steps:
        there = [(other, whose) for other, whose in model if other == number]
        if what == "join" and not there:
            ages.join_one(number, owner)
            model.append((number, owner))
        elif what == "leave" and there:
            ages.leave_one(number)
            model.remove(there[0])
        elif what == "refresh" and there:
            ages.refresh(np.array([number]))
            model.remove(there[0])
            model.append(there[0])
        elif what == "hand over" and there:
            ages.hand_over(np.array([number]), owner)
            model[model.index(there[0])] = (number, owner)
        elif what == "ask":
            expected = [other for other, whose in model if whose == owner]
            assert ages.oldest_of(owner, number).tolist() == expected[:number]
            expected = [other for other, whose in model if whose != owner]
            assert ages.oldest_of_others(owner, number).tolist() == expected[:number]
    assert ages.oldest(99).tolist() == [number for number, _ in model]
    assert ages.audit() == []
