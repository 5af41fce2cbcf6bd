"""A mapping of a guest's memory, registered with its userfaultfd: our own, or one that somebody else's code made.

    OwnMapping        made here, and nobody else's
    AdoptedMapping    found in this process: a library opened the memory object as its file and mapped it

Rule 1: at most one mapping is touched at any time.  What is filled through one is there in all, but a write-protection
        holds for the mapping that it was laid on, and a touch through an unregistered one takes frames.
Rule 2: a child process does not inherit a mapping.
Rule 3: a mapping that was left is never usable by mistake: our own becomes inaccessible, and stays so as long as an old
        view of it lives; a foreign one is its owner's to unmap, untouched.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from shm.abi import PAGE_SIZE
from shm.arena import SharedObject, runs
from shm.errors import UsageProblem
from shm.userfault import Userfault

_PROT_NONE, _MAP_FIXED, _MAP_NORESERVE = 0, 0x10, 0x4000
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Mapping:
    """A registered mapping of all of a guest's memory.  `base` is its address, `bytes` all of it."""

    def __init__(self, data: np.ndarray, uffd: Userfault) -> None:
        self.bytes, self.uffd = data, uffd
        self.base, self.size = int(data.ctypes.data), len(data)
        self._advise(mmap.MADV_DONTFORK)
        try:
            uffd.register(self.base, self.size)
        except OSError as error:
            raise UsageProblem(f"the mapping at {self.base:#x} cannot be registered with userfaultfd: {error.strerror};"
                               " it must be a shared one of a descriptor that was opened for writing") from error

    def protect(self, gfns: np.ndarray) -> None:
        for first, count in runs(np.sort(gfns)):
            self.uffd.protect(self.base + first * PAGE_SIZE, count * PAGE_SIZE)

    def unprotect(self, gfns: np.ndarray) -> None:
        for first, count in runs(np.sort(gfns)):
            self.uffd.unprotect(self.base + first * PAGE_SIZE, count * PAGE_SIZE)

    def leave(self) -> None:
        """Register it no more.  Nobody may touch it from now on."""
        with suppress(OSError):                  # unmapped by its owner already: there is nothing left to do
            self.uffd.unregister(self.base, self.size)

    def _advise(self, advice: int) -> None:
        if _LIBC.madvise(self.base, self.size, advice):
            raise OSError(ctypes.get_errno(), f"madvise: {os.strerror(ctypes.get_errno())}")


class OwnMapping(Mapping):
    """The mapping that we make."""

    def __init__(self, fd: int, pages: int, uffd: Userfault) -> None:
        super().__init__(np.frombuffer(mmap.mmap(fd, pages * PAGE_SIZE), np.uint8), uffd)

    def leave(self) -> None:
        """Lay inaccessible memory over it: an old view is a SIGSEGV then, and neither wrong bytes nor frames."""
        super().leave()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        if _LIBC.mmap(self.base, self.size, _PROT_NONE, flags, -1, 0) != self.base:
            raise OSError(ctypes.get_errno(), f"mmap: {os.strerror(ctypes.get_errno())}")


class AdoptedMapping(Mapping):
    """Somebody else's.  Where that is read-only, `bytes` are."""

    def __init__(self, address: int, ram: SharedObject, uffd: Userfault) -> None:
        """UsageProblem unless all of `ram` is mapped from `address` on."""
        found = next((piece for piece in mappings_of(ram) if piece.start == address), None)
        if found is None or found.size < ram.pages * PAGE_SIZE:
            raise UsageProblem(f"at {address:#x} this process does not map all {ram.pages} pages of the guest's memory;"
                               " let the library map it whole, from its beginning")
        data = np.ctypeslib.as_array((ctypes.c_uint8 * (ram.pages * PAGE_SIZE)).from_address(address))
        data.flags.writeable = found.writable
        super().__init__(data, uffd)


class Piece(NamedTuple):
    """A stretch of this process's addresses that maps an object from its beginning."""

    start: int
    size: int                # bytes
    writable: bool


def mappings_of(ram: SharedObject) -> list[Piece]:
    """Return where this process maps `ram` from its beginning on, shared: from /proc/self/maps, without a touch."""
    found: list[Piece] = []
    for start, stop, rights, offset in _shared_ranges(os.fstat(ram.fd)):
        if offset == 0:
            found.append(Piece(start, stop - start, "w" in rights))
        elif found and start == found[-1].start + found[-1].size and offset == found[-1].size:
            last = found[-1]                     # the kernel tells of one mapping in pieces where their flags differ
            found[-1] = Piece(last.start, last.size + stop - start, last.writable and "w" in rights)
    return found


def _shared_ranges(of: os.stat_result) -> Iterator[tuple[int, int, str, int]]:
    """Give start, end, rights and offset of the shared mappings of one object, by address."""
    device = f"{os.major(of.st_dev):02x}:{os.minor(of.st_dev):02x}"
    with open("/proc/self/maps", encoding="ascii", errors="replace") as lines:
        for line in lines:
            addresses, rights, offset, where, inode = line.split(maxsplit=5)[:5]
            if where == device and int(inode) == of.st_ino and rights[3] == "s":
                start, stop = (int(address, 16) for address in addresses.split("-"))
                yield start, stop, rights, int(offset, 16)
