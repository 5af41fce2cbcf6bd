"""Writes finer than a page: tracked by the sector, stable meanwhile, stripped as the page grows inactive."""

import pytest
from fakes import HINTS, FakeGuest

from guests.kernel import Kernel
from guests.volatility import PRIVATE
from shm.abi import PAGE_SIZE
from shm.pagestate import Sr, Vr


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest(128, HINTS)


@pytest.fixture
def kernel(guest):
    kernel = Kernel(guest, buffers=True)
    yield kernel
    kernel.check()


@pytest.fixture
def file(kernel, guest, new_disk):
    return kernel.open(new_disk(100, guest.counters, content=True))


WRITES = [
    # offset, length,        bytes that are newer than the disk
    (0,       1,             512),
    (511,     2,             1024),
    (512,     512,           512),
    (100,     3900,          4096),
    (4000,    200,           1024),          # the end of one page, the start of the next
]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("offset", "length", "newer"), WRITES)
def test_a_write_of_part_of_a_page_is_tracked_by_the_sector(kernel, file, offset, length, newer, cached):
    if cached:
        file.map(0, 4)
    file.write(offset, bytes(length))
    assert kernel.buffers.dirty_bytes == newer
    file.sync()
    assert kernel.buffers.dirty_bytes == 0


def test_whole_pages_need_no_buffers(kernel, file):
    file.write(0, bytes(3 * PAGE_SIZE))
    assert not (kernel.core.pages.array & PRIVATE).any()
    file.write(5, b"x")
    file.overwrite(0, bytes(PAGE_SIZE))
    assert kernel.buffers.dirty_bytes == PAGE_SIZE


def test_a_page_with_buffers_is_stable_until_it_grows_inactive(kernel, guest, file):
    """R32 condition 8, and 2.5: without the stripping it would be stable for ever."""
    file.write(10, b"x")
    file.page(0)
    file.page(1)
    file.page(0)                                     # its second touch: active
    file.sync()
    gfn = file.inode.cached[0]
    assert guest.states[gfn] == Sr and kernel.core.pages.facts[gfn] & PRIVATE
    for _ in range(2):
        file.map(20, 40)                             # active too: the oldest of them all grows inactive
    kernel.core.allocator.reclaim(1)
    assert file.inode.cached.get(0) == gfn
    assert guest.states[gfn] == Vr and not kernel.core.pages.facts[gfn] & PRIVATE
    guest.discard([gfn])
    assert file.read(10, 1) == b"x"


def test_what_the_disk_has_not_is_not_stripped(kernel, guest, file):
    file.write(10, b"x")
    kernel.buffers.strip(list(file.inode.cached.values()))
    assert kernel.buffers.dirty_bytes == 512


@pytest.mark.parametrize("end", [lambda kernel, file: file.truncate(0),
                                 lambda kernel, file: kernel.core.allocator.reclaim(90)])
def test_buffers_leave_with_their_page(kernel, file, end):
    file.write(10, b"x")
    end(kernel, file)
    assert kernel.buffers.dirty_bytes == 0 and not (kernel.core.pages.array & PRIVATE).any()


def test_without_buffers_a_written_page_is_volatile_after_its_write_back(guest, new_disk):
    kernel = Kernel(guest)
    file = kernel.open(new_disk(10, guest.counters, content=True))
    file.write(10, b"x")
    file.sync()
    assert kernel.buffers is None and guest.states[file.inode.cached[0]] == Vr
