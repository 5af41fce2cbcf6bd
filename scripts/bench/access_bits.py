"""What the access bits of hardware mode are worth, and what they cost: the same touches with them and without.

    .venv/bin/python scripts/bench/access_bits.py

A guest of 64 MiB on half of that touches its pages at random, nine times in ten one of a hot quarter that lies
scattered among the others.  Software mode, whose accessor marks each use exactly, does the same touches beside it: a
bound for how well the clock can choose.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from cluster import hypervisor

from guests import Guest
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE

RAM = 64 << 20
TOUCHES = 100_000
WARM = 20_000
HOT_SHARE, HOT_TOUCHES = 4, 0.9


def touches(seed: int) -> np.ndarray:
    """Return the pages to touch, in order."""
    random = np.random.default_rng(seed)
    pages = random.permutation(RAM // PAGE_SIZE)
    hot = pages[:len(pages) // HOT_SHARE]
    return np.where(random.random(WARM + TOUCHES) < HOT_TOUCHES, random.choice(hot, WARM + TOUCHES),
                    random.choice(pages, WARM + TOUCHES))


def run(faults: str, bits: bool, order: list[int]) -> tuple[int, float]:
    """Return how many of the touches were faults, and the seconds that they took."""
    name = f"bench-bits-{os.getpid()}"
    with hypervisor(name, RAM // 2, swap=2 * RAM, scheme="swap", access_bits=bits) as _, \
            Guest.connect(name, "bench", RAM, faults=faults) as guest:
        touch = _software(guest) if faults == "software" else _hardware(guest)
        for page in range(RAM // PAGE_SIZE):
            touch(page)
        for page in order[:WARM]:
            touch(page)
        before, start = _swapped_in(guest), time.perf_counter()
        for page in order[WARM:]:
            touch(page)
        return _swapped_in(guest) - before, time.perf_counter() - start


def _software(guest: Guest):
    write = guest.memory.write_part
    return lambda page: write(page, 0, b"x")


def _hardware(guest: Guest):
    buffer = guest.memory.buffer

    def touch(page: int) -> None:
        buffer[page * PAGE_SIZE] = 120
    return touch


def _swapped_in(guest: Guest) -> int:
    """Ask the hypervisor, as anybody may: pages read back from its swap disk."""
    return int(call(guest.cluster, {"call": "list"})["guests"][0]["host_counters"]["swap_in"])


def main() -> None:
    order = touches(1).tolist()
    print(f"{TOUCHES} touches, {HOT_TOUCHES:.0%} of them of a quarter of the pages, in half of the guest's memory")
    figures = {what: run(faults, bits, order) for what, faults, bits in (
        ("software: the accessor marks each use", "software", True),
        ("hardware, access bits", "hardware", True),
        ("hardware, none: by place", "hardware", False))}
    for what, (faulted, seconds) in figures.items():
        print(f"{what:<40} {faulted:7} pages read back ({faulted / TOUCHES:6.1%})  {seconds:6.2f} s")


if __name__ == "__main__":
    main()
