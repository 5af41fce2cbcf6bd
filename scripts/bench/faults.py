"""Hardware faults beside the bare mechanism: two processes, one userfaultfd, and nothing in between.

    zero         a fresh page: reserved, filled with zeros
    swapped in   a page on the hypervisor's swap disk (which the machine's page cache holds)
    restored     a discarded page: the hypervisor names it, the guest's pager fills it
    64 at once   neighbours, touched one after the other, against as many that are no neighbours
    resident     numpy's sum over memory that is all there, against plain shared memory

The bare handler is the same loop in Python: poll, read, UFFDIO_COPY.  Goals: 2x, 2x, 2x, 0.25x, 1.02x.
"""

import mmap
import os
import select
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from cluster import hypervisor
from measure import Result, compare

from guests import Essa, Guest
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject
from shm.userfault import Userfault, open_userfault

PAGES = 4096
TOUCHES = 400
NEIGHBOURS = 64
LARGE = 256 << 20


class Bare:
    """Memory of this process whose missing pages another process fills."""

    def __init__(self, pages: int) -> None:
        self.object = SharedObject(os.memfd_create("bench-bare"))
        os.ftruncate(self.object.fd, pages * PAGE_SIZE)
        self.object.pages = pages
        self._map = mmap.mmap(self.object.fd, pages * PAGE_SIZE)
        self.bytes = memoryview(self._map)
        base = np.frombuffer(self._map, np.uint8).ctypes.data
        uffd = open_userfault()
        uffd.register(base, pages * PAGE_SIZE)
        self.handler = os.fork()
        if not self.handler:
            try:
                _handle(uffd)
            finally:
                os._exit(0)

    def empty(self) -> None:
        self.object.punch([(0, self.object.pages)])

    def close(self) -> None:
        os.kill(self.handler, signal.SIGKILL)
        os.waitpid(self.handler, 0)


class Constant:
    """Restores every page with the same bytes."""

    def __call__(self, _gfn: int, pages: int) -> bytes:
        return bytes(PAGE_SIZE) * pages


def _handle(uffd: Userfault) -> None:
    """Fill what is touched, for ever."""
    page = np.ones(PAGE_SIZE, np.uint8)
    source, poller = page.ctypes.data, select.epoll()
    poller.register(uffd.fd, select.EPOLLIN)
    while True:
        poller.poll()
        events = uffd.events()
        for at in range(0, len(events), 32):
            address, = struct.unpack_from("<Q", events, at + 16)
            uffd.copy(address & ~(PAGE_SIZE - 1), source, PAGE_SIZE)


@contextmanager
def machine(core: int) -> Iterator[tuple[Guest, Bare]]:
    """A guest of a hypervisor with room for all of it, and the bare thing beside it.

    Whoever touches is on the first core, and the guest's pager with it; both handlers are on `core`.
    """
    name = f"bench-faults-{os.getpid()}"
    bare = Bare(PAGES)
    try:
        with hypervisor(name, 4 * PAGES * PAGE_SIZE, swap=2 * PAGES * PAGE_SIZE, scheme="cmm2", core=core), \
                Guest.connect(name, "bench", PAGES * PAGE_SIZE, faults="hardware") as guest:
            os.sched_setaffinity(guest.memory.pager.pid, {0})
            os.sched_setaffinity(bare.handler, {core})
            yield guest, bare
    finally:
        bare.close()


def toucher(buffer: memoryview, pages: list[int]) -> Callable[[], None]:
    """Return what touches the next of `pages` each time it is called."""
    order = iter(())

    def touch() -> None:
        nonlocal order
        page = next(order, None)
        if page is None:
            order = iter(pages)
            page = next(order)
        buffer[page * PAGE_SIZE]
    return touch


def results() -> Iterator[Result]:
    """Time each kind of fault in turn with the bare one."""
    os.sched_setaffinity(0, {0})
    for core, where in ((0, "one core"), (1, "two cores")):
        with machine(core) as (guest, bare):
            yield from _kinds(guest, bare, where)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    yield resident()


def _kinds(guest: Guest, bare: Bare, where: str) -> Iterator[Result]:
    random = np.random.default_rng(1)
    scattered = (random.permutation(PAGES // 2)[:TOUCHES] * 2).tolist()
    everything, buffer = np.arange(PAGES), guest.memory.buffer

    def away() -> None:
        call(guest.cluster, {"call": "discard", "name": "bench"})
        bare.empty()

    def zeros() -> None:
        guest.essa(Essa.SET_UNUSED, everything)
        away()
        guest.essa(Essa.SET_STABLE, everything)

    def timed(what: str, before: Callable[[], None]) -> Result:
        return compare(f"{what}, {where}", toucher(buffer, scattered), "the same, bare", toucher(bare.bytes, scattered),
                       TOUCHES, 2.0, before)

    yield timed("zero page", zeros)
    guest.memory.write_many(everything, random.integers(0, 255, (PAGES, PAGE_SIZE)).astype(np.uint8))
    yield timed("swapped in", away)
    guest.memory.pager.restore(0, PAGES, Constant())
    guest.essa(Essa.SET_VOLATILE, everything)
    yield timed("restored by the pager", away)
    yield neighbours(buffer, where, away)


def neighbours(buffer: memoryview, where: str, away: Callable[[], None]) -> Result:
    """Touch neighbours one after the other, and as many pages far from each other."""
    rows = {"near": list(range(NEIGHBOURS)), "far": [(page * 61) % PAGES for page in range(5, 5 + NEIGHBOURS)]}

    def walk(pages: list[int]) -> Callable[[], None]:
        def step() -> None:
            for page in pages:
                buffer[page * PAGE_SIZE]
        return step
    return compare(f"{NEIGHBOURS} neighbours, {where}", walk(rows["near"]), "as many single ones", walk(rows["far"]),
                   1, 0.25, away)


def resident() -> Result:
    """Sum memory of a guest that is all there, and plain shared memory of the same size."""
    name = f"bench-resident-{os.getpid()}"
    plain = np.frombuffer(_plain(), np.uint64)
    with hypervisor(name, LARGE + (64 << 20), swap=0, scheme="cmm2"), \
            Guest.connect(name, "bench", LARGE, faults="hardware") as guest:
        words = guest.memory.view.reshape(-1).view(np.uint64)
        words[:] = 3
        return compare("sum of 256 MiB, resident", words.sum, "plain shared memory", plain.sum, 3, 1.02)


def _plain() -> mmap.mmap:
    fd = os.memfd_create("bench-plain")
    os.ftruncate(fd, LARGE)
    made = mmap.mmap(fd, LARGE)
    np.frombuffer(made, np.uint64)[:] = 3
    return made


if __name__ == "__main__":
    for result in results():
        print(result.line(), flush=True)
