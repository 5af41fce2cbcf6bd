"""A bank on real SQLite, whose own page cache is the guest's memory: TPC-B's tables under transactions and scans.

    payment    an account, its branch and a teller change by the same amount; history takes a row
    read       one account by its number
    scan       `scan_rows` neighbours

The guest has no kernel: SQLite pins pages (stable) and lets them go (volatile), see `guests.sqlite_cache`.  The
database is a file of the machine without a name.  It needs plain memory, so hardware mode.

Every row read is compared whole: its text follows from its number and its balance, of which there is a copy in
ordinary memory.  Every page that SQLite finds again in the cache is compared with its checksum of when it was let go.
At the end all rows, the sums and SQLite's own integrity_check.

Writer of GUEST_DISK_READS and GUEST_DISK_WRITES here: what the kernel says that this process read and wrote, in pages,
looked up every COUNT_EVERY operations.  It reads and writes nothing else to speak of.
"""

import os
import sqlite3
import tempfile
from array import array
from bisect import bisect
from contextlib import suppress
from itertools import accumulate
from random import Random
from typing import Annotated, Any, ClassVar

import xxhash
from pydantic import Field, model_validator

from guests.device import Device
from guests.disk import DEFAULT_FOLDER
from guests.sqlite_cache import CacheMemory, Checksums
from guests.sqlite_pcache2 import PageCacheDoor, linked_sqlite
from guests.workloads.base import GoingOn, Options, Workload
from guests.workloads.choice import Skewed
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem

BRANCHES, TELLERS = 10, 100
HISTORY_SHARE = 4               # one row of history for that many accounts
BUILD_ROWS = 20_000             # a statement while building, and while all are checked
COUNT_EVERY, CHECK_EVERY = 100, 1000    # operations
STEP = 1_000_003                # of the text's number from account to account
START = 10 ** 15

SCHEMA = """
CREATE TABLE branches(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE tellers(id INTEGER PRIMARY KEY, branch INTEGER NOT NULL, balance INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE accounts(id INTEGER PRIMARY KEY, branch INTEGER NOT NULL, balance INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE history(id INTEGER PRIMARY KEY, account INTEGER NOT NULL, teller INTEGER NOT NULL, delta INTEGER NOT NULL,
                     filler TEXT NOT NULL);
"""
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) "
ADD_BRANCHES = NUMBERS + "INSERT INTO branches SELECT i, 0, printf('%088d', i) FROM n"
ADD_TELLERS = NUMBERS + f"INSERT INTO tellers SELECT i, i % {BRANCHES}, 0, printf('%084d', i) FROM n"
ADD_ACCOUNTS = NUMBERS + (f"INSERT INTO accounts SELECT i, i % {BRANCHES}, 0, printf('%084d', {START} + i * {STEP}) "
                          "FROM n")

READ = "SELECT id, branch, balance, filler FROM accounts WHERE id >= ? AND id < ?"
PAY = f"UPDATE accounts SET balance = balance + ?1, filler = printf('%084d', {START} + id * {STEP} + balance + ?1) " \
      "WHERE id = ?2"
ADD = tuple(f"UPDATE {table} SET balance = balance + ? WHERE id = ?" for table in ("branches", "tellers"))
NOTE = "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, '----------------------')"
TOTALS = "SELECT (SELECT sum(balance) FROM branches), (SELECT sum(balance) FROM tellers)"
HISTORY = "SELECT count(*), coalesce(sum(delta), 0) FROM history"

Weight = Annotated[int, Field(ge=0, le=1000)]


class Mix(Options):
    """How often each kind of operation comes, as weights.  A kind that is not named does not come."""

    payment: Weight = 0
    read: Weight = 0
    scan: Weight = 0

    @model_validator(mode="after")
    def _some(self) -> "Mix":
        if not any(self.weights):
            raise ValueError("all weights are 0; at least one kind of operation is needed")
        return self

    @property
    def weights(self) -> tuple[int, ...]:
        return self.payment, self.read, self.scan


