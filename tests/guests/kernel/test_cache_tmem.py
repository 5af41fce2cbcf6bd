"""The page cache over cleancache: what goes in, what comes out, and what must never come back."""

import numpy as np
import pytest
from fakes import ALL, FakeGuest, block_contents

from guests.kernel import Kernel
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import OutOfMemory

PAGES = 64
BOTH = pytest.mark.parametrize("features", [ALL, {"cleancache"}], ids=["with hints", "without hints"])


def build(new_disk, features=ALL, **options):
    guest = FakeGuest(256, features, **options)
    kernel = Kernel(guest)
    disk = new_disk(PAGES, guest.counters, content=True)
    return guest, kernel, disk, kernel.open(disk)


def content(first: int, count: int = 1) -> bytes:
    return block_contents(range(first, first + count)).tobytes()


def evict_all(kernel) -> int:
    return kernel.core.allocator.reclaim(256)


@BOTH
def test_an_evicted_page_comes_back_without_a_disk_read(new_disk, features):
    guest, kernel, _, file = build(new_disk, features)
    file.map(0, 20)
    assert evict_all(kernel) == 20
    assert guest.counters[Count.CLEANCACHE_PUTS] == 20 and len(guest.tmem.handles()) == 20
    assert file.map(0, 20).tobytes() == content(0, 20)
    assert file.page(3) == content(3)
    assert guest.counters[Count.GUEST_DISK_READS] == 20
    assert guest.counters[Count.CLEANCACHE_HITS] == 20 and not guest.tmem.handles()
    kernel.check()


def test_hits_and_misses_of_one_batch_are_put_together(new_disk):
    guest, kernel, _, file = build(new_disk)
    file.map(0, 16)
    evict_all(kernel)
    for index in (0, 5, 6, 15):
        guest.tmem.pools[0].flush(file.inode.number, index)
    assert file.map(0, 16).tobytes() == content(0, 16)
    assert guest.counters[Count.GUEST_DISK_READS] == 16 + 4


def test_a_discarded_page_is_dropped_without_a_put(new_disk):
    guest, kernel, _, file = build(new_disk)
    file.map(0, 20)
    lost = guest.discard([file.inode.cached[index] for index in range(0, 20, 2)])
    assert evict_all(kernel) == 20
    assert guest.counters[Count.CLEANCACHE_PUTS] == 10 and guest.counters[Count.STABLE_FAILURES] == len(lost) == 10
    assert guest.tmem.handles() == {(file.inode.number, index) for index in range(1, 20, 2)}
    assert guest.counters[Count.DISCARD_FAULTS] == 0
    assert file.map(0, 20).tobytes() == content(0, 20)


def test_the_puts_of_one_reclaim_are_one_batch(new_disk, monkeypatch):
    guest, kernel, disk, file = build(new_disk)
    other = kernel.open(disk, start=30)
    file.map(0, 8)
    other.map(0, 8)
    batches, pool = [], guest.tmem.pools[0]
    put_many = pool.put_many
    monkeypatch.setattr(pool, "put_many", lambda o, i, p: batches.append(len(i)) or put_many(o, i, p))
    evict_all(kernel)
    assert batches == [16]
    assert guest.tmem.handles() == {(inode, index) for inode in (1, 2) for index in range(8)}


@BOTH
@pytest.mark.parametrize("write", [
    lambda f: f.overwrite(3, b"n" * PAGE_SIZE),
    lambda f: f.write(2 * PAGE_SIZE, b"n" * 3 * PAGE_SIZE),
    lambda f: f.write(3 * PAGE_SIZE, b"n" * PAGE_SIZE),
    lambda f: (f.write(3 * PAGE_SIZE, b"n" * 100), f.write(3 * PAGE_SIZE + 100, b"n" * (PAGE_SIZE - 100))),
], ids=["overwrite", "many", "one", "parts"])
def test_a_write_makes_the_old_copy_unreachable(new_disk, features, write):
    """T103: write, evict, read gives the new data, whether it was written back meanwhile or lost again."""
    guest, kernel, _, file = build(new_disk, features)
    file.map(0, 10)
    evict_all(kernel)
    write(file)
    assert (file.inode.number, 3) not in guest.tmem.handles()
    evict_all(kernel)
    assert file.page(3) == b"n" * PAGE_SIZE
    evict_all(kernel)
    guest.tmem.pools[0].flush_object(file.inode.number)
    assert file.page(3) == b"n" * PAGE_SIZE
    kernel.check()


@BOTH
@pytest.mark.parametrize("size", [0, 3 * PAGE_SIZE, 3 * PAGE_SIZE + 5])
def test_truncate_then_extend_does_not_bring_old_data_back(new_disk, features, size):
    """T104."""
    _, kernel, _, file = build(new_disk, features)
    file.map(0, 10)
    evict_all(kernel)
    file.truncate(size)
    file.truncate(10 * PAGE_SIZE)
    assert file.read(0, 10 * PAGE_SIZE) == content(0, 10)[:size] + bytes(10 * PAGE_SIZE - size)
    kernel.check()


