"""How often the same page lies in the host's memory when guests have one base image (E17).

    cache-shared       a cache of the host's that knows the image to be one        cache-separate    each has a copy
    tmem-separate      each guest's own cleancache                                 tmem-shared       one cleancache
    tmem-dedup         each guest's own, and the host keeps equal pages once

Each guest reads the image, which is larger than its memory, twice, and `own` pages of a disk of its own that nobody
else has.  Counted are the frames of cache or pool, and how many different pages they hold.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from guests.disk import Disk
from guests.guest import Guest
from guests.hostcache import AT_ONCE, HostCaches
from guests.kernel import Kernel
from guests.mappings.operator import Operator
from guests.trials.known import Pools, Reader, disk_of
from shm.abi import PAGE_SIZE

if TYPE_CHECKING:
    from guests.tmem import Oid

RAM, BASE, OWN = 128, 256, AT_ONCE           # pages; a cache enters AT_ONCE together
SECRET = 0x5EC2E7                            # of those who share
FIRST_OWN = 1 << 16                          # number of the first page that only one guest has


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    with ExitStack() as stack:
        operator = stack.enter_context(Operator(cluster))
        sides = [Side(cluster, number, stack, operator, options["arm"]) for number in range(options["guests"])]
        for side in sides:
            side.work()
        frames, wrong = operator.tmem_frames(), sum(side.wrong for side in sides)
        different = len({page for side in sides for page in side.stored()})
        return {"guests": len(sides), "frames": frames, "different": different, "wrong": wrong}


class Side:
    """One guest with the image and a disk of its own."""

    def __init__(self, cluster: str, number: int, stack: ExitStack, operator: Operator, arm: str) -> None:
        guest = stack.enter_context(Guest.connect(cluster, f"guest-{number}", RAM * PAGE_SIZE))
        guest.tmem = self._pools = Pools(guest.tmem)     # type: ignore[assignment]
        self._first_own = FIRST_OWN + number * OWN
        base = stack.enter_context(disk_of(guest, BASE))
        base.writable = False
        own = stack.enter_context(disk_of(guest, OWN, self._first_own))
        base, own, self._by_block = FRONTS.get(arm, not_cached)(guest, base, own)
        ORDERS.get(arm, no_order)(operator, guest)
        kernel = stack.enter_context(Kernel(guest))
        if arm == "tmem-shared":
            kernel.mount(base, SECRET)
        self._base, self._own = Reader(kernel.open(base)), Reader(kernel.open(own), self._first_own)
        self._shared = arm == "tmem-shared"

    def work(self) -> None:
        self._own.read(range(OWN))
        for _ in range(2):
            self._base.read(range(BASE))

    @property
    def wrong(self) -> int:
        return self._base.wrong + self._own.wrong

    def stored(self) -> set[int]:
        """Return the numbers of the pages that this guest's pools have, by asking for each."""
        pools = self._pools.made
        found = set[int]()
        for pool, oid, first, count in zip((pools[0], pools[-1]), self._objects(), (0, self._first_own), (BASE, OWN),
                                           strict=True):
            found.update((first + np.flatnonzero(pool.get_many(oid, range(count))[0])).tolist())
        return found

    def _objects(self) -> "tuple[Oid, Oid]":
        """Return what the image and the guest's own disk are called in their pools."""
        if self._by_block:
            return 1, 3 - len(self._pools.made)      # the n-th disk of its pool
        base, own = self._base.file.inode, self._own.file.inode
        return (base.start, base.limit, base.size) if self._shared else base.number, own.number


def separate(guest: Guest, base: Disk, own: Disk) -> tuple[Disk, Disk, bool]:
    caches = HostCaches(guest.tmem, guest.counters)
    return caches.front(base), caches.front(own), True


def shared(guest: Guest, base: Disk, own: Disk) -> tuple[Disk, Disk, bool]:
    one = HostCaches(guest.tmem, guest.counters, shared=SECRET)
    return one.front(base), HostCaches(guest.tmem, guest.counters).front(own), True


def not_cached(_guest: Guest, base: Disk, own: Disk) -> tuple[Disk, Disk, bool]:
    return base, own, False


def let_in(operator: Operator, guest: Guest) -> None:
    operator.about("tmem-shared-auth", guest, secret=f"{SECRET:032x}", allow=True)


def deduplicate(operator: Operator, guest: Guest) -> None:
    operator.about("tmem-set", guest, form="dedup")


def no_order(_operator: Operator, _guest: Guest) -> None:
    """What most need."""


FRONTS: dict[str, Callable[[Guest, Disk, Disk], tuple[Disk, Disk, bool]]] = {
    "cache-shared": shared, "cache-separate": separate}
ORDERS: dict[str, Callable[[Operator, Guest], None]] = {"tmem-shared": let_in, "tmem-dedup": deduplicate}
