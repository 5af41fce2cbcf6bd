"""Disks behind a cache of the host's: what is read from where, and that cache and disk never differ."""

import errno

import numpy as np
import pytest
from fakes import FakeGuest, block_contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guests import hostcache
from guests.device import Device
from guests.hostcache import HostCache, HostCaches
from guests.kernel import Kernel
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.diskcost import MODELS

PAGES = 40


class Cached:
    """A guest with one disk behind a cache."""

    def __init__(self, disk, counters, trims: bool = False, features=frozenset({"host-cache"})) -> None:
        self.guest, self.below, self.counters = FakeGuest(128, features), disk, counters
        self.caches = HostCaches(self.guest.tmem, counters, trims)
        self.disk: HostCache = self.caches.front(disk)

    def counts(self, *which: Count) -> list[int]:
        return [int(self.counters[count]) for count in which]

    @property
    def pool(self):
        return next(iter(self.guest.tmem.shares.values()))


@pytest.fixture
def counters() -> np.ndarray:
    return np.zeros(512, np.uint64)


@pytest.fixture(params=[1, 4, 32])
def at_once(request, monkeypatch) -> int:
    """How many pages go into the cache together."""
    monkeypatch.setattr(hostcache, "AT_ONCE", request.param)
    return request.param


@pytest.fixture
def cached(at_once, new_disk, counters) -> Cached:
    return Cached(new_disk(PAGES, counters, content=True), counters)


@pytest.fixture
def trimming(at_once, new_disk, counters) -> Cached:
    return Cached(new_disk(PAGES, counters, content=True), counters, trims=True)


READS = (Count.GUEST_DISK_READS, Count.HOST_CACHE_GETS, Count.HOST_CACHE_HITS)


@pytest.mark.parametrize("blocks", [[7], [3, 4, 5], [30, 2, 9], []])
def test_what_was_read_once_is_not_read_from_the_disk_again(cached, blocks):
    for reads in range(1, 4):
        assert (cached.disk.read_many(blocks) == block_contents(blocks)).all()
        assert cached.counts(*READS) == [len(blocks), reads * len(blocks), (reads - 1) * len(blocks)]


def test_only_what_the_cache_has_not_is_read(cached):
    cached.disk.read_many([4, 8])
    assert (cached.disk.read(3, 6) == block_contents(range(3, 9))).all()
    assert cached.counts(*READS) == [6, 8, 2]


@pytest.mark.parametrize("blocks", [[7], [3, 4, 20]])
def test_a_write_goes_to_the_disk_and_into_the_cache(cached, blocks):
    fresh = block_contents(range(100, 100 + len(blocks)))
    cached.disk.write_many(blocks, fresh)
    assert (cached.below.read_many(blocks) == fresh).all()
    before = cached.counts(Count.GUEST_DISK_READS)
    assert (cached.disk.read_many(blocks) == fresh).all()
    assert cached.counts(Count.GUEST_DISK_READS) == before and cached.counts(Count.GUEST_DISK_WRITES) == [len(blocks)]


def test_the_host_may_forget_and_refuse_and_no_page_is_ever_old(cached):
    cached.disk.read(0, 10)
    cached.guest.tmem.refuse = 1.0
    fresh = block_contents(range(100, 104))
    cached.disk.write(2, fresh)
    cached.guest.tmem.refuse = 0.0
    assert (cached.disk.read(2, 4) == fresh).all()
    cached.pool.pages.clear()
    assert (cached.disk.read(2, 4) == fresh).all()


def test_a_write_that_failed_leaves_nothing_old_in_the_cache(cached, monkeypatch):
    cached.disk.read(0, 6)
    real = cached.below.write_many

    def half(blocks, pages):
        real(blocks[:1], pages[:1])
        raise OSError(errno.EIO, "it broke")
    monkeypatch.setattr(cached.below, "write_many", half)
    with pytest.raises(OSError, match="it broke"):
        cached.disk.write(1, block_contents([100, 101]))
    assert (cached.disk.read(0, 4) == block_contents([0, 100, 2, 3])).all()


def test_disks_of_one_guest_do_not_answer_for_each_other(cached, new_disk, counters):
    other = cached.caches.front(new_disk(PAGES, counters))
    cached.disk.read(5)
    assert not other.read(5).any()
    assert len(cached.guest.tmem.shares) == 1, "they are in one pool"


def test_blocks_beyond_the_disk_are_refused_before_anybody_is_asked(cached):
    with pytest.raises(ValueError, match="are not on a disk of 40 blocks"):
        cached.disk.read(39, 2)
    assert cached.counts(Count.HOST_CACHE_GETS) == [0]


