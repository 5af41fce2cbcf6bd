"""The bank: its invariant holds under pressure and discards, and whatever breaks it is found."""

from typing import Any

import apsw
import pytest

from guests.workloads.proof import WrongContent
from guests.workloads.sqlite import ACCOUNTS_A_PAGE, BRANCHES, Sqlite, SqliteOptions
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import HypervisorGone

SMALL = {"database": "1MiB", "cache": "16KiB"}
HOSTS = [
    # a guest that holds all, one that must reclaim, and hosts that discard
    {"pages": 512},
    {"pages": 128},
    {"pages": 512, "mischief": 0.05},
    {"pages": 128, "mischief": 0.05, "ephemeral": 50, "refuse": 0.1},
    {"pages": 128, "features": ()},
]


def bank(prepare, host: dict[str, Any], **options: Any):
    return prepare("sqlite", SMALL | options, **host)


@pytest.mark.parametrize("host", HOSTS)
def test_the_bank_works_and_adds_up(prepare, host: dict[str, Any]) -> None:
    run = bank(prepare, host)
    run.steps(400)
    before = run.count(Count.PAGES_VERIFIED)
    run.workload.finish()
    run.kernel.check()
    assert run.count(Count.OPERATIONS) == 400
    assert run.count(Count.MISMATCHES) == 0
    assert run.count(Count.PAGES_VERIFIED) - before >= run.workload.file.pages, "the end reads every page"


def test_every_page_is_in_the_page_cache_when_the_work_begins(prepare) -> None:
    run = bank(prepare, {"pages": 512})
    assert run.count(Count.PAGES_VERIFIED) >= run.workload.file.pages
    assert run.kernel.free_pages <= 512 - run.workload.file.pages
    assert run.workload.file.pages == pytest.approx((1 << 20) / PAGE_SIZE, rel=0.05)


def test_what_was_paid_is_in_the_database(prepare) -> None:
    run = bank(prepare, {"pages": 128}, mix={"payment": 1, "transfer": 1})
    run.steps(300)
    accounts = dict(run.workload._sql("SELECT id, balance FROM accounts").fetchall())
    assert accounts == dict(enumerate(run.workload._balances))
    assert sum(1 for balance in accounts.values() if balance) > 50
    assert run.workload._sql("SELECT count(*) FROM history").fetchall()[0][0] > 300


def test_history_is_bounded(prepare) -> None:
    run = bank(prepare, {"pages": 512}, mix={"payment": 1}, sync_every=0)
    run.workload._history = run.workload._history[:50]
    run.steps(120)
    assert run.workload._sql("SELECT count(*), max(id) FROM history").fetchall() == [(50, 49)]
    run.workload.finish()


def statements(prepare, host: dict[str, Any], seed: int) -> list[Any]:
    run = prepare("sqlite", SMALL, seed=seed, record=True, **host)
    seen: list[Any] = []
    run.workload._connection.exec_trace = lambda cursor, sql, bound: seen.append((sql, bound)) or True
    run.steps(150)
    return seen + run.log


def test_the_same_seed_is_the_same_work_on_any_host(prepare) -> None:
    first = statements(prepare, HOSTS[0], 5)
    assert all(statements(prepare, host, 5) == first for host in HOSTS[1:])
    assert statements(prepare, HOSTS[0], 6) != first


def test_a_corrupted_page_is_found(prepare) -> None:
    run = bank(prepare, {"pages": 512})
    run.steps(50)
    run.guest.corrupt()
    with pytest.raises(WrongContent, match=r"wrong page: database, page [0-9]+: its checksum"):
        run.steps(200)
    assert run.count(Count.MISMATCHES) == 1


def test_a_page_of_an_older_version_is_found(prepare) -> None:
    """A page that is whole, was right once, and is not the latest: SQLite itself would believe it."""
    run = bank(prepare, {"pages": 512}, mix={"payment": 1}, theta=0)
    pages = [run.workload._cached.page(index) for index in range(run.workload.file.pages)]
    run.steps(100)
    run.workload.file.store.read = pages.__getitem__
    with pytest.raises(WrongContent, match="its checksum is not that of what SQLite last wrote there"):
        run.steps(100)


