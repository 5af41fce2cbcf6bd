"""numpy and zlib on arrays of 256 MiB in 128 MiB of frames; neither knows that pages are taken away beneath them.

    python scripts/examples/healing_numpy.py [MIB]

Starts a cluster whose budget is half of the arrays (`memcommons serve`), and works on arrays that can be computed
again.  The hypervisor drops pages of theirs at will, at no cost; a load of a dropped page waits until it has been
rebuilt.  The same functions work on ordinary memory first: every result must be the same, and nothing may be swapped.
"""

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from time import perf_counter
from typing import Any

import numpy as np

from guests import Guest
from hypervisor.toolstack.connection import call

MEMCOMMONS = [sys.executable, "-m", "hypervisor.toolstack.cli"]
COUNTED = ("discards", "discard_faults", "swap_out")
Rebuild = Callable[[int, int], np.ndarray]


def numbers(start: int, stop: int) -> np.ndarray:
    """Return numbers that look random, each computable from its index."""
    words = np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (words ^ words >> np.uint64(29)) / np.float64(1 << 64)


def digits(start: int, stop: int) -> np.ndarray:
    """Return small whole numbers, so that products of matrices of them are exact in whatever order they are summed."""
    return np.floor(numbers(start, stop) * 10)


# Each knows three arrays, and all of the memory that they fill.
WORK: dict[str, Callable[..., object]] = {
    "sum": lambda table, left, right, memory: table.sum(),
    "sort": lambda table, left, right, memory: zlib.crc32(np.sort(table)),
    "sort, descending": lambda table, left, right, memory: zlib.crc32(np.sort(-table)),
    "matrix product": lambda table, left, right, memory: zlib.crc32(left @ right),
    "zlib.crc32": lambda table, left, right, memory: zlib.crc32(memory),
    "zlib.compress": lambda table, left, right, memory: zlib.crc32(zlib.compress(memory, 1)),
}


@contextmanager
def cluster(name: str, mib: int) -> Iterator[None]:
    command = [*MEMCOMMONS, "serve", "--name", name, "--budget", f"{mib}MiB", "--scheme", "cmm2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        subprocess.run([*MEMCOMMONS, "ctl", name, "stop"], stdout=subprocess.DEVNULL, check=False)
        process.communicate(timeout=30)


def timed(work: Callable[..., object], arguments: tuple[Any, ...]) -> tuple[object, float]:
    began = perf_counter()
    return work(*arguments), perf_counter() - began


def layout(mib: int) -> list[tuple[tuple[int, ...], Rebuild]]:
    """Return shapes and contents: half of the memory is the table, and a quarter each matrix."""
    elements, side = (mib << 20) // 8, 1 << 11
    quarter = elements // 4
    return [((elements // 2,), numbers), ((quarter // side, side), digits), ((side, quarter // side), digits)]


def plainly(mib: int) -> dict[str, tuple[object, float]]:
    """Return what everything should come to, and the seconds that it takes, in ordinary memory."""
    arrays = [rebuild(0, prod(shape)).reshape(shape) for shape, rebuild in layout(mib)]
    memory = np.concatenate([array.reshape(-1) for array in arrays])
    return {what: timed(work, (*arrays, memory)) for what, work in WORK.items()}


def counts(name: str) -> np.ndarray:
    figures = call(name, {"call": "list"})["guests"][0]["host_counters"]
    return np.array([figures[counted] for counted in COUNTED])


def healing(mib: int, name: str, expected: dict[str, tuple[object, float]]) -> int:
    """Do the work on guest memory and print a line each; return how many results are wrong."""
    wrong = 0
    with Guest.connect(name, name="numpy", ram=f"{mib}MiB", faults="hardware") as guest:
        arrays = [guest.array(shape, "f8", rebuild=rebuild).values for shape, rebuild in layout(mib)]
        for what, work in WORK.items():
            before = counts(name)
            result, seconds = timed(work, (*arrays, guest.memory.buffer))
            discards, faults, swapped = (counts(name) - before).tolist()
            right = result == expected[what][0] and not swapped
            wrong += not right
            print(f"{what:18}{expected[what][1]:9.2f}{seconds:9.2f}{discards:12,}{faults:17,}{swapped:10,}  "
                  f"{'right' if right else 'WRONG'}")
    return wrong


def main(mib: int) -> int:
    print(f"{mib} MiB of arrays in {mib // 2} MiB of frames\n"
          f"{'':18}{'plain s':>9}{'here s':>9}{'discards':>12}{'discard faults':>17}{'swapped':>10}  result")
    expected, name = plainly(mib), f"healing-{os.getpid()}"
    with cluster(name, mib // 2):
        return int(healing(mib, name, expected) > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 256))
