"""What the hypervisor's own memory costs: bytes a stored tmem page, raw and compressed, and bytes a guest page.

A stored page costs metadata, in the hypervisor's anonymous memory, and data, in frames of the heap.  The heap is a
shared object, so the kernel tells the two apart: `Anonymous` of smaps_rollup has nothing of the heap.  Tables grow by
doubling, so the cost is taken twice: at a million pages, and where the tables have just grown.  Each form has
a process of its own, where no memory lies freed that it could use unseen.
"""

import os
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from pages import source_pages
from peers import knows_forms

from hypervisor.domains import make_domain
from hypervisor.ledger import HEAP
from hypervisor.machine import Machine, Settings
from shm.abi import Status

STORED = 1_000_000
GROWN = (1 << 20) + 64       # one batch more than a power of two
BATCH = 64                   # pages of one file
GUEST_PAGES = 1 << 22


def own_bytes() -> int:
    """Return private memory of this process: what is neither the arena nor a file."""
    return int(psutil.Process().memory_full_info().uss)


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process: neither the arena nor a file."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


def report() -> list[str]:
    forms = ["raw", "lz4"] if knows_forms() else ["raw"]
    return [line for form in forms for line in _apart(_stored_pages, form)] + _apart(_guest_pages)


def _apart(work: Callable[..., list[str]], *arguments: str) -> list[str]:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def _machine(form: str) -> Machine:
    """Return a machine with one guest; its pages are stored in `form`."""
    chosen = {"form": form} if knows_forms() else {}
    machine = Machine(Settings(f"bench-{os.getpid()}-{secrets.token_hex(2)}", budget=2 * GROWN, **chosen))  # type: ignore[arg-type]
    domain = make_domain(0, "bench", os.getpid(), socket.socketpair()[0], 64, 64, 1, machine.stem)
    machine.admit(domain)
    return machine


def _stored_pages(form: str) -> list[str]:
    """Store real pages as files of 64 pages each; say what a page costs."""
    machine, pages = _machine(form), source_pages(16 * BATCH).reshape(-1, BATCH, 4096)
    try:
        _, pool = machine.store.create_pool(0, 1 << 24)
        before, lines, inode = anonymous_bytes(), [], 0
        for goal in (STORED, GROWN):
            while len(machine.store.catalogue) < goal:
                oids = np.broadcast_to(np.array([[inode, 0, 0]], np.uint64), (BATCH, 3))
                if not (machine.store.put_many(0, pool, oids, np.arange(BATCH, dtype=np.uint64),
                                               pages[inode % len(pages)]) == Status.OK).all():
                    raise RuntimeError(f"{form}: a put was refused")
                inode += 1
            lines.append(_a_stored_page(machine, form, anonymous_bytes() - before))
        return lines
    finally:
        machine.close()


def _a_stored_page(machine: Machine, form: str, used: int) -> str:
    stored = len(machine.store.catalogue)
    frames = machine.ledger.held.get(HEAP, 0)
    return (f"stored tmem page, {form:<20} {used / stored:9.1f} bytes of metadata measured, "
            f"{machine.store.nbytes / stored:.1f} in the catalogue's arrays, "
            f"{frames * 4096 / stored:.0f} of data in the heap ({stored} pages)   goal 120")


def _guest_pages() -> list[str]:
    machine = _machine("raw")
    try:
        before = own_bytes()
        domain = make_domain(1, "large", os.getpid(), socket.socketpair()[0], GUEST_PAGES, GUEST_PAGES, 1, machine.stem)
        machine.admit(domain)
        machine.reclaim.census()
        used = own_bytes() - before
        return [f"guest page                             {used / GUEST_PAGES:9.1f} bytes measured "
                f"({GUEST_PAGES} pages)   goal 8"]
    finally:
        machine.close()
