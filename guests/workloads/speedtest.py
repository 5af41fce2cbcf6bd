"""SQLite's speedtest as apsw ships it, unmodified, on the guest kernel's page cache.

One operation is one run of its command line with one of its tests: two passes, the least that it allows, each on a new
database.  Its sections cannot be cut further from outside.  The tests take turns.

It is run as `python -m apsw.speedtest` runs it.  Two things are set for it from outside, by doors that apsw has for
that: the file system, and for each connection a journal in memory.  What it prints is thrown away.  Each page that
SQLite reads is compared with what it last wrote there (`vfs`), and after each run integrity_check looks at the whole
database.
"""

import io
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any, ClassVar, Literal

import apsw
from pydantic import Field

from guests.disk import Disk
from guests.workloads.base import GoingOn, Options, Workload, sized
from guests.workloads.vfs import DatabaseFile, DatabaseVFS, FileStore

PROGRAM = "apsw.speedtest"
PASSES = 2                      # it computes a deviation
PLACE = "/dev/null/speedtest"   # it removes a file of that name, if there is one: there can be none
PAGES_A_SCALE, PAGES_AT_LEAST = 1200, 2000     # of its disk
LOOK_EVERY = 256                # reads between two looks at whether the guest is to leave

Test = Literal["statements", "statements_nobindings", "bigstmt"]


class SpeedtestOptions(Options):
    scale: Annotated[int, Field(ge=1, le=100)] = 2      # its own measure: about so many MiB of database
    cache: sized(16 << 10, 64 << 20) = 256 << 10        # type: ignore[valid-type]  # SQLite's own cache
    tests: Annotated[list[Test], Field(min_length=1)] = ["statements", "statements_nobindings", "bigstmt"]


class Speedtest(Workload):
    """The foreign program.  `_turn`: how many runs there were."""

    Options: ClassVar[type[Options]] = SpeedtestOptions

    def __init__(self, options: SpeedtestOptions, seed: int) -> None:
        super().__init__(options, seed)
        self._turn = 0
        self._vfs: NewDatabaseVFS | None = None

    def set_up(self, going_on: GoingOn) -> None:
        room = PAGES_AT_LEAST + PAGES_A_SCALE * self.options.scale
        disk = self.owns(Disk.create(room, self.guest.counters))
        self._file = self.kernel.open(disk, 0, room, size=0)
        self.file = WatchedFile(FileStore(self._file), room, going_on)
        self.file.proof = self.proof
        self._vfs = NewDatabaseVFS(f"memcommons-{id(self):x}", self.file)

    def operate(self) -> bool:
        assert self._vfs is not None
        self._run(self._vfs, self.options.tests[self._turn % len(self.options.tests)])
        self._turn += 1
        self._check(self._vfs)
        return True

    def _run(self, vfs: "NewDatabaseVFS", test: Test) -> None:
        vfs.new = True
        with _command_line("--apsw", "--vfs", vfs.name, "--database", PLACE, "--tests", test, "--iterations",
                           str(PASSES), "--scale", str(self.options.scale), "--sqlite-cache",
                           str(self.options.cache / (1 << 20)), "--hide-runs"):
            runpy.run_module(PROGRAM, run_name="__main__")

    def _check(self, vfs: "NewDatabaseVFS") -> None:
        """Let SQLite look at the whole database that the last pass left."""
        vfs.new = False
        connection = apsw.Connection(PLACE, vfs=vfs.name, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            said = connection.execute("PRAGMA integrity_check").fetchall()
        except apsw.CorruptError as error:
            said = [(str(error),)]
        finally:
            connection.close(True)
        self.proof.holds(said == [("ok",)], f"SQLite's integrity_check says {said[:3]}")

    def finish(self) -> None:
        if self._turn and self._vfs is not None:
            self._check(self._vfs)
            self._file.sync()

    def close(self) -> None:
        if self._vfs is not None:
            self._vfs.unregister()
        self._vfs = None
        super().close()


class WatchedFile(DatabaseFile):
    """The database of a long run: looks now and then whether the guest is to leave."""

    def __init__(self, store: FileStore, most_pages: int, going_on: GoingOn) -> None:
        super().__init__(store, most_pages)
        self._going_on, self._reads = going_on, 0

    def xRead(self, amount: int, offset: int) -> bytes:
        self._reads += 1
        if self._reads % LOOK_EVERY == 0:
            self._going_on()
        return super().xRead(amount, offset)


class NewDatabaseVFS(DatabaseVFS):
    """A file system whose one file is empty whenever it is opened, as long as `new` says so."""

    new = True

    def xOpen(self, name: Any, flags: list[int]) -> DatabaseFile:  # type: ignore[override]
        file = super().xOpen(name, flags)
        if self.new:
            file.xTruncate(0)
        return file


@contextmanager
def _command_line(*arguments: str) -> Iterator[None]:
    """Let the process have this command line meanwhile, its output go nowhere, and journals lie in memory."""
    before, sys.argv = sys.argv, [PROGRAM, *arguments]
    apsw.connection_hooks.append(_journal_in_memory)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        apsw.connection_hooks.remove(_journal_in_memory)
        sys.argv = before


def _journal_in_memory(connection: apsw.Connection) -> None:
    connection.execute("PRAGMA journal_mode = MEMORY").fetchall()
