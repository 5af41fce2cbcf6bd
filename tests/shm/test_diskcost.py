"""Disks with a cost: the models, and the queue before each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.abi import PAGE_SIZE
from shm.diskcost import MODELS, NANO, Busy, DiskModel, idle, model_named, served
from shm.errors import UsageProblem

SLOW = DiskModel("slow", 1_000, 2, PAGE_SIZE * NANO // 10)      # 10 ns a page, two requests at once
COSTLY = [model for model in MODELS.values() if not model.free]


def end_of(model: DiskModel, busy: Busy, now: int, *lengths: int) -> int:
    return served(model, busy, now, lengths)[1]


def test_none_costs_nothing() -> None:
    assert MODELS["none"].free
    assert end_of(MODELS["none"], idle(MODELS["none"]), 500, 1, 200, 3) == 500


@pytest.mark.parametrize("model", COSTLY, ids=lambda model: model.name)
def test_one_request_alone_costs_its_latency_and_its_bytes(model: DiskModel) -> None:
    assert end_of(model, idle(model), 7, 64) == 7 + model.alone_ns(1, 64)


@pytest.mark.parametrize("model", COSTLY, ids=lambda model: model.name)
def test_latencies_overlap_as_far_as_there_are_channels(model: DiskModel) -> None:
    together = end_of(model, idle(model), 0, *[1] * model.channels)
    assert together == model.latency_ns + model.channels * model.transfer_ns(1)
    assert end_of(model, idle(model), 0, *[1] * (model.channels + 1)) >= 2 * model.latency_ns


def test_bytes_never_overlap() -> None:
    assert end_of(SLOW, idle(SLOW), 0, 100, 100) == 1_000 + 2 * 1_000


def test_who_comes_while_the_disk_is_busy_waits() -> None:
    busy, end = served(SLOW, idle(SLOW), 0, [1, 1])
    assert end == 1_020
    assert end_of(SLOW, busy, 100, 1) == 1_010 + 1_000 + 10        # for the channel that is free first
    assert end_of(SLOW, busy, 5_000, 1) == 6_010                   # who comes later finds it idle


@given(st.lists(st.tuples(st.integers(0, 5_000), st.lists(st.integers(1, 50), min_size=1, max_size=5)), max_size=20))
def test_a_disk_is_never_faster_than_its_link_and_its_channels(batches: list[tuple[int, list[int]]]) -> None:
    busy, now, pages, requests, last = idle(SLOW), 0, 0, 0, 0
    for gap, lengths in batches:
        now += gap
        busy, end = served(SLOW, busy, now, lengths)
        assert end >= now + SLOW.latency_ns + SLOW.transfer_ns(max(lengths))
        pages, requests, last = pages + sum(lengths), requests + len(lengths), max(last, end)
    assert last >= SLOW.transfer_ns(pages)
    assert last >= -(-requests // SLOW.channels) * SLOW.latency_ns


def test_a_state_is_not_changed_by_who_looks_ahead() -> None:
    before = idle(SLOW)
    served(SLOW, before, 0, [5])
    assert before == idle(SLOW)


def test_an_unknown_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageProblem, match="there is no disk model 'floppy'; allowed: none, ssd, hdd, network"):
        model_named("floppy")
