"""A multicall of 64 gets and puts, beside the numpy gather-and-scatter copy of the same pages (the limit)."""

import os

import numpy as np
from cluster import guest, hypervisor
from measure import Result, compare

NAME = f"bench-{os.getpid()}"
PAGES = 64


def results() -> list[Result]:
    rng = np.random.default_rng(1)
    source = rng.integers(0, 256, (PAGES, 4096), np.uint8)
    heap, out = np.zeros((1 << 14, 4096), np.uint8), np.zeros((PAGES, 4096), np.uint8)
    frames = rng.permutation(1 << 14)[:PAGES]
    heap[frames] = source
    cores = sorted(os.sched_getaffinity(0))
    indexes = np.arange(PAGES)

    def copy() -> None:
        gathered = heap[frames]
        out[indexes] = gathered

    found = []
    with hypervisor(NAME, 256 << 20, core=cores[-1]), guest(NAME, "64MiB") as attached:
        os.sched_setaffinity(0, {cores[0]})
        persistent, ephemeral = attached.tmem.new_pool(persistent=True), attached.tmem.new_pool(persistent=False)
        persistent.put_many(1, indexes, source)
        found.append(compare("64 gets, persistent, one multicall", lambda: persistent.get_many(1, indexes),
                             "numpy gather and scatter", copy, 200, goal=4.0))
        found.append(compare("64 puts, duplicates, one multicall", lambda: persistent.put_many(1, indexes, source),
                             "numpy gather and scatter", copy, 200))

        def put_and_get() -> None:
            ephemeral.put_many(1, indexes, source)
            ephemeral.get_many(1, indexes)

        found.append(compare("64 puts and 64 exclusive gets", put_and_get, "numpy gather and scatter", copy, 100))
        found.append(compare("one put and one exclusive get",
                             lambda: (ephemeral.put(2, 1, source[0]), ephemeral.get(2, 1)),
                             "numpy copy of one page", lambda: out[0].__setitem__(slice(None), source[1]), 500))
        os.sched_setaffinity(0, set(cores))
    return found
