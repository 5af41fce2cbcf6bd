"""Access bits of a guest in hardware mode: which of its pages were touched since the clock's hand came by.

Its processor sets no bit that we may read: a load leaves no trace but the mapping of the page.  So the hand unmaps the
pages that it passes, in the guest, contents and all staying where they are; the next touch maps its page again (a minor
fault, 1 to 2 us, no event for us); and /proc/PID/pagemap says which pages are mapped.  A mapping that is registered
for write-protection has no fault-around, so the bits are exact to the page.

    unmapping   process_madvise(MADV_PAGEOUT).  It unmaps what cannot be written anywhere, so the machine must have no
                swap; and it is a privilege (CAP_SYS_NICE).  Nobody else may map the memory: see `hypervisor.mapping`.

Where this cannot be had there are no bits, and the hand takes pages in the order of their place.
"""

import ctypes
import os
from contextlib import suppress

import numpy as np
import psutil

from shm.abi import PAGE_SIZE
from shm.arena import runs

_PRESENT = np.uint64(1 << 63)
_MADV_PAGEOUT, _PROCESS_MADVISE = 21, 440        # the same on every architecture
_VECTORS = 512                                   # ranges of one call (UIO_MAXIOV is 1024)


class References:
    """The access bits of one guest."""

    def __init__(self, pid: int, pidfd: int, base: int, pages: int) -> None:
        """OSError or PermissionError where they cannot be had."""
        self.base, self._pidfd, self._pages = base, pidfd, pages
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._entries = np.zeros(pages, np.uint64)
        self._fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.touched()
            self._unmap([(0, 1)])
        except OSError:
            self.close()
            raise

    def touched(self) -> np.ndarray:
        """Return which pages were touched since they were last forgotten (bool)."""
        os.preadv(self._fd, [self._entries.data.cast("B")], self.base // PAGE_SIZE * 8)
        return self._entries & _PRESENT != 0

    def forget(self, gfns: np.ndarray) -> None:
        """Begin anew for some pages (sorted).

        OSError where the guest does not let us: it has locked its memory (EINVAL), or unmapped some (ENOMEM).
        """
        pieces = runs(gfns)
        with suppress(ProcessLookupError):       # it is dying this very moment
            for at in range(0, len(pieces), _VECTORS):
                self._unmap(pieces[at:at + _VECTORS])

    def _unmap(self, pieces: list[tuple[int, int]]) -> None:
        vectors = np.array(pieces, np.int64) * PAGE_SIZE
        vectors[:, 0] += self.base
        done = self._syscall(_PROCESS_MADVISE, self._pidfd, ctypes.c_void_p(vectors.ctypes.data),
                             ctypes.c_size_t(len(pieces)), _MADV_PAGEOUT, 0)
        if done < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        os.close(self._fd)


def references_of(pid: int, pidfd: int, base: int, pages: int) -> References | None:
    """Return the access bits of a guest; None where there are none."""
    if psutil.swap_memory().total:               # pages would really be written out
        return None
    try:
        return References(pid, pidfd, base, pages)
    except OSError:
        return None
