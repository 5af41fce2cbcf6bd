"""The compact index against a dictionary; scalar and bulk forms mean the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.tmem.index import DELETED, EMPTY, NONE, Index
from shm.abi import U64
from shm.errors import BrokenInvariant

FEW = st.integers(0, 7)
KEYS = st.tuples(FEW, st.sampled_from([0, 1, U64]))
# What is done to a batch of keys: in one bulk call, or one after the other.
STEPS = st.lists(st.tuples(st.sampled_from(["add", "drop"]), st.sets(KEYS, max_size=24), st.booleans()), max_size=30)
EVERY_KEY = [(a, b) for a in range(8) for b in (0, 1, U64)]


def array(keys, words=2):
    return np.array(keys, np.uint64).reshape(-1, words)


class Pair:
    """An index and the dictionary that says what it should hold."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.ids: dict[tuple[int, ...], int] = {}

    def add(self, keys, bulk):
        keys = [key for key in keys if key not in self.ids]
        given_ids = self.index.insert_many(array(keys)).tolist() if bulk else [self.index.insert(key) for key in keys]
        assert not set(given_ids) & set(self.ids.values()), "an id in use was given again"
        self.ids.update(zip(keys, given_ids, strict=True))

    def drop(self, keys, bulk):
        numbers = [self.ids.pop(key) for key in keys if key in self.ids]
        if bulk:
            self.index.remove_many(np.array(numbers, np.int64))
        else:
            for number in numbers:
                self.index.remove(number)

    def agree(self, keys):
        expected = [self.ids.get(key, NONE) for key in keys]
        assert [self.index.find(key) for key in keys] == expected
        assert self.index.find_many(array(keys)).tolist() == expected
        assert len(self.index) == len(self.ids)


@given(STEPS)
def test_index_agrees_with_a_dictionary(steps):
    pair = Pair(Index(words=2))
    for what, keys, bulk in steps:
        getattr(pair, what)(sorted(keys), bulk)
        pair.agree(EVERY_KEY)


@given(STEPS)
def test_keys_that_all_collide_stay_correct(steps):
    """Whatever a guest chooses, at worst it is slow: here every key has the same home."""
    pair = Pair(Index(words=2))
    pair.index._factors = [0, 0]
    pair.index._vector[:] = 0
    for what, keys, bulk in steps:
        getattr(pair, what)(sorted(keys), bulk)
        pair.agree(EVERY_KEY)
    assert {pair.index._home(key) for key in EVERY_KEY} == {0}


def test_homes_are_the_same_in_both_forms():
    index, rng = Index(words=3), np.random.default_rng(1)
    keys = rng.integers(0, U64, (500, 3), np.uint64, endpoint=True)
    assert [index._home(key) for key in keys.tolist()] == index._homes(keys).tolist()


def test_regular_keys_spread():
    """Neighbouring indexes of one object, the usual keys: most have a home of their own."""
    index = Index(words=1)
    homes = index._homes(np.arange(400, dtype=np.uint64).reshape(-1, 1))
    assert len(set(homes.tolist())) > 200


@pytest.mark.parametrize("bulk", [False, True], ids=["one by one", "in bulk"])
def test_growth_keeps_ids_and_keys(bulk):
    pair, keys = Pair(Index(words=2)), [(n, n % 7) for n in range(5000)]
    first = pair.index.capacity
    for at in range(0, len(keys), 250):
        pair.add(keys[at:at + 250], bulk)
    assert pair.index.capacity >= 5000 > first
    assert len(set(pair.ids.values())) == 5000 and max(pair.ids.values()) < pair.index.capacity < 10_000
    pair.agree(keys + [(5000, 0), (0, 1)])


@pytest.mark.parametrize("bulk", [False, True], ids=["one by one", "in bulk"])
def test_tombstones_are_swept_out_without_growth(bulk):
    """A small set that changes for ever: marks of removed keys must neither be found nor pile up."""
    pair = Pair(Index(words=2))
    for round_ in range(200):
        keys = [(round_, n) for n in range(20)]
        pair.add(keys, bulk)
        pair.agree(keys)
        pair.drop(keys, bulk)
        pair.agree(keys)
    assert pair.index.capacity == 256 and len(pair.index.table) == 1024
    assert np.count_nonzero(pair.index.table == EMPTY) * 3 >= len(pair.index.table), "every search must end"


def test_room_of_a_removed_key_is_used_again():
    index = Index(words=1)
    number = index.insert((7,))
    index.remove(number)
    assert np.count_nonzero(index.table == DELETED) == 1
    assert index.insert((7,)) == number
    assert np.count_nonzero(index.table == DELETED) == 0


@pytest.mark.parametrize("bulk", [False, True], ids=["scalar", "bulk"])
def test_removing_what_is_not_there_is_our_bug(bulk):
    index = Index(words=1)
    number = index.insert((7,))
    index.remove(number)
    with pytest.raises(BrokenInvariant, match="index"):
        index.remove_many(np.array([number])) if bulk else index.remove(number)


def test_index_costs_few_bytes_a_key():
    index = Index(words=1)
    index.insert_many(np.arange(100_000, dtype=np.uint64).reshape(-1, 1))
    assert index.nbytes / len(index) < 40