class SqliteCacheOptions(Options):
    rows: Annotated[int, Field(ge=1000, le=100_000_000)] = 400_000   # accounts; 40 take a page
    cache: Annotated[int, Field(ge=10)] | None = None   # pages that the cache may have; None: all of the guest's
    theta: Annotated[float, Field(ge=0, le=2)] = 0.8    # skew of the choice of accounts
    scan_rows: Annotated[int, Field(ge=1, le=1000)] = 400
    mix: Mix = Mix(payment=50, read=40, scan=10)


class SqliteCache(Workload):
    """The bank.  `_balances`, `_history`, `_paid`: what the database must say, kept in ordinary memory."""

    Options: ClassVar[type[Options]] = SqliteCacheOptions
    has_kernel = False

    def __init__(self, options: SqliteCacheOptions, seed: int) -> None:
        super().__init__(options, seed)
        self._random = Random(seed)
        self._account = Skewed(options.rows, options.theta, self._random).choose
        self._balances = array("q", bytes(8 * options.rows))
        self._history = array("q", bytes(8 * (options.rows // HISTORY_SHARE)))
        self._noted = self._paid = self._done = 0
        self._kinds = (self._payment, self._read, self._scan)
        self._below = list(accumulate(options.mix.weights))
        self._connection: sqlite3.Connection | None = None
        self._door: PageCacheDoor | None = None

    @classmethod
    def check(cls, options: SqliteCacheOptions) -> None:  # noqa: ARG003
        linked_sqlite()

    # the database, built and opened

    def set_up(self, going_on: GoingOn) -> None:
        view = self.guest.memory.view
        if view is None:
            raise UsageProblem(f"guest {self.guest.name!r}: workload 'sqlite-cache' needs plain memory, which a guest "
                               'has in hardware mode alone: use faults = "hardware"')
        self.cache = CacheMemory(self.guest, range(self.guest.pages),
                                 Checksums(view, xxhash.xxh3_64_intdigest, self._compared))
        self._door = PageCacheDoor(self.guest, self.cache)
        self._door.set()
        self._traffic = Traffic(self._counters, device=self.device)
        self._door.perform(lambda: self._build(going_on))
        self._door.perform(lambda: self._check_all(going_on))

    def _compared(self, gfn: int, right: bool) -> None:
        self.proof.verified(1, None if right else f"wrong page: page {gfn} of SQLite's cache: its checksum is not that "
                                                  "of when SQLite let it go")

    def _build(self, going_on: GoingOn) -> None:
        self._connect()
        self._sql("BEGIN")
        for statement in SCHEMA.split(";"):
            self._sql(statement)
        self._sql(ADD_BRANCHES, (0, BRANCHES))
        self._sql(ADD_TELLERS, (0, TELLERS))
        for first in range(0, self.options.rows, BUILD_ROWS):
            going_on()
            self._sql(ADD_ACCOUNTS, (first, min(first + BUILD_ROWS, self.options.rows)))
        self._sql("COMMIT")

    def _connect(self) -> None:
        """Open a database of our own, whose file has no name any more: no death leaves it behind."""
        fd, path = tempfile.mkstemp(prefix="memcommons-sqlite-", dir=DEFAULT_FOLDER)
        os.close(fd)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._sql = self._connection.execute
            for setting in (f"page_size = {PAGE_SIZE}", "locking_mode = EXCLUSIVE", "journal_mode = MEMORY",
                            "synchronous = OFF", "temp_store = MEMORY", "mmap_size = 0",
                            f"cache_size = {self.options.cache or self.guest.pages}", "user_version = 1"):
                self._sql(f"PRAGMA {setting}").fetchall()
        finally:
            os.unlink(path)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        if self._door is not None:
            self._door.take_back()
        self._door = None
        super().close()

    # operations

    def operate(self) -> bool:
        assert self._door is not None
        self._door.perform(self._kinds[bisect(self._below, int(self._random.random() * self._below[-1]))])
        self._done += 1
        if self._done % COUNT_EVERY == 0:
            self._traffic.count()
        if self._done % CHECK_EVERY == 0:
            self._door.perform(self._check_totals)
        return True

    def _read(self) -> None:
        account = self._account()
        self._compare(account, account + 1)

    def _scan(self) -> None:
        first = min(self._account(), max(0, self.options.rows - self.options.scan_rows))
        self._compare(first, min(self.options.rows, first + self.options.scan_rows))

    def _compare(self, first: int, end: int) -> None:
        """Read accounts and compare every byte of them."""
        found = self._sql(READ, (first, end)).fetchall()
        expected = [(n, n % BRANCHES, balance, f"{START + n * STEP + balance:084d}")
                    for n, balance in enumerate(self._balances[first:end], first)]
        if found != expected:
            wrong = next((pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]),
                         (f"{len(found)} rows", f"{len(expected)} rows"))
            self.proof.wrong(f"wrong row: {wrong[0]}, it should be {wrong[1]}")

    def _payment(self) -> None:
        account, teller = self._account(), self._random.randrange(TELLERS)
        delta, row = self._random.randrange(-5000, 5001), self._noted % len(self._history)
        self._sql("BEGIN")
        self._sql(PAY, (delta, account))
        for statement, whose in zip(ADD, (account % BRANCHES, teller), strict=True):
            self._sql(statement, (delta, whose))
        self._sql(NOTE, (row, account, teller, delta))
        self._sql("COMMIT")
        self._balances[account] += delta
        self._history[row] = delta
        self._noted, self._paid = self._noted + 1, self._paid + delta

    # checks

    def _check_totals(self) -> None:
        found = self._sql(TOTALS).fetchall()
        self.proof.holds(found == [(self._paid, self._paid)],
                         f"the invariant is broken: branches and tellers sum to {found}, {self._paid} was paid in")

    def _check_all(self, going_on: GoingOn) -> None:
        self._check_totals()
        for first in range(0, self.options.rows, BUILD_ROWS):
            going_on()
            self._compare(first, min(first + BUILD_ROWS, self.options.rows))
        found = self._sql(HISTORY).fetchall()
        expected = [(min(self._noted, len(self._history)), sum(self._history))]
        self.proof.holds(found == expected, f"rows and sum of history are {found}, not {expected}")
        self._traffic.count()

    def _check_file(self) -> None:
        said = self._sql("PRAGMA integrity_check").fetchall()
        self.proof.holds(said == [("ok",)], f"SQLite's integrity_check says {said[:3]}")

    def finish(self) -> None:
        assert self._door is not None
        self._door.perform(lambda: self._check_all(lambda: None))
        self._door.perform(self._check_file)
        self._traffic.count()


class Traffic:
    """What this process reads and writes, in pages.  Writer of GUEST_DISK_READS and GUEST_DISK_WRITES.

    Each page is taken for a request of its own, and costs what `device` says, when it is counted.
    """

    def __init__(self, counters: Any, path: str = "/proc/self/io", device: Device | None = None) -> None:
        self._counters, self._path, self._device = counters, path, device
        self._reads = self._writes = self._own = 0
        self._base = self._now()

    def _now(self) -> tuple[int, int]:
        """Return the bytes read and written so far; nothing where the kernel does not tell."""
        with suppress(OSError), open(self._path, "rb", buffering=0) as file:
            text = file.read(4096)
            fields = dict(line.split(b": ") for line in text.splitlines())
            before, self._own = self._own, self._own + len(text)     # this look counts as a read from the next one on
            return int(fields[b"rchar"]) - before, int(fields[b"wchar"])
        return 0, 0

    def count(self) -> None:
        read, written = self._now()
        reads, writes = (read - self._base[0]) // PAGE_SIZE, (written - self._base[1]) // PAGE_SIZE
        fresh = max(0, reads - self._reads), max(0, writes - self._writes)
        self._counters[Count.GUEST_DISK_READS] += fresh[0]
        self._counters[Count.GUEST_DISK_WRITES] += fresh[1]
        if self._device is not None:
            self._device.passed(sum(fresh))
        self._reads, self._writes = max(reads, self._reads), max(writes, self._writes)
