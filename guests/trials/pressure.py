"""A guest short of memory on a host short of frames: anonymous pages and a file, skewed, counted (E31, E34).

    pages, anonymous, file     sizes in pages: of the guest, of its anonymous region, of its file
    operations, seed           one page each: read or stored if anonymous, touched as it is mapped if of the file
    kernel                     options of the guest's kernel

Memory is filled before anything is counted.  The same options are the same operations, whatever the host does.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

from guests.mappings.operator import Operator
from guests.trials.vm import Vm, block, blocks
from shm.counters import Count
from shm.pagestate import Essa

OWN = ("guests.", "shm.")        # modules of the guest's side
ANONYMOUS_SHARE, STORE_SHARE, SKEW = 0.7, 0.4, 2.0
ROUNDS = 200                     # of the comparison of two ways to ask for a page's state
CHUNK = 64


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what crossed and what the host did, per run; and what asking for a page's state costs."""
    kernel = dict(options.get("kernel", {}))
    with Operator(cluster) as operator:
        with Vm(operator, options["pages"], options["file"], 4 * options["anonymous"], **kernel) as vm:
            program = Program(vm, options)
            before, hosts = vm.transfers(), vm.hosts()
            counts = {name: vm.count(name) for name in (Count.DOUBLE_PAGED, Count.ESSA, Count.RECLAIMED_PAGES)}
            looks = vm.kernel.looks
            for _ in range(options["operations"]):
                program.step()
            host = {name: count - hosts[name] for name, count in vm.hosts().items()}
            return {**vm.transfers().since(before)._asdict(), "total": vm.transfers().since(before).total,
                    **{name.name.lower(): vm.count(name) - count for name, count in counts.items()},
                    "discards": host["discards"], "freed_unused": host["freed_unused"],
                    "evictions": host["discards"] + host["freed_unused"] + host["swap_out"],
                    "looks": vm.kernel.looks - looks,
                    "essa_a_look": asking(vm), "guest_code": code_digest(), "operations": options["operations"]}


class Program:
    """The operations.  Every page that is read is compared with what was written."""

    def __init__(self, vm: Vm, options: Mapping[str, Any]) -> None:
        self._vm, self._rng = vm, np.random.default_rng(options["seed"])
        self._anonymous, self._file = options["anonymous"], options["file"]
        self._versions = np.zeros(self._anonymous, np.int64)
        self._anon = vm.kernel.anon(self._anonymous)
        self._order = self._rng.permutation(self._anonymous), self._rng.permutation(self._file)
        for first in range(0, self._anonymous, CHUNK):
            indexes = range(first, min(first + CHUNK, self._anonymous))
            self._anon.write_many(indexes, blocks(indexes))
        for first in range(0, self._file, CHUNK):
            vm.file.map(first, min(CHUNK, self._file - first))

    def step(self) -> None:
        """Do one operation."""
        kind, what, where = self._rng.random(3)
        place = where ** SKEW
        if kind >= ANONYMOUS_SHARE:
            index = int(self._order[1][int(place * self._file)])
            self._vm.expect(self._vm.file.map(index, 1).tobytes(), block(index))
            return
        index = int(self._order[0][int(place * self._anonymous)])
        if what < STORE_SHARE:
            self._versions[index] += 1
            self._anon.write(index, block(index, int(self._versions[index])))
        else:
            self._vm.expect(self._anon.read(index), block(index, int(self._versions[index])))


def asking(vm: Vm) -> float:
    """Return how much longer it takes to ask for a page's state by ESSA than to look at what the guest can see."""
    gfns, ratios = np.arange(vm.guest.pages), []
    for _ in range(ROUNDS):
        start = perf_counter_ns()
        vm.guest.memory.evicted(gfns)
        between = perf_counter_ns()
        vm.guest.essa(Essa.GET_STATE, gfns)
        ratios.append((perf_counter_ns() - between) / (between - start))
    return median(ratios)


def code_digest() -> str:
    """Return a digest of the code that this guest runs: every module of its side that is loaded."""
    files = sorted({str(module.__file__) for name, module in sys.modules.items()
                    if name.startswith(OWN) and getattr(module, "__file__", None)})
    digest = hashlib.sha256()
    for file in files:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()
