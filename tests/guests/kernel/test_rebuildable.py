"""Rebuildable memory: volatile while idle, stable while pinned, computed again where it was lost."""

import numpy as np
import pytest
from fakes import HINTS, FakeGuest, block_contents

from guests.kernel import Kernel
from shm.counters import Count
from shm.errors import BrokenInvariant, OutOfMemory
from shm.pagestate import Essa, Sr, Vr

PAGES = 100


class Recipe:
    """Computes pages, and notes which."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, indexes: np.ndarray) -> np.ndarray:
        self.made += indexes.tolist()
        return block_contents(indexes.tolist())


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest(256, HINTS)


@pytest.fixture
def kernel(guest):
    kernel = Kernel(guest)
    yield kernel
    kernel.check()


@pytest.fixture
def recipe() -> Recipe:
    return Recipe()


@pytest.fixture
def region(kernel, recipe):
    region = kernel.rebuildable(PAGES, recipe)
    with region.pinned():
        pass
    recipe.made.clear()
    return region


def states(guest, region) -> set:
    return {guest.states[gfn] for gfn in region.gfn.tolist() if gfn >= 0}


def test_the_first_pin_builds_everything_and_calls_nothing_purged(kernel, recipe, guest):
    region = kernel.rebuildable(PAGES, recipe)
    with region.pinned() as purged:
        assert purged == 0 and sorted(recipe.made) == list(range(PAGES))
        assert np.array_equal(region.read_many(range(PAGES)), block_contents(range(PAGES)))
        assert region.read(7) == block_contents([7]).tobytes()
    assert guest.counters[Count.REBUILT_PAGES] == 0


def test_volatile_while_idle_and_stable_while_pinned(kernel, guest, region):
    """Order 6 on the way in, code 3 on the way out, one ESSA each."""
    assert states(guest, region) == {Vr}
    guest.orders.clear()
    with region.pinned():
        assert states(guest, region) == {Sr}
        with region.pinned():
            pass
        assert states(guest, region) == {Sr}, "the inner one is not the last"
        guest.discard(range(256))
        assert region.read(5) == block_contents([5]).tobytes()
    assert states(guest, region) == {Vr}
    assert [order for order, _ in guest.orders] == [Essa.SET_STABLE_IF_NOT_DISCARDED, Essa.SET_VOLATILE]


def test_a_slab_is_never_volatile_and_reclaim_purges_it(kernel, guest, recipe):
    """Only the guest's own pressure shrinks it (E13, E21)."""
    slab = kernel.rebuildable(PAGES, recipe, hinted=False)
    with slab.pinned():
        pass
    assert states(guest, slab) == {Sr} and guest.discard(range(256)) == []
    kernel.check()
    assert kernel.core.allocator.reclaim(30) == 30 and slab.resident == PAGES - 30
    recipe.made.clear()
    with slab.pinned() as purged:
        assert purged == 30 == len(recipe.made)
        assert np.array_equal(slab.read_many(range(PAGES)), block_contents(range(PAGES)))


def test_purged_pages_are_rebuilt_and_counted(kernel, guest, region, recipe):
    lost = guest.discard(region.gfn[[3, 50, 99]].tolist())
    with region.pinned() as purged:
        assert purged == len(lost) == 3 and sorted(recipe.made) == [3, 50, 99]
        assert np.array_equal(region.read_many([99, 3, 50, 3]), block_contents([99, 3, 50, 3]))
        kernel.check()
    assert guest.counters[Count.REBUILT_PAGES] == 3
    assert guest.counters[Count.DISCARD_FAULTS] == 0 and guest.counters[Count.STABLE_FAILURES] == 3


def test_nothing_lost_is_nothing_rebuilt(region, recipe):
    with region.pinned() as purged:
        assert purged == 0 and recipe.made == []


def test_reclaim_purges_idle_regions_only(kernel, region, recipe):
    with region.pinned():
        assert kernel.core.allocator.reclaim(30) == 0
    assert kernel.core.allocator.reclaim(30) == 30
    kernel.check()
    with region.pinned() as purged:
        assert purged == 30 == len(recipe.made)


def test_reclaim_passes_a_pinned_region_by(kernel, region, recipe):
    other = kernel.rebuildable(20, recipe)
    with other.pinned():
        pass
    with region.pinned():
        assert kernel.core.allocator.reclaim(200) == 20
        assert region.resident == PAGES and other.resident == 0
        kernel.check()


def test_an_unpinned_read_is_a_mistake(region):
    with pytest.raises(BrokenInvariant, match="not pinned"):
        region.read_many([1])


@pytest.mark.parametrize("index", [-1, PAGES])
def test_outside_the_region(region, index):
    with region.pinned(), pytest.raises(IndexError, match="region of 100 pages"):
        region.read_many([0, index])


def test_a_region_larger_than_memory_works(kernel, recipe):
    region = kernel.rebuildable(600, recipe)
    for _ in range(2):
        with region.pinned():
            assert np.array_equal(region.read_many(range(600)), block_contents(range(600)))
            kernel.check()
    assert region.resident > 200


def test_a_failing_recipe_leaves_the_region_usable(kernel, guest):
    def recipe(indexes: np.ndarray) -> np.ndarray:
        if broken:
            raise ZeroDivisionError
        return block_contents(indexes.tolist())

    broken = True
    region = kernel.rebuildable(10, recipe)
    with pytest.raises(ZeroDivisionError), region.pinned():
        pass
    assert region.pins == 0
    broken = False
    with region.pinned():
        assert np.array_equal(region.read_many(range(10)), block_contents(range(10)))


def test_a_recipe_of_the_wrong_size_is_refused(kernel):
    region = kernel.rebuildable(10, lambda indexes: block_contents([1]))
    with pytest.raises(ValueError, match="10 pages were to be rebuilt"), region.pinned():
        pass


def test_without_hints_a_region_stays(new_disk):
    guest = FakeGuest(256, ())
    kernel = Kernel(guest)
    recipe = Recipe()
    region = kernel.rebuildable(PAGES, recipe)
    for _ in range(3):
        with region.pinned() as purged:
            assert purged == 0
    assert len(recipe.made) == PAGES and guest.orders == []
    kernel.check()


def test_a_host_without_frames_is_an_error_at_the_read(recipe):
    guest = FakeGuest(256, HINTS, frames=0)
    kernel = Kernel(guest)
    region = kernel.rebuildable(10, recipe)
    with region.pinned(), pytest.raises(OutOfMemory):
        region.read(1)
    kernel.check()
    assert kernel.free_pages == 256
