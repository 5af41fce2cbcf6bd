"""The heap: frames of one sparse object, handed out one page each, or as runs of RUN neighbours for slabs.

    in use   holds a stored page
    spare    resident and free: some are kept, so that a get that frees and a put that follows cost no system call
    hole     not resident

In use and spare are what the ledger counts for the heap.  They come from the ledger through `room`, which may reclaim.
Frames are allocated (posix_fallocate) before they are touched, so a full /dev/shm is a refusal and not a SIGBUS.

A run begins at a multiple of RUN.  Runs and single frames keep lists of their own: a run is broken up where single
frames are short, and neighbouring holes are joined where runs are, so neither starves beside the other.
"""

from collections.abc import Callable

import numpy as np

from hypervisor.ledger import HEAP, Ledger
from hypervisor.tmem.numbers import are_rising
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject, runs

RUN = 4                      # frames
SPARE_LIMIT = 256
SPARE_RUNS = 16
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
        self._spare_runs: list[int] = []         # runs, by their first frame
        self._hole_runs: list[int] = []
        self._top = 0                            # frames from here on were never used

    @property
    def spare(self) -> int:
        return len(self._spare) + RUN * len(self._spare_runs)

    @property
    def holes(self) -> int:
        return len(self._holes) + RUN * len(self._hole_runs)

    def take(self, count: int) -> list[int]:
        """Return up to `count` frames to write to, fewer when there is no room for more.

        What was given back together comes back together, in the same order.
        """
        taken = self._pop(count)
        # Spare frames first, then new ones, piece by piece: making room may trim what is spare, and may find less than
        # was asked for.
        while len(taken) < count and self._make(count - len(taken)):
            taken += self._pop(count - len(taken))
        return taken

    def _pop(self, count: int) -> list[int]:
        self._break_spare(count)
        kept = max(0, len(self._spare) - count)
        frames = self._spare[kept:]
        del self._spare[kept:]
        self.in_use += len(frames)
        return frames

    def give(self, frames: list[int]) -> None:
        """Take back frames in use; beyond SPARE_LIMIT they go back to the machine."""
        self.in_use -= len(frames)
        self._spare.extend(frames)
        if len(self._spare) > 2 * SPARE_LIMIT:
            self.trim(len(self._spare) - SPARE_LIMIT)

    def take_run(self) -> int | None:
        """Return the first of RUN neighbouring frames to write to, or None when there is no room for them."""
        if not self._spare_runs:
            self._make_run()
        if not self._spare_runs:
            return None
        self.in_use += RUN
        return self._spare_runs.pop()

    def give_runs(self, firsts: list[int]) -> None:
        """Take back runs in use; beyond SPARE_RUNS they go back to the machine."""
        self.in_use -= RUN * len(firsts)
        self._spare_runs.extend(firsts)
        excess = sorted(self._spare_runs[:-SPARE_RUNS])
        if excess:
            del self._spare_runs[:-SPARE_RUNS]
            self.object.punch([(first, RUN) for first in excess])
            self._hole_runs.extend(reversed(excess))
            self.ledger.release(HEAP, RUN * len(excess))

    def trim(self, count: int) -> int:
        """Give up to `count` spare frames back to the machine, the longest unused first; return how many."""
        self._break_spare(count)
        frames, self._spare = sorted(self._spare[:count]), self._spare[count:]
        self.object.punch(runs(np.array(frames, np.int64)))
        self._holes.extend(reversed(frames))
        self.ledger.release(HEAP, len(frames))
        return len(frames)

    def _make(self, count: int) -> int:
        """Turn up to `count` holes into spare frames, a few more while frames are plenty; return how many."""
        wanted = min(len(self.pages) - self._top + self.holes, max(count, _SPREAD))
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
        while count > len(self._holes) + len(self.pages) - self._top and self._hole_runs:
            self._holes.extend(_run(self._hole_runs.pop()))
        frames = [self._holes.pop() for _ in range(min(count, len(self._holes)))]
        fresh = range(self._top, self._top + count - len(frames))
        self._top = fresh.stop
        return frames + list(fresh)

    def _break_spare(self, count: int) -> None:
        """Break spare runs up until `count` single frames are spare, if there are as many."""
        while len(self._spare) < count and self._spare_runs:
            self._spare.extend(_run(self._spare_runs.pop()))

    def _make_run(self) -> None:
        """Turn a run of holes into a spare run, if there is room."""
        if self.ledger.free < RUN:
            self.trim(RUN)                       # single spare frames are of no use here: others in their place
        if not self.room(RUN):
            return
        first = self._pick_run()
        if first is None and self._spare:
            self.trim(len(self._spare))          # they may be what lies between the holes
            first = self._pick_run()
        if first is None:
            self.ledger.release(HEAP, RUN)
            return
        try:
            self.object.allocate([(first, RUN)])
        except OSError:                          # /dev/shm is full: as good as no room
            self._hole_runs.append(first)
            self.ledger.release(HEAP, RUN)
            return
        self._spare_runs.append(first)

    def _pick_run(self) -> int | None:
        first = -(-self._top // RUN) * RUN
        if not self._hole_runs and first + RUN <= len(self.pages):
            self._holes.extend(range(self._top, first))
            self._top = first + RUN
            return first
        if not self._hole_runs:
            self._join_holes()
        return self._hole_runs.pop() if self._hole_runs else None

    def _join_holes(self) -> None:
        """Make runs of the holes that are neighbours."""
        holes = np.array(self._holes, np.int64)
        groups, counts = np.unique(holes // RUN, return_counts=True)
        whole = groups[counts == RUN]
        self._hole_runs.extend((whole * RUN).tolist())
        self._holes = holes[~np.isin(holes // RUN, whole)].tolist()

    def gather(self, frames: np.ndarray, out: np.ndarray, slots: np.ndarray) -> None:
        """Copy `frames` to rows `slots` of `out`: in one pass where the slots are neighbours."""
        first, count = int(slots[0]) if len(slots) else 0, len(slots)
        if count and int(slots[-1]) - first == count - 1 and are_rising(slots):
            self.pages.take(frames, 0, out[first:first + count], "clip")
        else:
            out[slots] = self.pages[frames]

    def release(self) -> None:
        """Let go of the mapping: its address space is as large as the machine's memory."""
        self.pages = self.pages[:0].copy()

    def audit(self) -> list[str]:
        """Hold the counts against each other and the ledger; return what does not add up."""
        held = self.ledger.held.get(HEAP, 0)
        problems = []
        if self.in_use + self.spare != held:
            problems.append(f"heap: {self.in_use} in use and {self.spare} spare, the ledger says {held}")
        if self.in_use + self.spare + self.holes != self._top:
            problems.append(f"heap: {self._top} frames, of them {self.holes} holes, {self.spare} spare, "
                            f"{self.in_use} in use")
        return problems


def _run(first: int) -> range:
    """Return the frames of a run, the last first: they are popped from the end."""
    return range(first + RUN - 1, first - 1, -1)