def test_a_truncation_to_nothing_is_one_flush(new_disk, monkeypatch):
    guest, kernel, _, file = build(new_disk)
    file.map(0, 10)
    evict_all(kernel)
    calls = []
    for name in ("flush", "flush_many", "flush_object"):
        monkeypatch.setattr(guest.tmem.pools[0], name, lambda *_, name=name: calls.append(name))
    file.truncate(0)
    assert calls == ["flush_object"]


def test_a_page_is_cached_or_in_the_pool_never_both(new_disk):
    guest, kernel, _, file = build(new_disk, mischief=0.1, forget=0.1, refuse=0.2)
    rng = np.random.default_rng(1)
    for _ in range(300):
        file.map(int(rng.integers(0, 50)), int(rng.integers(1, 10)))
        if rng.random() < 0.3:
            kernel.core.allocator.reclaim(int(rng.integers(1, 40)))
        if rng.random() < 0.2:
            file.write(int(rng.integers(0, 60 * PAGE_SIZE)), b"w" * int(rng.integers(1, 9000)))
        assert not guest.tmem.handles() & {(1, index) for index in file.inode.cached}
    kernel.check()


def test_appending_to_a_file_asks_nobody_for_the_new_page(new_disk):
    guest, kernel, disk, _ = build(new_disk)
    log = kernel.open(disk, size=0)
    for _ in range(50):
        log.write(log.size, b"x" * 1000)
    assert guest.counters[Count.CLEANCACHE_GETS] == guest.counters[Count.GUEST_DISK_READS] == 0


def test_a_pool_that_is_refused_is_done_without(new_disk):
    guest, kernel, _, file = build(new_disk, pools=0)
    file.map(0, 10)
    evict_all(kernel)
    assert file.map(0, 10).tobytes() == content(0, 10)
    assert guest.counters[Count.CLEANCACHE_PUTS] == guest.counters[Count.CLEANCACHE_GETS] == 0


def test_one_pool_a_disk(new_disk):
    guest, kernel, disk, _ = build(new_disk)
    kernel.open(disk, start=5)
    kernel.open(new_disk(4, guest.counters))
    assert [pool.persistent for pool in guest.tmem.pools] == [False, False]
    kernel.close()
    assert all(pool.destroyed for pool in guest.tmem.pools)


def test_pages_that_cannot_be_paged_in_for_the_put_are_let_go(new_disk, monkeypatch):
    guest, kernel, _, file = build(new_disk)
    file.map(0, 10)

    def full(gfns):
        raise OutOfMemory("full")

    with monkeypatch.context() as failing:
        failing.setattr(guest.memory, "read_many", full)
        assert evict_all(kernel) == 10
    kernel.check()
    assert not guest.tmem.handles() and file.map(0, 10).tobytes() == content(0, 10)


def traffic(new_disk, features, **options) -> tuple[FakeGuest, bytes]:
    """A fixed piece of work in too little memory; returns what its reads saw and what the disk holds at the end."""
    guest = FakeGuest(128, features, seed=3, **options)
    kernel = Kernel(guest)
    disk = new_disk(256, guest.counters, content=True)
    file, rng, seen = kernel.open(disk), np.random.default_rng(7), []
    for step in range(250):
        index = int(rng.integers(0, 240))
        if step % 3 == 0:
            file.write(index * PAGE_SIZE + int(rng.integers(0, 4000)), bytes([step % 256]) * int(rng.integers(1, 5000)))
        elif step % 3 == 1:
            seen.append(file.map(index, int(rng.integers(1, 16))).tobytes())
        else:
            seen.append(file.page(index))
    kernel.check()
    kernel.close()
    return guest, b"".join(seen) + disk.read(0, 256).tobytes()


def test_a_backend_that_refuses_or_forgets_changes_cost_only(new_disk):
    """T110, and invariant 9 of the design."""
    plain, expected = traffic(new_disk, ())
    kind, good = traffic(new_disk, {"cleancache"})
    refusing, bad = traffic(new_disk, {"cleancache"}, refuse=1.0)
    forgetting, worse = traffic(new_disk, {"cleancache"}, forget=0.5, refuse=0.5)
    assert expected == good == bad == worse
    reads = [int(guest.counters[Count.GUEST_DISK_READS]) for guest in (kind, forgetting, refusing, plain)]
    assert reads[0] < reads[1] < reads[2] == reads[3]


@pytest.mark.parametrize("seed", range(6))
def test_hints_and_discards_change_cost_only(new_disk, seed):
    """R42, contents: with hints, with a mischievous host, with wishes dropped at random."""
    from shm.pagestate import Essa
    _, expected = traffic(new_disk, ())
    dropping = {Essa.SET_VOLATILE: seed / 5, Essa.SET_UNUSED: 1 - seed / 5}
    assert traffic(new_disk, ALL, mischief=0.2, drop=dropping, forget=0.1)[1] == expected
