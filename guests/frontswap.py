"""Frontswap: the swap disk's client of tmem.  A page going out is offered to a persistent private pool first.

Rule 1: a slot whose bit is set is in the pool, and with writethrough on the disk too; a slot whose bit is clear is on
        the disk alone (T105, T106).
Rule 2: a store that is refused leaves nothing in the pool, not even an older copy: bit cleared, handle invalidated.
Rule 3: a load leaves the page in the pool; it goes when its slot is freed.  With exclusive gets the slot is freed as
        soon as the page is in memory: memory then has the only copy, and the page is dirty (T105).
Rule 4: (swap type, slot) <-> (object, index) is a bijection, low bits of the slot to the object (T107).  A pool can
        serve several swap disks, each of a type of its own: nothing here touches another type's handles (T108).

The pool cannot forget: a load that misses is the hypervisor's broken promise, and no disk holds another copy.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shm.counters import Count
from shm.errors import BrokenInvariant

if TYPE_CHECKING:
    from guests.pool import Pool

XEN_BITS = 4                 # 16 objects a swap disk, as Xen's driver has it
ZCACHE_BITS = 27             # as zcache had it: as good as one object a slot


class Mode(NamedTuple):
    """How the frontswap of a kernel works (Linux: frontswap_writethrough, frontswap_tmem_exclusive_gets)."""

    writethrough: bool = False                       # what the pool takes is written to the disk as well
    exclusive: bool = False                          # what is read back leaves the pool


KEPT = Mode()


def handle_of(slot: int, swap_type: int = 0, bits: int = XEN_BITS) -> tuple[int, int]:
    """Return the (object, index) under which a slot is stored."""
    return swap_type << bits | slot & (1 << bits) - 1, slot >> bits


def slot_of(oid: int, index: int, bits: int = XEN_BITS) -> tuple[int, int]:
    """Return the (slot, swap type) that a handle stands for: `handle_of` undone."""
    return index << bits | oid & (1 << bits) - 1, oid >> bits


class Frontswap:
    """The frontswap of one swap disk of `slots` pages."""

    def __init__(self, pool: "Pool", slots: int, counters: memoryview, swap_type: int = 0, bits: int = XEN_BITS,
                 mode: Mode = KEPT) -> None:
        self.mode = mode
        self._pool = pool
        self._counters = counters
        self._type, self._bits = swap_type, bits
        self._there = np.zeros(slots, bool)          # the bit of each slot; written here alone

    @property
    def pages(self) -> int:
        """How many slots are in the pool."""
        return int(np.count_nonzero(self._there))

    def store(self, slots: np.ndarray, pages: np.ndarray) -> np.ndarray:
        """Offer `pages` (n, 4096) for their slots; say which of them were taken (bool)."""
        oids, indexes = self._handles(slots)
        taken = np.asarray(self._pool.put_many(oids, indexes, pages), bool)
        self.invalidate(slots[~taken])
        self._there[slots[taken]] = True
        self._counters[Count.FRONTSWAP_STORES] += int(np.count_nonzero(taken))
        self._counters[Count.FRONTSWAP_FAILED] += int(np.count_nonzero(~taken))
        return taken

    def holds(self, slots: np.ndarray) -> np.ndarray:
        """Say which slots are in the pool (bool); the others are on the disk."""
        return self._there[slots]

    def first(self, count: int) -> np.ndarray:
        """Return up to `count` of the slots that are in the pool, in their order."""
        return np.flatnonzero(self._there)[:max(0, count)]

    def load(self, slots: np.ndarray) -> np.ndarray:
        """Return the pages of slots that the pool holds, (n, 4096) uint8."""
        oids, indexes = self._handles(slots)
        hit, pages = self._pool.get_many(oids, indexes)
        if not np.all(hit):
            raise BrokenInvariant(f"the persistent pool lost swap slot {slots[~np.asarray(hit, bool)][0]}")
        self._counters[Count.FRONTSWAP_LOADS] += len(slots)
        return pages

    def invalidate(self, slots: np.ndarray) -> None:
        """Drop the copies of some slots (Linux: invalidate_page)."""
        stored = slots[self._there[slots]]
        if not len(stored):
            return
        self._pool.flush_many(*self._handles(stored))
        self._there[stored] = False
        self._counters[Count.FRONTSWAP_INVALIDATES] += len(stored)

    def invalidate_area(self) -> None:
        """Drop the copies of every slot of this swap disk, and of no other: swapoff (T108)."""
        self.invalidate(np.flatnonzero(self._there))

    def close(self) -> None:
        """Destroy the pool: every slot it held is lost, so whoever calls this has no more use for them."""
        self._pool.destroy()
        self._there[:] = False

    def _handles(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `handle_of` over an array: oids (n, 3) uint64 and indexes (n,)."""
        oids = np.zeros((len(slots), 3), np.uint64)
        oids[:, 0] = self._type << self._bits | slots & (1 << self._bits) - 1
        return oids, slots >> self._bits
