"""What a guest hands over for hardware faults, checked before it is used: its userfaultfd, its pager, its address."""

import os
import socket
from contextlib import suppress

import psutil

from hypervisor.domains import Domain, Hardware
from hypervisor.mapping import Mapping
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem
from shm.userfault import Userfault, is_userfault

HIGHEST = 1 << 56            # no process has memory beyond


def taken_over(domain: Domain, base: object, pager_pid: object, fds: list[int]) -> Hardware:
    """Return what a guest has handed over, ours from now on; UsageProblem when that is not what it should be.

    The pager's pid, where one is given, must be a child of the guest's.
    """
    start = checked_base(base, domain)
    if domain.hardware is not None or len(fds) != 2 or not is_userfault(fds[0]):
        raise UsageProblem("hardware: hand over one userfaultfd and one socket, once")
    try:
        pager = socket.socket(fileno=fds[1])
        pager.setblocking(False)
    except OSError as error:
        raise UsageProblem(f"hardware: the second descriptor is no socket: {error.strerror}") from error
    os.set_blocking(fds[0], False)
    return Hardware(Mapping(Userfault(fds[0]), start, domain.ram), pager, pager_pidfd=child_of(domain, pager_pid))


def child_of(domain: Domain, pid: object) -> int:
    """Return a pidfd of a child of the guest's; -1 where none was named."""
    if type(pid) is not int or not 1 < pid < 1 << 22:
        return -1
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)               # first: from here on the number is this process's
        with suppress(psutil.Error):
            if psutil.Process(pid).ppid() == domain.pid:
                return pidfd
        os.close(pidfd)
    return -1


def checked_base(base: object, domain: Domain) -> int:
    if type(base) is not int or base % PAGE_SIZE or not 0 < base <= HIGHEST - domain.pages * PAGE_SIZE:
        raise UsageProblem("hardware: base must be the address of a page, with all of the guest's memory behind it")
    return base
