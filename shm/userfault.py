"""Binding to userfaultfd(2): what the kernel says of a registered mapping, and what may be done to it.  Nothing else.

A process registers a mapping of its own; whoever holds the descriptor, in whatever process, reads the faults of that
mapping and resolves them.  Two kinds are registered at once, in one context (a second one on a mapping is EBUSY):

    missing     a touch of a page that the object does not hold: the thread stands until the page is filled
    protected   a store to a page that was write-protected: the thread stands until the protection is lifted

Rule 1: a descriptor is held by more than one process.  When the last one closes, the kernel completes pending faults
        with zeros and says nothing.
Rule 2: numbers only: no page state, no guest, no policy.  No numpy either: the pager, which must be small, uses this.

Linux 5.19 or later (write-protection of shared memory, of pages that are not mapped too).
"""

import errno
import fcntl
import os
import struct
from contextlib import suppress

from shm.errors import UsageProblem

MISSING, PROTECTED = 1, 2                    # UFFDIO_REGISTER_MODE_MISSING, _WP
EVENT_BYTES = 32                             # struct uffd_msg
EVENT_PAGEFAULT = 0x12
FLAG_WRITE, FLAG_PROTECTED = 1, 2            # of a fault: it was a store; its page is write-protected
EVENTS_AT_ONCE = 64

_UFFD_API = 0xAA
_USER_MODE_ONLY = 1
_PAGEFAULT_FLAG_WP, _MISSING_SHMEM, _WP_SHMEM = 1 << 0, 1 << 5, 1 << 12
_WANTED = _PAGEFAULT_FLAG_WP | _MISSING_SHMEM | _WP_SHMEM
_INITIALIZED = 1 << 31                       # the kernel's own mark
_COPY_PROTECTED, _PROTECT = 2, 1             # UFFDIO_COPY_MODE_WP, UFFDIO_WRITEPROTECT_MODE_WP
_DEVICE, _NEW = "/dev/userfaultfd", 0xAA00
_SYSCALLS = {"x86_64": 323, "aarch64": 282, "riscv64": 282, "ppc64le": 364, "s390x": 355}


def _request(number: int, size: int, direction: int = 3) -> int:
    return direction << 30 | size << 16 | _UFFD_API << 8 | number


_API, _REGISTER, _UNREGISTER = _request(0x3F, 24), _request(0x00, 32), _request(0x01, 16, 2)
_WAKE, _COPY, _ZEROPAGE = _request(0x02, 16, 2), _request(0x03, 40), _request(0x04, 32)
_WRITEPROTECT = _request(0x06, 24)


