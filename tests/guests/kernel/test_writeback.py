"""Dirty pages and their way to the disk."""

import numpy as np
import pytest
from fakes import HINTS, FakeGuest

from guests.kernel import Kernel
from guests.volatility import DIRTY, WRITEBACK
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.pagestate import Sr, Vr

PAGES = 128


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest(256, HINTS)


@pytest.fixture
def disk(guest, new_disk):
    return new_disk(PAGES, guest.counters)


@pytest.fixture
def kernel(guest):
    kernel = Kernel(guest)
    yield kernel
    kernel.check()


@pytest.fixture
def writes(disk, monkeypatch) -> list[list[int]]:
    """The blocks of each batch that is written."""
    made, write = [], disk.write_many
    monkeypatch.setattr(disk, "write_many", lambda blocks, pages: made.append(list(blocks)) or write(blocks, pages))
    return made


def page(byte: int) -> bytes:
    return bytes([byte]) * PAGE_SIZE


def test_a_sync_writes_each_dirty_page_once_sorted_in_one_batch(kernel, disk, guest, writes):
    file = kernel.open(disk, start=20)
    for index in (9, 3, 7, 3, 8):
        file.overwrite(index, page(index))
    file.sync()
    file.sync()
    assert writes == [[23, 27, 28, 29]]
    assert guest.counters[Count.GUEST_DISK_WRITES] == guest.counters[Count.WRITEBACK_PAGES] == 4
    assert disk.read(29).tobytes() == page(9)


def test_files_of_one_disk_are_written_together_by_reclaim(kernel, disk, guest, writes):
    first, second = kernel.open(disk, pages=60), kernel.open(disk, start=60)
    for index in range(5):
        second.overwrite(index, page(1))
        first.overwrite(index, page(2))
    kernel.core.allocator.reclaim(10)
    assert writes == [[0, 1, 2, 3, 4, 60, 61, 62, 63, 64]]
    assert guest.counters[Count.RECLAIMED_PAGES] == 10


def test_a_page_is_stable_until_its_write_has_ended_and_volatile_after(kernel, disk, guest, monkeypatch):
    """R36 and refusals 2 and 3; the change bit is cleared before the bytes are taken, the mark outlives the write."""
    file = kernel.open(disk)
    file.write(0, page(1) + page(2))
    gfns, seen, write_many = list(file.inode.cached.values()), [], disk.write_many

    def look(blocks, pages):
        seen.append({(guest.states[gfn], bool(guest.memory.changed[gfn])) for gfn in gfns})
        assert all(kernel.core.pages.facts[gfn] & (DIRTY | WRITEBACK) == DIRTY | WRITEBACK for gfn in gfns)
        kernel.core.hints.make_volatile(gfns)        # a wish in between is refused
        write_many(blocks, pages)

    monkeypatch.setattr(disk, "write_many", look)
    file.sync()
    assert seen == [{(Sr, False)}]
    assert {guest.states[gfn] for gfn in gfns} == {Vr} and not guest.memory.dirty(gfns).any()


@pytest.mark.parametrize("act", [lambda kernel, file: file.sync(), lambda kernel, file: kernel.sync(),
                                 lambda kernel, file: kernel.core.allocator.reclaim(9)])
def test_a_write_that_fails_leaves_its_pages_dirty(kernel, disk, guest, monkeypatch, act):
    file = kernel.open(disk)
    file.write(0, page(1) + page(2))

    def full(blocks, pages):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(disk, "write_many", full)
        with pytest.raises(OSError, match="No space"):
            act(kernel, file)
    kernel.check()
    assert file.read(0, 2 * PAGE_SIZE) == page(1) + page(2)
    guest.discard(range(256))
    file.sync()
    assert disk.read(0, 2).tobytes() == page(1) + page(2)


def test_writers_are_throttled(kernel, disk, guest):
    """No more than a fifth of memory is ever dirty, and the oldest is written first."""
    file = kernel.open(disk)
    for index in range(100):
        file.overwrite(index, page(index))
        dirty = int(np.count_nonzero(kernel.core.pages.array & DIRTY))
        assert dirty <= 256 // 5
    assert not disk.read(99).any() and disk.read(0).tobytes() == page(0)
    kernel.sync()
    assert [disk.read(index)[0, 0] for index in range(100)] == list(range(100))


def test_throttling_leaves_half_of_what_is_allowed(kernel, disk):
    """Across files, the one dirtied first is written first."""
    first, second = kernel.open(disk, pages=60), kernel.open(disk, start=60)
    limit = 256 // 5
    for index in range(10):
        first.overwrite(index, page(1))
    for index in range(limit - 10 + 1):
        second.overwrite(index, page(2))
    assert not first.inode.dirty and len(second.inode.dirty) == limit // 2


def test_a_truncated_page_is_never_written(kernel, disk, guest):
    file = kernel.open(disk)
    file.write(0, b"".join(page(n) for n in range(1, 6)))
    file.truncate(2 * PAGE_SIZE)
    kernel.sync()
    assert guest.counters[Count.GUEST_DISK_WRITES] == 2
    assert not disk.read(2, 3).any()
