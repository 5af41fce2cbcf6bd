"""Pools: at most 16 a guest, numbered by the lowest free slot (Xen 4.2; T1-T6, T10, T11).

`serial` names a pool for ever: a page belongs to a serial, so a destroyed pool's number can be given again at once, and
nothing of the old pool is ever found under it.
"""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from shm.abi import (
    MAX_POOLS,
    PAGE_BITS_MASK,
    PAGE_BITS_SHIFT,
    RESERVED_FLAGS,
    TMEM_VERSION,
    VERSION_MASK,
    VERSION_SHIFT,
    PoolFlag,
    Status,
)


class PoolCount(IntEnum):
    """Counters of a pool, under the letters of Xen's list format."""

    PT = 0                   # puts asked
    PS = 1                   # puts stored
    PD = 2                   # duplicate puts that flushed
    PR = 3                   # duplicate puts that replaced
    PX = 4                   # puts refused
    GT = 5                   # gets asked
    GS = 6                   # gets that hit
    FT = 7                   # page flushes asked
    FS = 8                   # page flushes that found one
    OT = 9                   # object flushes asked
    OS = 10                  # object flushes that found one


@dataclass(eq=False)
class Pool:
    """One pool.  Written by the store alone."""

    serial: int
    owner: int               # the guest's number
    persistent: bool
    pages: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(PoolCount), np.int64))


def flags_status(flags: int) -> Status:
    """Check a pool's flags in Xen's order: version, page size, precompressed, reserved (T1-T4)."""
    if flags >> VERSION_SHIFT & VERSION_MASK != TMEM_VERSION:
        return Status.EPERM
    if flags >> PAGE_BITS_SHIFT & PAGE_BITS_MASK:
        return Status.EPERM
    if flags & (PoolFlag.PRECOMPRESSED | RESERVED_FLAGS):
        return Status.EPERM
    return Status.OK


class Pools:
    """The pools of all guests."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Pool | None]] = {}
        self._by_serial: dict[int, Pool] = {}
        self._serials = 0

    def create(self, owner: int, persistent: bool) -> int | None:
        """Make a pool for a guest; return its number, or None when all 16 are used."""
        slots = self._slots.setdefault(owner, [None] * MAX_POOLS)
        if None not in slots:
            return None
        number = slots.index(None)
        self._serials += 1
        slots[number] = self._by_serial[self._serials] = Pool(self._serials, owner, persistent)
        return number

    def get(self, owner: int, number: int) -> Pool | None:
        """Return the pool that a guest calls `number`, or None."""
        slots = self._slots.get(owner)
        return slots[number] if slots and 0 <= number < MAX_POOLS else None

    def of(self, owner: int) -> list[Pool]:
        return [pool for pool in self._slots.get(owner, ()) if pool]

    def all(self) -> list[Pool]:
        return list(self._by_serial.values())

    def by_serial(self, serial: int) -> Pool:
        return self._by_serial[serial]

    def remove(self, pool: Pool) -> None:
        slots = self._slots[pool.owner]
        slots[slots.index(pool)] = None
        del self._by_serial[pool.serial]
        if not any(slots):
            del self._slots[pool.owner]
