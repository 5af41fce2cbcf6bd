"""Whether a new guest finds memory where old ones have filled it (E18).

Old guests fill what they can: persistent pages (`preswap`), ephemeral ones, or volatile pages of their memory.  Then a
guest comes and stores to all its pages: how many frames it had.  Where it had not all, the old guests' own kernels let
half of what they stored go, as root in a guest can, and the newcomer tries again.

    classes     on another cluster: of frames in each class, how many the host can have at once by its own orders
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from guests.guest import Guest
from guests.mappings.operator import ALL_KIB, Operator
from guests.trials.known import fill, had, pages_of
from shm.abi import PAGE_SIZE
from shm.pagestate import Essa

if TYPE_CHECKING:
    from guests.pool import Pool

OID = 1


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if options["what"] == "classes":
        return classes(cluster, options["pages"])
    return arrival(cluster, options)


def arrival(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the host, and let a guest of `pages` pages come."""
    pages, ram, most = options["pages"], options["ram"], options["max_mem"]
    with Operator(cluster) as operator, ExitStack() as stack:
        old = [stack.enter_context(Guest.connect(cluster, f"old-{number}", ram * PAGE_SIZE, most * PAGE_SIZE))
               for number in range(options["guests"])]
        filled = [FILLS[options["what"]](guest, most) for guest in old]
        free = int(operator.order("list")["frames_free"])
        new = stack.enter_context(Guest.connect(cluster, "new", pages * PAGE_SIZE))
        first = had(new, pages)
        for let_go in [let_go for _, let_go in filled] if first < pages else ():
            let_go()
        return {"stored": sum(stored for stored, _ in filled), "allowed": len(old) * (most - ram), "free": free,
                "pages": pages, "had": first, "had_then": had(new, pages)}


def preswap(guest: Guest, most: int) -> tuple[int, Callable[[], None]]:
    """Store persistent pages until one is refused."""
    had(guest, guest.pages)
    pool = guest.tmem.new_pool(persistent=True)
    stored = fill(pool, most)
    return stored, lambda: pool.flush_many(OID, np.arange(stored // 2))


def precache(guest: Guest, most: int) -> tuple[int, Callable[[], None]]:
    """Store ephemeral pages."""
    had(guest, guest.pages)
    pool = guest.tmem.new_pool(persistent=False)
    return fill(pool, most), lambda: pool.flush_object(OID)


def volatile(guest: Guest, _most: int) -> tuple[int, Callable[[], None]]:
    """Have all memory, and let it be volatile."""
    stored = had(guest, guest.pages)
    guest.essa(Essa.SET_VOLATILE, np.arange(stored))
    return stored, lambda: None


FILLS: dict[str, Callable[[Guest, int], tuple[int, Callable[[], None]]]] = {
    "preswap": preswap, "precache": precache, "volatile": volatile}


def classes(cluster: str, pages: int) -> dict[str, Any]:
    """Return of `pages` frames in each class how many the host can have at once, without a guest and without a disk."""
    with Operator(cluster) as operator, Guest.connect(cluster, "one", 2 * pages * PAGE_SIZE,
                                                      8 * pages * PAGE_SIZE) as guest:
        guest.memory.write_many(np.arange(2 * pages), pages_of(range(2 * pages)))
        guest.essa(Essa.SET_VOLATILE, np.arange(pages))
        guest.essa(Essa.SET_UNUSED, np.arange(pages, 2 * pages))
        pools = {name: filled(guest, pages, name == "persistent") for name in ("ephemeral", "persistent")}
        freed = {name: int(operator.order("discard", name=guest.name, first=first, count=pages)["frames"])
                 for name, first in (("volatile", 0), ("unused", pages))}
        before = operator.tmem_frames()
        operator.order("tmem-flush", kib=ALL_KIB)
        left = {name: int(np.count_nonzero(pool.get_many(OID, np.arange(pages))[0])) for name, pool in pools.items()}
        return {"pages": pages, "freed": freed | {name: pages - count for name, count in left.items()},
                "frames_flushed": before - operator.tmem_frames() - left["ephemeral"]}


def filled(guest: Guest, pages: int, persistent: bool) -> "Pool":
    pool = guest.tmem.new_pool(persistent=persistent)
    fill(pool, pages)
    return pool
