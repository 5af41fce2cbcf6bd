"""Frontswap's ways beyond plain stores and loads: shrinking, exclusive gets, writethrough."""

import random

import numpy as np
import pytest
from fakes import ALL, TMEM, FakeGuest, block_contents

from guests.frontswap import Mode
from guests.kernel import Kernel
from shm.counters import Count
from shm.errors import OutOfMemory

BOTH = pytest.mark.parametrize("features", [ALL, TMEM], ids=["with hints", "without hints"])
ANON = 60


class Swapped:
    """A kernel with an anonymous region that was swapped out, all of it or `out` pages."""

    def __init__(self, new_disk, features=ALL, mode: Mode = Mode(), out: int = ANON, **fake) -> None:  # noqa: B008
        self.guest = FakeGuest(128, features, **fake)
        self.disk = new_disk(256, self.guest.counters, reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)
        self.kernel = Kernel(self.guest, self.disk, frontswap=mode)
        self.anon = self.kernel.anon(ANON)
        self.stored = block_contents(range(ANON))
        self.anon.write_many(range(ANON), self.stored)
        self.swap_out(out)

    def swap_out(self, pages: int) -> None:
        assert self.kernel.core.allocator.reclaim(pages) == pages

    @property
    def near(self) -> int:
        return len(self.guest.tmem.handles(persistent=True))

    def check(self) -> None:
        """Hold bits, pool and content against each other."""
        assert self.near == self.kernel._swapper.swap.near
        self.kernel.check()
        assert np.array_equal(self.anon.read_many(range(ANON)), self.stored)
        self.kernel.check()

    def count(self, which: Count) -> int:
        return int(self.guest.counters[which])


@BOTH
@pytest.mark.parametrize(("wanted", "gone"), [(0, 0), (1, 1), (25, 25), (ANON, ANON), (1000, ANON)])
def test_pages_come_back_to_memory_while_some_is_free(new_disk, features, wanted, gone):
    """T109."""
    swapped = Swapped(new_disk, features)
    assert swapped.kernel.shrink_frontswap(wanted) == gone
    assert swapped.near == ANON - gone
    assert np.count_nonzero(swapped.anon._places.gfn >= 0) == gone and swapped.count(Count.GUEST_SWAP_WRITES) == 0
    swapped.check()


@BOTH
def test_the_others_go_to_the_disk(new_disk, features):
    """T109: no memory is free, so none is taken, and the slots keep what they held."""
    swapped = Swapped(new_disk, features)
    other = swapped.kernel.anon(120)
    room = swapped.kernel.free_pages - swapped.kernel.core.allocator.marks.high
    other.write_many(range(room - 5), block_contents(range(500, 500 + room - 5)))
    assert swapped.kernel.shrink_frontswap(ANON) == ANON and swapped.near == 0
    assert swapped.count(Count.GUEST_SWAP_WRITES) == ANON - 5
    assert swapped.kernel.free_pages >= swapped.kernel.core.allocator.marks.high
    assert np.array_equal(other.read_many(range(room - 5)), block_contents(range(500, 500 + room - 5)))
    swapped.check()


@BOTH
def test_pages_of_the_swap_cache_only_lose_their_copy(new_disk, features):
    """Those that the host has discarded meanwhile are read from it first."""
    swapped = Swapped(new_disk, features)
    swapped.anon.read_many(range(20))
    lost = swapped.guest.discard([int(swapped.anon._places.gfn[index]) for index in range(0, 20, 2)])
    assert len(lost) == (10 if features is ALL else 0)
    assert swapped.kernel.shrink_frontswap(ANON) == ANON
    swapped.check()


