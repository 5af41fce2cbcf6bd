"""A guest's registered mapping, from the hypervisor's side: fill pages, protect them, hear of faults.

The hypervisor does not map guest memory in hardware mode, and never allocates or writes it by descriptor: a touch of a
page that was allocated so raises no fault and reads zeros.  It fills pages through the guest's userfaultfd, and reads
them with pread.

Every call may find that the guest has unmapped its memory, or registered something else: `Unmapped` says so.
"""

import errno
import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from shm.abi import PAGE_SIZE
from shm.arena import SharedObject, runs
from shm.errors import MemcommonsError
from shm.userfault import EVENT_PAGEFAULT, FLAG_PROTECTED, Userfault

EVENT = np.dtype([("event", "u1"), ("pad", "u1", (7,)), ("flags", "<u8"), ("address", "<u8"), ("thread", "<u8")])


BLAME = {errno.ENOENT: "the guest's memory is not mapped and registered there",
         errno.EEXIST: "the guest has taken that page behind the hypervisor's back",
         errno.EINVAL: "the guest's memory is registered in another way"}
T = TypeVar("T")


class Unmapped(MemcommonsError):
    """The guest's memory is not where the guest said, or was filled by somebody else; the line says which."""


class Faults(NamedTuple):
    """Faults that were read together: page numbers, each once, sorted; and how many addresses lay outside."""

    missing: np.ndarray
    protected: np.ndarray
    outside: int


class Mapping:
    """The mapping of one guest's memory, at `base` in the guest."""

    def __init__(self, uffd: Userfault, base: int, ram: SharedObject) -> None:
        self.uffd, self.base, self.ram = uffd, base, ram

    def faults(self, data: bytes) -> Faults:
        """Return the faults that `data`, as the kernel gave it, tells of."""
        events = np.frombuffer(data, EVENT)
        events = events[events["event"] == EVENT_PAGEFAULT]
        pages = (events["address"].astype(np.int64) - self.base) // PAGE_SIZE
        inside = (pages >= 0) & (pages < self.ram.pages)
        stores = events["flags"] & np.uint64(FLAG_PROTECTED) != 0
        return Faults(np.unique(pages[inside & ~stores]), np.unique(pages[inside & stores]),
                      int(np.count_nonzero(~inside)))

    def zero(self, gfns: np.ndarray) -> None:
        """Fill pages (sorted) with zeros and wake who waits."""
        for first, count in runs(gfns):
            start, length, done = self.base + first * PAGE_SIZE, count * PAGE_SIZE, 0
            while done < length:
                done += self._call(self.uffd.zero, start + done, length - done)

    def fill(self, gfns: np.ndarray, pages: np.ndarray, protected: bool) -> None:
        """Fill pages (sorted) with `pages` (n, 4096) and wake who waits; `protected`: the next store is a fault."""
        source = pages.ctypes.data
        for first, count in runs(gfns):
            start, length, done = self.base + first * PAGE_SIZE, count * PAGE_SIZE, 0
            while done < length:
                done += self._call(self.uffd.copy, start + done, source + done, length - done, protected)
            source += length

    def protect(self, gfns: np.ndarray) -> None:
        """Let the next store to each page (sorted) be a fault; no store is under way when this returns."""
        for first, count in runs(gfns):
            self._call(self.uffd.protect, self.base + first * PAGE_SIZE, count * PAGE_SIZE)

    def unprotect(self, gfns: np.ndarray) -> None:
        """Let stores go on again, and wake who waits."""
        for first, count in runs(gfns):
            self._call(self.uffd.unprotect, self.base + first * PAGE_SIZE, count * PAGE_SIZE)

    def wake(self, gfns: np.ndarray) -> None:
        """Let the threads that stand at these pages look again."""
        for first, count in runs(gfns):
            self._call(self.uffd.wake, self.base + first * PAGE_SIZE, count * PAGE_SIZE)

    def _call(self, call: Callable[..., T], *arguments: int) -> T:
        """Make a call; Unmapped where the guest is to blame, ProcessLookupError where it is gone, else OSError."""
        try:
            return call(*arguments)
        except OSError as error:
            if error.errno in BLAME:
                raise Unmapped(f"address {arguments[0]:#x}: {BLAME[error.errno]}") from error
            raise

    def has_frame(self, gfn: int) -> bool:
        """Say whether the kernel has a frame at this page; looks without taking one.

        Exact for pages that were filled here: they are data from that moment on.
        """
        try:
            return os.lseek(self.ram.fd, gfn * PAGE_SIZE, os.SEEK_DATA) == gfn * PAGE_SIZE
        except OSError:                                      # ENXIO: nothing but holes from there on
            return False

    def framed(self, gfns: np.ndarray) -> np.ndarray:
        """Return those of `gfns` at which the kernel has a frame."""
        return gfns[np.array([self.has_frame(gfn) for gfn in gfns.tolist()], bool)]

    def close(self) -> None:
        self.uffd.close()
