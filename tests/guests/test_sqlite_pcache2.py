"""SQLite with its pages in a guest: it works as with its own cache, and what fails in our calls is not swallowed."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from plain_guest import PlainGuest

from guests import sqlite_pcache2
from guests.sqlite_cache import CacheMemory
from guests.sqlite_pcache2 import PageCacheDoor
from shm.counters import Count
from shm.errors import HypervisorGone, OutOfMemory, UsageProblem

ROWS = 3000                      # of 200 bytes: 160 pages


class Bench:
    """A guest, its caches, and a database in them."""

    def __init__(self, path: Path, pages: int, **options) -> None:
        self.guest = PlainGuest(pages, **options)
        self.memory = CacheMemory(self.guest, range(pages))
        self.door = PageCacheDoor(self.guest, self.memory)
        self.door.set()
        self.base = sqlite3.connect(path / "base", isolation_level=None)
        self.sql = self.base.execute
        self.sql("PRAGMA journal_mode = MEMORY").fetchall()
        self.sql(f"PRAGMA cache_size = {pages}")

    def fill(self) -> None:
        self.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        self.sql("BEGIN")
        self.base.executemany("INSERT INTO t VALUES(?, ?)", ((n, f"{n:0200d}") for n in range(ROWS)))
        self.sql("COMMIT")

    def count(self, which: Count) -> int:
        return int(self.guest.counters[which])

    def right(self) -> bool:
        rows = self.sql("SELECT a, b FROM t").fetchall()
        return rows == [(n, f"{n:0200d}") for n in range(ROWS)]

    def close(self) -> None:
        self.base.close()
        self.door.take_back()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(pages: int = 256, **options) -> Bench:
        made.append(Bench(tmp_path, pages, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("host", [{"pages": 256}, {"pages": 256, "mischief": 0.05}, {"pages": 32}, {"pages": 32,
                                  "mischief": 0.05}, {"pages": 64, "features": ()}], ids=str)
def test_a_database_is_right_whatever_the_host_discards(bench, host) -> None:
    one = bench(**host)
    one.fill()
    for turn in range(3):
        one.sql("UPDATE t SET b = printf('%0200d', a + 1) WHERE a % 7 = ?", (turn,))
        one.sql("UPDATE t SET b = printf('%0200d', a) WHERE a % 7 = ?", (turn,))
        assert one.right()
    assert one.sql("PRAGMA integrity_check").fetchall() == [("ok",)]
    one.door.check()
    assert (one.count(Count.STABLE_FAILURES) > 0) == ("mischief" in host)
    assert (one.count(Count.RECLAIMED_PAGES) > 0) == (host["pages"] < 100)


def test_its_pages_are_pages_of_the_guest(bench) -> None:
    one = bench(mischief=0.0)
    one.fill()
    assert one.right()
    text = f"{ROWS - 1:0200d}".encode()
    assert any(text in row.tobytes() for row in one.guest.memory.rows)
    one.base.close()
    assert one.memory.free == 256 and not one.memory.caches


def test_sqlite_spills_where_no_page_is_left(bench) -> None:
    one = bench(pages=32)
    one.sql("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
    one.sql("BEGIN")                                 # all that is written is dirty until the end, and dirty is pinned
    one.base.executemany("INSERT INTO t VALUES(?, ?)", ((n, f"{n:0200d}") for n in range(ROWS)))
    assert one.door.refused > 100
    one.sql("COMMIT")
    assert one.right()
    one.door.check()


def test_tables_in_memory_vacuum_and_shrink(bench) -> None:
    one = bench(pages=512)
    one.sql("PRAGMA temp_store = MEMORY")
    one.fill()
    one.sql("CREATE TEMP TABLE mine AS SELECT * FROM t")
    one.guest.discard(range(512))
    assert one.sql("SELECT count(*) FROM mine JOIN t USING (a, b)").fetchall() == [(ROWS,)]
    one.sql("DELETE FROM t WHERE a >= 1500")
    one.sql("VACUUM")
    one.sql("PRAGMA shrink_memory")
    assert one.sql("SELECT count(*), sum(length(b)) FROM t").fetchall() == [(1500, 1500 * 200)]
    assert one.sql("PRAGMA integrity_check").fetchall() == [("ok",)]
    one.door.check()


def test_what_is_raised_in_a_call_comes_out_once(bench) -> None:
    one = bench()
    one.fill()

    def gone(order, gfn) -> int:
        raise HypervisorGone("gone")

    for cache in one.memory.caches.values():
        cache._essa_one = gone
    with pytest.raises(HypervisorGone, match=r"^gone$"):
        one.door.perform(one.right)
    one.door.check()
    for cache in one.memory.caches.values():
        cache._essa_one = one.guest.essa_one
    assert one.door.perform(one.right), "an error of ours has broken nothing"


def test_what_is_raised_where_sqlite_takes_no_answer_comes_out_too(bench) -> None:
    one = bench()
    one.fill()
    calm = one.memory._essa
    one.memory._essa = lambda order, gfns: _fail()
    with pytest.raises(OutOfMemory, match=r"^shrunk$"):
        one.door.perform(lambda: one.sql("PRAGMA shrink_memory"))
    one.memory._essa = calm


def _fail() -> None:
    raise OutOfMemory("shrunk")


def test_too_little_ram_is_said(bench) -> None:
    one = bench(pages=2)
    with pytest.raises(OutOfMemory, match="SQLite must have one more page, and all 2 are in use; give the guest more"):
        one.door.perform(one.fill)


def test_other_page_sizes_are_refused(bench) -> None:
    one = bench()
    with pytest.raises(UsageProblem, match=r"SQLite wants pages of 1024 bytes .*: use PRAGMA page_size = 4096"):
        one.door.perform(lambda: (one.sql("PRAGMA page_size = 1024"), one.fill()))


def test_not_while_a_connection_is_open(bench, tmp_path) -> None:
    one = bench()
    one.fill()
    with pytest.raises(UsageProblem, match="is open; close all of them before its own page cache can come back"):
        one.door.take_back()
    with pytest.raises(UsageProblem, match="is open; close all of them before its page cache can be replaced"):
        PageCacheDoor(one.guest, one.memory).set()
    assert one.right()


def test_taken_back_sqlite_has_its_own_cache_again(bench, tmp_path) -> None:
    one = bench()
    one.fill()
    one.close()
    before = one.count(Count.PAGE_CACHE_MISSES)
    other = sqlite3.connect(tmp_path / "base")
    assert other.execute("SELECT count(*) FROM t").fetchall() == [(ROWS,)]
    other.close()
    assert one.count(Count.PAGE_CACHE_MISSES) == before
    one.door.take_back()                             # twice is harmless


def test_plain_memory_is_needed() -> None:
    guest = SimpleNamespace(name="soft", memory=SimpleNamespace(), pages=8)
    with pytest.raises(UsageProblem, match=r"needs plain memory.*faults = .hardware"):
        PageCacheDoor(guest, CacheMemory(PlainGuest(8), range(8)))


def test_a_static_sqlite_is_said(monkeypatch) -> None:
    monkeypatch.setattr(sqlite_pcache2.ctypes, "CDLL", lambda name: SimpleNamespace())
    with pytest.raises(UsageProblem, match="this Python's sqlite3 is linked statically and hides SQLite's functions"):
        sqlite_pcache2.linked_sqlite()
