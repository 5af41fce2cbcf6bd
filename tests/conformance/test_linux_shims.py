"""Linux's clients of tmem against the real hypervisor, a rule of reference/tmem.md each: T102 to T111.

The guest's kernel, its disks and the machine are real; only the clock of T111 is played.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from guests import Guest
from guests.disk import Disk
from guests.frontswap import XEN_BITS, ZCACHE_BITS, Frontswap, Mode, handle_of, slot_of
from guests.kernel import Kernel
from guests.kernel.balloon import LOOK_EVERY
from guests.selfballoon import INTERVAL_S, MIB, floor_of
from shm.abi import PAGE_SIZE, U32
from shm.counters import Count

PAGES, BLOCKS, ANON = 400, 200, 150
BOTH = pytest.mark.parametrize("scheme", ["tmem", "cmm2+tmem"])


def distinct(numbers) -> np.ndarray:
    """Return a page for each number (n, 4096), no two alike."""
    words = np.asarray(list(numbers), np.uint64).reshape(-1, 1) * np.uint64(0x9E3779B97F4A7C15)
    return (words + np.arange(PAGE_SIZE // 8, dtype=np.uint64)).view(np.uint8)


class Shims:
    """A guest of a real cluster with a kernel, a file and an anonymous region."""

    def __init__(self, guest: Guest, disk: Disk, swap: Disk, running, **options) -> None:
        self.guest, self.disk, self.swap, self.running = guest, disk, swap, running
        disk.write(0, distinct(range(BLOCKS)))
        self.kernel = Kernel(guest, swap, **options)
        self.file = self.kernel.open(disk)
        self.anon = self.kernel.anon(ANON)

    def evict(self) -> None:
        """Have the guest's own reclaim take everything."""
        self.kernel.core.allocator.reclaim(PAGES)

    def count(self, which: Count) -> int:
        return int(self.guest.counters[which])

    @property
    def frontswap(self) -> Frontswap:
        return self.kernel._swapper.swap._frontswap

    @property
    def persistent(self) -> int:
        """Pages that the hypervisor holds in this guest's persistent pools."""
        return self.running.inside(lambda: self.running.machine.store.persistent)

    def refuse(self, everything: bool = True) -> None:
        """Have the operator freeze tmem: every new put is refused."""
        self.running.inside(lambda: self.running.machine.control.freeze(0xFFFF, everything))


@pytest.fixture
def shims(machine, tmp_path: Path) -> Iterator[Callable[..., Shims]]:
    made: list[Disk] = []

    def make(scheme: str = "tmem", pages: int = PAGES, name: str = "g", **options) -> Shims:
        running = machine(budget=4 * pages, scheme=scheme)
        guest = running.guest(name, pages=pages, max_pages=2 * pages)
        disk = Disk.create(BLOCKS, guest.counters, folder=str(tmp_path))
        swap = Disk.create(2 * pages, guest.counters, folder=str(tmp_path), reads=Count.GUEST_SWAP_READS,
                           writes=Count.GUEST_SWAP_WRITES)
        made.extend((disk, swap))
        return Shims(guest, disk, swap, running, **options)
    yield make
    for disk in made:
        disk.close()


@BOTH
def test_t102_a_refused_put_is_never_reported_and_reads_come_from_the_disk(shims, scheme):
    host = shims(scheme)
    host.refuse()
    host.file.map(0, 50)
    host.evict()
    assert host.file.map(0, 50).tobytes() == distinct(range(50)).tobytes()
    assert host.count(Count.CLEANCACHE_PUTS) == 50 and host.count(Count.CLEANCACHE_HITS) == 0


@pytest.mark.parametrize("what", ["page", "inode", "fs"])
def test_t102_a_get_after_an_invalidate_misses(shims, what):
    host = shims()
    host.file.map(0, 20)
    host.evict()
    cleancache, number = host.file.inode.cleancache, host.file.inode.number
    if what == "page":
        cleancache.invalidate(number, [3, 4])
    elif what == "inode":
        cleancache.invalidate_from(number, 0)
    else:
        cleancache.close()
    hit, _ = cleancache.get_many(number, range(3, 6))
    assert hit.tolist() == [False, False, what == "page"]


def test_t102_an_index_beyond_32_bits_is_never_stored(shims):
    host = shims()
    cleancache = host.file.inode.cleancache
    cleancache.put_many([(9, U32), (9, U32 + 1), (9, U32 + 5)], distinct([1, 2, 3]))
    assert host.count(Count.CLEANCACHE_PUTS) == 1
    assert cleancache.get(9, U32 + 1) is None and cleancache.get(9, 0) is None and cleancache.get(9, 4) is None
    assert cleancache.get(9, U32) == distinct([1]).tobytes()


