"""Leaves against a dictionary: (object, index) -> page; neighbours, many and one mean the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.tmem.index import NONE
from hypervisor.tmem.leaves import KEPT, LEAF, Leaves
from hypervisor.tmem.objects import Objects
from shm.abi import U32

SERIAL, LAST = 1, U32 + 1 - 2 * LEAF
# Neighbours at the start, in the middle and at the very end of the indexes, in one of three objects.
RUNS = st.tuples(st.integers(0, 2), st.sampled_from([0, 3, LEAF, LAST]), st.integers(1, 2 * LEAF))
HOW = st.sampled_from(["run", "many", "one"])
STEPS = st.lists(st.tuples(st.sampled_from(["add", "drop"]), RUNS, HOW), max_size=20)


class Pair:
    """Leaves, and the dictionary that says what is in them."""

    def __init__(self) -> None:
        self.leaves = Leaves(Objects())
        self.positions: dict[tuple[int, int], int] = {}
        self.pages: dict[tuple[int, int], int] = {}
        self._next = 0

    def number(self, oid):
        return self.leaves.objects.number_for(SERIAL, (oid, 0, 0))

    def add(self, oid, indexes, how):
        new = [index for index in indexes if (oid, index) not in self.pages]
        if how == "run" and new != list(indexes):
            how = "many"
        if not new:
            return
        pages, number = np.arange(self._next, self._next + len(new)), self.number(oid)
        self._next += len(new)
        if how == "one":
            positions = [self.leaves.add(number, *pair) for pair in zip(new, pages.tolist(), strict=True)]
        else:
            found = self.found(number, new, how, make=True)
            self.leaves.enter(found, pages)
            positions = found.tolist()
        for index, position, page in zip(new, positions, pages.tolist(), strict=True):
            self.positions[oid, index], self.pages[oid, index] = position, page

    def drop(self, oid, indexes, how):
        known = [(oid, index) for index in indexes if (oid, index) in self.pages]
        positions = [self.positions.pop(handle) for handle in known]
        numbers = [self.number(oid)] * len(known) if known else []
        if how == "one":
            assert [self.leaves.remove(position) for position in positions] == numbers
        elif known:
            assert self.leaves.remove_many(np.array(positions)).tolist() == numbers
        for handle in known:
            del self.pages[handle]

    def found(self, number, indexes, how, make=False):
        if how == "run":
            return self.leaves.positions_of_run(number, indexes[0], len(indexes), make)
        return self.leaves.positions(np.full(len(indexes), number), np.array(indexes, np.uint64), make)

    def agree(self, oid, indexes):
        expected = [self.pages.get((oid, index), NONE) for index in indexes]
        number = self.leaves.objects.find(SERIAL, (oid, 0, 0))
        if number == NONE:
            assert set(expected) == {NONE}
            return
        for how in ("run", "many"):
            assert self.leaves.pages_at(self.found(number, indexes, how)).tolist() == expected
        assert [self.leaves.find(number, index) for index in indexes] == expected
        there = [self.positions[oid, index] for index in indexes if (oid, index) in self.positions]
        assert self.leaves.indexes_of(np.array(there, np.int64)).tolist() == [
            index for index in indexes if (oid, index) in self.positions]
        assert self.leaves.audit() == []


@given(STEPS)
def test_leaves_agree_with_a_dictionary(steps):
    pair = Pair()
    for what, (oid, first, count), how in steps:
        indexes = range(first, first + count)
        getattr(pair, what)(oid, indexes, how)
        pair.agree(oid, indexes)
    for oid in range(3):
        pair.agree(oid, range(3 * LEAF))


def test_neighbours_share_leaves():
    pair = Pair()
    pair.add(0, range(LEAF * 10), "run")
    assert len(pair.leaves.index) == 10
    pair.add(0, range(LEAF * 10 + 1, LEAF * 10 + 2), "run")
    assert len(pair.leaves.index) == 11


def test_few_emptied_leaves_are_kept_and_the_youngest_of_them():
    """More files than are kept come and go: what is kept is bounded, and their objects go with them."""
    pair, files = Pair(), 3 * KEPT
    for oid in range(files):
        pair.add(oid, range(LEAF), "run")
        pair.drop(oid, range(LEAF), "run")
        assert len(pair.leaves.index) <= KEPT
    assert len(pair.leaves.index) == len(pair.leaves.objects.index) >= KEPT // 2
    assert pair.leaves.objects.find(SERIAL, (files - 1, 0, 0)) != NONE
    assert pair.leaves.objects.find(SERIAL, (0, 0, 0)) == NONE
    assert pair.leaves.audit() == []


def test_a_kept_leaf_that_is_used_again_stays():
    pair = Pair()
    pair.add(0, range(LEAF), "run")
    pair.drop(0, range(LEAF), "run")
    pair.add(0, [5], "one")
    pair.leaves.forget_empty(KEPT)
    pair.agree(0, range(LEAF))
    pair.drop(0, [5], "one")
    pair.leaves.forget_empty(KEPT)
    assert len(pair.leaves.index) == len(pair.leaves.objects.index) == 0, "nothing is left (T63)"


def test_rows_given_to_another_object_are_not_taken_for_the_old_ones():
    """The last run asked for is remembered, and must be forgotten with its leaves."""
    pair = Pair()
    pair.add(0, range(2 * LEAF), "run")
    old = pair.number(0)
    pair.drop(0, range(2 * LEAF), "many")
    pair.leaves.forget_empty(KEPT)
    pair.add(1, range(5 * LEAF, 7 * LEAF), "many")
    assert pair.number(1) == old, "the number is given again, and the rows are"
    pair.agree(1, range(2 * LEAF))


def test_a_search_makes_nothing():
    pair = Pair()
    pair.add(0, [0], "one")
    number = pair.number(0)
    assert pair.leaves.find(number, 5 * LEAF) == NONE
    assert (pair.leaves.pages_at(pair.found(number, range(LEAF - 1, 5 * LEAF), "run")) == NONE).all()
    assert len(pair.leaves.index) == 1


def test_an_audit_finds_a_wrong_count():
    pair = Pair()
    pair.add(0, range(3), "run")
    pair.leaves.used[1] = 2
    assert pair.leaves.audit() == ["leaves: pages in a leaf do not add up"]
