"""LMDB, as it is: it maps its database and reads it with plain loads, and that database is the guest's memory.

    get       one value by its key
    scan      `scan` neighbours, by a cursor
    update    UPDATED values anew in one transaction; one transaction in ABORT_EVERY is aborted

The guest has no kernel.  A file of the machine holds the database, page for page as the guest's memory: LMDB opens the
memory object as its data file, and the mapping that it makes is adopted.  It needs plain memory, so hardware mode.

    updates = 0    read transactions alone.  Every page is volatile from the start, with its block as its source
    else           WRITEMAP: LMDB stores through the mapping.  Every page is potentially volatile: a clean one may be
                   discarded and comes back from the file, a dirty one is preserved.  Every `sync_every` updates the
                   dirty pages are written to the file, and are clean and potentially volatile again

Every value read is compared whole; it follows from its key, its version, and the seed.  At the end all are read, and
where there were updates once more out of the file, by an LMDB that knows nothing of guests.

PAGES_VERIFIED counts bytes of values here, by 4096.
"""

import os
import tempfile
from contextlib import suppress
from random import Random
from typing import Annotated, Any, ClassVar

import lmdb
import numpy as np
from pydantic import Field, model_validator

from guests.disk import DEFAULT_FOLDER, Disk
from guests.hardware import HardwareMemory
from guests.workloads.base import GoingOn, Options, Workload, pages_of, sized
from guests.workloads.choice import Skewed
from shm.abi import PAGE_SIZE
from shm.errors import MemcommonsError, UsageProblem
from shm.pagestate import CONTENT_MASK, RESIDENT, Essa
from shm.units import format_size

SHORT, LONG = 400, 4080         # bytes of a value; a long one has a page of its own
LONG_EVERY = 16                 # one key in that many has a long value
KEYS_A_PAGE = 5.7               # measured, of a database built in the order of its keys
UPDATED, ABORT_EVERY = 4, 8     # values of a transaction; transactions
UPDATE_ROOM = 125               # per cent of the database: an update writes to other pages than those it replaces
CLEANED_AT_ONCE = 64            # pages
NOISE = 1 << 20                 # bytes that values are cut from
BUILD_KEYS = 10_000             # a transaction while building
META_PAGES = 2                  # those that LMDB reads before its mapping can be adopted

Fraction = Annotated[float, Field(ge=0, le=1)]


class LmdbOptions(Options):
    database: sized(256 << 10, 4 << 30) = 48 << 20    # type: ignore[valid-type]  # its size when built
    theta: Annotated[float, Field(ge=0, le=2)] = 0.6  # skew of the choice of keys
    scan: Annotated[int, Field(ge=1, le=10_000)] = 200    # keys of a scan
    scans: Fraction = 0.05                            # of all operations
    updates: Fraction = 0.0                           # of all operations; the rest are gets
    sync_every: Annotated[int, Field(ge=1)] = 200     # updates between two writings to the file

    @model_validator(mode="after")
    def _shares(self) -> "LmdbOptions":
        if self.scans + self.updates > 1:
            raise ValueError(f"scans and updates are {self.scans + self.updates:g} of all operations together; "
                             "at most 1")
        return self


class Values:
    """What each key's value is, in ordinary memory: its version."""

    def __init__(self, keys: int, seed: int) -> None:
        self.versions = [0] * keys
        self._noise = np.random.Generator(np.random.PCG64(seed)).bytes(NOISE + LONG)

    def of(self, key: int, version: int | None = None) -> bytes:
        """Return a key's value, of its present version if none is named."""
        if version is None:
            version = self.versions[key]
        at = (key * 1_000_003 + version * 7919) % NOISE
        head = key.to_bytes(8, "big") + version.to_bytes(8, "big")
        return head + self._noise[at:at + (SHORT if key % LONG_EVERY else LONG) - len(head)]


