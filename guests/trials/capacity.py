"""How many pages of a file set a guest finds in memory, its own or the host's (E2).

A guest of `pages` pages reads sets of `sets` times as many, in runs of neighbours, each page once in one order and once
in another.  What the
second reading found without the disk are hits.  The most pages that were cached at once, in the guest and in the pool
together, are counted; no page is in both.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from guests.guest import Guest
from guests.kernel import Kernel
from guests.mappings.operator import Operator
from guests.trials.known import Reader, Since, disk_of
from shm.abi import PAGE_SIZE
from shm.counters import Count

RUN, LOOKS = 16, 16      # pages read in one request; times that what is cached is counted


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    pages, rng = options["pages"], np.random.default_rng(options.get("seed", 1))
    sets = [read_set(cluster, pages, multiple, rng) for multiple in options["sets"]]
    return {"guest_pages": pages, "sets": sets}


def read_set(cluster: str, pages: int, multiple: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return what came of a set of `multiple` times the guest's pages."""
    count = pages * multiple
    with Operator(cluster) as operator, Guest.connect(cluster, f"set-{multiple}", pages * PAGE_SIZE) as guest, \
            disk_of(guest, count) as disk, Kernel(guest) as kernel:
        reader = Reader(kernel.open(disk))
        starts = np.arange(0, count, RUN)
        for at in rng.permutation(starts).tolist():
            reader.read_run(at, RUN)
        since, cached = Since(guest), 0
        for part in np.array_split(rng.permutation(starts), LOOKS):
            for at in part.tolist():
                reader.read_run(at, RUN)
            cached = max(cached, len(reader.cached) + int(operator.row(guest)["ephemeral"]))
        reads = since[Count.GUEST_DISK_READS]
        return {"multiple": multiple, "pages": count, "disk_reads": reads, "hits": max(0, count - reads),
                "cached": cached, "wrong": reader.wrong}
