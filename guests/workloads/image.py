"""A disk's first content, written before the guest kernel opens it, in a nameless file that no death leaves behind.

What is written here is not counted as the guest's disk traffic: the disk existed before the guest.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Self

import numpy as np

from guests.disk import DEFAULT_FOLDER, Disk
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem
from shm.units import format_size


class Image:
    """A sparse file of `pages` blocks, to be filled and then opened as a disk.  A context manager."""

    def __init__(self, pages: int, way_out: str, folder: str = DEFAULT_FOLDER) -> None:
        self.pages, self._folder, self._way_out = pages, folder, way_out
        self._need_room()
        self.fd, path = tempfile.mkstemp(prefix="memcommons-image-", dir=folder)
        os.unlink(path)
        os.ftruncate(self.fd, pages * PAGE_SIZE)

    def _need_room(self) -> None:
        """Refuse, before anything is written, what the folder cannot hold now."""
        room, need = os.statvfs(self._folder), self.pages * PAGE_SIZE
        free = room.f_bavail * room.f_frsize
        if need > free:
            raise UsageProblem(f"no room for a disk image of {format_size(need)} in {self._folder}, where "
                               f"{format_size(free)} are free; make room there, or {self._way_out}")

    def write(self, offset: int, content: bytes | memoryview) -> None:
        """Write bytes at a byte offset."""
        rest = memoryview(content).cast("B")
        try:
            while rest:
                done = os.pwrite(self.fd, rest, offset)
                rest, offset = rest[done:], offset + done
        except OSError as error:
            raise UsageProblem(f"a disk image of {format_size(self.pages * PAGE_SIZE)} cannot be written in "
                               f"{self._folder}: {error.strerror}; make room there, or {self._way_out}") from error

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes as they stand in the file."""
        return os.pread(self.fd, length, offset)

    def fill(self, chunks: Iterable[tuple[int, np.ndarray]], going_on: Callable[[], None]) -> None:
        """Write (first block, pages) after (first block, pages)."""
        for block, pages in chunks:
            going_on()
            self.write(block * PAGE_SIZE, np.ascontiguousarray(pages).data)

    def disk(self, counters: np.ndarray, writable: bool = True) -> Disk:
        """Open the image as a disk of its own descriptor."""
        return Disk.open(f"/proc/self/fd/{self.fd}", counters, writable=writable)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
