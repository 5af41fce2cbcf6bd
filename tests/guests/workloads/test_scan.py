"""The file scan: a tree packed as it is, read again and again, compared with the real files."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guests.workloads import tree
from guests.workloads.proof import WrongContent
from guests.workloads.scan import Scan, ScanOptions
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem

SIZES = {"b/one": 1, "b/two": PAGE_SIZE, "a": 3 * PAGE_SIZE + 5, "c/d/e": 40 * PAGE_SIZE, "c/f": 9000}
TOTAL_PAGES = sum(-(-size // PAGE_SIZE) for size in SIZES.values())
HOSTS = [
    {"pages": 256},
    {"pages": 32},
    {"pages": 256, "mischief": 0.2},
    {"pages": 32, "mischief": 0.2, "ephemeral": 10, "forget": 0.1},
    {"pages": 32, "features": ()},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for name, size in SIZES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(size))
    (tmp_path / "b" / "empty").touch()
    (tmp_path / "b" / "__pycache__").mkdir()
    (tmp_path / "b" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    return tmp_path


def scan(prepare, folder: Path, host: dict[str, Any], record: bool = False, **options: Any):
    return prepare("scan", {"path": str(folder), "size": "1MiB", "chunk": 8} | options, record=record, **host)


def test_what_is_scanned_is_sorted_and_real(folder: Path) -> None:
    packed = tree.choose([folder], 1000)
    names = [Path(file.path).relative_to(folder).as_posix() for file in packed]
    assert names == ["a", "b/one", "b/two", "c/f", "c/d/e"]
    assert [file.size for file in packed] == [SIZES[name] for name in names]
    assert packed[0].start == 0
    assert all(one.start + one.pages == other.start for one, other in pairwise(packed))


@pytest.mark.parametrize(("pages", "names"), [(4, ["a"]), (5, ["a", "one"]), (9, ["a", "one", "two", "f"]), (0, [])])
def test_the_size_bounds_the_tree(folder: Path, pages: int, names: list[str]) -> None:
    assert [Path(file.path).name for file in tree.choose([folder], pages)] == names


@pytest.mark.parametrize("host", HOSTS)
def test_every_byte_is_the_files(prepare, folder: Path, host: dict[str, Any]) -> None:
    run = scan(prepare, folder, host)
    assert run.count(Count.PAGES_VERIFIED) == TOTAL_PAGES, "prepare reads each file once"
    run.steps(200)
    run.workload.finish()
    run.kernel.check()
    assert (run.count(Count.OPERATIONS), run.count(Count.MISMATCHES)) == (200, 0)
    assert run.count(Count.PAGES_VERIFIED) > TOTAL_PAGES + 200


def test_the_whole_tree_is_cached_when_the_work_begins(prepare, folder: Path) -> None:
    run = scan(prepare, folder, {"pages": 256})
    assert run.count(Count.GUEST_DISK_READS) == TOTAL_PAGES
    assert run.kernel.free_pages == 256 - TOTAL_PAGES
    run.steps(100)
    assert run.count(Count.GUEST_DISK_READS) == TOTAL_PAGES


def test_a_file_is_read_from_its_first_page_to_its_last(prepare, folder: Path) -> None:
    run = scan(prepare, folder, {"pages": 256}, record=True)
    del run.log[:]
    run.steps(60)
    reads = [call[1:3] for call in run.log]
    assert all(call[0] == "map" for call in run.log)
    whole = [(0, 8), (8, 8), (16, 8), (24, 8), (32, 8)]
    starts = [at for at, read in enumerate(reads[:-5]) if read == (0, 8)]
    assert starts
    assert all(reads[at:at + 5] == whole for at in starts), "the file of 40 pages is the only one beyond 8"


def calls(prepare, folder: Path, host: dict[str, Any], seed: int) -> list[Any]:
    run = scan(prepare, folder, host | {"seed": seed}, record=True)
    run.steps(100)
    return run.log


def test_the_same_seed_is_the_same_work_on_any_host(prepare, folder: Path) -> None:
    first = calls(prepare, folder, HOSTS[0], 5)
    assert all(calls(prepare, folder, host, 5) == first for host in HOSTS[1:])
    assert calls(prepare, folder, HOSTS[0], 6) != first


def test_a_corrupted_page_is_found(prepare, folder: Path) -> None:
    run = scan(prepare, folder, {"pages": 256})
    run.guest.corrupt()
    with pytest.raises(WrongContent, match=rf"wrong page: {folder}/.*, page [0-9]+: byte 1234 of 4096"):
        run.steps(10)
    assert run.count(Count.MISMATCHES) > 0


def test_bytes_behind_the_end_of_a_file_are_checked_too(prepare, folder: Path) -> None:
    run = scan(prepare, folder, {"pages": 256})
    run.guest.memory.rows[:, -1] ^= 1
    with pytest.raises(WrongContent, match=r"byte 4095 of 4096"):
        run.steps(10)


def test_a_file_that_was_changed_meanwhile_is_no_wrong_page(prepare, folder: Path) -> None:
    run = scan(prepare, folder, {"pages": 256})
    (folder / "c/d/e").write_bytes(b"new")
    with pytest.raises(UsageProblem, match="c/d/e was changed while it was scanned"):
        run.steps(50)


@pytest.mark.parametrize(("path", "said"), [("nowhere", "is not a folder"), ("empty", "no readable file")])
def test_a_tree_without_files_is_refused(tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageProblem, match=said):
        Scan.check(ScanOptions(path=str(tmp_path / path)))


def test_the_default_tree_is_pythons_own_and_fills_its_size() -> None:
    packed = tree.choose(tree.default_roots(), 4096)
    assert sum(file.pages for file in packed) == 4096
    assert packed[0].path.startswith(os.path.dirname(os.__file__))
    Scan.check(ScanOptions())
