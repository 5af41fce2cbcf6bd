"""Mappings that last: loads, stores and what becomes of P, mlock, user copies, minor faults."""

import errno

import numpy as np
import pytest
from fakes import HINTS, FakeGuest, block_contents
from hosts import PreservingGuest

from guests.kernel import Kernel
from guests.kernel.writeback import Writeback
from guests.volatility import KEPT, WRITABLE
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import BrokenInvariant, UsageProblem
from shm.pagestate import VOLATILE as V
from shm.pagestate import Essa, Pr, Sp, Sr, Vr, Vz, usage_of

PAGES = 40


@pytest.fixture
def build(new_disk):
    """Makes (guest, kernel, file, disk)."""
    made = []

    def new(guest=None, **options):
        guest = guest or PreservingGuest()
        kernel = Kernel(guest, **options)
        disk = new_disk(PAGES, guest.counters, content=True)
        made.append(kernel)
        return guest, kernel, kernel.open(disk), disk
    yield new
    for kernel in made:
        kernel.check()


def content(index: int) -> bytes:
    return block_contents([index]).tobytes()


def gfn_of(file, index: int) -> int:
    return file.inode.cached[index]


# loads and stores

def test_a_load_is_what_the_file_holds_wherever_it_is(build):
    guest, _, file, _ = build()
    with file.mmap(4, 8) as mapping:
        for _ in range(3):
            assert [mapping.load(page) for page in range(8)] == [content(4 + page) for page in range(8)]
            assert mapping.load(2, 100, 7) == content(6)[100:107]
            guest.discard(range(256))
    assert guest.counters[Count.DISCARD_FAULTS] > 0


def test_a_store_reaches_the_file_and_the_disk(build):
    guest, _, file, disk = build()
    with file.mmap(4, 8, writable=True) as mapping:
        mapping.store(3, 10, b"stored")
        assert file.page(7)[10:16] == b"stored" == mapping.load(3, 10, 6)
        mapping.sync()
        assert disk.read(7).tobytes()[10:16] == b"stored"
        mapping.store(3, 10, b"again!")
    file.sync()
    assert disk.read(7).tobytes() == content(7)[:10] + b"again!" + content(7)[16:]
    assert guest.counters[Count.GUEST_DISK_WRITES] == 2


@pytest.mark.parametrize("act", [lambda kernel, file: file.sync(), lambda kernel, file: kernel.sync(),
                                 lambda kernel, file: kernel.core.allocator.reclaim(200)])
def test_a_store_is_found_by_every_way_to_the_disk(build, act):
    _, kernel, file, disk = build()
    with file.mmap(0, 4, writable=True) as mapping:
        mapping.store(1, 0, b"x")
        act(kernel, file)
        assert disk.read(1).tobytes() == b"x" + content(1)[1:]


@pytest.mark.parametrize(("act", "error", "text"), [
    (lambda f: f.mmap(0, PAGES + 1), IndexError, "not in a file"),
    (lambda f: f.mmap(0, 4).load(4), IndexError, "mapping of 4 pages"),
    (lambda f: f.mmap(0, 4).load(-1), IndexError, "mapping of 4 pages"),
    (lambda f: f.mmap(0, 4).load(0, 4000, 100), IndexError, "do not lie in a page"),
    (lambda f: f.mmap(0, 4).store(0, 0, b"x"), PermissionError, "read-only"),
    (lambda f: f.mmap(0, 4).pages, UsageProblem, "hardware mode only"),
])
def test_what_a_mapping_refuses(build, act, error, text):
    _, _, file, _ = build()
    with pytest.raises(error, match=text):
        act(file)


def test_behind_the_end_nothing_can_be_stored_and_nothing_read(build):
    _, _, file, _ = build()
    file.truncate(2 * PAGE_SIZE + 100)
    with file.mmap(0, 3, writable=True) as mapping:
        mapping.store(2, 96, b"four")
        with pytest.raises(IndexError, match="the file ends"):
            mapping.store(2, 97, b"four")
        file.truncate(PAGE_SIZE)
        with pytest.raises(IndexError, match="behind the end"):
            mapping.load(1)


def test_an_unmapped_mapping_is_of_no_use(build):
    _, _, file, _ = build()
    mapping = file.mmap(0, 4)
    mapping.unmap()
    mapping.unmap()
    with pytest.raises(ValueError, match="was unmapped"):
        mapping.load(0)


