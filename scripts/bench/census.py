"""The census of the CMM2 cover letter (v7, 2009) on this machine: after the start, after a source tree was read.

    .venv/bin/python scripts/bench/census.py [--ram 1GiB] [--faults auto|hardware|software] [FOLDER ...]

Theirs: a Linux guest of 1 GiB after boot, and after `grep` over a kernel tree.  Ours: a guest kernel of the same size,
after it read what this very process had to read to run (its interpreter and libraries, the bytes of the real files) and
holds as much anonymous memory as this process does; then after every file of a source tree was read through its page
cache (Python's own library and what is installed beside it, unless folders are named).

There is no pressure: the question is what a host could have for nothing, if it wanted to.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))

from cluster import hypervisor

from guests import Guest
from guests.kernel import Kernel
from guests.workloads.tree import Original, Packed, choose, default_roots, packed_image, stamp_of
from hypervisor.census import Census, census_table
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.units import parse_size

# The two tables of v7's cover letter (27 Mar 2009), by state.
V7_BOOT = {"Sr": 19673, "Sz": 46, "Ur": 2734, "Uz": 232682, "Pr": 1, "Vr": 7008}
V7_GREP = {"Sr": 43744, "Sz": 40, "Ur": 2397, "Uz": 76234, "Pr": 2, "Vr": 139727}
KEEP_FREE = 16               # one page in so many stays free: the scan stops there


class Reader:
    """Reads real files, packed into one disk, through a guest kernel's page cache, and compares every byte."""

    def __init__(self, kernel: Kernel, guest: Guest, files: list[Packed]) -> None:
        self.files, self.pages = len(files), sum(file.pages for file in files)
        disk = packed_image(files, lambda: None).disk(guest.counters)
        original = Original()
        for packed in files:
            file = kernel.open(disk, packed.start, packed.pages, packed.size)
            found = np.frombuffer(file.read(0, packed.size), np.uint8)
            if not np.array_equal(found, original.pages(packed, 0, packed.pages).reshape(-1)[:packed.size]):
                raise SystemExit(f"{packed.path}: the guest read other bytes than the file has")
        original.close()


def packed(paths: list[str]) -> list[Packed]:
    """Return files one after the other, each on pages of its own."""
    start, files = 0, []
    for path in paths:
        stamp = stamp_of(path)
        files.append(Packed(path, start, -(-stamp[1] // PAGE_SIZE), stamp[1], stamp))
        start += files[-1].pages
    return files


def programs() -> list[str]:
    """Return the files that this process has mapped: its interpreter and libraries."""
    return sorted({entry.path for entry in psutil.Process().memory_maps()
                   if os.path.isfile(entry.path) and not entry.path.startswith("/dev/")})


def private_pages() -> int:
    """Return how many pages of its own this process has."""
    return psutil.Process().memory_full_info().uss // PAGE_SIZE


def census(cluster: str) -> Census:
    return census_table(call(cluster, {"call": "list"})["guests"][0]["states"])


def show(title: str, ours: Census, theirs: Census) -> None:
    print(f"\n{title:<38}       v7, 2009")
    print("".join(f"{head:>9}" for head in ("", "r", "p", "z", "sum")) + "   "
          + "".join(f"{head:>9}" for head in ("r", "p", "z", "sum")))
    for mine, other in zip(ours.rows, theirs.rows, strict=True):
        print(f"{mine[0]:>9}" + "".join(f"{n:>9,}" for n in mine[1:]) + "   " + "".join(f"{n:>9,}" for n in other[1:]))
    print(f"volatile, of what is resident:     {ours.volatile_percent:5.1f} %     v7: {theirs.volatile_percent:5.1f} %")
    print(f"to be had without a write (U, V):  {ours.reclaimable_percent:5.1f} %     "
          f"v7: {theirs.reclaimable_percent:5.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ram", type=parse_size, default="1GiB")
    parser.add_argument("--faults", choices=("auto", "hardware", "software"), default="auto")
    parser.add_argument("folders", nargs="*", type=Path)
    options = parser.parse_args()
    name = f"census-{os.getpid()}"
    with hypervisor(name, options.ram + (64 << 20), scheme="cmm2"), \
            Guest.connect(name, "linux", options.ram, faults=options.faults) as guest:
        kernel = Kernel(guest)
        anonymous = kernel.anon(private_pages())
        for at in range(0, anonymous.pages, 64):
            part = np.arange(at, min(at + 64, anonymous.pages))
            anonymous.write_many(part, np.full((len(part), PAGE_SIZE), 1, np.uint8))
        reader = Reader(kernel, guest, packed(programs()))
        print(f"a guest of {options.ram >> 20} MiB, {guest.faults} faults")
        show(f"after the start ({reader.files} files, {reader.pages:,} pages)", census(name), census_table(V7_BOOT))
        room = kernel.free_pages - guest.pages // KEEP_FREE
        reader = Reader(kernel, guest, choose(options.folders or default_roots(), room))
        show(f"after a source tree ({reader.files:,} files, {reader.pages:,} pages)", census(name),
             census_table(V7_GREP))


if __name__ == "__main__":
    main()
