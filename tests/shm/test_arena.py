"""Sparse objects: what is granted, what is given back, and what the kernel says of it."""

import errno
import fcntl
import os
import resource
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm import arena
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject, runs
from shm.errors import UsageProblem

RUNS = {
    "none": ([], []),
    "one": ([5], [(5, 1)]),
    "one run": ([3, 4, 5], [(3, 3)]),
    "all apart": ([0, 2, 9], [(0, 1), (2, 1), (9, 1)]),
    "runs and singles": ([0, 1, 3, 7, 8, 9], [(0, 2), (3, 1), (7, 3)]),
    "in the order given, not sorted": ([10, 30, 12], [(10, 1), (30, 1), (12, 1)]),
    "as long as a run but with a gap": ([0, 1, 3], [(0, 2), (3, 1)]),
    "a run that begins late": ([0, 10, 11, 12], [(0, 1), (10, 3)]),
    "in the order given": ([5, 6, 2, 3, 4], [(5, 2), (2, 3)]),
    "descending neighbours": ([3, 2, 1], [(3, 1), (2, 1), (1, 1)]),
    "ends as a run would, and is none": ([0, 5, 2], [(0, 1), (5, 1), (2, 1)]),
}


@pytest.mark.parametrize(("pages", "expected"), RUNS.values(), ids=list(RUNS))
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_runs(pages, expected, dtype):
    assert runs(np.array(pages, dtype)) == expected


@given(st.sets(st.integers(0, 60)))
def test_runs_are_the_pages_and_no_two_touch(pages):
    found = runs(np.array(sorted(pages), np.int64))
    assert [page for first, count in found for page in range(first, first + count)] == sorted(pages)
    assert all(first + count < following for (first, count), (following, _) in pairwise(found))


@pytest.fixture
def memory(cluster_name):
    """A sparse object of 16 pages."""
    made = SharedObject.create(f"memcommons.{cluster_name}.000000.g0.ram", 16)
    yield made
    made.close()
    made.unlink()


def test_a_new_object_is_sparse_private_and_named(memory):
    assert (memory.pages, memory.resident()) == (16, 0)
    status = os.fstat(memory.fd)
    assert (status.st_size, status.st_mode & 0o777) == (16 * PAGE_SIZE, 0o600)
    assert os.path.samestat(status, os.stat(f"/dev/shm/{memory.name}"))


def test_holes_read_as_zeros_and_stay_holes(memory):
    memory.allocate([(2, 1)])
    memory.write([(2, 1)], np.full((1, PAGE_SIZE), 7, np.uint8))
    out = np.full((5, PAGE_SIZE), 0xAA, np.uint8)
    memory.read([(0, 4), (15, 1)], out)
    assert out.max(axis=1).tolist() == [0, 0, 7, 0, 0]
    assert memory.resident() == 1


def test_frames_are_counted_as_soon_as_they_are_granted(memory):
    memory.allocate([(0, 2), (5, 3)])
    assert memory.resident() == 5, "without a touch"
    memory.allocate([(1, 2)])
    assert memory.resident() == 6, "what is there is not counted twice"


def test_punched_frames_go_back_and_read_as_zeros(memory):
    memory.allocate([(0, 8)])
    view = memory.map()
    view[:8 * PAGE_SIZE] = 7
    memory.punch([(1, 2), (7, 1)])
    assert memory.resident() == 5
    assert view.reshape(16, PAGE_SIZE)[[0, 3, 4, 5, 6]].min() == 7, "neighbours keep every byte"
    out = np.empty((3, PAGE_SIZE), np.uint8)
    memory.read([(1, 2), (7, 1)], out)
    assert not out.any()
    assert memory.resident() == 5
    memory.punch([(1, 2)])
    assert memory.resident() == 5, "a hole punched again is a hole"


def test_a_load_through_a_mapping_takes_a_frame(memory):
    """What the audit is for: this machine's kernel behaves as `shm.arena` says."""
    assert memory.map()[3 * PAGE_SIZE] == 0
    assert memory.resident() == 1