def test_a_read_only_disk_is_not_mapped_for_writing(build, tmp_path):
    from guests.disk import Disk
    guest, kernel, _, _ = build()
    (tmp_path / "image").write_bytes(bytes(2 * PAGE_SIZE))
    with Disk.open(tmp_path / "image", guest.counters) as image:
        file = kernel.open(image)
        with pytest.raises(OSError, match="reading only") as refused:
            file.mmap(0, 2, writable=True)
        assert refused.value.errno == errno.EROFS and not file.inode.areas


# potentially volatile

@pytest.mark.parametrize(("bits", "state"), [("page", Pr), ("pte", Sr)])
def test_a_clean_page_that_may_be_stored_to(build, bits, state):
    """R37: P or S, never V; until the last mapping of any kind is gone."""
    guest, _, file, _ = build(dirty_bits=bits)
    file.map(0, 4)
    gfn = gfn_of(file, 1)
    assert guest.states[gfn] == Vr
    first, second = file.mmap(0, 4, writable=True), file.mmap(1, 1)
    assert guest.states[gfn] == Vr, "no store yet"
    first.store(1, 0, b"x")
    assert guest.states[gfn] == state
    first.sync()
    assert guest.states[gfn] == state
    first.unmap()
    assert guest.states[gfn] == state
    second.unmap()
    assert guest.states[gfn] == Vr
    assert all(order != Essa.SET_VOLATILE for order, gfns in guest.orders[3:-1] if gfn in gfns)


def test_a_clean_one_is_dropped_and_a_dirty_one_preserved(build):
    guest, _, file, _ = build()
    with file.mmap(0, 4, writable=True) as mapping:
        for page in (0, 1):
            mapping.store(page, 0, b"one")
        mapping.sync()
        mapping.store(1, 0, b"two")
        clean, dirty = gfn_of(file, 0), gfn_of(file, 1)
        assert guest.evict([clean, dirty]) == [clean]
        assert (guest.states[clean], guest.states[dirty]) == (Vz, Sp)
        assert mapping.load(0, 0, 3) == b"one" and mapping.load(1, 0, 3) == b"two"


def test_no_page_that_may_be_stored_to_is_ever_volatile(build):
    """R37, on a host that takes what it can, with everything that may tempt the kernel to say V."""
    guest, kernel, file, disk = build(PreservingGuest(96))
    rng, model = np.random.default_rng(3), [bytearray(content(index)) for index in range(PAGES)]
    essa = guest._hint

    def watch(order, gfn):
        old = essa(order, gfn)
        assert not (kernel.core.pages.facts[gfn] & WRITABLE and usage_of(guest.states[gfn]) == V)
        return old

    guest._hint = watch
    with file.mmap(0, PAGES, writable=True) as mapping:
        for step in range(400):
            index = int(rng.integers(0, PAGES))
            if step % 3 == 0:
                mapping.store(index, step, b"%03d" % step)
                model[index][step:step + 3] = b"%03d" % step
            elif step % 7 == 0:
                file.write(index * PAGE_SIZE + 4000, b"%03d" % step)
                model[index][4000:4003] = b"%03d" % step
            assert file.page(index) == mapping.load(index) == bytes(model[index])
            guest.evict(rng.integers(0, 96, 10))
            if step % 50 == 0:
                kernel.core.allocator.reclaim(30)
                kernel.check()
    kernel.sync()
    assert disk.read(0, PAGES).tobytes() == b"".join(model)


def reversed_hand_over(writeback: Writeback, inode, gfns) -> None:
    """As `_hand_over`, in the order that is wrong."""
    core = writeback._core
    core.memory.clear_dirty(gfns)
    lost = core.hints.make_stable(gfns)
    core.discards.page_discard(list(lost))
    writeback.mark(inode, [gfn for gfn in gfns if gfn not in lost])


@pytest.mark.parametrize(("hand_over", "kept"), [(Writeback._hand_over, True), (reversed_hand_over, False)])
def test_the_order_of_handing_dirt_over(build, monkeypatch, hand_over, kept):
    """R36: a host that evicts the moment the bit is cleared finds a stable page; in the reversed order, a clean P."""
    guest, _, file, disk = build()
    monkeypatch.setattr(Writeback, "_hand_over", hand_over)

    def clear_and_evict(gfns):
        guest.memory.changed[np.asarray(gfns)] = False
        guest.evict(gfns)

    monkeypatch.setattr(guest.memory, "clear_dirty", clear_and_evict)
    with file.mmap(0, 4, writable=True) as mapping:
        mapping.store(1, 0, b"precious")
        mapping.sync()
        assert (mapping.load(1, 0, 8) == b"precious") == kept
    assert (disk.read(1).tobytes()[:8] == b"precious") == kept