def test_a_hit_costs_no_request_of_the_disk(new_disk, counters):
    hdd = MODELS["hdd"]
    cached = Cached(new_disk(PAGES, counters, content=True).behind(Device(counters, hdd)), counters)
    for _ in range(3):
        cached.disk.read_many([1, 2, 7])
    assert counters[Count.VIRTUAL_DISK_NS] == hdd.alone_ns(2, 3)


DEAD = (Count.HOST_CACHE_TRIMMED, Count.HOST_CACHE_DEAD)


def test_without_trim_dead_blocks_stay_until_they_are_written(cached):
    cached.disk.read(0, 10)
    for _ in range(2):
        cached.disk.trim(np.array([3, 4, 20]))               # 20 was never there
    assert cached.counts(*DEAD) == [0, 2]
    cached.disk.write(4, block_contents([100]))
    assert cached.counts(*DEAD) == [0, 1]


def test_with_trim_they_are_dropped(trimming):
    trimming.disk.read(0, 10)
    for _ in range(2):
        trimming.disk.trim(np.array([3, 4, 20]))
    assert trimming.counts(*DEAD) == [2, 0]
    assert not {3, 4} & {index for _, index in trimming.pool.pages}
    before = trimming.counts(Count.GUEST_DISK_READS)[0]
    assert (trimming.disk.read(2, 3) == block_contents([2, 3, 4])).all()
    assert trimming.counts(Count.GUEST_DISK_READS)[0] - before == 2


def test_a_file_that_is_cut_says_which_blocks_are_dead(trimming):
    kernel = Kernel(trimming.guest)
    file = kernel.open(trimming.disk, 10, 20)
    file.map(0, 20)
    file.truncate(5 * PAGE_SIZE + 100)
    assert trimming.counts(*DEAD) == [14, 0]
    assert {index for _, index in trimming.pool.pages} <= set(range(10, 16))
    kernel.check()


def test_a_swap_slot_that_is_freed_is_dead(trimming):
    kernel = Kernel(trimming.guest, trimming.disk)
    region = kernel.anon(30)
    region.write_many(range(30), block_contents(range(30)))
    kernel.core.allocator.reclaim(20)
    swapped = trimming.counts(Count.GUEST_DISK_WRITES)[0]
    region.free()
    assert trimming.counts(*DEAD) == [swapped, 0] and swapped > 0
    assert not trimming.pool.pages


@pytest.mark.parametrize("count", [1, 7])
def test_a_real_hypervisor_keeps_what_it_gave(machine, new_disk, count):
    """A shared pool with one member, without an operator's permission: a get leaves the page there."""
    guest = machine(scheme="swapcache").guest()
    disk = new_disk(PAGES, guest.counters, content=True)
    cache = HostCaches(guest.tmem, guest.counters).front(disk)
    for reads in range(1, 4):
        assert (cache.read(3, count) == block_contents(range(3, 3 + count))).all()
        assert int(guest.counters[Count.GUEST_DISK_READS]) == count
        assert int(guest.counters[Count.HOST_CACHE_HITS]) == (reads - 1) * count
    cache.write(3, block_contents([100]))
    assert (cache.read(3, 1) == block_contents([100])).all()


def test_pages_go_into_the_cache_together(cached, at_once):
    for block in range(20):
        cached.disk.read(block)
    assert cached.counts(Count.HOST_CACHE_PUTS) == [20 // at_once * at_once] == [len(cached.pool.pages)]


STEPS = st.lists(st.tuples(st.sampled_from(["read", "write", "forget", "trim"]), st.integers(0, PAGES - 1),
                           st.integers(1, 5), st.booleans()), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(steps=STEPS, trims=st.booleans())
def test_a_cached_disk_is_a_disk(new_disk, monkeypatch, steps, trims):
    counters = np.zeros(512, np.uint64)
    monkeypatch.setattr(hostcache, "AT_ONCE", 4)
    cached, model, version = Cached(new_disk(PAGES, counters, content=True), counters, trims), {}, 100
    for what, first, length, refuse in steps:
        cached.guest.tmem.refuse = float(refuse)
        blocks = np.arange(first, min(first + length, PAGES))
        if what == "read":
            assert (cached.disk.read_many(blocks) == block_contents([model.get(n, n) for n in blocks.tolist()])).all()
        elif what == "write":
            version += len(blocks)
            model.update(zip(blocks.tolist(), range(version, version + len(blocks)), strict=True))
            cached.disk.write_many(blocks, block_contents(range(version, version + len(blocks))))
        elif what == "trim":
            cached.disk.trim(blocks)
        else:
            for handle in list(cached.pool.pages)[::2]:
                del cached.pool.pages[handle]
