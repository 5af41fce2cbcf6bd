"""A guest of a world with a kernel on all of its memory, for the rules of the guest's half of CMM2."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from worlds import POISON, World

from guests.disk import Disk
from guests.kernel import Kernel
from shm.abi import PAGE_SIZE
from shm.counters import Count, HostCount
from shm.pagestate import BYTE, Essa, State

BLOCKS, SLOTS = 64, 512
_STATES = {byte: state for state, byte in BYTE.items()}


def block(number: int) -> bytes:
    """Return what block `number` of the guest's disk holds."""
    return np.full(PAGE_SIZE // 8, (number + 1) * 0x1_0000_0001, np.uint64).tobytes()


class KernelGuest:
    """`file` is the whole disk of BLOCKS pages; `evict` plays the host's choice of victims, its deeds are real."""

    def __init__(self, world: World, folder: Path, **options: Any) -> None:
        self.world, self.guest, self.memory, self.hardware = world, world.guest, world.memory, world.hardware
        if self.hardware:
            self.guest.on_discard(lambda gfn, byte=POISON: bytes([byte]) * 4096)
        self.disk = Disk.create(BLOCKS, self.guest.counters, folder=str(folder))
        self.swap = Disk.create(SLOTS, self.guest.counters, folder=str(folder), reads=Count.GUEST_SWAP_READS,
                                writes=Count.GUEST_SWAP_WRITES)
        self.disk.write(0, np.frombuffer(b"".join(map(block, range(BLOCKS))), np.uint8).reshape(-1, PAGE_SIZE))
        self.kernel = Kernel(self.guest, self.swap, **options)
        self.file = self.kernel.open(self.disk)
        self.facts = self.kernel.core.pages.facts

    def evict(self, gfns: Iterable[int]) -> int:
        """Have the host take the frames of some pages, as their states say; return how many it took."""
        return self.world.evict_each(gfns)

    def evict_all(self) -> int:
        return self.world.evict(0, self.guest.pages)

    def state(self, gfn: int) -> State:
        return _STATES[int(self.guest.essa_one(Essa.GET_STATE, int(gfn))) & 0x0F]

    def states(self, gfns: Iterable[int]) -> set[State]:
        return {self.state(gfn) for gfn in gfns}

    def gfn(self, index: int) -> int:
        """Return the page that holds page `index` of the file."""
        return self.file.inode.cached[index]

    def count(self, which: Count) -> int:
        return int(self.guest.counters[which])

    def hosts(self, which: HostCount) -> int:
        return self.world.counts()[which.name.lower()]

    def discard_faults(self) -> int:
        return self.world.discard_faults()

    def reads(self) -> int:
        """Return the blocks read from the guest's disks: by its kernel, and by its pager in hardware mode."""
        return sum(map(self.count, (Count.GUEST_DISK_READS, Count.GUEST_SWAP_READS, Count.PAGER_DISK_READS)))

    def essa_of(self, act: Callable[[], object]) -> int:
        """Return how many pages `act` hinted."""
        before = self.count(Count.ESSA)
        act()
        return self.count(Count.ESSA) - before

    def transfers(self) -> np.ndarray:
        """Return what crossed so far: F reads, F writes, H reads, H writes (2.7); F is disk and swap disk."""
        return np.array([self.reads(), self.count(Count.GUEST_DISK_WRITES) + self.count(Count.GUEST_SWAP_WRITES),
                         self.hosts(HostCount.SWAP_IN), self.hosts(HostCount.SWAP_OUT)])

    def close(self) -> None:
        self.disk.close()
        self.swap.close()
