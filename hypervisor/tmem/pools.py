"""Pools: at most 16 a guest, numbered by the lowest free slot (Xen 4.2; T1-T6, T10, T11), and shared ones (T71-T82).

`serial` names a pool for ever: a page belongs to a serial, so a destroyed pool's number can be given again at once, and
nothing of the old pool is ever found under it.

A shared pool stands in a slot of each member.  Its first member owns it: its pages are counted to the owner.
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
    U64,
    VERSION_MASK,
    VERSION_SHIFT,
    PoolFlag,
    Status,
)

MAX_SHARED = 16              # shared pools a host (Xen 4.2, T75)
NO_UUID = (U64, U64)         # a shared pool of this name is silently private (T72)
PRIVATE = (0, 0)             # what a private pool has in place of a uuid
Uuid = tuple[int, int]


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
    uuid: Uuid = PRIVATE
    members: list[int] = field(default_factory=list)         # guests of a shared pool, the owner first
    pages: int = 0
    most_pages: int = 0
    objects: int = 0
    most_objects: int = 0
    evicted: int = 0         # pages that went for room
    flushed: int = 0         # pages that object flushes took
    withdrawn: int = 0       # pages that went with a member that left
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(PoolCount), np.int64))

    @property
    def shared(self) -> bool:
        return self.uuid != PRIVATE

    @property
    def exclusive(self) -> bool:
        """Whether a get takes the page out: ephemeral and private (Xen 4.2; tmem.md 2.1)."""
        return not self.persistent and not self.shared


def flags_status(flags: int) -> Status:
    """Check a pool's flags in Xen's order: version, page size, precompressed, reserved (T1-T4)."""
    if flags >> VERSION_SHIFT & VERSION_MASK != TMEM_VERSION:
        return Status.EPERM
    if flags >> PAGE_BITS_SHIFT & PAGE_BITS_MASK:
        return Status.EPERM
    if flags & (PoolFlag.PRECOMPRESSED | RESERVED_FLAGS):
        return Status.EPERM
    return Status.OK


def flags_of(pool: Pool) -> int:
    """Return the flags with which a pool like this one is made."""
    kind = (PoolFlag.PERSIST if pool.persistent else 0) | (PoolFlag.SHARED if pool.shared else 0)
    return TMEM_VERSION << VERSION_SHIFT | kind


class Pools:
    """The pools of all guests."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Pool | None]] = {}
        self._by_serial: dict[int, Pool] = {}
        self._serials = 0
        self.shared: dict[Uuid, Pool] = {}

    def free_slot(self, owner: int) -> int | None:
        """Return the lowest pool number that a guest has free, or None when all 16 are used."""
        slots = self._slots.get(owner)
        if slots is None:
            return 0
        return slots.index(None) if None in slots else None

    def create(self, owner: int, number: int, persistent: bool, uuid: Uuid = PRIVATE) -> Pool:
        """Make a pool in a free slot of a guest, which owns it."""
        self._serials += 1
        pool = self._by_serial[self._serials] = Pool(self._serials, owner, persistent, uuid)
        if pool.shared:
            self.shared[uuid] = pool
        self.join(pool, owner, number)
        return pool

    def join(self, pool: Pool, guest: int, number: int) -> None:
        """Put a pool into a free slot of a guest."""
        self._slots.setdefault(guest, [None] * MAX_POOLS)[number] = pool
        pool.members.append(guest)

    def leave(self, pool: Pool, guest: int) -> None:
        """Take a pool out of a guest's slot; the next member owns it from then on."""
        slots = self._slots[guest]
        slots[slots.index(pool)] = None
        if not any(slots):
            del self._slots[guest]
        pool.members.remove(guest)
        if guest == pool.owner and pool.members:
            pool.owner = pool.members[0]

    def remove(self, pool: Pool) -> None:
        """Forget a pool that has no members and no pages."""
        del self._by_serial[pool.serial]
        if pool.shared:
            del self.shared[pool.uuid]

    def get(self, owner: int, number: int) -> Pool | None:
        """Return the pool that a guest calls `number`, or None."""
        slots = self._slots.get(owner)
        return slots[number] if slots and 0 <= number < MAX_POOLS else None

    def numbered(self, owner: int) -> list[tuple[int, Pool]]:
        """Return a guest's pools, shared ones too, with their numbers."""
        return [(number, pool) for number, pool in enumerate(self._slots.get(owner, ())) if pool]

    def of(self, owner: int) -> list[Pool]:
        """Return the pools in a guest's slots, shared ones too."""
        return [pool for pool in self._slots.get(owner, ()) if pool]

    def owned(self, owner: int) -> list[Pool]:
        """Return the pools whose pages are counted to a guest."""
        return [pool for pool in self._slots.get(owner, ()) if pool and pool.owner == owner]

    def all(self) -> list[Pool]:
        return list(self._by_serial.values())

    def by_serial(self, serial: int) -> Pool:
        return self._by_serial[serial]