class Userfault:
    """One userfaultfd.  Addresses are those of the process that registered; lengths are bytes, whole pages.

    OSError of every call: ENOENT, what is named is not registered (any more); ESRCH, that process is gone; EEXIST, the
    page is there already; ENOMEM or ENOSPC, the machine has no memory for it.
    """

    def __init__(self, fd: int, user_mode_only: bool = False) -> None:
        self.fd = fd
        self.user_mode_only = user_mode_only     # faults inside system calls are EFAULT there

    def register(self, start: int, length: int) -> None:
        """Register a mapping of this process for both kinds of faults."""
        fcntl.ioctl(self.fd, _REGISTER, bytearray(struct.pack("4Q", start, length, MISSING | PROTECTED, 0)))

    def unregister(self, start: int, length: int) -> None:
        fcntl.ioctl(self.fd, _UNREGISTER, struct.pack("2Q", start, length))

    def events(self) -> bytes:
        """Return the events that are there (32 bytes each), none if there are none; the descriptor never blocks."""
        try:
            return os.read(self.fd, EVENTS_AT_ONCE * EVENT_BYTES)
        except BlockingIOError:
            return b""

    def copy(self, start: int, source: int, length: int, protected: bool = False) -> int:
        """Fill missing pages from `source` (an address of ours) and wake who waits; return the bytes filled."""
        call = bytearray(struct.pack("4Qq", start, source, length, _COPY_PROTECTED if protected else 0, 0))
        return self._filled(_COPY, call)

    def zero(self, start: int, length: int) -> int:
        """Fill missing pages with zeros and wake who waits; return the bytes filled."""
        return self._filled(_ZEROPAGE, bytearray(struct.pack("3Qq", start, length, 0, 0)))

    def _filled(self, request: int, call: bytearray) -> int:
        """Make a call that may stop on its way: what it did is its last number, or a negative errno."""
        while True:
            try:
                fcntl.ioctl(self.fd, request, call, True)
            except OSError as error:
                done: int = struct.unpack_from("q", call, len(call) - 8)[0]
                if error.errno != errno.EAGAIN or done > 0:
                    if done > 0:
                        return done
                    raise
                continue                         # the mapping was changing under the kernel's hands: once more
            return int(struct.unpack_from("q", call, len(call) - 8)[0])

    def protect(self, start: int, length: int) -> None:
        """Let the next store to each of these pages be a fault, whether they are mapped now or not."""
        self._writeprotect(start, length, _PROTECT)

    def unprotect(self, start: int, length: int) -> None:
        """Let stores go on again, and wake who waits."""
        self._writeprotect(start, length, 0)

    def _writeprotect(self, start: int, length: int, mode: int) -> None:
        while True:
            try:
                fcntl.ioctl(self.fd, _WRITEPROTECT, struct.pack("3Q", start, length, mode))
                return
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise

    def wake(self, start: int, length: int) -> None:
        """Let the threads that stand at these pages look again."""
        fcntl.ioctl(self.fd, _WAKE, struct.pack("2Q", start, length))

    def close(self) -> None:
        with suppress(OSError):
            os.close(self.fd)


def open_userfault() -> Userfault:
    """Return a userfaultfd of this process: a full one where it may have that, else one for user mode alone.

    UsageProblem with one line that names what to change, when the kernel gives none.
    """
    tried = []
    for name, make, user_mode_only in (("userfaultfd(2)", lambda: _system_call(0), False),
                                       (_DEVICE, _from_device, False),
                                       ("userfaultfd(2) for user mode", lambda: _system_call(_USER_MODE_ONLY), True)):
        try:
            fd = make()
        except OSError as error:
            tried.append(f"{name}: {error.strerror}")
            continue
        return _introduced(Userfault(fd, user_mode_only))
    raise UsageProblem(f"no userfaultfd ({'; '.join(tried)}): set vm.unprivileged_userfaultfd=1, let the seccomp "
                       f"filter pass userfaultfd, give access to {_DEVICE}, or use --faults software")


def _introduced(made: Userfault) -> Userfault:
    """Agree on the features with the kernel."""
    try:
        fcntl.ioctl(made.fd, _API, bytearray(struct.pack("3Q", _UFFD_API, _WANTED, 0)))
    except OSError as error:
        made.close()
        raise UsageProblem("this kernel's userfaultfd cannot write-protect shared memory (Linux 5.19 can): use a newer "
                           "kernel, or --faults software") from error
    return made


def _from_device() -> int:
    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(device, _NEW, os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(device)


def _system_call(flags: int) -> int:
    import ctypes
    number = _SYSCALLS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"its number on {os.uname().machine} is not known here")
    fd = int(ctypes.CDLL(None, use_errno=True).syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | flags))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def is_userfault(fd: int) -> bool:
    """Say whether a descriptor that was handed over is a userfaultfd with the features agreed on here, and no more.

    One without any cannot be read (EINVAL); one that tells of forks and unmappings too stops every fill (EAGAIN) until
    that is read, and each fork that is read is one descriptor more.
    """
    with suppress(OSError, ValueError):
        if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[userfaultfd]":
            with open(f"/proc/self/fdinfo/{fd}") as info:    # API: version:features:those that the kernel has
                features = next(line.split(":")[2] for line in info if line.startswith("API:"))
            return int(features, 16) & ~_INITIALIZED == _WANTED
    return False
