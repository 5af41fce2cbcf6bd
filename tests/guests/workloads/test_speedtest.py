"""SQLite's speedtest: somebody else's program runs to its end here, right under pressure, and only here."""

import sys

import apsw
import pytest

from guests.workloads import speedtest
from guests.workloads.leave import Leave, Reason
from guests.workloads.proof import WrongContent
from shm.counters import Count

# Its own scale 1 takes a second a run on the fake: one test of it, and hosts that matter.
ONE = {"scale": 1, "cache": "1MiB", "tests": ["statements"]}


@pytest.fixture
def short(monkeypatch) -> None:
    """Let the program be a short one of the same door: connects as it does, and prints."""
    def run_module(program: str, run_name: str) -> None:
        assert (program, run_name) == ("apsw.speedtest", "__main__")
        print(sys.argv)
        vfs, place = sys.argv[sys.argv.index("--vfs") + 1], sys.argv[sys.argv.index("--database") + 1]
        for _ in range(speedtest.PASSES):
            connection = apsw.Connection(place, vfs=vfs)
            connection.execute("PRAGMA cache_size = -64; CREATE TABLE t(a); BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 "
                               "UNION ALL SELECT i + 1 FROM n WHERE i < 9000) INSERT INTO t SELECT printf('%0200d', i) "
                               "FROM n; COMMIT; SELECT count(*) FROM t WHERE a = ''").fetchall()
            connection.close()
    monkeypatch.setattr(speedtest.runpy, "run_module", run_module)


@pytest.mark.parametrize("host", [{"pages": 1000}, {"pages": 300, "mischief": 0.01}], ids=str)
def test_it_runs_to_its_end_and_its_database_is_sound(prepare, capfd, host) -> None:
    run = prepare("speedtest", ONE, **host)
    before = list(sys.argv), list(apsw.connection_hooks)
    run.steps(1)
    run.workload.finish()
    run.kernel.check()
    assert run.count(Count.MISMATCHES) == 0
    assert run.count(Count.PAGES_VERIFIED) > 1000
    assert run.workload.file.pages > 300
    assert (sys.argv, apsw.connection_hooks) == before
    assert capfd.readouterr() == ("", ""), "standard output is for events alone"


@pytest.mark.usefixtures("short")
def test_tests_take_turns_each_on_a_new_database(prepare, monkeypatch) -> None:
    run = prepare("speedtest", ONE | {"tests": ["statements", "bigstmt"]}, pages=1000)
    turns: list[str] = []
    calm = speedtest.runpy.run_module

    def noted(*arguments, **options) -> None:
        turns.append(sys.argv[sys.argv.index("--tests") + 1])
        calm(*arguments, **options)
    monkeypatch.setattr(speedtest.runpy, "run_module", noted)
    run.steps(3)
    assert turns == ["statements", "bigstmt", "statements"]


@pytest.mark.usefixtures("short")
def test_a_corrupted_page_is_found(prepare) -> None:
    run = prepare("speedtest", ONE, pages=1000)
    run.steps(1)
    run.guest.corrupt()
    with pytest.raises(WrongContent, match="wrong page: database"):
        run.workload.finish()


@pytest.mark.usefixtures("short")
def test_a_database_that_is_not_sound_is_found(prepare) -> None:
    run = prepare("speedtest", ONE, pages=1000)
    run.steps(1)
    page = bytearray(run.workload.file.store.read(5))
    page[0] ^= 0xFF                                  # written by the door itself, so its checksum is right
    run.workload.file.xWrite(bytes(page), 5 * 4096)
    with pytest.raises(WrongContent, match="SQLite's integrity_check says"):
        run.workload.finish()


@pytest.mark.usefixtures("short")
def test_the_same_work_on_any_host(prepare) -> None:
    logs = []
    for host in ({"pages": 1000}, {"pages": 300, "mischief": 0.01}, {"pages": 300, "features": ()}):
        run = prepare("speedtest", ONE, record=True, **host)
        run.steps(1)
        logs.append(run.log)
        run.workload.close()
    assert len(logs[0]) > 1000
    assert logs[1:] == [logs[0]] * 2


@pytest.mark.usefixtures("short")
def test_a_guest_that_is_to_leave_leaves_in_the_middle_of_it(prepare) -> None:
    reasons: list[Reason] = []

    def going_on() -> None:
        if reasons:
            raise Leave(reasons[0])
    run = prepare("speedtest", ONE, pages=1000, going_on=going_on)
    reasons.append(Reason(143))
    with pytest.raises(Leave):
        run.steps(1)
    assert 0 < run.count(Count.PAGES_VERIFIED) < 600