def test_pages_written_are_read_back_in_their_places(memory):
    pages = np.random.default_rng(1).integers(0, 256, (4, PAGE_SIZE), np.uint8)
    places = [(1, 1), (4, 2), (9, 1)]
    memory.allocate(places)
    memory.write(places, pages)
    out = np.empty_like(pages)
    memory.read(places, out)
    assert (out == pages).all()
    assert (memory.map().reshape(16, PAGE_SIZE)[[1, 4, 5, 9]] == pages).all()


def test_dropping_gives_everything_back_whoever_maps_it(memory):
    memory.allocate([(0, 16)])
    view = memory.map()
    memory.drop()
    assert memory.resident() == 0
    assert view is not None


def test_a_failed_punch_says_what_and_where(memory):
    with pytest.raises(OSError, match=r"punching 1 pages at -1 of memcommons\."):
        memory.punch([(-1, 1)])


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_when_there_is_no_room_no_run_is_given_anything(memory, monkeypatch, fails_at):
    """ENOSPC leaves everything as it was."""
    real, calls = os.posix_fallocate, []

    def full(fd, offset, length):
        calls.append(offset)
        if len(calls) > fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError) as caught:
        memory.allocate([(0, 2), (4, 2), (9, 1)])
    assert caught.value.errno == errno.ENOSPC
    assert len(calls) == fails_at + 1
    assert memory.resident() == 0


@contextmanager
def file_size_limit(size):
    """Let no file of this process grow beyond `size` bytes: the kernel's own refusal (EFBIG)."""
    old, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (old, most))


def test_an_object_that_finds_no_room_is_one_clear_line_and_leaves_no_name(cluster_name):
    name = f"memcommons.{cluster_name}.000000.heap"
    with file_size_limit(8 * PAGE_SIZE), pytest.raises(UsageProblem, match="no room in /dev/shm for 64 KiB") as caught:
        SharedObject.create(name, 16)
    assert "shm-size" in str(caught.value) and "\n" not in str(caught.value)
    assert not os.path.exists(f"/dev/shm/{name}")


def test_a_sealed_object_keeps_its_size_and_has_its_frames(cluster_name):
    made = SharedObject.sealed(f"memcommons.{cluster_name}.000000.g0.count", 3)
    try:
        assert (made.pages, made.resident()) == (3, 3)
        for size in (0, 4 * PAGE_SIZE):
            with pytest.raises(PermissionError):
                os.ftruncate(made.fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(made.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        view = made.map()
        view[-1] = 7
        assert view[-1] == 7
        assert not [entry for entry in os.listdir("/dev/shm") if cluster_name in entry]
        assert os.readlink(f"/proc/self/fd/{made.fd}").startswith(f"/memfd:memcommons.{cluster_name}")
    finally:
        made.close()


def test_a_sealed_object_that_finds_no_room_is_one_clear_line(cluster_name, monkeypatch):
    """And leaves no descriptor open: the test's own look at what is left."""
    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageProblem, match=r"no room .* for 12 KiB"):
        SharedObject.sealed(f"memcommons.{cluster_name}.000000.g0.count", 3)


def test_a_read_only_descriptor_cannot_write(memory):
    memory.allocate([(0, 1)])
    handed_over = SharedObject(memory.read_only_fd())
    try:
        view = handed_over.map(writable=False)
        assert not view.flags.writeable
        with pytest.raises(OSError):
            os.pwrite(handed_over.fd, b"x", 0)
        with pytest.raises(PermissionError):
            handed_over.map(writable=True)
        memory.map()[0] = 9
        assert view[0] == 9, "it sees what the owner writes"
    finally:
        handed_over.close()


def test_unlinking_twice_is_nothing(memory):
    memory.unlink()
    memory.unlink()
    assert not os.path.exists(f"/dev/shm/{memory.name}")


def test_free_bytes_is_what_the_kernel_says():
    room = os.statvfs("/dev/shm")
    assert 0 < arena.free_bytes() <= room.f_blocks * room.f_frsize
