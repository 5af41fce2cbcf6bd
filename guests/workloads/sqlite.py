"""A bank on real SQLite, through the guest kernel's page cache: TPC-B's tables under a mix of reads and transactions.

    payment    an account, its branch and a teller change by the same amount; history takes a row
    transfer   an amount moves between two accounts, each with its branch
    read       one account by its number
    range      the balances of 200 neighbours

Invariant: the accounts of a branch sum to its balance; tellers and branches sum to all that was ever paid in.
Beside SQLite's own file checks (`vfs`), each balance that a query returns is compared with a copy in ordinary memory.

History keeps its latest rows only, as many as a quarter of the accounts, so that the database has a bound.
The rollback journal is in SQLite's memory.  Every `sync_every` operations the dirty pages go to the disk, as at a
checkpoint.
"""

from array import array
from bisect import bisect
from itertools import accumulate
from random import Random
from typing import Annotated, ClassVar

import apsw
from pydantic import Field, model_validator

from guests.workloads.base import GoingOn, Options, Workload, pages_of, sized
from guests.workloads.choice import Skewed
from guests.workloads.image import Image
from guests.workloads.vfs import DatabaseFile, DatabaseVFS, FileStore, ImageStore

ACCOUNTS_A_PAGE = 41            # measured: rows of 84 bytes of text and three numbers
BRANCHES, TELLERS = 10, 100
HISTORY_SHARE = 4               # one row of history for that many accounts
RANGE = 200                     # accounts
BUILD_ROWS = 50_000             # a statement while building
CHECK_EVERY = 1000              # operations between two looks at the invariant

SCHEMA = """
CREATE TABLE branches(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE tellers(id INTEGER PRIMARY KEY, branch INTEGER NOT NULL, balance INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE accounts(id INTEGER PRIMARY KEY, branch INTEGER NOT NULL, balance INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE history(id INTEGER PRIMARY KEY, account INTEGER NOT NULL, teller INTEGER NOT NULL, branch INTEGER NOT NULL,
                     delta INTEGER NOT NULL, filler TEXT NOT NULL);
"""
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2) "
ADD_BRANCHES = NUMBERS + "INSERT INTO branches SELECT i, 0, printf('%088d', i) FROM n"
ADD_TELLERS = NUMBERS + f"INSERT INTO tellers SELECT i, i % {BRANCHES}, 0, printf('%084d', i) FROM n"
ADD_ACCOUNTS = NUMBERS + f"INSERT INTO accounts SELECT i, i % {BRANCHES}, 0, printf('%084d', i) FROM n"

READ = "SELECT balance, branch FROM accounts WHERE id = ?"
READ_RANGE = "SELECT count(*), sum(balance) FROM accounts WHERE id >= ? AND id < ?"
PAY = tuple(f"UPDATE {table} SET balance = balance + ? WHERE id = ?" for table in ("accounts", "branches", "tellers"))
NOTE = "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?, ?, '----------------------')"
TOTALS = "SELECT (SELECT sum(balance) FROM branches), (SELECT sum(balance) FROM tellers)"
UNEVEN = ("SELECT b.id, b.balance, a.total FROM branches b JOIN (SELECT branch, sum(balance) AS total FROM accounts "
          "GROUP BY branch) a ON a.branch = b.id WHERE a.total <> b.balance")
HISTORY = "SELECT count(*), coalesce(sum(delta), 0) FROM history"

Weight = Annotated[int, Field(ge=0, le=1000)]


class Mix(Options):
    """How often each kind of operation comes, as weights.  A kind that is not named does not come."""

    read: Weight = 0
    range: Weight = 0
    payment: Weight = 0
    transfer: Weight = 0

    @model_validator(mode="after")
    def _some(self) -> "Mix":
        if not any(self.weights):
            raise ValueError("all weights are 0; at least one kind of operation is needed")
        return self

    @property
    def weights(self) -> tuple[int, ...]:
        return self.read, self.range, self.payment, self.transfer


class SqliteOptions(Options):
    database: sized(1 << 20, 4 << 30) = 64 << 20      # type: ignore[valid-type]  # size of the database when built
    cache: sized(16 << 10, 64 << 20) = 64 << 10       # type: ignore[valid-type]  # SQLite's own cache
    theta: Annotated[float, Field(ge=0, le=2)] = 0.8  # skew of the choice of accounts
    sync_every: Annotated[int, Field(ge=0)] = 500     # operations between two checkpoints; 0: never
    mix: Mix = Mix(read=45, range=5, payment=35, transfer=15)


