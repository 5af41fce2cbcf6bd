"""Files: byte ranges and pages, what they cost in transfers and hints, and what discards do to them."""

import errno

import numpy as np
import pytest
from fakes import HINTS, FakeGuest, block_contents

from guests.kernel import Kernel
from guests.volatility import ACTIVE
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import OutOfMemory
from shm.pagestate import Essa, Sr, State, Vr

PAGES = 64


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest(512, HINTS)


@pytest.fixture
def disk(guest, new_disk):
    return new_disk(PAGES, guest.counters, content=True)


@pytest.fixture
def kernel(guest):
    kernel = Kernel(guest)
    guest.orders.clear()
    yield kernel
    kernel.check()


@pytest.fixture
def file(kernel, disk):
    return kernel.open(disk)


def content(first: int = 0, count: int = PAGES) -> bytes:
    return block_contents(range(first, first + count)).tobytes()


RANGES = [
    # name,                         offset, length
    ("nothing",                     0,                          0),
    ("one byte",                    5000,                       1),
    ("a page",                      2 * PAGE_SIZE,              PAGE_SIZE),
    ("half a page",                 2 * PAGE_SIZE + 2048,       2048),
    ("across a border",             2 * PAGE_SIZE - 100,        200),
    ("head, pages and tail",        100,                        3 * PAGE_SIZE),
    ("64 KiB",                      PAGE_SIZE,                  65536),
    ("more than a chunk",           1,                          PAGES * PAGE_SIZE - 2),
    ("all",                         0,                          PAGES * PAGE_SIZE),
]
BY_RANGE = pytest.mark.parametrize(("offset", "length"), [row[1:] for row in RANGES], ids=[row[0] for row in RANGES])


@BY_RANGE
def test_read(file, offset, length):
    for _ in range(2):                               # from the disk, then from memory
        assert file.read(offset, length) == content()[offset:offset + length]


