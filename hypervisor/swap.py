"""The hypervisor's swap disk: a real file with real writes and reads.

    slots   one page each; `allocate` hands out consecutive ones where it can, so that a batch is one write
    cost    what the file takes, and what a stated model says, if one is set (`swapcost`)
    file    unlinked as soon as it is open, so no death leaves it behind

A slot belongs to whoever allocated it until it is freed.  A write that fails (ENOSPC, EIO) raises OSError and loses
nothing: the caller still holds the pages and gives the slots back.
"""

import os
import tempfile

import numpy as np

from hypervisor.swapcost import SwapCost
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.directio import DirectFile
from shm.errors import BrokenInvariant, UsageProblem

DEFAULT_FOLDER = "/var/tmp"  # a disk even where /tmp is memory
_ONE = (1,)


class SwapDisk:
    """A swap disk of `slots` pages in a nameless file of `folder`."""

    def __init__(self, slots: int, folder: str | None = None, cost: SwapCost | None = None,
                 direct: bool = False) -> None:
        self.cost = cost or SwapCost()           # what requests cost beside what they really take
        try:
            self.file = tempfile.TemporaryFile(dir=folder or DEFAULT_FOLDER)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise UsageProblem(f"no swap disk in {folder or DEFAULT_FOLDER}: {error.strerror}; "
                               f"name a folder that can be written to") from error
        self._direct = DirectFile(self.file.fileno(), folder or DEFAULT_FOLDER) if direct else None
        self.slots = slots
        self.taken = np.zeros(slots, bool)
        self.used = 0
        self._next = 0           # where the search for free slots begins: next fit keeps batches together

    @property
    def free(self) -> int:
        return self.slots - self.used

    def allocate(self, count: int) -> np.ndarray:
        """Return up to `count` slots (int32, sorted), fewer when the disk is nearly full."""
        count = min(count, self.free)
        found = self._next + np.flatnonzero(~self.taken[self._next:self._next + 8 * count])[:count]
        if len(found) < count:
            found = np.flatnonzero(~self.taken)[:count]
        self.taken[found] = True
        self.used += count
        self._next = int(found[-1]) + 1 if count else self._next
        return found.astype(np.int32)

    def release(self, slots: np.ndarray) -> None:
        """Give slots back, each once."""
        if not self.taken[slots].all() or len(set(slots.tolist())) < len(slots):
            raise BrokenInvariant(f"swap slots freed twice: among {slots[:4]}")
        self.taken[slots] = False
        self.used -= len(slots)

    def release_one(self, slot: int) -> None:
        """Give one slot back."""
        if not self.taken[slot]:
            raise BrokenInvariant(f"swap slot {slot} is freed twice")
        self.taken[slot] = False
        self.used -= 1

    def write(self, slots: np.ndarray, pages: np.ndarray) -> None:
        """Write (n, 4096) `pages` to sorted `slots`; OSError when the file takes no more."""
        row, pieces = 0, runs(slots)
        for first, count in pieces:
            self._write_run(pages[row:row + count].data.cast("B"), first * PAGE_SIZE)
            row += count
        self.cost.serve([count for _, count in pieces])

    def read_one(self, slot: int, out: memoryview) -> bool:
        """Read the page of one slot into `out` (4096 bytes); False when it is not all there."""
        found = self._read_run(out, slot * PAGE_SIZE) == PAGE_SIZE
        self.cost.serve(_ONE)
        return found

    def read(self, slots: np.ndarray) -> np.ndarray:
        """Return the pages (n, 4096) of `slots`, in their order."""
        order = np.argsort(slots, kind="stable")
        row, gathered, pieces = 0, np.empty((len(slots), PAGE_SIZE), np.uint8), runs(slots[order])
        for first, count in pieces:
            size = self._read_run(gathered[row:row + count].data.cast("B"), first * PAGE_SIZE)
            if size != count * PAGE_SIZE:
                raise BrokenInvariant(f"swap slots {first} to {first + count - 1}: read {size} bytes")
            row += count
        self.cost.serve([count for _, count in pieces])
        if len(slots) == 1:
            return gathered
        pages = np.empty_like(gathered)
        pages[order] = gathered
        return pages

    def _write_run(self, data: memoryview, at: int) -> None:
        if self._direct is not None:
            self._direct.write(data, at)
            return
        while data:
            done = os.pwrite(self.file.fileno(), data, at)
            data, at = data[done:], at + done

    def _read_run(self, out: memoryview, at: int) -> int:
        """Fill `out`; return how many bytes there were."""
        if self._direct is None:
            return os.preadv(self.file.fileno(), [out], at)
        return self._direct.read(out, at)

    def close(self) -> None:
        self.file.close()
