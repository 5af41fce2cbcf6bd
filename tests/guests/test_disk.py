"""The virtual disk: what was written is read, in few transfers, and every block is counted."""

import errno
import os

import numpy as np
import pytest
from fakes import block_contents
from hypothesis import given
from hypothesis import strategies as st

from guests.disk import Disk
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem

PAGES = 40
BATCHES = [
    # name,                 blocks,                     transfers
    ("one",                 [7],                        1),
    ("a run",               [3, 4, 5, 6],               1),
    ("two runs",            [3, 4, 20, 21],             2),
    ("scattered",           [1, 9, 30],                 3),
    ("descending",          [5, 4, 3],                  3),
    ("the same twice",      [5, 5],                     2),
    ("the whole disk",      list(range(PAGES)),         1),
    ("none",                [],                         0),
]


@pytest.fixture
def counters() -> np.ndarray:
    return np.zeros(512, np.uint64)


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The system calls that move blocks, as they are made."""
    made: list[str] = []
    def noting(name: str, call):
        return lambda *arguments: (made.append(name), call(*arguments))[1]

    monkeypatch.setattr(os, "preadv", noting("preadv", os.preadv))
    monkeypatch.setattr(os, "pwrite", noting("pwrite", os.pwrite))
    return made


@pytest.mark.parametrize(("blocks", "expected"), [row[1:] for row in BATCHES], ids=[row[0] for row in BATCHES])
def test_a_batch_is_read_in_its_order_and_in_few_transfers(new_disk, counters, transfers, blocks, expected):
    disk = new_disk(PAGES, counters, content=True)
    transfers.clear()
    assert np.array_equal(disk.read_many(blocks), block_contents(blocks))
    assert transfers == ["preadv"] * expected
    assert counters[Count.GUEST_DISK_READS] == len(blocks) and counters[Count.GUEST_DISK_WRITES] == 0


@pytest.mark.parametrize(("blocks", "expected"), [row[1:] for row in BATCHES], ids=[row[0] for row in BATCHES])
def test_a_batch_is_written_in_few_transfers(new_disk, counters, transfers, blocks, expected):
    disk = new_disk(PAGES, counters)
    disk.write_many(blocks, block_contents(blocks))
    assert transfers == ["pwrite"] * expected
    assert counters[Count.GUEST_DISK_WRITES] == len(blocks) and counters[Count.GUEST_DISK_READS] == 0
    everything = np.zeros((PAGES, PAGE_SIZE), np.uint8)
    everything[blocks] = block_contents(blocks)
    assert np.array_equal(disk.read(0, PAGES), everything)


def test_a_swap_disk_counts_elsewhere(new_disk, counters):
    disk = new_disk(4, counters, reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES)
    disk.write(1, np.ones((2, PAGE_SIZE), np.uint8))
    disk.read(1)
    assert (counters[Count.GUEST_SWAP_WRITES], counters[Count.GUEST_SWAP_READS]) == (2, 1)
    assert (counters[Count.GUEST_DISK_WRITES], counters[Count.GUEST_DISK_READS]) == (0, 0)


@pytest.mark.parametrize(("block", "count"), [(PAGES, 1), (-1, 1), (PAGES - 1, 2), (0, PAGES + 1)])
def test_blocks_that_are_not_on_the_disk(new_disk, counters, block, count):
    disk = new_disk(PAGES, counters)
    with pytest.raises(ValueError, match=f"not on a disk of {PAGES} blocks"):
        disk.read(block, count)
    with pytest.raises(ValueError, match=f"not on a disk of {PAGES} blocks"):
        disk.write(block, np.zeros((count, PAGE_SIZE), np.uint8))
    assert counters[Count.GUEST_DISK_READS] == counters[Count.GUEST_DISK_WRITES] == 0


def test_a_created_disk_is_zero_and_has_no_name(tmp_path, counters):
    with Disk.create(8, counters, folder=str(tmp_path)) as disk:
        assert os.listdir(tmp_path) == []
        assert not disk.read(0, 8).any()


def test_an_image_whose_last_page_is_partial(tmp_path, counters):
    image = tmp_path / "image"
    image.write_bytes(b"a" * PAGE_SIZE + b"b" * 100)
    with Disk.open(image, counters) as disk:
        assert disk.pages == 2
        assert disk.read(1)[0].tobytes() == b"b" * 100 + bytes(PAGE_SIZE - 100)
        with pytest.raises(OSError, match="reading only") as refused:
            disk.write(0, np.zeros((1, PAGE_SIZE), np.uint8))
        assert refused.value.errno == errno.EROFS
    assert image.read_bytes() == b"a" * PAGE_SIZE + b"b" * 100


def test_a_writable_image_keeps_what_was_written(tmp_path, counters):
    image = tmp_path / "image"
    image.write_bytes(b"a" * (PAGE_SIZE + 1))
    with Disk.open(image, counters, writable=True) as disk:
        disk.write(1, np.full((1, PAGE_SIZE), ord("c"), np.uint8))
    assert image.read_bytes() == b"a" * PAGE_SIZE + b"c" * PAGE_SIZE


def test_a_missing_image_is_the_users_problem(tmp_path, counters):
    with pytest.raises(UsageProblem, match=r"nowhere.*cannot be opened for reading: No such file"):
        Disk.open(tmp_path / "nowhere", counters)


def test_short_transfers_are_continued(new_disk, counters, monkeypatch):
    """The kernel may move less than it was asked to."""
    disk = new_disk(4, counters)
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1000], offset))
    monkeypatch.setattr(os, "preadv", lambda fd, parts, offset: preadv(fd, [parts[0][:700]], offset))
    disk.write(0, block_contents(range(4)))
    assert np.array_equal(disk.read(0, 4), block_contents(range(4)))


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15), st.integers(0, 255)), max_size=12))
def test_the_disk_agrees_with_an_array(tmp_path_factory, writes):
    model = np.zeros((16, PAGE_SIZE), np.uint8)
    with Disk.create(16, np.zeros(512, np.uint64), folder=str(tmp_path_factory.getbasetemp())) as disk:
        for first, second, value in writes:
            blocks = sorted({first, second})
            pages = np.full((len(blocks), PAGE_SIZE), value, np.uint8)
            disk.write_many(blocks, pages)
            model[blocks] = pages
            assert np.array_equal(disk.read_many([second, first]), model[[second, first]])
        assert np.array_equal(disk.read(0, 16), model)
