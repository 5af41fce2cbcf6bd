"""Where pages can be had again: at every moment, what is volatile has a source, and the source has its bytes."""

import numpy as np
import pytest
from fakes import ALL, HINTS, FakeGuest, block_contents

from guests.disk import Disk
from guests.frontswap import KEPT, Mode
from guests.kernel import Kernel
from guests.volatility import RESTORABLE
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.pagestate import POT_VOLATILE, VOLATILE, Essa, Pr, Sr, Vr, Vz, usage_of

PAGES = 60
ZERO = "zero"


class FakeSources:
    """As `guests.sources.Sources`."""

    def __init__(self) -> None:
        self.disks: list[Disk] = []
        self.entries: dict[int, object] = {}

    def register(self, disk: Disk) -> int:
        if disk not in self.disks:
            self.disks.append(disk)
        return self.disks.index(disk)

    def set(self, gfns, number: int, blocks) -> None:
        self.entries.update(zip(map(int, gfns), [(number, int(block)) for block in blocks], strict=True))

    def tail(self, gfn: int, number: int, block: int, length: int) -> None:
        self.entries[int(gfn)] = (number, int(block), length)

    def zero(self, gfns) -> None:
        self.entries.update(dict.fromkeys(map(int, gfns), ZERO))

    def clear(self, gfns) -> None:
        for gfn in gfns:
            self.entries.pop(int(gfn), None)

    def bytes_of(self, gfn: int) -> bytes:
        entry = self.entries[gfn]
        if entry == ZERO:
            return bytes(PAGE_SIZE)
        length = entry[2] if len(entry) > 2 else PAGE_SIZE
        return self.disks[entry[0]].read(entry[1]).tobytes()[:length].ljust(PAGE_SIZE, b"\0")


