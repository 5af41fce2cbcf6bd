"""Shared memory objects: sparse, whole pages, given back to the machine by punching holes.

Page `n` of an object lies at offset n * 4096 for ever.  A load from a hole through any mapping allocates a frame, and
so do write(2) from a mapping and preadv into one: so a frame is first reserved in the ledger, then allocated here, and
only then touched; and holes are read by pread only.

    allocate   posix_fallocate, so that a full /dev/shm is an error (ENOSPC) and not a SIGBUS at the touch
    punch      fallocate(PUNCH_HOLE | KEEP_SIZE) by descriptor, offset and length whole pages always (a misaligned
               MADV_REMOVE was seen to free the wrong page)
    resident   st_blocks: what the kernel says; it counts granted pages that were never touched, as mincore does not
"""

import ctypes
import fcntl
import mmap
import os
from contextlib import suppress
from functools import cache

import numpy as np
import posix_ipc

from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x01, 0x02
SHM_FOLDER = "/dev/shm"


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return libc


def runs(pages: np.ndarray) -> list[tuple[int, int]]:
    """Return page numbers as runs (first, count) of ascending neighbours, in the order given."""
    if not len(pages):
        return []
    breaks = pages[1:] - pages[:-1] != 1
    if not breaks.any():
        return [(int(pages[0]), len(pages))]
    ends = np.flatnonzero(breaks) + 1
    starts = np.concatenate(([0], ends))
    counts = np.diff(np.concatenate((starts, [len(pages)])))
    return list(zip(pages[starts].tolist(), counts.tolist(), strict=True))


def no_room(pages: int, error: OSError) -> UsageProblem:
    """Return what to tell the person when /dev/shm does not hold `pages` more."""
    return UsageProblem(f"no room in {SHM_FOLDER} for {pages * PAGE_SIZE >> 10} KiB ({error.strerror}); "
                        f"enlarge it (mount -o remount,size=...; docker run --shm-size=...)")


class SharedObject:
    """One object of POSIX shared memory, mode 0600, held by its descriptor."""

    def __init__(self, fd: int, name: str = "") -> None:
        self.fd = fd
        self.name = name
        self.pages = os.fstat(fd).st_size // PAGE_SIZE

    @classmethod
    def create(cls, name: str, pages: int) -> "SharedObject":
        """Make a sparse object of `pages` pages, or raise UsageProblem."""
        memory = posix_ipc.SharedMemory("/" + name, posix_ipc.O_CREX, mode=0o600)
        made = cls(memory.fd, name)
        try:
            os.ftruncate(memory.fd, pages * PAGE_SIZE)
            made.pages = pages
        except OSError as error:
            made.close()
            made.unlink()
            raise no_room(pages, error) from error
        return made

    @classmethod
    def sealed(cls, name: str, pages: int) -> "SharedObject":
        """Make a control object: a memfd with all its frames, whose size nobody can change (a cut would be a SIGBUS).

        It has no name in /dev/shm and is handed over by descriptor alone; `name` is what /proc shows.
        """
        made = cls(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), name)
        try:
            os.ftruncate(made.fd, pages * PAGE_SIZE)
            made.allocate([(0, pages)])
            made.pages = pages
            fcntl.fcntl(made.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError as error:
            made.close()
            raise no_room(pages, error) from error
        return made

    def map(self, writable: bool = True) -> np.ndarray:
        """Return the object as bytes (uint8); pages are allocated by the first touch, so touch what was granted."""
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        return np.frombuffer(mmap.mmap(self.fd, self.pages * PAGE_SIZE, access=access), np.uint8)

    def read_only_fd(self) -> int:
        """Return a new descriptor of this object through which nothing can be written."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def allocate(self, pieces: list[tuple[int, int]]) -> None:
        """Give frames to runs of pages.  On OSError (ENOSPC) none of the runs has been given any."""
        for done, (first, count) in enumerate(pieces):
            try:
                os.posix_fallocate(self.fd, first * PAGE_SIZE, count * PAGE_SIZE)
            except OSError:
                self.punch(pieces[:done])
                raise

    def punch(self, pieces: list[tuple[int, int]]) -> None:
        """Give the frames of runs of pages back to the machine; they read zero from now on."""
        fallocate, mode = _libc().fallocate, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        for first, count in pieces:
            if fallocate(self.fd, mode, first * PAGE_SIZE, count * PAGE_SIZE):
                error = ctypes.get_errno()
                raise OSError(error, f"punching {count} pages at {first} of {self.name}: {os.strerror(error)}")

    def read(self, pieces: list[tuple[int, int]], out: np.ndarray) -> None:
        """Read runs of pages into `out` (n, 4096) without mapping them: a hole stays a hole.

        What lies beyond the end reads zero: whoever holds the object may have cut it short.
        """
        row = 0
        for first, count in pieces:
            size = os.preadv(self.fd, [out[row:row + count].data], first * PAGE_SIZE)
            if size < count * PAGE_SIZE:
                out[row:row + count].reshape(-1)[size:] = 0
            row += count

    def write(self, pieces: list[tuple[int, int]], pages: np.ndarray) -> None:
        """Write (n, 4096) `pages` to runs that have been allocated."""
        row = 0
        for first, count in pieces:
            os.pwrite(self.fd, pages[row:row + count].data, first * PAGE_SIZE)
            row += count

    def resident(self) -> int:
        """Return how many frames the kernel has given to this object."""
        return os.fstat(self.fd).st_blocks * 512 // PAGE_SIZE

    def drop(self) -> None:
        """Give every frame back, whoever still maps the object."""
        os.ftruncate(self.fd, 0)

    def close(self) -> None:
        os.close(self.fd)

    def unlink(self) -> None:
        with suppress(posix_ipc.ExistentialError):
            posix_ipc.unlink_shared_memory("/" + self.name)


def free_bytes() -> int:
    """Return how much room /dev/shm has left."""
    room = os.statvfs(SHM_FOLDER)
    return room.f_bavail * room.f_frsize