@BOTH
@pytest.mark.parametrize("whole", [True, False], ids=["whole pages", "parts"])
def test_t103_a_write_then_eviction_then_a_read_gives_the_new_data(shims, scheme, whole):
    host = shims(scheme)
    host.file.map(0, 30)
    host.evict()
    expected = distinct(range(30))
    for index in range(0, 30, 3):
        if whole:
            expected[index] = distinct([index + 1000])[0]
            host.file.overwrite(index, expected[index])
        else:
            expected[index, 10:20] = 0xAB
            host.file.write(index * PAGE_SIZE + 10, b"\xab" * 10)
    for _ in range(2):
        host.evict()
        assert host.file.map(0, 30).tobytes() == expected.tobytes()


@BOTH
@pytest.mark.parametrize("cut", [0, 7 * PAGE_SIZE, 7 * PAGE_SIZE + 100])
def test_t104_a_file_cut_and_grown_again_reads_zeros_there(shims, scheme, cut):
    host = shims(scheme)
    host.file.map(0, 40)
    host.evict()
    host.file.truncate(cut)
    host.file.truncate(40 * PAGE_SIZE)
    expected = distinct(range(40)).tobytes()[:cut].ljust(40 * PAGE_SIZE, b"\0")
    for _ in range(2):
        assert host.file.map(0, 40).tobytes() == expected
        host.evict()


@BOTH
def test_t105_a_load_after_a_store_gives_the_data_until_it_is_invalidated(shims, scheme):
    host = shims(scheme)
    host.anon.write_many(range(ANON), distinct(range(ANON)))
    host.evict()
    assert host.persistent == ANON
    for _ in range(3):
        assert np.array_equal(host.anon.read_many(range(ANON)), distinct(range(ANON)))
        host.evict()
    assert host.persistent == ANON, "a load takes nothing out"
    assert host.count(Count.GUEST_SWAP_WRITES) == 0
    host.anon.free()
    assert host.persistent == 0


@BOTH
def test_t105_an_exclusive_load_takes_the_page_out_and_dirties_it(shims, scheme):
    host = shims(scheme, frontswap=Mode(exclusive=True))
    host.anon.write_many(range(ANON), distinct(range(ANON)))
    host.evict()
    host.anon.read_many(range(40))
    assert host.persistent == ANON - 40
    before = host.count(Count.FRONTSWAP_STORES)
    host.evict()
    assert host.count(Count.FRONTSWAP_STORES) == before + 40, "leaving again, it must be stored again"
    assert np.array_equal(host.anon.read_many(range(ANON)), distinct(range(ANON)))


def test_t106_a_failed_store_over_an_older_one_leaves_neither(shims):
    """The bit is clear, the pool has nothing, and a later load is the disk's: never the old page."""
    host = shims()
    slots = np.arange(4)
    host.frontswap.store(slots, distinct(slots))
    number = host.running.domain("g").number

    def replacing(flushes: bool) -> None:
        client = host.running.machine.store.clients.get(number)
        client.replacing_flushes = flushes
    host.running.inside(lambda: replacing(True))
    assert not host.frontswap.store(slots[:2], distinct([50, 51])).any()
    host.running.inside(lambda: replacing(False))
    assert host.frontswap.holds(slots).tolist() == [False, False, True, True]
    assert host.persistent == 2
    assert np.array_equal(host.frontswap.load(slots[2:]), distinct([2, 3]))


def test_t106_a_page_whose_store_was_refused_comes_from_the_disk(shims):
    host = shims()
    host.anon.write_many(range(ANON), distinct(range(ANON)))
    host.evict()
    host.anon.write_many(range(50), distinct(range(500, 550)))
    host.refuse()
    host.evict()
    assert host.count(Count.GUEST_SWAP_WRITES) == 50
    assert np.array_equal(host.anon.read_many(range(50)), distinct(range(500, 550)))
    assert np.array_equal(host.anon.read_many(range(50, ANON)), distinct(range(50, ANON)))


@pytest.mark.parametrize("bits", [XEN_BITS, ZCACHE_BITS])
def test_t107_the_handle_map_is_a_bijection(bits):
    rng = random.Random(1)
    edges = [0, 1, (1 << bits) - 1, 1 << bits, (1 << 32) - 1]
    pairs = {(slot, kind) for slot in [*edges, *(rng.getrandbits(31) for _ in range(300))] for kind in range(32)}
    handles = {handle_of(slot, kind, bits) for slot, kind in pairs}
    assert len(handles) == len(pairs)
    assert {slot_of(*handle, bits) for handle in handles} == pairs


