"""What a hypercall for each page that is swapped costs beside the disk (E29).

    worst      every put is refused, one page a call, so that the page goes to the disk all the same; and as many pings,
               a call that does nothing
    swapping   a program in need of memory swaps over frontswap, with the disk that is asked for; once the pool takes
               what it can, once it takes nothing

Time in calls is the guest's own, from the request to the reply; the disk's is that of its model.
"""

from collections.abc import Mapping
from random import Random
from time import monotonic_ns
from typing import Any

import numpy as np

from guests.device import Device
from guests.guest import Guest
from guests.kernel import Kernel
from guests.mappings.operator import Operator
from guests.trials.known import Since, filled, page_of, swap_disk
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.diskcost import model_named

RAM, REGION = 256, 384           # pages
OID = 1


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    with Operator(cluster) as operator:
        return {"worst": worst(operator, options["calls"]),
                "swapping": {f"{disk}/{'frozen' if frozen else 'open'}": swapping(operator, disk, frozen, options)
                             for disk in options["disks"] for frozen in (False, True)}}


def worst(operator: Operator, calls: int) -> dict[str, Any]:
    """Return the median time of a put that is refused and of a ping, in ns."""
    with Guest.connect(operator.cluster, "worst", RAM * PAGE_SIZE, 8 * RAM * PAGE_SIZE) as guest:
        pool, page = guest.tmem.new_pool(persistent=True), page_of(1)
        operator.about("tmem-freeze", guest)
        puts, pings, refused = [], [], 0
        for index in range(calls):
            began = monotonic_ns()
            refused += not pool.put(OID, index, page)
            between = monotonic_ns()
            guest.ping()
            puts.append(between - began)
            pings.append(monotonic_ns() - between)
        return {"calls": calls, "refused": refused, "put_ns": float(np.median(puts)),
                "ping_ns": float(np.median(pings))}


def swapping(operator: Operator, disk: str, frozen: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """Work with more anonymous memory than there is room for; return pages, calls, and the time of both."""
    name = f"{disk}-{frozen}"
    with Guest.connect(operator.cluster, name, RAM * PAGE_SIZE, 8 * RAM * PAGE_SIZE) as guest, \
            swap_disk(guest, 2 * REGION) as swap:
        swap.behind(Device.of(guest.counters, model_named(disk), "virtual"))
        if frozen:
            operator.about("tmem-freeze", guest)
        with Kernel(guest, swap) as kernel:
            region, random, wrong = filled(kernel.anon(REGION)), Random(1), 0
            since = Since(guest)
            for _ in range(options["operations"]):
                index = random.randrange(REGION)
                wrong += region.read(index) != page_of(index)
                region.write(index, page_of(index))
            return {"wrong": wrong, "calls": since[Count.HYPERCALLS], "call_ns": since[Count.WAIT_TMEM_NS],
                    "disk_ns": since[Count.VIRTUAL_DISK_NS],
                    "disk_pages": since[Count.GUEST_SWAP_READS] + since[Count.GUEST_SWAP_WRITES],
                    "pages": since[Count.FRONTSWAP_STORES] + since[Count.FRONTSWAP_FAILED]
                    + since[Count.FRONTSWAP_LOADS] + since[Count.GUEST_SWAP_READS]}
