"""The guest's swap space: slots, each in frontswap or on the swap disk.

Rule 1: a slot is free or belongs to one page of one region; it keeps that page's bytes until it is released.
Rule 2: a store goes to frontswap first; what that refuses goes to the disk, in runs of neighbouring slots, and with
        writethrough all of it does.
Rule 3: releasing a slot invalidates its copy in frontswap.  A page of swap cache is made stable before (R38): that is
        its owner's duty.

Without a swap disk there are no slots, with or without frontswap: a frontswap page needs a real slot behind it.
"""

import numpy as np

from guests.disk import Disk
from guests.frontswap import Frontswap
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant


class SwapSpace:
    """The slots of one swap disk.  The only writer of which are taken."""

    def __init__(self, disk: Disk | None, frontswap: Frontswap | None) -> None:
        self._disk = disk
        self._frontswap = frontswap
        self._free = np.ones(disk.pages if disk else 0, bool)
        self._next = 0                               # where the search begins: next fit keeps neighbours together
        self.free_slots = len(self._free)

    @property
    def slots(self) -> int:
        return len(self._free)

    @property
    def crowded(self) -> bool:
        """More than half is taken: pages read back in had better give their slots up (Linux: vm_swap_full)."""
        return 2 * self.free_slots < len(self._free)

    def allocate(self, count: int) -> np.ndarray:
        """Return up to `count` slots (int64); fewer when the space is nearly full."""
        behind = np.flatnonzero(self._free[self._next:])[:count] + self._next
        slots = behind if len(behind) == count else np.flatnonzero(self._free)[:count]
        if len(slots):
            self._free[slots] = False
            self.free_slots -= len(slots)
            self._next = int(slots[-1]) + 1
        return slots

    def store(self, slots: np.ndarray, pages: np.ndarray) -> None:
        """Store `pages` (n, 4096) in their slots.  OSError when the disk refuses: the slots then hold nothing."""
        left = np.ones(len(slots), bool) if self._frontswap is None else ~self._frontswap.store(slots, pages)
        left |= self._writethrough
        if left.any():
            self._real_disk().write_many(slots[left], pages[left])

    def load(self, slots: np.ndarray) -> np.ndarray:
        """Return the pages of some slots, (n, 4096) uint8; the slots keep them."""
        if self._frontswap is None:
            return self._real_disk().read_many(slots)
        pages = np.empty((len(slots), PAGE_SIZE), np.uint8)
        near = self._near(slots)
        if near.any():
            pages[near] = self._frontswap.load(slots[near])
        if not near.all():
            pages[~near] = self._real_disk().read_many(slots[~near])
        return pages

    @property
    def disk(self) -> Disk:
        return self._real_disk()

    def on_disk(self, slots: np.ndarray) -> np.ndarray:
        """Say of which slots the disk holds the bytes (bool): not while they are in frontswap alone."""
        return ~self._near(slots) | self._writethrough

    def leaves(self, slots: np.ndarray) -> np.ndarray:
        """Say which slots are to be freed once they are loaded (bool): exclusive gets."""
        exclusive = self._frontswap is not None and self._frontswap.mode.exclusive
        return self._near(slots) if exclusive else np.zeros(len(slots), bool)

    @property
    def near(self) -> int:
        """How many slots are in frontswap."""
        return self._frontswap.pages if self._frontswap else 0

    def first_near(self, count: int) -> np.ndarray:
        """Return up to `count` slots that are in frontswap."""
        return self._frontswap.first(count) if self._frontswap else np.zeros(0, np.int64)

    def send_to_disk(self, slots: np.ndarray) -> None:
        """Move slots from frontswap to the disk.  OSError when the disk refuses: they then stay where they are."""
        if self._frontswap is None or not len(slots):
            return
        if not self._writethrough:
            self._real_disk().write_many(slots, self._frontswap.load(slots))
        self._frontswap.invalidate(slots)

    def release(self, slots: np.ndarray) -> None:
        """Free slots, each once."""
        if self._free[slots].any():
            raise BrokenInvariant(f"swap slot {slots[self._free[slots]][0]} is freed twice")
        if self._frontswap is not None:
            self._frontswap.invalidate(slots)
        if self._disk is not None:
            self._disk.trim(slots)
        self._free[slots] = True
        self.free_slots += len(slots)

    def close(self) -> None:
        if self._frontswap is not None:
            self._frontswap.close()

    @property
    def _writethrough(self) -> bool:
        return self._frontswap is not None and self._frontswap.mode.writethrough

    def _near(self, slots: np.ndarray) -> np.ndarray:
        return self._frontswap.holds(slots) if self._frontswap else np.zeros(len(slots), bool)

    def _real_disk(self) -> Disk:
        if self._disk is None:
            raise BrokenInvariant("a swap slot is used and there is no swap disk")
        return self._disk
