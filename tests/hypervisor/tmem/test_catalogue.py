"""The catalogue against a dictionary: handle -> place."""

from itertools import count

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.tmem.catalogue import Catalogue
from hypervisor.tmem.index import NONE
from shm.abi import U32, U64

OIDS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (U64, U64, U64)]
HANDLES = st.tuples(st.sampled_from([1, 2]), st.sampled_from(OIDS), st.sampled_from([0, 1, 2, U32]))
STEPS = st.lists(st.one_of(
    st.tuples(st.just("add"), st.sets(HANDLES, max_size=12), st.booleans()),
    st.tuples(st.just("drop"), st.sets(HANDLES, max_size=12), st.booleans()),
), max_size=30)


def columns(handles):
    """Handles of one serial as the bulk calls take them: object ids (n, 3) and indexes (n,)."""
    oids = np.array([oid for _, oid, _ in handles], np.uint64).reshape(-1, 3)
    return oids, np.array([index for _, _, index in handles], np.uint64)


class Pair:
    """A catalogue, and the dictionary that says which frame is whose."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.frames: dict[tuple, int] = {}
        self._next = count()

    def add(self, handles, bulk):
        for serial in (1, 2):
            new = [handle for handle in handles if handle not in self.frames and handle[0] == serial]
            frames = [next(self._next) for _ in new]
            if bulk and new:
                self.catalogue.add_many(serial, *columns(new), np.array(frames), ephemeral=serial == 1, owner=serial)
            elif new:
                for (_, oid, index), frame in zip(new, frames, strict=True):
                    self.catalogue.add(serial, oid, index, frame, ephemeral=serial == 1, owner=serial)
            self.frames.update(zip(new, frames, strict=True))

    def drop(self, handles, bulk):
        known = [handle for handle in handles if handle in self.frames]
        expected = [self.frames.pop(handle) for handle in known]
        pages = [self.catalogue.find(*handle) for handle in known]
        if bulk and pages:
            assert self.catalogue.drop_many(np.array(pages)).tolist() == expected
        else:
            assert [self.catalogue.drop(page) for page in pages] == expected

    def agree(self):
        catalogue = self.catalogue
        assert catalogue.audit() == []
        assert len(catalogue) == len(self.frames)
        for serial in (1, 2):
            everything = [(serial, oid, index) for oid in OIDS for index in (0, 1, 2, U32)]
            found = catalogue.find_many(serial, *columns(everything))
            assert found.tolist() == [catalogue.find(*handle) for handle in everything]
            expected = [self.frames.get(handle, NONE) for handle in everything]
            assert [NONE if n == NONE else int(catalogue.places[n]) for n in found.tolist()] == expected
            own = {frame for (owner, _, _), frame in self.frames.items() if owner == serial}
            assert set(catalogue.places[catalogue.of_pool(serial)].tolist()) == own
            for oid in OIDS:
                theirs = {frame for (owner, at, _), frame in self.frames.items() if (owner, at) == (serial, oid)}
                assert set(catalogue.places[catalogue.of_object(serial, oid)].tolist()) == theirs
        assert catalogue.ages.count == sum(serial == 1 for serial, _, _ in self.frames)


@given(STEPS)
def test_catalogue_agrees_with_a_dictionary(steps):
    pair = Pair()
    for what, handles, bulk in steps:
        getattr(pair, what)(sorted(handles), bulk)
        pair.agree()


def test_an_object_goes_with_its_last_page():
    """T63: no object is left behind, so that guests cannot fill the index with empty ones."""
    pair = Pair()
    pair.add([(1, (9, 9, 9), 0), (1, (9, 9, 9), 1)], bulk=True)
    pair.drop([(1, (9, 9, 9), 0)], bulk=False)
    assert len(pair.catalogue.objects) == 1
    pair.drop([(1, (9, 9, 9), 1)], bulk=False)
    assert len(pair.catalogue.objects) == 0
    pair.agree()


def test_growth_keeps_every_page():
    catalogue = Catalogue()
    rng = np.random.default_rng(5)
    oids = rng.integers(0, 40, (3000, 3), np.uint64)
    indexes = np.arange(3000, dtype=np.uint64)
    for at in range(0, 3000, 200):
        part = slice(at, at + 200)
        catalogue.add_many(7, oids[part], indexes[part], np.arange(at, at + 200), ephemeral=True, owner=0)
    assert catalogue.places[catalogue.find_many(7, oids, indexes)].tolist() == list(range(3000))
    assert catalogue.places[catalogue.ages.oldest(3000)].tolist() == list(range(3000)), "ages keep up with growth"
    assert catalogue.audit() == []


def test_the_same_handle_under_two_serials_is_two_pages():
    pair = Pair()
    pair.add([(1, (0, 0, 0), 0), (2, (0, 0, 0), 0)], bulk=False)
    assert pair.catalogue.find(1, (0, 0, 0), 0) != pair.catalogue.find(2, (0, 0, 0), 0)
    pair.agree()


def test_a_stored_page_costs_at_most_200_bytes_of_metadata():
    catalogue = Catalogue()
    for at in range(0, 100_000, 1000):
        catalogue.add_many(1, np.full((1000, 3), at // 8000, np.uint64), np.arange(at, at + 1000, dtype=np.uint64),
                           np.arange(at, at + 1000), ephemeral=True, owner=0)
    assert catalogue.nbytes / len(catalogue) <= 200