def test_a_disk_that_refuses_loses_nothing(new_disk, monkeypatch):
    swapped = Swapped(new_disk)
    monkeypatch.setattr(swapped.kernel.core.allocator, "marks", swapped.kernel.core.allocator.marks._replace(high=999))
    monkeypatch.setattr(swapped.disk, "write_many", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        swapped.kernel.shrink_frontswap(10)
    assert swapped.near == ANON
    monkeypatch.undo()
    swapped.check()


def test_a_host_without_frames_sends_them_to_the_disk(new_disk, monkeypatch):
    swapped = Swapped(new_disk)
    monkeypatch.setattr(swapped.guest.memory, "write_many", lambda *_: (_ for _ in ()).throw(OutOfMemory("no frame")))
    assert swapped.kernel.shrink_frontswap(10) >= 10
    assert swapped.count(Count.GUEST_SWAP_WRITES) == 10
    monkeypatch.undo()
    swapped.check()


def test_there_is_nothing_to_shrink_without_frontswap(new_disk):
    swapped = Swapped(new_disk, frozenset())
    assert swapped.kernel.shrink_frontswap(10) == 0
    swapped.check()


@BOTH
def test_an_exclusive_load_takes_the_page_out_and_it_is_dirty(new_disk, features):
    """T105: memory has the only copy, so the page is never volatile, and leaving again costs a store."""
    swapped = Swapped(new_disk, features, Mode(exclusive=True))
    assert np.array_equal(swapped.anon.read_many(range(10)), swapped.stored[:10])
    assert swapped.near == ANON - 10
    assert (swapped.anon._places.slot[:10] == -1).all()
    assert swapped.guest.discard(swapped.anon._places.gfn[:10]) == []
    stores = swapped.count(Count.FRONTSWAP_STORES)
    swapped.swap_out(10)
    assert swapped.count(Count.FRONTSWAP_STORES) == stores + 10
    swapped.check()


def test_an_exclusive_load_that_finds_no_memory_keeps_the_page(new_disk, monkeypatch):
    swapped = Swapped(new_disk, mode=Mode(exclusive=True))
    monkeypatch.setattr(swapped.guest.memory, "write_many", lambda *_: (_ for _ in ()).throw(OutOfMemory("no frame")))
    with pytest.raises(OutOfMemory):
        swapped.anon.read(3)
    assert swapped.near == ANON
    monkeypatch.undo()
    swapped.check()


def test_pages_from_the_disk_stay_in_the_swap_cache_with_exclusive_gets(new_disk):
    swapped = Swapped(new_disk, mode=Mode(exclusive=True), refuse=1.0)
    swapped.anon.read_many(range(10))
    assert (swapped.anon._places.slot[:10] >= 0).all()
    swapped.check()


@BOTH
def test_writethrough_stores_on_the_disk_too_and_reads_the_pool(new_disk, features):
    swapped = Swapped(new_disk, features, Mode(writethrough=True))
    assert (swapped.near, swapped.count(Count.GUEST_SWAP_WRITES)) == (ANON, ANON)
    swapped.anon.read_many(range(10))
    assert swapped.count(Count.GUEST_SWAP_READS) == 0
    monkey = swapped.kernel.core.allocator
    monkey.marks = monkey.marks._replace(high=999)           # no memory is free: all go to the disk
    assert swapped.kernel.shrink_frontswap(ANON) == ANON
    assert swapped.count(Count.GUEST_SWAP_WRITES) == ANON, "the disk had them already"
    swapped.check()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_order_nothing_is_lost(new_disk, seed):
    """Stores, loads, evictions and shrinking in any order, on a host that discards and a pool that refuses."""
    rng = random.Random(seed)
    mode = Mode(writethrough=seed % 2 == 1, exclusive=seed % 3 == 1)
    swapped = Swapped(new_disk, mode=mode, seed=seed, mischief=0.2, refuse=0.2, out=30)
    for step in range(60):
        chosen = sorted(rng.sample(range(ANON), 7))
        deed = rng.randrange(4)
        if deed == 0:
            swapped.stored[chosen] = block_contents(range(1000 + 10 * step, 1007 + 10 * step))
            swapped.anon.write_many(chosen, swapped.stored[chosen])
        elif deed == 1:
            assert np.array_equal(swapped.anon.read_many(chosen), swapped.stored[chosen])
        elif deed == 2:
            swapped.kernel.core.allocator.reclaim(rng.randrange(1, 30))
        else:
            before, wanted = swapped.near, rng.randrange(20)
            assert swapped.kernel.shrink_frontswap(wanted) >= min(wanted, before)
        swapped.kernel.check()
        assert swapped.near == swapped.kernel._swapper.swap.near
    swapped.check()