class RestoredGuest(FakeGuest):
    """A guest whose touch of a discarded page restores it; pages that become volatile must have their bytes outside."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.memory.sources = FakeSources()
        self.untouched: set[int] = set()             # volatile pages that nobody ever touches
        self.restored = 0
        access = self.memory._access

        def restore_first(name, gfns):
            for gfn in map(int, gfns):
                if self.states[gfn] == Vz:
                    self.memory.rows[gfn] = np.frombuffer(self.memory.sources.bytes_of(gfn), np.uint8)
                    self.states[gfn] = Vr
                    self.restored += 1
            mischief, self.mischief = self.mischief, 0.0
            access(name, gfns)
            self.mischief = mischief

        self.memory._access = restore_first

    def _hint(self, order, gfn):
        old = super()._hint(order, gfn)
        loose = usage_of(self.states[gfn]) in (VOLATILE, POT_VOLATILE)
        if order in (Essa.SET_VOLATILE, Essa.SET_POT_VOLATILE) and loose and gfn not in self.untouched:
            assert self.memory.sources.bytes_of(gfn) == self.memory.rows[gfn].tobytes(), f"page {gfn} is not its source"
        return old


@pytest.fixture
def build(new_disk):
    def new(features=HINTS, mode=KEPT, pages=96, **options):
        guest = RestoredGuest(pages, features, **options)
        swap = new_disk(256, guest.counters, reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)
        return guest, Kernel(guest, swap, frontswap=mode), new_disk(PAGES, guest.counters, content=True)
    return new


def entry(guest, file, index: int) -> object:
    return guest.memory.sources.entries.get(file.inode.cached[index])


def test_a_file_page_is_its_block_and_a_hole_is_zero(build):
    guest, kernel, disk = build()
    file = kernel.open(disk, start=10, pages=20, size=4 * PAGE_SIZE)
    file.truncate(8 * PAGE_SIZE)
    file.map(0, 8)
    assert [entry(guest, file, index) for index in (0, 3, 4, 7)] == [(0, 10), (0, 13), ZERO, ZERO]
    assert {guest.states[gfn] for gfn in file.inode.cached.values()} == {Vr}
    guest.discard(file.inode.cached.values())
    assert file.map(0, 8).tobytes() == block_contents(range(10, 14)).tobytes() + bytes(4 * PAGE_SIZE)
    assert guest.counters[Count.DISCARD_FAULTS] == 0 and guest.restored == 8
    kernel.check()


def test_the_raw_tail_is_noted_with_its_length(build):
    """Its block holds more than the page."""
    guest, kernel, disk = build()
    file = kernel.open(disk, pages=4, size=2 * PAGE_SIZE + 7)
    file.map(0, 3)
    assert entry(guest, file, 2) == (0, 2, 7) and guest.states[file.inode.cached[2]] == Vr
    guest.discard(file.inode.cached.values())
    assert file.map(2, 1).tobytes() == block_contents([2]).tobytes()[:7].ljust(PAGE_SIZE, b"\0")
    file.write(2 * PAGE_SIZE + 7, b"x")
    file.sync()
    assert entry(guest, file, 2) == (0, 2) and guest.states[file.inode.cached[2]] == Vr


def test_a_dirty_page_has_no_source_until_it_is_written(build):
    guest, kernel, disk = build()
    file = kernel.open(disk)
    file.map(0, 4)
    file.write(PAGE_SIZE, b"x")
    assert entry(guest, file, 1) is None
    file.sync()
    assert entry(guest, file, 1) == (0, 1)


@pytest.mark.parametrize("leave", [lambda kernel, file: file.truncate(0),
                                   lambda kernel, file: kernel.core.allocator.reclaim(96)])
def test_a_page_that_leaves_has_none(build, leave):
    guest, kernel, disk = build()
    file = kernel.open(disk)
    file.map(0, 8)
    leave(kernel, file)
    assert guest.memory.sources.entries == {} and not (kernel.core.pages.array & RESTORABLE).any()


FRONTSWAPS = [
    # features,  mode,                       what the swap cache says, and is
    (HINTS,      Mode(),                     True),
    (ALL,        Mode(),                     False),         # the slot is in frontswap, not on the disk
    (ALL,        Mode(writethrough=True),    True),
]


@pytest.mark.parametrize(("features", "mode", "known"), FRONTSWAPS)
def test_a_page_of_the_swap_cache_is_its_slot(build, features, mode, known):
    guest, kernel, _ = build(features, mode)
    anon = kernel.anon(20)
    anon.write_many(range(20), block_contents(range(20)))
    kernel.core.allocator.reclaim(96)
    anon.read_many(range(20))
    gfns = anon._places.gfn.tolist()
    assert all((gfn in guest.memory.sources.entries) == known for gfn in gfns)
    assert {guest.states[gfn] for gfn in gfns} == {Vr if known else Sr}
    guest.discard(gfns)
    assert np.array_equal(anon.read_many(range(20)), block_contents(range(20)))
    anon.write(3, bytes(PAGE_SIZE))
    assert gfns[3] not in guest.memory.sources.entries
    kernel.check()


def test_rebuildable_pages_need_no_source(build):
    """Nobody touches them while they are volatile: pinning comes first, and makes them stable."""
    guest, kernel, _ = build()
    guest.untouched = set(range(96))
    region = kernel.rebuildable(10, lambda indexes: block_contents(indexes.tolist()))
    with region.pinned():
        pass
    assert {guest.states[gfn] for gfn in region.gfn.tolist()} == {Vr}
    guest.discard(region.gfn)
    with region.pinned() as purged:
        assert purged == 10 and np.array_equal(region.read_many(range(10)), block_contents(range(10)))
    assert guest.restored == 0


@pytest.mark.parametrize(("restores_p", "state"), [(False, Sr), (True, Pr)])
def test_a_page_that_may_be_stored_to_is_p_only_where_p_comes_back(build, monkeypatch, restores_p, state):
    """A page restored as V would lose what is stored to it then."""
    monkeypatch.setattr(FakeSources, "restores_p", restores_p, raising=False)
    guest, kernel, disk = build()
    file = kernel.open(disk)
    with file.mmap(0, 4, writable=True) as mapping:
        mapping.store(1, 0, b"x")
        mapping.sync()
        assert guest.states[file.inode.cached[1]] == state


def test_addresses_stay_and_heal(build):
    """In hardware mode a mapping gives the pages themselves: they keep their place through discards and reclaim."""
    guest, kernel, disk = build()
    guest.memory.view = guest.memory.rows
    file = kernel.open(disk)
    with file.mmap(2, 4) as mapping:
        pages, places = mapping.pages, dict(file.inode.cached)
        assert [page.tobytes() for page in pages] == [block_contents([index]).tobytes() for index in range(2, 6)]
        guest.discard(places.values())
        kernel.core.allocator.reclaim(96)
        assert file.read(2 * PAGE_SIZE, PAGE_SIZE) == block_contents([2]).tobytes(), "made stable where it lies"
        assert all(file.inode.cached[index] == places[index] for index in range(2, 6))
        kernel.check()
    kernel.core.allocator.reclaim(96)
    assert not file.inode.cached


@pytest.mark.parametrize("seed", range(4))
def test_every_volatile_page_can_be_restored_whatever_happens(build, seed):
    """Files, holes, swap and frontswap on a host that discards; each V is checked against its source as it is said."""
    guest, kernel, disk = build([HINTS, ALL][seed % 2], [Mode(), Mode(writethrough=True)][seed // 2], mischief=0.1)
    file, anon = kernel.open(disk, pages=40, size=30 * PAGE_SIZE + 5), kernel.anon(80)
    rng, model = np.random.default_rng(seed), bytearray(block_contents(range(31)).tobytes()[:30 * PAGE_SIZE + 5])
    stored = np.zeros((80, PAGE_SIZE), np.uint8)
    for step in range(300):
        at = int(rng.integers(0, 36 * PAGE_SIZE))
        data = block_contents([1000 + step]).tobytes()[:int(rng.integers(1, PAGE_SIZE))]
        match step % 5:
            case 0:
                file.write(at, data)
                model.extend(bytes(max(0, at + len(data) - len(model))))
                model[at:at + len(data)] = data
            case 1:
                assert file.read(at, 9000) == bytes(model[at:at + 9000])
                assert file.map(0, 10).tobytes()[:len(model)] == bytes(model[:10 * PAGE_SIZE])
            case 2:
                wanted = rng.permutation(80)[:10]
                stored[wanted] = block_contents((2000 + step * 10 + wanted).tolist())
                anon.write_many(wanted, stored[wanted])
            case 3:
                assert np.array_equal(anon.read_many(np.arange(80)), stored)
            case 4 if step % 20 == 4:
                at = max(at, 10 * PAGE_SIZE)
                file.truncate(at)
                del model[at:]
                model.extend(bytes(at - len(model)))
                kernel.sync()
        guest.be_mischievous()
        kernel.check()
    assert guest.restored > 0 and guest.counters[Count.DISCARD_FAULTS] == 0
