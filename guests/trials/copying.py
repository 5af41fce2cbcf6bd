"""What tmem's copies cost beside the work of a load, by how often a page leaves the guest (E3).

A load serves pages of a file that fits, and every so often one that does not, which comes back from the pool and drives
another one there.  It serves a page in one of two ways: `read` copies and sums it, `zero-copy` looks at one byte of it,
as a server that has its disk and its network card move the bytes.

A page that goes is copied twice, into the transfer buffer and into the pool, and so is one that comes back.  What one
copy takes is measured beside the load, without a call.
"""

from collections.abc import Iterator, Mapping
from time import process_time_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from guests.guest import Guest
from guests.kernel import Kernel
from guests.trials.known import Since, disk_of
from shm.abi import PAGE_SIZE
from shm.counters import Count

if TYPE_CHECKING:
    from guests.kernel.file import File

RAM, HOT, COLD = 1024, 384, 3072     # pages
COPIES = 2                           # of a page on its way, in or out
ROUNDS, COPIED = 9, 8192            # of what is timed, and pages in each: 32 MiB
NEVER, LEAST = 0, 2000               # no page is cold; pages served at least
STEP = 1217                          # from one cold page to the next: prime to COLD


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    copy_ns = time_of_copy()
    rows = [served(cluster, load, every, options["cold"]) for load in LOADS for every in (NEVER, *options["every"])]
    return {"copy_ns": copy_ns, "rows": rows}


def time_of_copy() -> float:
    """Return what copying a page takes, in ns: the median of rounds, each over more than the processor's caches."""
    source, target = (np.full((COPIED, PAGE_SIZE), value, np.uint8) for value in (1, 0))
    took = []
    for _ in range(ROUNDS):
        began = process_time_ns()
        target[:] = source
        took.append((process_time_ns() - began) / COPIED)
    return float(np.median(took))


def summed(file: "File", index: int) -> None:
    np.frombuffer(file.page(index), np.uint64).sum()


def glanced_at(file: "File", index: int) -> None:
    file.read(index * PAGE_SIZE, 1)


LOADS = {"read": summed, "zero-copy": glanced_at}


def served(cluster: str, load: str, every: int, cold: int) -> dict[str, Any]:
    """Serve pages until `cold` of them were cold ones, each `every`th; return what was counted."""
    with Guest.connect(cluster, f"{load}-{every}", RAM * PAGE_SIZE) as guest, \
            disk_of(guest, HOT + COLD) as disk, Kernel(guest) as kernel:
        files = kernel.open(disk, 0, HOT), kernel.open(disk, HOT, COLD)
        for is_cold, index in [*((True, n) for n in range(COLD)), *((False, n % HOT) for n in range(2 * HOT))]:
            LOADS[load](files[is_cold], index)
        order = list(pages(every, max(cold * every, LEAST)))
        since, began = Since(guest), process_time_ns()
        for is_cold, index in order:
            LOADS[load](files[is_cold], index)
        cpu = process_time_ns() - began
        moved = since[Count.CLEANCACHE_PUTS] + since[Count.CLEANCACHE_HITS]
        return {"load": load, "every": every, "served": len(order), "cpu_ns": cpu, "copied": COPIES * moved,
                **since.counts(puts=Count.CLEANCACHE_PUTS, hits=Count.CLEANCACHE_HITS,
                               disk_reads=Count.GUEST_DISK_READS, tmem_ns=Count.WAIT_TMEM_NS)}


def pages(every: int, count: int) -> Iterator[tuple[bool, int]]:
    """Yield which pages are served: whether of the cold file, and which; cold ones in no order that invites reading
    ahead."""
    order, at = np.random.default_rng(1).integers(0, HOT, count).tolist(), 0
    for number, index in enumerate(order):
        if every and number % every == every - 1:
            at = (at + STEP) % COLD
            yield True, at
        else:
            yield False, index
