"""The swap disk: real writes and reads, slots that are one's own, and a disk that is full."""

import errno
import os
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.swap import SwapDisk
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant


@pytest.fixture
def disk(tmp_path):
    made = SwapDisk(32, str(tmp_path))
    yield made
    made.close()


def pages(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, PAGE_SIZE), np.uint8)


def test_pages_come_back_bit_for_bit_in_whatever_order(disk):
    slots, content = disk.allocate(10), pages(10)
    disk.write(slots, content)
    order = np.random.default_rng(1).permutation(10)
    assert (disk.read(slots[order]) == content[order]).all()
    assert (disk.read(slots[3:4]) == content[3]).all()
    assert disk.read(slots[:0]).shape == (0, PAGE_SIZE)


def test_pages_go_to_a_real_file_that_has_no_name(disk, tmp_path):
    slots = disk.allocate(3)
    disk.write(slots, pages(3))
    assert os.listdir(tmp_path) == []
    assert os.fstat(disk.file.fileno()).st_size == 3 * PAGE_SIZE


def test_a_batch_is_consecutive_where_it_can_be(disk):
    """Next fit: it goes on where the last one ended, though there are holes before."""
    first, second = disk.allocate(6), disk.allocate(6)
    assert first.tolist() == list(range(6)) and second.tolist() == list(range(6, 12))
    disk.release(first[[1, 3]])
    assert disk.allocate(6).tolist() == list(range(12, 18))


def test_holes_are_used_in_the_end_and_each_slot_once(disk):
    taken = disk.allocate(30)
    disk.release(taken[[2, 5, 11]])
    assert disk.allocate(5).tolist() == [2, 5, 11, 30, 31]
    assert disk.free == 0


@pytest.mark.parametrize(("taken", "wanted", "had"), [(0, 33, 32), (32, 1, 0), (30, 5, 2), (30, 2, 2), (0, 0, 0)])
def test_a_nearly_full_disk_gives_what_it_has(disk, taken, wanted, had):
    disk.allocate(taken)
    slots = disk.allocate(wanted)
    assert (len(slots), disk.used, disk.free) == (had, taken + had, 32 - taken - had)


@pytest.mark.parametrize("wrong", [[3], [0, 3], [3, 4]])
def test_a_slot_freed_twice_is_our_bug_and_frees_nothing(disk, wrong):
    slots = disk.allocate(6)
    disk.release(slots[3:])
    with pytest.raises(BrokenInvariant, match="freed twice"):
        disk.release(np.array(wrong, np.int32))
    assert (disk.used, np.flatnonzero(disk.taken).tolist()) == (3, [0, 1, 2])


def test_a_slot_named_twice_in_one_release_is_our_bug(disk):
    slots = disk.allocate(3)
    with pytest.raises(BrokenInvariant, match="freed twice"):
        disk.release(slots[[1, 1]])
    assert disk.used == 3


def test_a_write_that_is_cut_short_goes_on(disk, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data[:1000]), at))
    slots, content = disk.allocate(3), pages(3)
    disk.write(slots, content)
    assert (disk.read(slots) == content).all()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_is_an_oserror_and_takes_no_other_page(disk, monkeypatch, number):
    kept = disk.allocate(2)
    disk.write(kept, pages(2))
    slots = disk.allocate(4)

    def fail(fd, data, at):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError) as caught:
            disk.write(slots, pages(4))
    assert caught.value.errno == number
    disk.release(slots)
    assert (disk.used, (disk.read(kept) == pages(2)).all()) == (2, True)


def test_a_file_that_may_not_grow_is_an_oserror(disk):
    """The kernel's own refusal, by RLIMIT_FSIZE: part of a batch may have been written, and nothing is counted on."""
    slots = disk.allocate(4)
    old, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PAGE_SIZE + 100, most))
    try:
        with pytest.raises(OSError) as caught:
            disk.write(slots, pages(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (old, most))
    assert caught.value.errno == errno.EFBIG
    disk.write(slots, pages(4))
    assert (disk.read(slots) == pages(4)).all()


def test_reading_a_slot_that_was_never_written_is_our_bug(disk):
    with pytest.raises(BrokenInvariant, match=r"swap slots 0 to 1: read 0 bytes"):
        disk.read(disk.allocate(2))


@given(st.lists(st.tuples(st.sampled_from(["put", "take"]), st.integers(1, 12), st.integers(0, 1 << 16)), max_size=25))
def test_slots_belong_to_one_batch_at_a_time(steps):
    disk, batches = SwapDisk(24), []
    for deed, count, seed in steps:
        if deed == "put":
            slots, content = disk.allocate(count), pages(count, seed)
            assert len(slots) == min(count, 24 - sum(len(held) for held, _ in batches))
            disk.write(slots, content[:len(slots)])
            batches.append((slots, content[:len(slots)]))
        elif batches:
            slots, content = batches.pop(seed % len(batches))
            assert (disk.read(slots) == content).all()
            disk.release(slots)
        held = np.concatenate([slots for slots, _ in batches]) if batches else np.zeros(0, int)
        assert len(np.unique(held)) == len(held) == disk.used
        assert np.flatnonzero(disk.taken).tolist() == sorted(held.tolist())
    disk.close()


def test_past_the_page_cache_pages_come_back_too_and_a_slot_never_written_is_our_bug():
    disk, out = SwapDisk(32, direct=True), np.zeros(PAGE_SIZE, np.uint8)
    slots, content = disk.allocate(10), pages(10)
    disk.write(slots, content)
    order = np.random.default_rng(1).permutation(10)
    assert (disk.read(slots[order]) == content[order]).all()
    assert disk.read_one(int(slots[3]), out.data) and (out == content[3]).all()
    beyond = disk.allocate(2)
    assert not disk.read_one(int(beyond[1]), out.data)
    with pytest.raises(BrokenInvariant):
        disk.read(beyond)
    disk.close()