@pytest.mark.parametrize("bits", [XEN_BITS, ZCACHE_BITS])
def test_t108_swapoff_removes_every_slot_of_its_own_type_alone(shims, bits):
    host = shims()
    pool = host.guest.tmem.new_pool(persistent=True)
    disks = [Frontswap(pool, 300, host.guest.counters.data, kind, bits) for kind in range(3)]
    slots = np.arange(0, 300, 3)
    for kind, disk in enumerate(disks):
        assert disk.store(slots, distinct(slots + 1000 * kind)).all()
    disks[1].invalidate_area()
    hits, _ = pool.get_many(*disks[1]._handles(slots))
    assert not hits.any() and host.persistent == 200
    for kind in (0, 2):
        assert np.array_equal(disks[kind].load(slots), distinct(slots + 1000 * kind))


@BOTH
@pytest.mark.parametrize("wanted", [1, 40, 10_000])
@pytest.mark.parametrize("crowded", [False, True], ids=["to memory", "to the disk"])
def test_t109_shrinking_takes_n_out_and_they_stay_readable(shims, scheme, wanted, crowded):
    host = shims(scheme)
    host.anon.write_many(range(ANON), distinct(range(ANON)))
    host.evict()
    if crowded:
        room = host.kernel.free_pages - host.kernel.core.allocator.marks.high
        host.kernel.anon(room).write_many(range(room), distinct(range(5000, 5000 + room)))
    before = host.persistent
    assert host.kernel.shrink_frontswap(wanted) >= min(wanted, before)
    assert host.persistent <= before - min(wanted, before)
    assert (host.count(Count.GUEST_SWAP_WRITES) > 0) == crowded
    assert np.array_equal(host.anon.read_many(range(ANON)), distinct(range(ANON)))
    host.kernel.check()


def programme(host: Shims) -> list[bytes]:
    """Do the same as every other guest; return all that was read."""
    rng, seen = random.Random(7), []
    for step in range(60):
        index = rng.randrange(BLOCKS - 8)
        host.anon.write_many(range(step, step + 40), distinct(range(step * 50, step * 50 + 40)))
        seen.append(host.file.map(index, 8).tobytes())
        host.file.write(index * PAGE_SIZE + 9, b"%d" % step)
        seen.append(host.anon.read_many(rng.sample(range(ANON), 30)).tobytes())
        if step % 7 == 0:
            host.evict()
    return seen


def test_t110_a_backend_that_refuses_everything_changes_no_result(shims):
    refused, without, accepted = shims("tmem", name="a"), shims("none", name="b"), shims("tmem", name="c")
    refused.refuse()
    results = [programme(host) for host in (refused, without, accepted)]
    assert results[0] == results[1] == results[2]
    assert (refused.persistent, refused.count(Count.CLEANCACHE_HITS)) == (0, 0)
    assert accepted.count(Count.CLEANCACHE_HITS) > 0 and accepted.count(Count.FRONTSWAP_LOADS) > 0


def test_t111_a_guest_that_balloons_itself(shims):
    """An eighth down an interval, all of the way up, never below the floor; quiet frontswap comes back."""
    pages, now = 24 * MIB, [0.0]
    host = shims(pages=pages, selfballooning=True, clock=lambda: now[0])
    kernel, reserve = host.kernel, host.kernel.core.allocator.marks.high
    floor = floor_of(pages, reserve)
    host.anon.write_many(range(ANON), distinct(range(ANON)))
    kernel._swapper.evict(100)
    sizes, near = [], []
    for _ in range(5):
        now[0] += INTERVAL_S
        for _ in range(LOOK_EVERY):
            kernel.tick()
        sizes.append(kernel.balloon.current)
        near.append(host.persistent)
    assert near == [100, 100, 100, 95, 91]
    expected, current = [], pages
    for stored in (100, 100, 100, 100, 95):
        current = max(floor, current - (current - (ANON + reserve + stored)) // 8)
        expected.append(current)
    assert sizes == expected and sizes[-1] == floor
    kernel.anon(pages)
    now[0] += INTERVAL_S
    for _ in range(LOOK_EVERY):
        kernel.tick()
    assert kernel.balloon.current == pages
    assert np.array_equal(host.anon.read_many(range(ANON)), distinct(range(ANON)))
    kernel.check()
