"""The heap: frames of one sparse object, handed out one page each.

    in use   holds a stored page
    spare    resident and free: some are kept, so that a get that frees and a put that follows cost no system call
    hole     not resident

In use and spare are what the ledger counts for the heap.  They come from the ledger through `room`, which may reclaim.
Frames are allocated (posix_fallocate) before they are touched, so a full /dev/shm is a refusal and not a SIGBUS.
"""

from collections.abc import Callable

import numpy as np

from hypervisor.ledger import HEAP, Ledger
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject, runs

SPARE_LIMIT = 256
_SPREAD = 64                 # frames made at once when a single one is wanted and the ledger is rich


class Heap:
    """Frames of `object_`.  `room(frames) -> bool` reserves them for the heap in the ledger."""

    def __init__(self, object_: SharedObject, ledger: Ledger, room: Callable[[int], bool]) -> None:
        self.object = object_
        self.ledger = ledger
        self.room = room
        self.pages = object_.map().reshape(-1, PAGE_SIZE)
        self.in_use = 0
        self._spare: list[int] = []              # a stack: the frame freed last is the warmest
        self._holes: list[int] = []              # punched frames below the top
        self._top = 0                            # frames from here on were never used

    @property
    def spare(self) -> int:
        return len(self._spare)

    def take(self, count: int) -> list[int]:
        """Return up to `count` frames to write to, fewer when there is no room for more."""
        taken = self._pop(count)
        # Spare frames first, then new ones, piece by piece: making room may trim what is spare, and may find less than
        # was asked for.
        while len(taken) < count and self._make(count - len(taken)):
            taken += self._pop(count - len(taken))
        return taken

    def _pop(self, count: int) -> list[int]:
        frames = [self._spare.pop() for _ in range(min(count, len(self._spare)))]
        self.in_use += len(frames)
        return frames

    def give(self, frames: list[int]) -> None:
        """Take back frames in use; beyond SPARE_LIMIT they go back to the machine."""
        self.in_use -= len(frames)
        self._spare.extend(frames)
        if len(self._spare) > 2 * SPARE_LIMIT:
            self.trim(len(self._spare) - SPARE_LIMIT)

    def renew(self, frame: int) -> int | None:
        """Return a frame for new data in place of the data in `frame`, or None when there is none.

        A raw page fits where the old one was; the answer None is for forms of storage that need another size.
        """
        return frame

    def renew_many(self, frames: np.ndarray) -> np.ndarray | None:
        """Return frames for new data in place of the data in `frames`; None: renew them one by one."""
        return frames

    def trim(self, count: int) -> int:
        """Give up to `count` spare frames back to the machine, the longest unused first; return how many."""
        frames, self._spare = sorted(self._spare[:count]), self._spare[count:]
        self.object.punch(runs(np.array(frames, np.int64)))
        self._holes.extend(reversed(frames))
        self.ledger.release(HEAP, len(frames))
        return len(frames)

    def _make(self, count: int) -> int:
        """Turn up to `count` holes into spare frames, a few more while frames are plenty; return how many."""
        wanted = min(len(self.pages) - self._top + len(self._holes), max(count, _SPREAD))
        if self.ledger.free < 4 * wanted:
            wanted = min(wanted, count)
        while wanted and not self.room(wanted):
            wanted //= 2
        frames = self._pick(wanted)
        try:
            self.object.allocate(runs(np.array(sorted(frames), np.int64)))
        except OSError:                          # /dev/shm is full: as good as no room
            self._holes.extend(reversed(frames))
            self.ledger.release(HEAP, len(frames))
            return 0
        self._spare.extend(reversed(frames))
        return len(frames)

    def _pick(self, count: int) -> list[int]:
        frames = [self._holes.pop() for _ in range(min(count, len(self._holes)))]
        fresh = range(self._top, self._top + count - len(frames))
        self._top = fresh.stop
        return frames + list(fresh)

    def release(self) -> None:
        """Let go of the mapping: its address space is as large as the machine's memory."""
        self.pages = self.pages[:0].copy()

    def audit(self) -> list[str]:
        """Hold the counts against each other and the ledger; return what does not add up."""
        held = self.ledger.held.get(HEAP, 0)
        problems = []
        if self.in_use + self.spare != held:
            problems.append(f"heap: {self.in_use} in use and {self.spare} spare, the ledger says {held}")
        if self.in_use + self.spare + len(self._holes) != self._top:
            problems.append(f"heap: {self._top} frames, of them {len(self._holes)} holes, {self.spare} spare, "
                            f"{self.in_use} in use")
        return problems