@BY_RANGE
@pytest.mark.parametrize("cached", [False, True])
def test_write(kernel, file, disk, offset, length, cached):
    if cached:
        file.map(0, PAGES)
    new = bytes(range(256)) * (length // 256 + 1)
    file.write(offset, new[:length])
    model = bytearray(content())
    model[offset:offset + length] = new[:length]
    assert file.read(0, file.size) == bytes(model)
    kernel.check()
    kernel.sync()
    assert disk.read(0, PAGES).tobytes() == bytes(model)


def test_whole_pages_are_written_without_reading_them(file, guest):
    file.write(PAGE_SIZE, bytes(5 * PAGE_SIZE))
    file.overwrite(9, b"x" * PAGE_SIZE)
    assert guest.counters[Count.GUEST_DISK_READS] == 0
    file.write(30 * PAGE_SIZE + 1, b"x")
    assert guest.counters[Count.GUEST_DISK_READS] == 1


def test_reading_stops_at_the_end(file):
    assert file.read(PAGES * PAGE_SIZE - 10, 100) == content()[-10:]
    assert file.read(PAGES * PAGE_SIZE, 1) == b"" == file.read(1 << 40, 1)


@pytest.mark.parametrize(("first", "count"), [(PAGES, 1), (-1, 1), (PAGES - 1, 2)])
def test_pages_that_are_not_in_the_file(file, first, count):
    with pytest.raises(IndexError, match=f"not in a file of {PAGES} pages"):
        file.map(first, count)
    if count == 1:
        with pytest.raises(IndexError, match=f"not in a file of {PAGES} pages"):
            file.page(first)


def test_a_file_is_a_window_of_its_disk(kernel, disk):
    file = kernel.open(disk, start=10, pages=20, size=5 * PAGE_SIZE)
    assert file.map(0, 5).tobytes() == content(10, 5)
    file.overwrite(2, b"x" * PAGE_SIZE)
    file.sync()
    assert disk.read(12).tobytes() == b"x" * PAGE_SIZE
    assert disk.read(13).tobytes() == content(13, 1)


@pytest.mark.parametrize("window", [{"start": 60, "pages": 5}, {"start": -1}, {"pages": 4, "size": 5 * PAGE_SIZE}])
def test_a_window_must_fit(kernel, disk, window):
    with pytest.raises(ValueError, match="does not fit a disk of 64 blocks"):
        kernel.open(disk, **window)


# growing and shrinking

def test_a_file_that_grows_reads_zero_whatever_its_blocks_hold(kernel, disk):
    file = kernel.open(disk, size=PAGE_SIZE + 100)
    file.write(4 * PAGE_SIZE + 10, b"end")
    expected = content(0, 2)[:PAGE_SIZE + 100] + bytes(3 * PAGE_SIZE - 90) + b"end"
    assert file.size == len(expected) and file.read(0, file.size) == expected
    kernel.sync()
    assert disk.read(0, 5).tobytes() == expected + bytes(5 * PAGE_SIZE - len(expected))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("size", [0, 1, PAGE_SIZE, 3 * PAGE_SIZE + 7])
def test_truncate_then_extend_reads_zeros_never_old_data(kernel, file, size, cached):
    """T104."""
    if cached:
        file.map(0, 10)
        file.write(4 * PAGE_SIZE, b"dirty")
    file.truncate(size)
    assert file.size == size and file.read(0, 1 << 20) == content()[:size]
    file.truncate(10 * PAGE_SIZE)
    assert file.read(0, 1 << 20) == content()[:size] + bytes(10 * PAGE_SIZE - size)
    kernel.check()


def test_a_hole_costs_no_transfer(kernel, disk, guest):
    file = kernel.open(disk, size=0)
    file.truncate(20 * PAGE_SIZE)
    assert not file.map(0, 20).any()
    assert guest.counters[Count.GUEST_DISK_READS] == 0


def test_a_hole_that_was_cut_off_is_not_written(kernel, disk, guest):
    file = kernel.open(disk, pages=40, size=0)
    file.truncate(20 * PAGE_SIZE)
    file.truncate(5 * PAGE_SIZE)
    file.sync()
    assert guest.counters[Count.GUEST_DISK_WRITES] == 5
    assert disk.read(5, 15).tobytes() == content(5, 15)


def test_a_hole_that_was_written_and_cut_again_has_no_old_tail(kernel, disk):
    file = kernel.open(disk, size=0)
    file.write(0, b"a" * 5000)
    file.truncate(4500)
    file.truncate(6000)
    assert file.read(4096, 2000) == b"a" * 404 + bytes(1500)


@pytest.mark.parametrize("act", [lambda f: f.write(PAGES * PAGE_SIZE - 1, b"xx"),
                                 lambda f: f.truncate(PAGES * PAGE_SIZE + 1),
                                 lambda f: f.overwrite(PAGES, bytes(PAGE_SIZE))])
def test_a_file_cannot_outgrow_its_window(file, act):
    with pytest.raises(OSError, match="may grow to 64 pages") as full:
        act(file)
    assert full.value.errno == errno.ENOSPC and file.size == PAGES * PAGE_SIZE
    assert file.read(PAGES * PAGE_SIZE - 1, 1) == content()[-1:]


def test_a_read_only_disk_refuses_at_once(kernel, guest, tmp_path):
    from guests.disk import Disk
    (tmp_path / "image").write_bytes(b"a" * 5000)
    with Disk.open(tmp_path / "image", guest.counters) as image:
        file = kernel.open(image, size=5000)
        assert file.read(4090, 1000) == b"a" * 910
        with pytest.raises(OSError, match="reading only") as refused:
            file.write(0, b"x")
        assert refused.value.errno == errno.EROFS
        assert file.read(0, 2) == b"aa"


# cost

def test_sequential_reads_are_read_ahead_in_growing_batches(file, guest):
    reads = []
    for index in range(PAGES):
        before = int(guest.counters[Count.GUEST_DISK_READS])
        file.page(index)
        if guest.counters[Count.GUEST_DISK_READS] > before:
            reads.append(int(guest.counters[Count.GUEST_DISK_READS]) - before)
    assert reads == [4, 8, 16, 32, 4]
    assert guest.counters[Count.PAGE_CACHE_MISSES] == 5 and guest.counters[Count.PAGE_CACHE_HITS] == PAGES - 5


def test_random_reads_are_not(file, guest):
    for index in (40, 7, 22, 60, 3):
        file.page(index)
    assert guest.counters[Count.GUEST_DISK_READS] == 5


@pytest.mark.parametrize("use", [lambda f, index: f.page(index), lambda f, index: f.map(index, 1)])
def test_a_read_that_follows_the_last_one_is_sequential_though_that_was_a_hit(file, guest, use):
    for index in (30, 29, 30):
        use(file, index)
    before = int(guest.counters[Count.GUEST_DISK_READS])
    use(file, 31)
    assert guest.counters[Count.GUEST_DISK_READS] == before + 4


def test_many_reads_of_one_page_in_a_row_are_one_touch(kernel, file):
    """A program that reads a page in pieces has not used it twice."""
    for offset in range(0, PAGE_SIZE, 512):
        file.read(40 * PAGE_SIZE + offset, 512)
    gfn = file.inode.cached[40]
    assert not kernel.core.pages.facts[gfn] & ACTIVE
    file.page(50)
    file.page(40)
    assert kernel.core.pages.facts[gfn] & ACTIVE


def test_hits_and_misses_are_counted_by_the_page(file, guest):
    file.map(0, 8)
    file.page(3)
    file.read(2 * PAGE_SIZE, 2 * PAGE_SIZE)
    file.write(3 * PAGE_SIZE, b"x")
    file.write(60 * PAGE_SIZE, b"x")
    file.overwrite(61, bytes(PAGE_SIZE))
    assert (guest.counters[Count.PAGE_CACHE_MISSES], guest.counters[Count.PAGE_CACHE_HITS]) == (9, 4)


def test_a_batch_is_one_disk_read_and_one_essa_each_way(file, guest, monkeypatch):
    read, batches = file.inode.disk.read_many, []
    monkeypatch.setattr(file.inode.disk, "read_many", lambda blocks: batches.append(list(blocks)) or read(blocks))
    file.map(0, 32)
    assert batches == [list(range(32))]
    assert [(order, len(gfns)) for order, gfns in guest.orders] == [(Essa.SET_STABLE, 32), (Essa.SET_VOLATILE, 32)]
    assert guest.memory.calls == {"write_many": 1}


def test_read_ahead_stops_at_what_is_cached_and_at_the_end(file, guest):
    file.page(6)
    file.map(0, 2)
    file.map(4, 1)                                   # would read 8, and finds 6 cached
    assert guest.counters[Count.GUEST_DISK_READS] == 1 + 4 + 2
    file.map(PAGES - 1, 1)
    assert guest.counters[Count.GUEST_DISK_READS] == 8


def test_a_mapped_page_costs_no_essa(file, guest):
    """R41: the minor-fault optimisation, and one read for all pages."""
    file.map(0, 32)
    guest.orders.clear()
    guest.memory.calls.clear()
    assert file.map(0, 32).tobytes() == content(0, 32)
    assert guest.orders == [] and guest.memory.calls == {"read_many": 1}


def test_a_copied_page_costs_two(file, guest):
    """R41 the other way: stable before, volatile after."""
    file.map(0, 8)
    gfns = [file.inode.cached[index] for index in range(8)]
    guest.orders.clear()
    file.page(3)
    file.read(5 * PAGE_SIZE + 1, 10)
    file.read(0, 2 * PAGE_SIZE)
    order = (Essa.SET_STABLE_IF_NOT_DISCARDED, Essa.SET_VOLATILE)
    assert guest.orders == [(o, g) for g in ((gfns[3],), (gfns[5],), (gfns[0], gfns[1])) for o in order]


def test_a_copied_page_is_stable_while_it_is_read(file, guest, monkeypatch):
    """R33."""
    file.map(0, 8)
    read_part, read_many, seen = guest.memory.read_part, guest.memory.read_many, []

    def note_part(gfn, offset, length):
        seen.append(guest.states[gfn])
        return read_part(gfn, offset, length)

    def note_many(gfns):
        seen.extend(guest.states[gfn] for gfn in gfns)
        return read_many(gfns)

    monkeypatch.setattr(guest.memory, "read_many", note_many)
    monkeypatch.setattr(file, "_read_part", note_part)
    file.page(2)
    file.read(0, 3 * PAGE_SIZE)
    assert seen == [Sr] * 4


def test_a_dirty_page_is_stable_until_it_is_written_back(file, guest):
    file.map(0, 4)
    file.write(PAGE_SIZE, b"x")
    file.page(1)
    gfn = file.inode.cached[1]
    assert guest.states[gfn] == Sr and guest.memory.dirty([gfn]).all()
    file.sync()
    assert guest.states[gfn] == Vr and not guest.memory.dirty([gfn]).any()


def test_without_hints_no_essa_is_sent(new_disk):
    guest = FakeGuest(256, ())
    file = Kernel(guest).open(new_disk(PAGES, guest.counters, content=True))
    file.map(0, 32)
    file.page(3)
    file.write(10, b"x")
    file.sync()
    assert guest.orders == []


# discards

@pytest.mark.parametrize("lost", [[3], [0, 31], list(range(32))])
def test_a_discarded_mapped_page_is_dropped_at_its_touch_and_read_again(kernel, disk, guest, lost):
    """R26, R27, R28: no event at the discard; one fault at the touch; one re-read a page; the content is the disk's."""
    file = kernel.open(disk, pages=32)               # all of it, so that nothing is read ahead
    file.map(0, 32)
    gfns = guest.discard([file.inode.cached[index] for index in lost])
    assert guest.counters[Count.DISCARD_FAULTS] == 0
    before = int(guest.counters[Count.GUEST_DISK_READS])
    assert file.map(0, 32).tobytes() == content(0, 32)
    assert guest.counters[Count.DISCARD_FAULTS] == len(gfns) == len(lost)
    assert guest.counters[Count.GUEST_DISK_READS] == before + len(lost)
    kernel.check()
    assert file.map(0, 32).tobytes() == content(0, 32)
    assert guest.counters[Count.DISCARD_FAULTS] == len(lost)


def test_a_discarded_page_that_is_never_touched_costs_nothing(file, guest):
    file.map(0, 8)
    guest.discard(file.inode.cached.values())
    file.map(8, 8)
    assert guest.counters[Count.DISCARD_FAULTS] == guest.counters[Count.STABLE_FAILURES] == 0


@pytest.mark.parametrize("use", [lambda f: f.page(3), lambda f: f.read(3 * PAGE_SIZE, PAGE_SIZE),
                                 lambda f: f.read(0, 8 * PAGE_SIZE)[3 * PAGE_SIZE:4 * PAGE_SIZE]])
def test_a_discarded_copied_page_is_a_miss_and_no_fault(kernel, file, guest, use):
    """R34."""
    file.map(0, 8)
    old = file.inode.cached[3]
    guest.discard([old])
    assert use(file) == content(3, 1)
    assert guest.counters[Count.DISCARD_FAULTS] == 0 and guest.counters[Count.STABLE_FAILURES] == 1
    assert guest.counters[Count.GUEST_DISK_READS] == 8 + 1


@pytest.mark.parametrize("data", [b"x", b"y" * PAGE_SIZE])
def test_a_discarded_page_that_is_written(kernel, file, guest, data):
    file.map(0, 8)
    guest.discard([file.inode.cached[3]])
    file.write(3 * PAGE_SIZE, data)
    assert file.page(3) == data + content(3, 1)[len(data):]
    assert guest.counters[Count.DISCARD_FAULTS] == 0
    assert guest.states[file.inode.cached[3]] == Sr


def test_a_host_that_discards_all_the_time_costs_time_only(new_disk):
    guest = FakeGuest(256, HINTS, mischief=0.5)
    kernel = Kernel(guest)
    file = kernel.open(new_disk(PAGES, guest.counters, content=True))
    for _ in range(20):
        assert file.map(0, PAGES).tobytes() == content()
        assert file.page(5) == content(5, 1)
    assert guest.counters[Count.DISCARD_FAULTS] > 0 and guest.counters[Count.STABLE_FAILURES] > 0
    kernel.check()


# a host without frames

def test_the_guest_gives_pages_up_when_the_host_has_none(new_disk):
    """Hints off for V: the host can have nothing back but what the guest frees."""
    guest = FakeGuest(256, {"hint-unused"}, frames=100)
    kernel = Kernel(guest)
    disk = new_disk(200, guest.counters, content=True)
    file = kernel.open(disk)
    for index in range(0, 200, 8):
        assert file.map(index, 8).tobytes() == content(index, 8)
    assert guest.counters[Count.RECLAIMED_PAGES] > 0
    kernel.check()


def test_a_host_that_has_nothing_for_good_is_an_error_that_breaks_nothing(new_disk):
    guest = FakeGuest(256, HINTS, frames=0)
    kernel = Kernel(guest)
    disk = new_disk(PAGES, guest.counters, content=True)
    file = kernel.open(disk)
    for act in (lambda: file.page(3), lambda: file.map(0, 16), lambda: file.write(5, b"x"),
                lambda: file.write(0, bytes(3 * PAGE_SIZE))):
        with pytest.raises(OutOfMemory):
            act()
        kernel.check()
        assert kernel.free_pages == 256
    guest.frames = None
    assert file.map(0, PAGES).tobytes() == content()
    assert State.Vr in guest.states


def test_sizes_are_bytes(kernel, disk):
    assert kernel.open(disk).size == PAGES * PAGE_SIZE
    assert kernel.open(disk, size=5).size == 5
    assert kernel.open(disk, size=5).page(0) == content()[:5] + bytes(PAGE_SIZE - 5)
    assert np.array_equal(kernel.open(disk, size=5).map(0, 1)[0, :5], block_contents([0])[0, :5])
