"""A guest's virtual disk: blocks of one page each over a file of the machine.

    transfers   whole blocks only; neighbours in a batch are one preadv or pwritev
    counting    every block that crosses is counted, on the counters the disk was given; holes are blocks too
    cost        what the file takes, and what the device behind it says (`guests.device`), where there is one
    size        fixed; a last partial page of an image reads zero-padded, and its file grows when it is written

A created disk is an unlinked file: no death leaves it behind.  The disk knows nothing of files, inodes or caches.
"""

import errno
import os
import tempfile
from collections.abc import Sequence
from time import monotonic_ns

import numpy as np

from guests.device import Device
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.counters import Count
from shm.directio import DirectFile
from shm.errors import UsageProblem

DEFAULT_FOLDER = "/var/tmp"  # a disk even where /tmp is memory


class Disk:
    """A virtual disk of `pages` blocks.  Owns its descriptor; `close` it, or use it as a context manager."""

    def __init__(self, fd: int, pages: int, counters: np.ndarray, *, writable: bool = True,
                 reads: Count = Count.GUEST_DISK_READS, writes: Count = Count.GUEST_DISK_WRITES) -> None:
        self.pages = pages
        self.writable = writable
        self._fd = fd
        self._counters = counters.data
        self._reads, self._writes = int(reads), int(writes)
        self.device: Device | None = None        # None: what it takes really is all that it costs
        self._direct: DirectFile | None = None

    def behind(self, device: Device) -> "Disk":
        """Let requests cost what `device` says; return this disk.  UsageProblem where its file cannot be direct."""
        self.device = device if device.costs else None
        if device.direct:
            self._direct = DirectFile(self._fd, os.readlink(f"/proc/self/fd/{self._fd}").removesuffix(" (deleted)"))
        return self

    @classmethod
    def create(cls, pages: int, counters: np.ndarray, *, folder: str | None = None,
               reads: Count = Count.GUEST_DISK_READS, writes: Count = Count.GUEST_DISK_WRITES) -> "Disk":
        """Make an empty disk, all zeros, in a nameless sparse file of `folder`."""
        fd, path = tempfile.mkstemp(prefix="memcommons-disk-", dir=folder or DEFAULT_FOLDER)
        os.unlink(path)
        os.ftruncate(fd, pages * PAGE_SIZE)
        return cls(fd, pages, counters, reads=reads, writes=writes)

    @classmethod
    def open(cls, path: str | os.PathLike[str], counters: np.ndarray, writable: bool = False) -> "Disk":
        """Use an existing file as a disk; UsageProblem when it cannot be had so."""
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            access = "reading and writing" if writable else "reading"
            raise UsageProblem(f"disk image {os.fspath(path)!r} cannot be opened for {access}: "
                               f"{error.strerror}") from error
        return cls(fd, -(-os.fstat(fd).st_size // PAGE_SIZE), counters, writable=writable)

    def fileno(self) -> int:
        """Return the descriptor of the file behind it, for who reads blocks of it without being counted here."""
        return self._fd

    def read(self, block: int, count: int = 1) -> np.ndarray:
        """Return `count` blocks from `block` on, a fresh (count, 4096) uint8 array."""
        return self._read([(block, count)], count)

    def read_many(self, blocks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the blocks in the order asked for, (n, 4096) uint8; ascending neighbours are one read."""
        return self._read(runs(np.asarray(blocks, dtype=np.int64)), len(blocks))

    def write(self, block: int, pages: np.ndarray) -> None:
        """Write `pages` (n, 4096) from `block` on."""
        self._write([(block, len(pages))], pages)

    def write_many(self, blocks: Sequence[int] | np.ndarray, pages: np.ndarray) -> None:
        """Write each page of `pages` (n, 4096) to its block; ascending neighbours are one write."""
        self._write(runs(np.asarray(blocks, dtype=np.int64)), pages)

    def trim(self, blocks: np.ndarray) -> None:
        """Take note that nobody will read these blocks before they are written: nothing to a disk without a cache."""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> "Disk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, pieces: Sequence[tuple[int, int]], count: int) -> np.ndarray:
        out = np.empty((count, PAGE_SIZE), np.uint8)
        row, start = 0, monotonic_ns()
        for first, length in pieces:
            self._check(first, length)
            self._read_run(out[row:row + length].data.cast("B"), first * PAGE_SIZE)
            row += length
        self._count(self._reads, count, start, pieces)
        return out

    def _write(self, pieces: Sequence[tuple[int, int]], pages: np.ndarray) -> None:
        if not self.writable:
            raise OSError(errno.EROFS, "the disk was opened for reading only")
        pages = np.ascontiguousarray(pages, dtype=np.uint8).reshape(-1, PAGE_SIZE)
        row, start = 0, monotonic_ns()
        for first, length in pieces:
            self._check(first, length)
            self._write_run(pages[row:row + length].data.cast("B"), first * PAGE_SIZE)
            row += length
        self._count(self._writes, len(pages), start, pieces)

    def _read_run(self, out: memoryview, offset: int) -> None:
        if self._direct is None:
            _read_fully(self._fd, out, offset)
        else:
            self._direct.read(out, offset)

    def _write_run(self, content: memoryview, offset: int) -> None:
        if self._direct is None:
            _write_fully(self._fd, content, offset)
        else:
            self._direct.write(content, offset)

    def _check(self, block: int, count: int) -> None:
        if not 0 <= block <= block + count <= self.pages:
            raise ValueError(f"blocks {block} to {block + count - 1} are not on a disk of {self.pages} blocks")

    def _count(self, which: int, blocks: int, start: int, pieces: Sequence[tuple[int, int]]) -> None:
        self._counters[which] += blocks
        if self.device is not None and pieces:
            self.device.serve(start, [length for _, length in pieces])
        self._counters[Count.WAIT_DISK_NS] += monotonic_ns() - start


def _read_fully(fd: int, out: memoryview, offset: int) -> None:
    """Fill `out`; what lies beyond the end of the file reads zero."""
    while out:
        done = os.preadv(fd, [out], offset)
        if not done:
            out[:] = bytes(len(out))
            return
        out, offset = out[done:], offset + done


def _write_fully(fd: int, content: memoryview, offset: int) -> None:
    while content:
        done = os.pwrite(fd, content, offset)
        content, offset = content[done:], offset + done
