"""Trace replay: every reference is one lookup or one store, and an exact LRU misses exactly as often as LRU does."""

from collections import OrderedDict
from pathlib import Path
from random import Random
from typing import Any

import pytest

from guests.workloads.proof import WrongContent
from guests.workloads.trace import Replay, TraceOptions
from shm.counters import Count
from shm.errors import UsageProblem

REAL = Path(__file__).parents[4] / "shared" / "traces"
REFERENCES = list(range(90)) + [int(Random(n).random() ** 2 * 90) for n in range(510)]
HOSTS = [
    {"pages": 256},
    {"pages": 32},
    {"pages": 256, "mischief": 0.1},
    {"pages": 32, "mischief": 0.1, "ephemeral": 20, "forget": 0.1},
    {"pages": 32, "features": ()},
]


@pytest.fixture
def reads(tmp_path: Path) -> str:
    path = tmp_path / "reads.txt"
    path.write_text("".join(f"{page * 10}\n" for page in REFERENCES))
    return str(path)


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    path = tmp_path / "mixed.csv"
    lines = [f"{'w' if n % 3 == 0 else 'r'},{page}\n" for n, page in enumerate(REFERENCES)]
    path.write_text("op,page\n" + "".join(lines))
    return str(path)


def lru_misses(references: list[int], size: int) -> int:
    """Return how often plain LRU of `size` pages misses: the model to compare with."""
    cache: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for page in references:
        misses += page not in cache
        cache[page] = None
        cache.move_to_end(page)
        if len(cache) > size:
            cache.popitem(last=False)
    return misses


def all_of(run) -> int:
    done = 0
    while run.workload.step():
        done += 1
    return done


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("access", ["read", "map"])
def test_every_reference_is_verified(prepare, mixed: str, host: dict[str, Any], access: str) -> None:
    run = prepare("trace", {"file": mixed, "access": access}, **host)
    assert all_of(run) == 600 == run.count(Count.OPERATIONS)
    run.workload.finish()
    run.kernel.check()
    assert (run.count(Count.PAGES_VERIFIED), run.count(Count.MISMATCHES)) == (400, 0)


def test_the_work_ends_with_the_trace_unless_it_repeats(prepare, reads: str) -> None:
    run = prepare("trace", {"file": reads, "limit": 50})
    assert all_of(run) == 50
    assert not run.workload.step()
    assert run.count(Count.OPERATIONS) == 50
    run = prepare("trace", {"file": reads, "limit": 50, "repeat": True})
    run.steps(180)


def test_versions_go_on_when_the_trace_repeats(prepare, mixed: str) -> None:
    run = prepare("trace", {"file": mixed, "limit": 30, "repeat": True}, pages=32, mischief=0.1)
    run.steps(200)
    assert max(run.workload._versions) > 2
    assert run.count(Count.MISMATCHES) == 0


@pytest.mark.parametrize("size", [1, 5, 40, 89, 90])
def test_an_exact_cache_misses_as_lru_does(prepare, reads: str, size: int) -> None:
    run = prepare("trace", {"file": reads, "cache_pages": size}, features=())
    assert all_of(run) == 600
    assert run.count(Count.GUEST_DISK_READS) == lru_misses(REFERENCES, size)


@pytest.mark.parametrize(("cache", "pool"), [(5, 10), (20, 30), (30, 60)])
def test_cache_and_pool_are_one_lru(prepare, reads: str, cache: int, pool: int) -> None:
    """Lu and Shen, 2007: an exclusive LRU pool behind an LRU cache is one LRU cache of both sizes."""
    run = prepare("trace", {"file": reads, "cache_pages": cache}, ephemeral=pool)
    assert all_of(run) == 600
    assert run.count(Count.GUEST_DISK_READS) == lru_misses(REFERENCES, cache + pool)


def test_sprite_reads_its_disk_exactly_as_often_as_lru(prepare) -> None:
    path = REAL / "sprite.txt.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here: the public traces lie beside the project")
    run = prepare("trace", {"file": str(path), "cache_pages": 708}, pages=1024, features=())
    assert all_of(run) == 133996
    assert run.count(Count.GUEST_DISK_READS) == 18071


def calls(prepare, mixed: str, host: dict[str, Any], seed: int) -> list[Any]:
    run = prepare("trace", {"file": mixed}, seed=seed, record=True, **host)
    all_of(run)
    return run.log


def test_the_same_seed_is_the_same_work_on_any_host(prepare, mixed: str) -> None:
    first = calls(prepare, mixed, HOSTS[0], 5)
    assert len(first) == 600
    assert all(calls(prepare, mixed, host, 5) == first for host in HOSTS[1:])
    other = calls(prepare, mixed, HOSTS[0], 6)
    assert [call[:2] for call in other] == [call[:2] for call in first]
    assert other != first, "another seed writes other bytes"


@pytest.mark.parametrize("access", ["read", "map"])
def test_a_corrupted_page_is_found(prepare, reads: str, access: str) -> None:
    run = prepare("trace", {"file": reads, "access": access})
    run.steps(300)
    run.guest.corrupt()
    with pytest.raises(WrongContent, match=r"wrong page: trace, page [0-9]+: byte 1234"):
        run.steps(300)
    assert run.count(Count.MISMATCHES) == 1


def test_a_page_in_anothers_place_is_found(prepare, reads: str) -> None:
    run = prepare("trace", {"file": reads})
    page = run.workload._file.page
    run.workload._look_up = lambda index: page(index ^ 1)
    with pytest.raises(WrongContent, match="byte 0 of 4096"):
        run.steps(1)


def test_a_lost_write_is_found(prepare, mixed: str) -> None:
    run = prepare("trace", {"file": mixed}, pages=256)
    run.workload._file.overwrite = lambda index, page: None
    with pytest.raises(WrongContent):
        run.steps(600)


def test_check_looks_at_the_head_of_what_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1\n2\njunk\n3\n")
    Replay.check(TraceOptions(file=str(path), limit=2))
    for options in ({}, {"start": 1, "limit": 2}, {"limit": 3}):
        with pytest.raises(UsageProblem, match="line 3: 'junk'"):
            Replay.check(TraceOptions(file=str(path), **options))


def test_a_damaged_tail_is_found_before_the_work(prepare, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1\n" * 500_000 + "junk\n")
    Replay.check(TraceOptions(file=str(path)))
    with pytest.raises(UsageProblem, match="line 500001: 'junk'"):
        prepare("trace", {"file": str(path)})


def test_prepare_fills_one_page_a_distinct_page_and_can_be_stopped(prepare, reads: str) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        prepare("trace", {"file": reads}, going_on=stop)
    assert prepare("trace", {"file": reads}).workload._disks[0].pages == 90
