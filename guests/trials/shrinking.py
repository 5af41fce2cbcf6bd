"""What the host must write when it takes memory from a cache in the middle of a run (E15).

    tmem       an ephemeral pool                                      the host may forget, and may refuse
    persistent a persistent pool                                      the host may refuse, and may not forget
    through    a disk behind a cache that writes through              the disk has everything already
    back       a disk whose cache holds what the disk has not yet     the host may neither forget nor refuse

`back` is a persistent pool that the host may write back to its own disk.  Each stores `pages`, the budget shrinks by
three quarters of them, and each stores as many again.  Disk writes are those of the guest and of the host.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from guests.guest import Guest
from guests.hostcache import HostCaches
from guests.mappings.operator import Operator
from guests.trials.known import Since, disk_of, pages_of
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem

RAM, OID = 64, 1                             # pages
Store = Callable[[int, int], int]            # first, count -> stored
Right = Callable[[], tuple[int, int]]        # -> pages found, of these wrong


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    pages = options["pages"]
    with Operator(cluster) as operator, \
            Guest.connect(cluster, "one", RAM * PAGE_SIZE, 4 * pages * PAGE_SIZE) as guest, \
            ARMS[options["arm"]](guest, pages) as (store, right):
        disks = Writes(operator, guest)
        stored = store(0, pages)
        before = disks.now
        frames = shrink(operator, pages * 3 // 4)
        shrunk = disks.now
        again = store(pages, pages)
        found, wrong = right()
        return {"stored": stored, "written_before": before, "written_by_shrinking": shrunk - before,
                "returned_frames": frames, "stored_again": again, "pages": pages,
                "written_again": disks.now - shrunk, "found": found, "wrong": wrong}


def shrink(operator: Operator, frames: int) -> int:
    """Take frames from what is in use, and leave none free; return how many came: none where not all can be had."""
    used = operator.order("list")["frames_used"]
    try:
        return int(operator.order("set-budget", bytes=(used - frames) * PAGE_SIZE)["returned_frames"])
    except UsageProblem:
        operator.order("set-budget", bytes=operator.order("list")["frames_used"] * PAGE_SIZE)
        return 0


class Writes:
    """Pages written to disks, the guest's and the host's, since this was made."""

    def __init__(self, operator: Operator, guest: Guest) -> None:
        self._operator, self._since = operator, Since(guest)

    @property
    def now(self) -> int:
        forms = self._operator.order("tmem-list")["store"]["forms"]
        written_back = forms.get("swapped", {}).get("pages", 0)
        return self._since[Count.GUEST_DISK_WRITES] + int(written_back)


@contextmanager
def in_pool(guest: Guest, pages: int, persistent: bool) -> Iterator[tuple[Store, Right]]:
    pool = guest.tmem.new_pool(persistent=persistent)

    def right() -> tuple[int, int]:
        numbers = np.arange(2 * pages)
        hits, found = pool.get_many(OID, numbers)
        return int(hits.sum()), int((found[hits] != pages_of(numbers[hits])).any(axis=1).sum())

    def store(first: int, count: int) -> int:
        numbers = np.arange(first, first + count)
        return int(pool.put_many(OID, numbers, pages_of(numbers)).sum())

    yield store, right


@contextmanager
def on_disk(guest: Guest, pages: int) -> Iterator[tuple[Store, Right]]:
    with disk_of(guest, 2 * pages, first=2 * pages) as disk:
        cached = HostCaches(guest.tmem, guest.counters).front(disk)

        def store(first: int, count: int) -> int:
            cached.write(first, pages_of(np.arange(first, first + count)))
            return count

        def right() -> tuple[int, int]:
            return 2 * pages, int((cached.read(0, 2 * pages) != pages_of(np.arange(2 * pages))).any(axis=1).sum())

        yield store, right


ARMS: dict[str, Callable[[Guest, int], Any]] = {
    "tmem": lambda guest, pages: in_pool(guest, pages, persistent=False), "through": on_disk,
    "persistent": lambda guest, pages: in_pool(guest, pages, persistent=True),
    "back": lambda guest, pages: in_pool(guest, pages, persistent=True)}
