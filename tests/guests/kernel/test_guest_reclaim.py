"""Guest reclaim as a whole: memory runs low, and everybody still reads what they wrote."""

import numpy as np
import pytest
from fakes import ALL, HINTS, FakeGuest, block_contents

from guests.kernel import Kernel
from guests.volatility import VOLATILE
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import BrokenInvariant, UsageProblem

FEATURES = [(), HINTS, {"cleancache", "frontswap"}, ALL]


@pytest.mark.parametrize("features", FEATURES, ids=lambda features: "+".join(sorted(features)) or "none")
def test_files_anonymous_and_rebuildable_memory_share_what_there_is(new_disk, features):
    guest = FakeGuest(256, features, seed=2, mischief=0.05 if "hint-volatile" in features else 0, forget=0.02)
    swap = new_disk(1024, guest.counters, reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)
    disk = new_disk(400, guest.counters, content=True)
    kernel = Kernel(guest, swap)
    file, anon = kernel.open(disk), kernel.anon(150)
    region = kernel.rebuildable(100, lambda indexes: block_contents(indexes.tolist()))
    rng, mine = np.random.default_rng(5), block_contents(range(1000, 1150))
    anon.write_many(range(150), mine)
    for _ in range(30):
        first = int(rng.integers(0, 380))
        assert np.array_equal(file.map(first, 20), block_contents(range(first, first + 20)))
        with region.pinned():
            assert np.array_equal(region.read_many(range(0, 100, 3)), block_contents(range(0, 100, 3)))
        some = rng.choice(150, 30, replace=False)
        assert np.array_equal(anon.read_many(some), mine[some])
        kernel.check()
    assert guest.counters[Count.RECLAIMED_PAGES] > 0
    kernel.close()


def test_free_memory_returns_to_high_and_not_beyond(new_disk):
    guest = FakeGuest(1024, HINTS)
    kernel = Kernel(guest)
    file = kernel.open(new_disk(2000, guest.counters))
    marks = kernel.core.allocator.marks
    free = []
    for index in range(0, 2000, 8):
        file.map(index, 8)
        free.append(kernel.free_pages)
    assert min(free) >= marks.low
    assert max(free[-50:]) <= marks.high + 32


def test_a_page_used_twice_outlives_a_scan(new_disk):
    """Second touch promotes: the reason for two lists."""
    guest = FakeGuest(256, HINTS)
    kernel = Kernel(guest)
    file = kernel.open(new_disk(2000, guest.counters))
    for _ in range(3):
        for index in range(10):
            file.page(index)
    for index in range(100, 2000, 4):
        file.map(index, 4)
    before = int(guest.counters[Count.GUEST_DISK_READS])
    for index in range(10):
        file.page(index)
    assert guest.counters[Count.GUEST_DISK_READS] == before


def test_anonymous_pages_stay_while_file_pages_can_go(new_disk):
    guest = FakeGuest(256, HINTS)
    swap = new_disk(512, guest.counters, reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)
    kernel = Kernel(guest, swap)
    anon = kernel.anon(100)
    anon.write_many(range(100), block_contents(range(100)))
    file = kernel.open(new_disk(1000, guest.counters))
    for index in range(0, 1000, 10):
        file.map(index, 10)
    assert guest.counters[Count.GUEST_SWAP_WRITES] == 0


@pytest.mark.parametrize("cache_pages", [0, -1, 250])
def test_a_limited_cache_must_fit(cache_pages):
    with pytest.raises(UsageProblem, match=rf"cache of {cache_pages} pages does not fit a guest of 256: use 1 to 232"):
        Kernel(FakeGuest(256), cache_pages=cache_pages)


def test_a_limited_cache_holds_no_more(new_disk):
    guest = FakeGuest(256, HINTS)
    kernel = Kernel(guest, cache_pages=20)
    file = kernel.open(new_disk(100, guest.counters, content=True))
    for first in (0, 30, 5, 60):
        assert np.array_equal(file.map(first, 35), block_contents(range(first, first + 35)))
        file.write(first * PAGE_SIZE, block_contents(range(first, first + 25)).tobytes())
        assert len(file.inode.cached) == 20
    kernel.check()
    kernel.close()


# the audit finds what is broken

def break_owner(kernel, file, anon):
    kernel.core.pages.owner[next(iter(file.inode.cached.values()))] = None


def lose_a_page(kernel, file, anon):
    del file.inode.cached[0]


def cache_a_page_twice(kernel, file, anon):
    file.inode.cached[20] = file.inode.cached[0]


def unlist_a_page(kernel, file, anon):
    kernel._cache.lists.remove([file.inode.cached[0]])


def forget_dirt(kernel, file, anon):
    file.inode.dirty.clear()


def leave_held(kernel, file, anon):
    kernel.core.pages.facts[file.inode.cached[0]] |= 0x010


def believe_stable(kernel, file, anon):
    kernel.core.pages.facts[file.inode.cached[0]] &= ~VOLATILE


def use_an_unused_page(kernel, file, anon):
    from shm.pagestate import Essa
    kernel.guest.essa(Essa.SET_UNUSED, [file.inode.cached[0]])


def make_dirt_volatile(kernel, file, anon):
    from shm.pagestate import Essa
    kernel.guest.essa(Essa.SET_VOLATILE, [file.inode.cached[9]])


def lose_a_slot(kernel, file, anon):
    anon._places.slot[0] = -1


@pytest.mark.parametrize("damage", [break_owner, lose_a_page, cache_a_page_twice, unlist_a_page, forget_dirt,
                                    leave_held, believe_stable, use_an_unused_page, make_dirt_volatile, lose_a_slot])
def test_check_finds(new_disk, damage):
    guest = FakeGuest(256, HINTS)
    kernel = Kernel(guest, new_disk(64, guest.counters))
    file, anon = kernel.open(new_disk(30, guest.counters)), kernel.anon(20)
    anon.write_many(range(20), block_contents(range(20)))
    kernel._swapper.evict(10)
    file.map(0, 8)
    file.overwrite(9, bytes(PAGE_SIZE))
    kernel.check()
    damage(kernel, file, anon)
    with pytest.raises(BrokenInvariant):
        kernel.check()