def test_a_page_stored_to_and_dropped_would_be_found(build, monkeypatch):
    guest, _, file, _ = build()
    mapping = file.mmap(0, 4, writable=True)
    mapping.store(1, 0, b"x")
    gfn = gfn_of(file, 1)
    guest.states[gfn] = Vz                           # what no host may do
    with pytest.raises(BrokenInvariant, match="R36"):
        mapping.sync()
    guest.states[gfn] = Pr


# mlock

def test_a_locked_mapping_has_no_volatile_page_and_neither_has_its_file(build):
    """R39: what was discarded is read again at once; sticky after munlock."""
    guest, kernel, file, _ = build()
    file.map(0, 12)
    guest.discard([gfn_of(file, index) for index in (1, 2, 10)])
    mapping = file.mmap(0, 8)
    mapping.lock()
    assert set(range(8)) <= set(file.inode.cached) and 10 not in file.inode.cached
    assert {guest.states[gfn] for gfn in file.inode.cached.values()} == {Sr}
    faults = int(guest.counters[Count.DISCARD_FAULTS])
    file.map(10, 10)
    assert guest.discard(range(256)) == [] or not set(file.inode.cached.values()) & set(guest.discard(range(256)))
    assert {guest.states[gfn] for gfn in file.inode.cached.values()} == {Sr}
    kernel.check()
    mapping.unlock()
    mapping.unmap()
    file.map(0, PAGES)
    assert {guest.states[gfn] for gfn in file.inode.cached.values()} == {Sr}
    assert guest.counters[Count.DISCARD_FAULTS] == faults == 0


def test_reclaim_leaves_locked_pages_where_they_are(build):
    _, kernel, file, _ = build(FakeGuest(96, HINTS))
    with file.mmap(0, 10) as mapping:
        mapping.lock()
        places = dict(file.inode.cached)
        file.map(10, 30)
        kernel.core.allocator.reclaim(90)
        assert file.inode.cached == places
        kernel.check()
        with pytest.raises(OSError, match="locked") as busy:
            file.truncate(PAGE_SIZE)
        assert busy.value.errno == errno.EBUSY and file.size == PAGES * PAGE_SIZE
    assert kernel.core.allocator.reclaim(90) == 10


def test_two_locks_of_one_page(build):
    _, kernel, file, _ = build()
    first, second = file.mmap(0, 6), file.mmap(4, 6)
    first.lock()
    second.lock()
    first.unmap()
    assert [index for index, gfn in file.inode.cached.items() if kernel.core.pages.facts[gfn] & KEPT] == list(
        range(4, 10))
    second.unmap()
    assert not (kernel.core.pages.array & KEPT).any()


# minor faults and user copies

def test_minor_fault_and_unmap_cost_no_essa_or_two(build):
    """R41 (patch 5)."""
    for minor_faults, cost in (("optimised", 0), ("stable", 2)):
        guest, _, file, _ = build(minor_faults=minor_faults)
        file.map(0, 8)
        before = int(guest.counters[Count.ESSA])
        with file.mmap(0, 8) as mapping:
            for page in (2, 5, 2):
                mapping.load(page)
        assert guest.counters[Count.ESSA] - before == 2 * cost
        before = int(guest.counters[Count.ESSA])
        assert file.map(0, 8).tobytes() == block_contents(range(8)).tobytes()
        assert guest.counters[Count.ESSA] - before == 8 * cost


def test_a_user_copy_stops_short_at_a_fault_and_goes_on(build, monkeypatch):
    """R29."""
    guest, _, file, _ = build()
    file.map(0, 10)
    guest.discard([gfn_of(file, index) for index in (3, 7)])
    with file.mmap(0, 10) as mapping:
        copies, copy = [], mapping._copy

        def counted(offset, length):
            parts = copy(offset, length)
            copies.append(sum(map(len, parts)))
            return parts

        monkeypatch.setattr(mapping, "_copy", counted)
        assert mapping.read(100, 9 * PAGE_SIZE) == block_contents(range(10)).tobytes()[100:100 + 9 * PAGE_SIZE]
    assert copies == [3 * PAGE_SIZE - 100, 4 * PAGE_SIZE, 2 * PAGE_SIZE + 100]
    assert guest.counters[Count.DISCARD_FAULTS] == 2


def test_an_unknown_choice_is_refused():
    with pytest.raises(UsageProblem, match="use page or pte"):
        Kernel(FakeGuest(), dirty_bits="both")
    with pytest.raises(UsageProblem, match="use optimised or stable"):
        Kernel(FakeGuest(), minor_faults="none")