BREAKS = [
    ("UPDATE branches SET balance = balance + 1 WHERE id = 3", "the invariant is broken: branches and tellers"),
    ("UPDATE accounts SET balance = balance + 1 WHERE id = 7", "the invariant is broken: branch, its balance"),
    ("UPDATE history SET delta = delta + 1 WHERE id = 0", "rows and sum of history"),
    ("DELETE FROM history WHERE id = 1", "rows and sum of history"),
]


@pytest.mark.parametrize(("statement", "said"), BREAKS)
def test_a_broken_invariant_is_found(prepare, statement: str, said: str) -> None:
    run = bank(prepare, {"pages": 512}, mix={"payment": 1})
    run.steps(20)
    run.workload._sql(statement)
    with pytest.raises(WrongContent, match=said):
        run.workload.finish()


def test_a_wrong_balance_is_found_by_whoever_reads_it(prepare) -> None:
    run = bank(prepare, {"pages": 512}, mix={"read": 1}, theta=2)
    run.workload._sql("UPDATE accounts SET balance = 5")
    with pytest.raises(WrongContent, match=r"account [0-9]+ is \[\(5, [0-9]\)\], it should be \[\(0,"):
        run.steps(1)
    run = bank(prepare, {"pages": 512}, mix={"range": 1})
    run.workload._sql("UPDATE accounts SET balance = 5")
    with pytest.raises(WrongContent, match=r"accounts [0-9]+ to [0-9]+ are \[\(200, 1000\)\], not \[\(200, 0\)\]"):
        run.steps(1)


def test_what_the_kernel_raises_comes_through_sqlite(prepare) -> None:
    run = bank(prepare, {"pages": 128})

    def gone(_: int) -> bytes:
        raise HypervisorGone("gone")

    run.workload.file.store.read = gone
    with pytest.raises(HypervisorGone, match=r"^gone$"):
        run.steps(500)


def test_a_full_disk_is_an_error_of_sqlite(prepare) -> None:
    run = bank(prepare, {"pages": 512}, mix={"payment": 1})
    run.workload.file._most = run.workload.file.pages
    with pytest.raises(apsw.FullError):
        run.steps(2000)


def test_nothing_but_the_database_can_be_opened(prepare) -> None:
    run = bank(prepare, {"pages": 512})
    with pytest.raises(apsw.CantOpenError):
        run.workload._sql("ATTACH 'other' AS other")
    with pytest.raises(apsw.CantOpenError):
        run.workload._vfs.xOpen("bank-journal", [apsw.SQLITE_OPEN_MAIN_JOURNAL, 0])


def test_checkpoints_bound_what_is_dirty(prepare) -> None:
    never = bank(prepare, {"pages": 512}, mix={"payment": 1}, sync_every=0)
    often = bank(prepare, {"pages": 512}, mix={"payment": 1}, sync_every=10)
    for run in (never, often):
        run.steps(100)
    assert often.count(Count.GUEST_DISK_WRITES) > 50
    assert never.count(Count.GUEST_DISK_WRITES) < often.count(Count.GUEST_DISK_WRITES)


def test_kinds_come_as_often_as_the_mix_says(prepare) -> None:
    workload = Sqlite(SqliteOptions.model_validate(SMALL | {"sync_every": 0, "mix": {"read": 3, "transfer": 1}}), 1)
    counts = {"read": 0, "range": 0, "payment": 0, "transfer": 0}

    def counting(kind: str):
        return lambda: counts.update({kind: counts[kind] + 1})

    workload._kinds = tuple(counting(kind) for kind in counts)
    for _ in range(900):
        workload.operate()
    assert counts["range"] == counts["payment"] == 0
    assert counts["read"] == pytest.approx(675, abs=60)
    assert counts["read"] + counts["transfer"] == 900


def test_accounts_fill_the_size_asked_for() -> None:
    workload = Sqlite(SqliteOptions.model_validate({"database": "2MiB"}), 1)
    assert workload.accounts == 512 * ACCOUNTS_A_PAGE
    assert workload.accounts > BRANCHES
