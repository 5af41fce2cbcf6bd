"""What the hypervisor's own memory costs: bytes a stored tmem page, bytes a guest page."""

import os
import secrets
import socket

import numpy as np
import psutil

from hypervisor.domains import make_domain
from hypervisor.machine import Machine, Settings

STORED = 200_000
GUEST_PAGES = 1 << 22


def own_bytes() -> int:
    """Return private memory of this process: what is neither the arena nor a file."""
    return int(psutil.Process().memory_full_info().uss)


def report() -> list[str]:
    machine = Machine(Settings(f"bench-{os.getpid()}-{secrets.token_hex(2)}", budget=2 * STORED))
    ends = socket.socketpair()
    try:
        domain = make_domain(0, "bench", os.getpid(), ends[0], 64, 64, 1, machine.stem)
        machine.admit(domain)
        return [_a_stored_page(machine), _a_guest_page(machine)]
    finally:
        machine.close()


def _a_stored_page(machine: Machine) -> str:
    """Store pages of files of 64 pages; the pages themselves lie in the heap and are subtracted."""
    _, pool = machine.store.create_pool(0, 1 << 24)
    page, before = np.zeros((64, 4096), np.uint8), own_bytes()
    for inode in range(STORED // 64):
        oids = np.broadcast_to(np.array([[inode, 0, 0]], np.uint64), (64, 3))
        machine.store.put_many(0, pool, oids, np.arange(64, dtype=np.uint64), page)
    stored = len(machine.store.catalogue)
    used = own_bytes() - before - stored * 4096        # the heap's pages are private here: nobody else maps them
    return (f"stored tmem page                       {used / stored:9.1f} bytes measured, "
            f"{machine.store.catalogue.nbytes / stored:.1f} in the catalogue's arrays ({stored} pages)   goal 200")


def _a_guest_page(machine: Machine) -> str:
    ends, before = socket.socketpair(), own_bytes()
    domain = make_domain(1, "large", os.getpid(), ends[0], GUEST_PAGES, GUEST_PAGES, 1, machine.stem)
    machine.admit(domain)
    machine.reclaim.census()
    used = own_bytes() - before
    return (f"guest page                             {used / GUEST_PAGES:9.1f} bytes measured "
            f"({GUEST_PAGES} pages)   goal 8")
