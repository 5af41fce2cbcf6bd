"""The device behind a guest's disks: what requests cost in virtual and in waited time, and to whom it is told."""

from collections.abc import Iterator

import numpy as np
import pytest

from guests import device as device_module
from guests import pager_sources
from guests.device import Device
from guests.disk import Disk
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.diskcost import MODELS, NONE, VIRTUAL, WAITED

SSD, HDD = MODELS["ssd"], MODELS["hdd"]


@pytest.fixture
def counters() -> np.ndarray:
    return np.zeros(512, np.uint64)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, in seconds; nobody really sleeps, and the clock stands."""
    made: list[float] = []
    monkeypatch.setattr(device_module, "sleep", made.append)
    monkeypatch.setattr(device_module, "monotonic_ns", lambda: 1_000)
    return made


@pytest.fixture
def disk(counters: np.ndarray) -> Iterator[Disk]:
    with Disk.create(64, counters) as made:
        yield made


def block(count: int = 1) -> np.ndarray:
    return np.full((count, PAGE_SIZE), 7, np.uint8)


@pytest.mark.parametrize(("blocks", "cost"), [
    ([3], HDD.alone_ns(1, 1)), ([3, 4, 5], HDD.alone_ns(1, 3)), ([3, 9], HDD.alone_ns(2, 2)), ([], 0)])
def test_in_virtual_time_a_batch_costs_what_its_runs_cost(disk, counters, slept, blocks, cost):
    disk.behind(Device.of(counters, HDD, VIRTUAL)).read_many(blocks)
    assert counters[Count.VIRTUAL_DISK_NS] == cost and slept == []


def test_runs_that_come_together_overlap_as_the_model_says(disk, counters, slept):
    disk.behind(Device(counters, SSD)).write_many([1, 10, 20], block(3))
    assert counters[Count.VIRTUAL_DISK_NS] == SSD.latency_ns + SSD.transfer_ns(1) * 3


def test_who_waits_for_each_request_finds_the_disk_idle(disk, counters, slept):
    """The clock is real time and virtual waits together: else the second request would pay for the first again."""
    disk.behind(Device(counters, HDD))
    for at in range(5):
        disk.read(at)
    assert counters[Count.VIRTUAL_DISK_NS] == HDD.alone_ns(5, 5)


def test_the_clock_is_ahead_by_ones_own_waits_the_pagers_and_the_page_ins(counters):
    counters[[Count.VIRTUAL_DISK_NS, Count.VIRTUAL_SWAP_NS]] = 100, 20
    counters[[Count.PAGER_DISK_REQUESTS, Count.PAGER_DISK_READS]] = 2, 5
    assert Device(counters, HDD).virtual_ns() == 120 + HDD.alone_ns(2, 5)
    assert Device(counters, HDD, waited=True).virtual_ns() == 120, "the pager has really slept"


def test_in_waited_time_it_sleeps_until_the_request_is_served(counters, slept):
    device = Device.of(counters, HDD, WAITED)
    device.serve(1_000, [1])
    assert slept == [HDD.alone_ns(1, 1) / 1e9] and device.virtual_ns() == 0
    device.serve(1_000, [1])
    assert slept[1] == 2 * slept[0], "the clock stands, so the disk is still busy"


def test_what_is_seen_afterwards_costs_its_count(counters, slept):
    Device(counters, HDD).passed(3)
    assert counters[Count.VIRTUAL_DISK_NS] == HDD.alone_ns(3, 3)
    Device(counters, HDD, waited=True).passed(3)
    assert slept == [HDD.alone_ns(3, 3) / 1e9]


def test_a_model_without_a_cost_stands_behind_no_disk(disk, counters):
    assert disk.behind(Device(counters, NONE)).device is None
    disk.read(3)
    assert counters[Count.VIRTUAL_DISK_NS] == 0


@pytest.mark.parametrize(("waited", "words"), [(False, ()), (True, (HDD.latency_ns, HDD.transfer_ns(1)))])
def test_the_pager_is_told_what_to_sleep_only_where_somebody_sleeps(counters, waited, words):
    assert Device(counters, HDD, waited).pager_words == words


def test_a_pager_counts_its_requests_and_sleeps_what_it_was_told(disk, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(pager_sources.time, "sleep", slept.append)
    disk.write(0, block(4))
    table = memoryview(np.array([2, 3, 4, 0], np.int64))     # blocks 0, 1, 2 of disk 0; nobody
    words = memoryview(np.zeros(64, np.int64))
    sources = pager_sources.Sources(table, words)
    sources.disks[0] = disk.fileno()
    (part,) = sources.parts([0, 1, 2])
    assert sources.bytes_of(part) == block(3).tobytes() and slept == []
    sources.costs[0] = 1_000_000, 500_000
    sources.bytes_of(part.cut(1))
    assert slept == [0.002]
    assert (words[Count.PAGER_DISK_REQUESTS], words[Count.PAGER_DISK_READS]) == (2, 5)


def test_a_direct_disk_reads_what_was_written_and_its_pager_too(disk, counters):
    disk.behind(Device(counters, direct=True))
    content = np.random.default_rng(5).integers(0, 256, (6, PAGE_SIZE), np.uint8)
    disk.write_many([1, 2, 9, 10, 11, 30], content)
    assert (disk.read_many([30, 9, 10, 1]) == content[[5, 2, 3, 0]]).all()
    table, words = memoryview(np.array([11, 12, 13], np.int64)), memoryview(np.zeros(64, np.int64))
    sources = pager_sources.Sources(table, words)
    sources.disks[0] = disk.fileno()
    (part,) = sources.parts([0, 1, 2])
    assert sources.bytes_of(part) == content[2:5].tobytes()
