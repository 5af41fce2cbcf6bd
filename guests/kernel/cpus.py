"""The processors of a guest: threads of control, one at a time in the kernel.

    running(cpu)   the calling thread is processor `cpu` until the block ends
    outside()      between the delivery of a discard fault and its handling: others may run

Rule 1: a kernel with one processor has no lock, and its thread need not say who it is.  With several, every use of the
        kernel stands in `running`.
Rule 2: a processor that is not running is idle, which is a quiescent point; so is the end of `running`, and so is an
        allocation: no fault of the allocating processor is pending then.
Rule 3: `current` and `active` are written here alone, under the lock.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from shm.errors import BrokenInvariant

LOCK_SECONDS = 60.0          # of one wait for the kernel: longer, and its holder hangs


class Cpus:
    """`count` processors; `delivered(gfns)` is called with each discard fault before it is handled, outside."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"{count} processors: a kernel needs at least one")
        self.count = count
        self.current = 0
        self.active: set[int] = set()
        self._lock = Lock()

    def delivered(self, gfns: Sequence[int]) -> None:
        """Do nothing.  A test puts a wait here."""

    @contextmanager
    def running(self, cpu: int) -> Iterator[None]:
        """Be processor `cpu`; ValueError when there is none, or when it is another thread already."""
        if not 0 <= cpu < self.count or cpu in self.active:
            raise ValueError(f"processor {cpu} cannot run: there are {self.count}, and {sorted(self.active)} run")
        self._enter(cpu)
        self.active.add(cpu)
        try:
            yield
        finally:
            self.active.discard(cpu)
            self._lock.release()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Let others run meanwhile; the processor stays active."""
        cpu = self.current
        inside = cpu in self.active
        if inside:
            self._lock.release()
        try:
            yield
        finally:
            if inside:
                self._enter(cpu)

    def _enter(self, cpu: int) -> None:
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise BrokenInvariant(f"processor {cpu} waited {LOCK_SECONDS:g} s for the kernel: its holder hangs")
        self.current = cpu
