"""Images: nameless, really on the disk, and refused in one line where there is no room."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from guests.workloads.image import Image
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem


def rows(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8)[:, None], PAGE_SIZE, axis=1)


def test_what_was_filled_is_on_the_disk(tmp_path: Path) -> None:
    counters = np.zeros(64, np.uint64)
    calls = []
    with Image(6, "x", str(tmp_path)) as image:
        image.fill([(0, rows(1, 2)), (3, rows(3))], lambda: calls.append(1))
        image.write(5 * PAGE_SIZE + 10, b"tail")
        assert image.read(5 * PAGE_SIZE + 10, 4) == b"tail"
        disk = image.disk(counters)
    with disk:
        assert disk.pages == 6
        assert not counters.any(), "the image existed before the guest: nothing of it is the guest's traffic"
        assert disk.read(0, 5)[:, 7].tolist() == [1, 2, 0, 3, 0]
        assert counters[Count.GUEST_DISK_READS] == 5
        disk.write(2, rows(9))
        assert disk.read(2)[0, 0] == 9
    assert len(calls) == 2
    assert os.listdir(tmp_path) == [], "the file has no name"


def test_a_read_only_disk_refuses_to_be_written(tmp_path: Path) -> None:
    with Image(1, "x", str(tmp_path)) as image, image.disk(np.zeros(64, np.uint64), writable=False) as disk:
        with pytest.raises(OSError):
            disk.write(0, rows(1))


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=2, f_frsize=PAGE_SIZE))
    with pytest.raises(UsageProblem, match=r"no room for .* 12.0 KiB .* 8.0 KiB are free; .*, or eat less"):
        Image(3, "eat less", str(tmp_path))
    assert os.listdir(tmp_path) == []
    Image(2, "eat less", str(tmp_path)).close()


def test_a_disk_that_fills_up_meanwhile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Image(2, "eat less", str(tmp_path)) as image:
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(UsageProblem, match="No space left on device; make room there, or eat less"):
            image.write(0, b"x")
