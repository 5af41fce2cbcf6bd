"""Files past the page cache: what was written is read, and where it cannot be had that is said in one line."""

import ctypes
import mmap
import os
import tempfile

import numpy as np
import pytest

from shm import directio
from shm.abi import PAGE_SIZE
from shm.directio import BOUNCE_PAGES, DirectFile, check_direct
from shm.errors import UsageProblem

FOLDER = "/var/tmp"


@pytest.fixture
def file():
    with tempfile.TemporaryFile(dir=FOLDER) as made:
        yield made


def random_pages(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, PAGE_SIZE), np.uint8)


def cached_pages(file, pages: int) -> int:
    """How many pages of the file the machine's page cache holds, by a mapping of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    with mmap.mmap(file.fileno(), pages * PAGE_SIZE) as mapped:
        there = ctypes.create_string_buffer(pages)
        view = (ctypes.c_char * len(mapped)).from_buffer(mapped)
        assert libc.mincore(ctypes.addressof(view), len(mapped), there) == 0
        del view
    return sum(byte & 1 for byte in there.raw)


@pytest.mark.parametrize("count", [1, 7, BOUNCE_PAGES, 2 * BOUNCE_PAGES + 3])
def test_what_was_written_is_read_wherever_the_memory_lies(file, count):
    direct, content = DirectFile(file.fileno(), FOLDER), random_pages(count)
    direct.write(content.data.cast("B"), 3 * PAGE_SIZE)
    unaligned = bytearray(count * PAGE_SIZE + 1)
    direct.read(memoryview(unaligned)[1:], 3 * PAGE_SIZE)
    assert unaligned[1:] == content.tobytes()
    with open(f"/proc/self/fd/{file.fileno()}", "rb") as through_the_cache:
        assert os.pread(through_the_cache.fileno(), PAGE_SIZE, 3 * PAGE_SIZE) == content[0].tobytes()


def test_the_page_cache_gets_none_of_it(file):
    direct = DirectFile(file.fileno(), FOLDER)
    direct.write(random_pages(16).data.cast("B"), 0)
    direct.read(memoryview(bytearray(16 * PAGE_SIZE)), 0)
    assert cached_pages(file, 16) == 0


@pytest.mark.parametrize("size", [0, 100, PAGE_SIZE, PAGE_SIZE + 100])
def test_behind_the_end_there_are_zeros(file, size):
    file.write(b"\xee" * size)
    file.flush()
    out = bytearray(b"\xdb" * 3 * PAGE_SIZE)
    DirectFile(file.fileno(), FOLDER).read(memoryview(out), 0)
    assert out == (b"\xee" * size).ljust(3 * PAGE_SIZE, b"\0")


def test_a_file_system_that_refuses_is_named_in_one_line(file, monkeypatch):
    def refuse(fd: int, what: int, flags: int = 0) -> int:
        if what == directio.fcntl.F_SETFL:
            raise OSError(22, "Invalid argument")
        return 0
    monkeypatch.setattr(directio.fcntl, "fcntl", refuse)
    line = (r"direct = true: the file system of /var/tmp takes no O_DIRECT \(Invalid argument\); use a disk's, or "
            r"direct = false")
    with pytest.raises(UsageProblem, match=line):
        DirectFile(file.fileno(), FOLDER)
    with pytest.raises(UsageProblem, match=line):
        check_direct(FOLDER)
