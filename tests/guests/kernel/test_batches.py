"""How many tmem calls eviction, read-ahead and swapping cost: one a batch, whatever is in it."""

import numpy as np
import pytest
from fakes import FakeGuest, FakePool, block_contents

from guests.kernel import Kernel
from guests.kernel.file import CHUNK
from shm.abi import PAGE_SIZE
from shm.counters import Count

CALLS = ("put", "put_many", "get", "get_many", "flush", "flush_many", "flush_object")
TMEM = {"cleancache", "frontswap"}


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, int]]:
    """Every call that reaches a pool: its name and how many pages it is about."""
    made: list[tuple[str, int]] = []

    def watch(name, real):
        def call(pool, oid, *arguments):
            made.append((name, len(arguments[0]) if name.endswith("many") else 1))
            monkeypatch.undo()                       # what the fake calls of itself is no call of the guest's
            try:
                return real(pool, oid, *arguments)
            finally:
                patch()
        return call

    def patch():
        for name, real in REAL.items():
            monkeypatch.setattr(FakePool, name, watch(name, real))
    patch()
    return made


REAL = {name: getattr(FakePool, name) for name in CALLS}


@pytest.fixture
def files(new_disk):
    guest = FakeGuest(1024, TMEM)
    kernel = Kernel(guest)
    disk = new_disk(400, guest.counters, content=True)
    return guest, kernel, kernel.open(disk, 0, 200), kernel.open(disk, 200, 200)


@pytest.fixture
def swapped(new_disk):
    guest = FakeGuest(1024, TMEM)
    kernel = Kernel(guest, new_disk(2048, guest.counters))
    anon = kernel.anon(300)
    anon.write_many(range(300), block_contents(range(300)))
    return guest, kernel, anon


@pytest.mark.parametrize("pages", [2, 30, 130])
def test_evicted_file_pages_of_several_files_are_one_put(files, calls, pages):
    _, kernel, one, other = files
    one.map(0, 100)
    other.map(0, 100)
    calls.clear()
    kernel.core.allocator.reclaim(pages)
    assert calls == [("put_many", pages)]


def test_reading_ahead_is_one_get(files, calls):
    guest, kernel, one, _ = files
    one.map(0, 100)
    kernel.core.allocator.reclaim(200)
    calls.clear()
    before = int(guest.counters[Count.CLEANCACHE_GETS])
    for index in range(40):
        assert one.page(index) == block_contents([index]).tobytes()
    gets = [pages for name, pages in calls if name.startswith("get")]
    assert len(calls) == len(gets) < 6 and max(gets) == 32, "windows that double"
    assert guest.counters[Count.CLEANCACHE_GETS] - before == sum(gets)


@pytest.mark.parametrize("pages", [2, CHUNK])
def test_a_large_read_is_one_get(files, calls, pages):
    _, kernel, one, _ = files
    one.map(0, 100)
    kernel.core.allocator.reclaim(200)
    calls.clear()
    one.read(100 * PAGE_SIZE, pages * PAGE_SIZE)
    assert len(calls) == 1 and calls[0][0] == "get_many" and calls[0][1] >= pages


@pytest.mark.parametrize("pages", [1, 30, 256])
def test_pages_swapped_out_are_one_store(swapped, calls, pages):
    _, kernel, _ = swapped
    kernel.core.allocator.reclaim(pages)
    assert calls == [("put_many", pages)]


def test_stores_that_are_refused_cost_no_invalidate(swapped, calls):
    guest, kernel, anon = swapped
    guest.tmem.refuse = 1.0
    kernel.core.allocator.reclaim(30)
    assert calls == [("put_many", 30)]
    assert np.array_equal(anon.read_many(range(300)), block_contents(range(300)))
    assert calls == [("put_many", 30)], "the pages are on the disk, and no pool was asked for them"


@pytest.mark.parametrize("pages", [1, 30, CHUNK])
def test_pages_swapped_in_are_one_load(swapped, calls, pages):
    _, kernel, anon = swapped
    kernel.core.allocator.reclaim(200)
    out = np.flatnonzero(anon._places.gfn < 0)[:pages]
    calls.clear()
    anon.read_many(out)
    assert calls == [("get_many", pages)]


def test_a_region_that_is_freed_is_one_flush(swapped, calls):
    _, kernel, anon = swapped
    kernel.core.allocator.reclaim(200)
    calls.clear()
    anon.free()
    assert calls == [("flush_many", 200)]


@pytest.mark.parametrize("pages", [20, 60])
def test_on_the_real_host_a_batch_is_one_hypercall(machine, new_disk, pages):
    """Counted at the hypercall: to evict n file pages, and to read them again."""
    guest = machine(budget=4000, scheme="tmem").guest(pages=1024)
    disk = new_disk(400, guest.counters, content=True)
    with Kernel(guest) as kernel:
        file = kernel.open(disk)
        file.map(0, pages)
        before = guest.counters.copy()
        assert kernel.core.allocator.reclaim(pages) == pages
        gained = guest.counters - before
        assert (gained[Count.MULTICALLS], gained[Count.HYPERCALLS]) == (1, 1)
        before = guest.counters.copy()
        assert file.map(0, pages).tobytes() == block_contents(range(pages)).tobytes()
        gained = guest.counters - before
        assert gained[Count.MULTICALLS] == -(-pages // CHUNK) and gained[Count.CLEANCACHE_HITS] == pages