class Sqlite(Workload):
    """The bank.  `_balances`, `_history`, `_paid`: what the database must say, kept in ordinary memory."""

    Options: ClassVar[type[Options]] = SqliteOptions

    def __init__(self, options: SqliteOptions, seed: int) -> None:
        super().__init__(options, seed)
        self.accounts = pages_of(options.database) * ACCOUNTS_A_PAGE
        self._random = Random(seed)
        self._account = Skewed(self.accounts, options.theta, self._random).choose
        self._balances = array("q", bytes(8 * self.accounts))
        self._history = array("q", bytes(8 * (self.accounts // HISTORY_SHARE)))
        self._noted = self._paid = self._done = 0
        self._kinds = (self._read, self._range, self._payment, self._transfer)
        self._below = list(accumulate(options.mix.weights))
        self._connection: apsw.Connection | None = None
        self._vfs: DatabaseVFS | None = None

    # -- the database, built and opened

    def set_up(self, going_on: GoingOn) -> None:
        room = pages_of(self.options.database) * 3 // 2 + 64
        with Image(room, "give the workload a smaller database") as image:
            self.file = DatabaseFile(ImageStore(image), room)
            self._vfs = DatabaseVFS(f"memcommons-{id(self):x}", self.file)
            self._connect("OFF")
            self._build(going_on)
            self._disconnect()
            disk = self.owns(image.disk(self.guest.counters))
        self._cached = self.kernel.open(disk, 0, room, size=self.file.xFileSize())
        self.file.store, self.file.proof = FileStore(self._cached), self.proof
        self._connect("MEMORY")
        going_on()
        self._check_all()                    # reads every page: the working set is in memory before the work begins

    def _connect(self, journal: str) -> None:
        assert self._vfs is not None
        self._connection = apsw.Connection("bank", vfs=self._vfs.name)
        self._sql = self._connection.cursor().execute
        for setting in ("page_size = 4096", "locking_mode = EXCLUSIVE", f"journal_mode = {journal}",
                        "synchronous = OFF", "temp_store = MEMORY", "mmap_size = 0",
                        f"cache_size = -{self.options.cache >> 10}"):
            self._sql(f"PRAGMA {setting}").fetchall()

    def _build(self, going_on: GoingOn) -> None:
        self._sql("BEGIN")
        self._sql(SCHEMA)
        self._sql(ADD_BRANCHES, (0, BRANCHES))
        self._sql(ADD_TELLERS, (0, TELLERS))
        for first in range(0, self.accounts, BUILD_ROWS):
            going_on()
            self._sql(ADD_ACCOUNTS, (first, min(first + BUILD_ROWS, self.accounts)))
        self._sql("COMMIT")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close(True)
        self._connection = None

    def close(self) -> None:
        self._disconnect()
        if self._vfs is not None:
            self._vfs.unregister()
        self._vfs = None
        super().close()

    # -- operations

    def operate(self) -> bool:
        self._kinds[bisect(self._below, int(self._random.random() * self._below[-1]))]()
        self._done += 1
        if self.options.sync_every and self._done % self.options.sync_every == 0:
            self._cached.sync()
        if self._done % CHECK_EVERY == 0:
            self._check_totals()
        return True

    def _read(self) -> None:
        account = self._account()
        found = self._sql(READ, (account,)).fetchall()
        expected = [(self._balances[account], account % BRANCHES)]
        self.proof.holds(found == expected, f"account {account} is {found}, it should be {expected}")

    def _range(self) -> None:
        first = min(self._account(), self.accounts - RANGE)
        found = self._sql(READ_RANGE, (first, first + RANGE)).fetchall()
        expected = [(RANGE, sum(self._balances[first:first + RANGE]))]
        self.proof.holds(found == expected, f"accounts {first} to {first + RANGE - 1} are {found}, not {expected}")

    def _payment(self) -> None:
        account, delta = self._account(), self._random.randrange(-5000, 5001)
        self._sql("BEGIN")
        self._pay(account, self._random.randrange(TELLERS), delta)
        self._sql("COMMIT")

    def _transfer(self) -> None:
        source, target, amount = self._account(), self._account(), self._random.randrange(1, 5001)
        teller = self._random.randrange(TELLERS)
        self._sql("BEGIN")
        self._pay(source, teller, -amount)
        self._pay(target, teller, amount)
        self._sql("COMMIT")

    def _pay(self, account: int, teller: int, delta: int) -> None:
        """Change the three balances and note it, in the database and in our copy of it."""
        branch, row = account % BRANCHES, self._noted % len(self._history)
        for statement, whose in zip(PAY, (account, branch, teller), strict=True):
            self._sql(statement, (delta, whose))
        self._sql(NOTE, (row, account, teller, branch, delta))
        self._balances[account] += delta
        self._history[row] = delta
        self._noted, self._paid = self._noted + 1, self._paid + delta

    # -- checks

    def _check_totals(self) -> None:
        found = self._sql(TOTALS).fetchall()
        self.proof.holds(found == [(self._paid, self._paid)],
                         f"the invariant is broken: branches and tellers sum to {found}, {self._paid} was paid in")

    def _check_all(self) -> None:
        self._check_totals()
        uneven = self._sql(UNEVEN).fetchall()
        self.proof.holds(not uneven, f"the invariant is broken: branch, its balance, its accounts' sum: {uneven[:3]}")
        found = self._sql(HISTORY).fetchall()
        expected = [(min(self._noted, len(self._history)), sum(self._history))]
        self.proof.holds(found == expected, f"rows and sum of history are {found}, not {expected}")

    def finish(self) -> None:
        self._check_all()
        said = self._sql("PRAGMA integrity_check").fetchall()
        self.proof.holds(said == [("ok",)], f"SQLite's integrity_check says {said[:3]}")
        self._cached.sync()
