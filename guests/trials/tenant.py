"""A tenant: one guest of a trial, whose load is known to the page.

    file     read through a mapping, never written; its disk was there before
    anon     read and stored to
    touch    one operation: one page, chosen with skew, compared with what was written there

Its clock is its own: each operation thinks for a stated time and then waits for disks, as their model says (virtual
time, docs/disks.md).  Calls and copies take no time there, nor does what a balloon's own thread waits for.  So a
machine that is busy with other work changes nothing.

Rule 1: the same needs, load and seed are the same touches in the same order, whatever the scheme.  How many there are
        until the load changes is the clocks' affair, where a trial goes by them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from guests.device import Device
from guests.disk import Disk
from guests.guest import Guest
from guests.kernel import Kernel
from guests.selfballoon import Rules
from guests.workloads.choice import Skewed
from guests.workloads.content import Content
from guests.workloads.image import Image
from guests.workloads.proof import Proof
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.diskcost import NANO, VIRTUAL, model_named
from shm.latency import bucket_of, empty

if TYPE_CHECKING:
    from guests.mappings.operator import Operator

SLICE_NS = 10_000_000            # of a tenant's clock: then it is the next one's turn
FILL = 32                        # pages of one step of the filling
COUNTED = {"file_reads": Count.GUEST_DISK_READS, "file_writes": Count.GUEST_DISK_WRITES,
           "guest_in": Count.GUEST_SWAP_READS, "guest_out": Count.GUEST_SWAP_WRITES,
           "cleancache_hits": Count.CLEANCACHE_HITS, "frontswap_loads": Count.FRONTSWAP_LOADS,
           "frontswap_stores": Count.FRONTSWAP_STORES, "discard_faults": Count.DISCARD_FAULTS,
           "hypercalls": Count.HYPERCALLS, "faults": Count.FAULTS, "rebuilt": Count.REBUILT_PAGES}
HOST_COUNTED = {"host_in": "swap_in", "host_out": "swap_out", "discards": "discards"}
DISK = ("file_reads", "file_writes", "guest_in", "guest_out", "host_in", "host_out")    # pages to and from any disk


class Needs(NamedTuple):
    """What a tenant is made of; sizes in pages."""

    ram: int
    file: int = 0
    anon: int = 0
    stores: float = 0.3          # of the touches of anonymous pages
    theta: float = 0.6           # skew of the choice
    think_ns: int = 200_000      # of an operation
    most: int = 0                # RAM and persistent tmem together; 0: as RAM
    disk: str = "ssd"            # a row of `shm.diskcost.MODELS`
    start: int = 0               # that its balloon leaves it at first; 0: all
    selfballoon: Mapping[str, Any] | None = None     # the rules by which it balloons itself; None: it does not


class Load(NamedTuple):
    """The working set, in pages; nothing at all is an idle guest."""

    file: int = 0
    anon: int = 0

    @property
    def pages(self) -> int:
        return self.file + self.anon


class Tenant:
    """One guest with its kernel.  A context manager."""

    def __init__(self, cluster: str, number: int, needs: Needs, seed: int = 1) -> None:
        self.needs, self.operations, self.load = needs, 0, Load()
        self._aside_ns = 0                           # that its balloon has waited for disks
        self.content, self._random, self._idle_ns = Content(seed * 1000 + number), Random(seed * 1000 + number), 0
        with ExitStack() as undo:
            self.guest = Guest.connect(cluster, f"tenant-{number}", needs.ram * PAGE_SIZE,
                                       max(needs.most, needs.ram) * PAGE_SIZE)
            undo.callback(self.guest.close)
            self.proof = Proof(self.guest.counters)
            self._device = Device.of(self.guest.counters, model_named(needs.disk), VIRTUAL)
            swap = undo.enter_context(Disk.create(2 * (needs.ram + needs.anon), self.guest.counters,
                                                  reads=Count.GUEST_SWAP_READS, writes=Count.GUEST_SWAP_WRITES))
            rules = needs.selfballoon
            self.kernel = Kernel(self.guest, swap.behind(self._device), selfballooning=rules is not None,
                                 selfballoon=Rules(**(rules or {})), clock=lambda: self.now_ns / NANO)
            self._file = self.kernel.open(undo.enter_context(self.file_disk(needs.file)))
            self._file_pages = self.content.pages(np.arange(needs.file))
            self.kernel.balloon.set_target(needs.start or needs.ram)
            self._renew(needs.anon)
            self._undo = undo.pop_all()
        self.stalls = empty()                        # how many operations waited how long for disks

    def owns(self, disk: Disk) -> Disk:
        """Take a disk over: it is closed with the tenant."""
        self._undo.push(disk)
        return disk

    def file_disk(self, pages: int) -> Disk:
        """Return a disk that has content already."""
        with Image(max(1, pages), "use a smaller trial") as image:
            image.fill(((first, self.content.pages(np.arange(first, min(first + FILL, pages))))
                        for first in range(0, pages, FILL)), lambda: None)
            return image.disk(self.guest.counters, writable=False).behind(self._device)

    @property
    def now_ns(self) -> int:
        """The tenant's clock: what it thought, what it waited for disks, and what it idled."""
        return self._idle_ns + self.operations * self.needs.think_ns + self._waited_ns()

    def _waited_ns(self) -> int:
        return self._device.virtual_ns() - self._aside_ns

    def _tick(self) -> None:
        """Give the kernel its moment."""
        self._beside(self.kernel.tick)

    def deal(self, pages: int) -> None:
        """Let its balloon leave it so many pages from now on."""
        self._beside(lambda: self.kernel.balloon.set_target(pages))

    def _beside(self, act: Callable[[], object]) -> None:
        """Do what a thread of its own does, such as the balloon's: nobody waits while that waits for disks."""
        before = self._device.virtual_ns()
        act()
        self._aside_ns += self._device.virtual_ns() - before

    def take_up(self, load: Load, renew: bool = False) -> None:
        """Work on another working set from now on: the first pages of the file, and of the anonymous region.

        `renew`: programs end and others begin, with a region that is as large as their working set.
        """
        self.load = load
        if renew:
            self._anon.free()
            self._renew(load.anon)
        if load.pages:
            self._choose = Skewed(load.pages, self.needs.theta, self._random).choose

    def fill(self) -> None:
        """Touch each page of the working set once."""
        for index in range(self.load.file):
            self._read_file(index)
            self._tick()
        for index in range(self.load.anon):
            self._store(index)
            self._tick()

    def _renew(self, pages: int) -> None:
        self._anon, self._versions = self.kernel.anon(pages), np.zeros(pages, np.int64)

    def visit(self) -> None:
        """Look at each page of the working set once."""
        for index in range(self.load.file):
            self._read_file(index)
        for index in range(self.load.anon):
            self._use_anon(index, stores=0.0)

    def touch(self) -> None:
        """Do one operation."""
        before, thing = self._device.virtual_ns(), self._choose()
        if thing < self.load.file:
            self._read_file(thing)
        else:
            self._use_anon(thing - self.load.file, self.needs.stores)
        self.operations += 1
        self.stalls[bucket_of(self._device.virtual_ns() - before)] += 1
        self._tick()

    def work(self, operations: int) -> None:
        for _ in range(operations):
            self.touch()

    @property
    def pages(self) -> int:
        """Pages that it has beside its balloon."""
        return self.kernel.balloon.current

    def sleep_until(self, end_ns: int) -> None:
        """Do nothing until its clock says `end_ns`; its kernel has its moment all the same."""
        self._idle_ns += max(0, end_ns - self.now_ns)
        self._tick()

    def until(self, end_ns: int) -> None:
        """Work, or idle, until its clock says `end_ns`."""
        if not self.load.pages:
            self.sleep_until(end_ns)
        while self.now_ns < end_ns:
            self.touch()

    def _read_file(self, index: int) -> None:
        self.proof.pages(self._file.map(index, 1), self._file_pages[index:index + 1], "file", index)

    def _use_anon(self, index: int, stores: float) -> None:
        """Store to a page now and then, and always to one that never was; else read it."""
        version = int(self._versions[index])
        if not version or self._random.random() < stores:
            self._store(index)
        else:
            self.proof.page(self._anon.read(index), self._anonymous(index, version), "anonymous", index)

    def _store(self, index: int) -> None:
        self._versions[index] += 1
        self._anon.write(index, self._anonymous(index, int(self._versions[index])))

    def _anonymous(self, index: int, version: int) -> bytes:
        return self.content.page(self.needs.file + index, version)

    def counted(self, operator: "Operator") -> dict[str, int]:
        """Return its counters and the hypervisor's about it, in pages; and what it waited for disks by the model.

        `aside_ns` is what its balloon waited, and nobody else.
        """
        host = operator.row(self.guest)["host_counters"]
        found = {name: int(self.guest.counters[count]) for name, count in COUNTED.items()}
        return found | {name: host[count] for name, count in HOST_COUNTED.items()} | {
            "operations": self.operations, "waited_ns": self._waited_ns(), "aside_ns": self._aside_ns}

    def close(self) -> None:
        """Leave: the kernel audits itself first, the guest is the last to go."""
        try:
            self.kernel.check()
            self.kernel.close()
        finally:
            self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._undo.close()


def turns(tenants: Sequence[Tenant], end_ns: int) -> None:
    """Let all tenants go on until their clocks say `end_ns`, a slice each, whoever is behind first."""
    while (one := min(tenants, key=lambda tenant: tenant.now_ns)).now_ns < end_ns:
        one.until(min(end_ns, one.now_ns + SLICE_NS))


def grown(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return what was counted between two looks."""
    return {name: after[name] - before[name] for name in after}


def disk_pages(counted: Mapping[str, int]) -> int:
    """Return all pages that went to or came from a disk, whoever's."""
    return sum(counted[name] for name in DISK)