class Lmdb(Workload):
    """The database, its file, and what it must say."""

    Options: ClassVar[type[Options]] = LmdbOptions
    has_kernel = False

    def __init__(self, options: LmdbOptions, seed: int) -> None:
        super().__init__(options, seed)
        self.keys = int(pages_of(options.database) * KEYS_A_PAGE)
        self.values = Values(self.keys, seed)
        self._random = Random(seed)
        self._key = Skewed(self.keys, options.theta, self._random).choose
        self._env: lmdb.Environment | None = None
        self._compared = self._updates = 0

    # the database, built, mapped and adopted

    def set_up(self, going_on: GoingOn) -> None:
        self.memory = self._plain_memory()
        self.pages = np.arange(self.guest.pages)
        self.file = self.owns(self._built(going_on))
        self.memory.sources.set(self.pages, self.memory.sources.register(self.file), self.pages)
        self.guest.essa(Essa.SET_VOLATILE, self.pages)
        self._open()
        if self.options.updates:
            for first in range(0, self.guest.pages, CLEANED_AT_ONCE):
                going_on()
                self._clean(self.pages[first:first + CLEANED_AT_ONCE])
                self._relax(self.pages[first:first + CLEANED_AT_ONCE])
        self._check_all(going_on)            # reads every value: what there is room for is in memory before the work

    def _plain_memory(self) -> HardwareMemory:
        if isinstance(self.guest.memory, HardwareMemory):
            return self.guest.memory
        raise UsageProblem(f"guest {self.guest.name!r}: workload 'lmdb' needs plain memory, which a guest has in "
                           'hardware mode alone: use faults = "hardware"')

    def _built(self, going_on: GoingOn) -> Disk:
        """Build the database in a file without a name, and make that as long as the guest's memory."""
        size = self.guest.pages * PAGE_SIZE
        most = 2 * self.options.database + (1 << 20)
        with tempfile.TemporaryFile(dir=DEFAULT_FOLDER) as file:
            path = f"/proc/self/fd/{file.fileno()}"
            with lmdb.open(path, subdir=False, lock=False, sync=False, map_size=most) as env:
                for first in range(0, self.keys, BUILD_KEYS):
                    going_on()
                    with env.begin(write=True) as transaction:
                        for key in range(first, min(first + BUILD_KEYS, self.keys)):
                            transaction.put(_named(key), self.values.of(key), append=True)
            self._need_room(os.fstat(file.fileno()).st_size)
            os.ftruncate(file.fileno(), size)
            return Disk.open(path, self.guest.counters, writable=True)

    def _need_room(self, built: int) -> None:
        size = self.guest.pages * PAGE_SIZE
        need = built * UPDATE_ROOM // 100 if self.options.updates else built
        if need > size:
            raise UsageProblem(f"guest {self.guest.name!r}: workload 'lmdb' needs {format_size(need)} for this "
                               f"database, and the guest's RAM is {format_size(size)}; give it more, or a smaller "
                               "database")

    def _open(self) -> None:
        """Let LMDB open the memory, and adopt its mapping.  What it reads meanwhile is pinned."""
        with self.memory.pin(0, META_PAGES):
            self._env = lmdb.open(self.memory.path, subdir=False, lock=False, sync=False, metasync=False,
                                  writemap=self.options.updates > 0, map_size=self.guest.pages * PAGE_SIZE)
            (address,) = self.memory.mapped_by_others()
            self.memory.adopt(address)
        self.guest.essa(Essa.SET_VOLATILE, self.pages[:META_PAGES])

    def close(self) -> None:
        """Take the memory back before LMDB unmaps it."""
        if self._env is not None:
            with suppress(MemcommonsError):  # the hypervisor is gone, and this process goes too
                self.memory.map_own()
            self._env.close()
        self._env = None
        super().close()

    # operations

    def operate(self) -> bool:
        choice = self._random.random()
        if choice < self.options.updates:
            self._update()
        elif choice < self.options.updates + self.options.scans:
            self._scan(self._key(), self.options.scan)
        else:
            self._get(self._key())
        return True

    def _get(self, key: int) -> None:
        assert self._env is not None
        with self._env.begin() as transaction:
            self._compare(key, transaction.get(_named(key)))

    def _scan(self, first: int, count: int) -> None:
        assert self._env is not None
        last = min(first + count, self.keys) - 1
        with self._env.begin() as transaction:
            self._compare_all(transaction, first, last)

    def _update(self) -> None:
        """Write some values anew; an aborted transaction must leave no trace."""
        assert self._env is not None
        self._updates += 1
        keys = sorted({self._key() for _ in range(UPDATED)})
        transaction = self._env.begin(write=True)
        for key in keys:
            self._compare(key, transaction.get(_named(key)))
            transaction.put(_named(key), self.values.of(key, self.values.versions[key] + 1))
        if self._updates % ABORT_EVERY == 0:
            transaction.abort()
        else:
            transaction.commit()
            for key in keys:
                self.values.versions[key] += 1
        if self._updates % self.options.sync_every == 0:
            self._write_back()

    # the guest's part: dirty pages go to the file

    def _write_back(self) -> None:
        dirty = self.pages[self.memory.dirty(self.pages)]
        for at in range(0, len(dirty), CLEANED_AT_ONCE):
            pages = dirty[at:at + CLEANED_AT_ONCE]
            self._clean(pages)
            self.file.write_many(pages, self.memory.read_many(pages))
            self._relax(pages)

    def _clean(self, pages: np.ndarray) -> None:
        """Test, make stable, clear: in that order (R36).  LMDB stores to nothing meanwhile: this is its thread."""
        self.memory.make_stable(pages)
        self.memory.clear_dirty(pages)

    def _relax(self, pages: np.ndarray) -> None:
        """Let clean pages be P.  What has no frame just now becomes V by it, and a later store to it could be lost: it
        is had back, and stays stable until it is dirty and written again."""
        old = self.guest.essa(Essa.SET_POT_VOLATILE, pages)
        self.memory.make_stable(pages[old & CONTENT_MASK != RESIDENT])

    # checks

    def _compare(self, key: int, found: Any) -> None:
        """Compare a value whole, and count it."""
        expected = self.values.of(key)
        if found != expected:
            self.proof.wrong(f"wrong value: key {key}, version {self.values.versions[key]}: "
                             f"{'none' if found is None else found[:24].hex(' ')} is there")
        self._compared += len(expected)
        if self._compared >= PAGE_SIZE:
            self.proof.verified(self._compared // PAGE_SIZE)
            self._compared %= PAGE_SIZE

    def _compare_all(self, transaction: lmdb.Transaction, first: int, last: int) -> None:
        """Compare the keys from `first` to `last`, as a cursor finds them: each of them and no other."""
        expected = first
        with transaction.cursor() as cursor:
            found = cursor.set_range(_named(first))
            while found and expected <= last:
                self.proof.holds(cursor.key() == _named(expected), f"key {cursor.key().hex()} is there, not {expected}")
                self._compare(expected, cursor.value())
                expected, found = expected + 1, cursor.next()
            self.proof.holds(expected == last + 1, f"the database ends before key {expected}")
            self.proof.holds(last + 1 < self.keys or not found, "the database has keys that nobody wrote")

    def _check_all(self, going_on: GoingOn) -> None:
        for first in range(0, self.keys, BUILD_KEYS):
            going_on()
            self._scan(first, BUILD_KEYS)

    def finish(self) -> None:
        self._check_all(lambda: None)
        if not self.options.updates:
            return
        self._write_back()
        with lmdb.open(f"/proc/self/fd/{self.file.fileno()}", subdir=False, lock=False, readonly=True) as env:
            with env.begin() as transaction:
                self._compare_all(transaction, 0, self.keys - 1)


def _named(key: int) -> bytes:
    return key.to_bytes(8, "big")
