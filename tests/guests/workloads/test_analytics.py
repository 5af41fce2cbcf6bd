"""Analytics: the table and what is derived from it, right whatever the host drops."""

from typing import Any

import numpy as np
import pytest

from guests.workloads.analytics import Analytics, AnalyticsOptions
from guests.workloads.proof import WrongContent
from shm.counters import Count

SMALL = {"table": "512KiB", "derived": "128KiB", "columns": 4, "block": 8}      # 128 and 4 x 8 pages
HOSTS = [
    {"pages": 256},
    {"pages": 96},
    {"pages": 256, "mischief": 0.2},
    {"pages": 96, "mischief": 0.2, "refuse": 0.3},
    {"pages": 96, "features": ()},
]


def analytics(prepare, host: dict[str, Any], record: bool = False, **options: Any):
    return prepare("analytics", SMALL | options, record=record, **host)


@pytest.mark.parametrize("host", HOSTS)
def test_the_table_and_the_columns_are_right(prepare, host: dict[str, Any]) -> None:
    run = analytics(prepare, host)
    run.steps(300)
    before = run.count(Count.PAGES_VERIFIED)
    run.workload.finish()
    run.kernel.check()
    assert (run.count(Count.OPERATIONS), run.count(Count.MISMATCHES)) == (300, 0)
    assert run.count(Count.PAGES_VERIFIED) - before == run.workload.table_pages, "the end looks at the whole table"


def test_memory_is_full_when_the_work_begins(prepare) -> None:
    run = analytics(prepare, {"pages": 256})
    assert run.workload.anonymous_pages == 128 + 32
    assert run.kernel.free_pages == 256 - 128 - 32


def test_columns_are_volatile_while_idle_and_computed_again(prepare) -> None:
    run = analytics(prepare, {"pages": 256}, queries=1, updates=0)
    run.guest.discard(range(256))
    run.steps(200)
    assert run.count(Count.REBUILT_PAGES) >= 16
    assert run.count(Count.MISMATCHES) == 0


def test_updates_change_the_facts_and_never_the_dimension(prepare) -> None:
    run = analytics(prepare, {"pages": 256}, queries=0, updates=1, theta=0)
    run.steps(200)
    assert run.workload.dimension == 96
    assert (run.workload._versions[:96] > 0).all()
    assert not run.workload._versions[96:].any()
    table = run.workload._table.read_many(np.arange(128)).view(np.uint64)
    assert table.sum(axis=1).tolist() == run.workload._sums.tolist()


def calls(prepare, host: dict[str, Any], seed: int) -> list[Any]:
    run = analytics(prepare, host | {"seed": seed}, record=True)
    run.steps(120)
    return run.log


def test_the_same_seed_is_the_same_work_on_any_host(prepare) -> None:
    first = calls(prepare, HOSTS[0], 5)
    assert all(calls(prepare, host, 5) == first for host in HOSTS[1:])
    assert calls(prepare, HOSTS[0], 6) != first


@pytest.mark.parametrize(("options", "said"), [
    ({"queries": 0, "updates": 0}, "wrong page: table, page"),
    ({"queries": 0, "updates": 1}, "wrong page: table, page"),
    ({"queries": 1, "updates": 0}, "wrong page: derived column [0-9]+, page"),
])
def test_a_corrupted_page_is_found(prepare, options: dict[str, Any], said: str) -> None:
    run = analytics(prepare, {"pages": 256}, **options)
    run.guest.corrupt()
    with pytest.raises(WrongContent, match=said):
        run.steps(30)
    assert run.count(Count.MISMATCHES) > 0


def test_a_wrong_sum_is_found(prepare) -> None:
    run = analytics(prepare, {"pages": 256}, queries=0, updates=0)
    run.workload._sums[:] += np.uint64(1)
    with pytest.raises(WrongContent, match="of the table sum to"):
        run.steps(1)


def test_a_wrong_rebuild_is_found(prepare) -> None:
    run = analytics(prepare, {"pages": 256}, queries=1, updates=0)
    run.workload._recompute = None
    for column in run.workload._columns:
        column._rebuild = lambda indexes: np.zeros((len(indexes), 4096), np.uint8)
    run.guest.discard(range(256))
    with pytest.raises(WrongContent, match="derived column"):
        run.steps(5)


@pytest.mark.parametrize("sizes", [("256KiB", "64KiB", 256, 256), ("1MiB", "64KiB", 1, 7), ("300KiB", "68KiB", 5, 32)])
def test_odd_sizes_work(prepare, sizes: tuple[str, str, int, int]) -> None:
    options = dict(zip(("table", "derived", "columns", "block"), sizes, strict=True))
    run = prepare("analytics", options, pages=600)
    run.steps(60)
    run.workload.finish()
    assert run.count(Count.MISMATCHES) == 0


def test_shares_of_kinds_are_those_asked_for() -> None:
    workload = Analytics(AnalyticsOptions.model_validate(SMALL | {"queries": 0.3, "updates": 0.2}), 1)
    counts = dict.fromkeys(("_query", "_update", "_scan"), 0)
    for name in counts:
        setattr(workload, name, lambda *_, name=name: counts.update({name: counts[name] + 1}))
    for _ in range(1000):
        workload.operate()
    assert counts["_query"] == pytest.approx(300, abs=50)
    assert counts["_update"] == pytest.approx(200, abs=50)
