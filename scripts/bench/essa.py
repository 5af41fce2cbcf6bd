"""ESSA in the guest's own context, beside the numpy gather and scatter of the same bytes (the limit)."""

import os

import numpy as np
from cluster import guest, hypervisor
from measure import Result, compare

from guests import Essa

NAME = f"bench-{os.getpid()}"


def results() -> list[Result]:
    usage, content, table = np.zeros(1 << 15, np.uint8), np.full(1 << 15, 3, np.uint8), np.zeros(1 << 16, np.uint8)

    def limit(gfns: np.ndarray) -> None:
        pairs = usage.take(gfns).astype(np.uint16) | content.take(gfns).astype(np.uint16) << 8
        usage[gfns] = table.take(pairs)

    found = []
    with hypervisor(NAME, 64 << 20), guest(NAME, "128MiB") as attached:
        for count, goal in ((1, None), (256, None), (4096, None)):
            gfns = np.arange(count, dtype=np.int64) * (4096 // count)
            found.append(compare(f"ESSA on {count} pages" + (" (goal 10 us)" if count == 256 else ""),
                                 lambda gfns=gfns: attached.essa(Essa.SET_UNUSED, gfns), "numpy take and put, no lock",
                                 lambda gfns=gfns: limit(gfns), 2000, goal))
    return found
