"""The two ways of a hint, and a guest that scribbles on its states (E22).

    shared    the guest writes its own array, under its lock: Rik van Riel's guest-writable bits
    trap      a hypercall, and the hypervisor writes: the architected instruction

First both ways are timed in turn, by batches; then a guest writes random bytes over its array and posts its lock, in a
thread of its own, while the host takes frames of it and of its neighbour, who reads and writes all the time.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from statistics import median
from threading import Event, Thread
from time import perf_counter_ns
from typing import Any

import numpy as np

from guests.guest import Guest
from guests.mappings.operator import Operator
from guests.processor import HINT_PATHS
from guests.trials.vm import Vm, blocks
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import AddressingException, DiscardFault
from shm.pagestate import PRESERVED, RESIDENT, ZERO, Essa

BATCHES = (1, 64, 256)
PAGES = 256                      # of each guest
JOIN_S = 20.0
SCRIBBLES = 16                   # bytes at a time


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what hints cost, and what came of the scribbling; options: rounds, and rounds scribbled."""
    with Operator(cluster) as operator:
        return {"costs": costs(cluster, options["rounds"]), "malice": malice(operator, options["scribbled"])}


def costs(cluster: str, rounds: int) -> list[dict[str, Any]]:
    """Time hints by batches, the two ways in turn; `ratio`: trap / shared."""
    with Guest.connect(cluster, "asker", PAGES * PAGE_SIZE) as guest:
        guest.memory.write_many(range(PAGES), blocks(range(PAGES)))
        return [_costs_of(guest, batch, rounds) for batch in BATCHES]


def _costs_of(guest: Guest, batch: int, rounds: int) -> dict[str, Any]:
    gfns, spent, calls = np.arange(batch), dict[str, list[int]](), dict[str, int]()
    for _ in range(rounds):
        for path in HINT_PATHS:
            guest.hint_path = path
            before = int(guest.counters[Count.HYPERCALLS])
            spent.setdefault(path, []).append(_timed(lambda: _there_and_back(guest, gfns)))
            calls[path] = int(guest.counters[Count.HYPERCALLS]) - before
    guest.hint_path = "shared"
    ratio = median(trap / shared for trap, shared in zip(spent["trap"], spent["shared"], strict=True))
    return {"batch": batch, "ratio": ratio, "hypercalls": {path: count / 2 for path, count in calls.items()},
            "ns_a_page": {path: median(times) / (2 * batch) for path, times in spent.items()}}


def _timed(act: Callable[[], None]) -> int:
    start = perf_counter_ns()
    act()
    return perf_counter_ns() - start


def _there_and_back(guest: Guest, gfns: np.ndarray) -> None:
    guest.essa(Essa.SET_VOLATILE, gfns)
    guest.essa(Essa.SET_STABLE_IF_NOT_DISCARDED, gfns)


def malice(operator: Operator, rounds: int) -> dict[str, Any]:
    """Let a guest scribble; count what is wrong with its neighbour, with the host, and with itself."""
    with Vm(operator, PAGES, PAGES // 4, PAGES, name="neighbour") as vm, \
            Guest.connect(operator.cluster, "scribbler", PAGES * PAGE_SIZE) as guest:
        guest.memory.write_many(range(PAGES), blocks(range(PAGES)))
        with Scribbler(guest) as scribbler:
            wrong, evicted = _beside(operator, vm, guest, rounds)
        audit = operator.order("audit")
        vm.kernel.check()
        return {"scribbles": scribbler.done, "evicted": evicted, "neighbours_wrong_pages": wrong,
                "own_lost_pages": _lost(guest), "audit_problems": len(audit["problems"]),
                "drift_frames": audit["max_drift_frames"],
                "bad_contents": _bad_contents(guest) + _bad_contents(vm.guest),
                "host_half_written": _writes_the_hosts_half(guest)}


def _beside(operator: Operator, vm: Vm, guest: Guest, rounds: int) -> tuple[int, int]:
    """Work as the neighbour while the host takes frames of both; return wrong pages, and frames taken of the other."""
    anon, wrong, evicted = vm.kernel.anon(PAGES // 4), 0, 0
    pages = range(PAGES // 4)
    for version in range(rounds):
        anon.write_many(pages, blocks(pages, version))
        for name in (guest.name, vm.name):
            frames = int(operator.order("discard", name=name, first=0, count=PAGES)["frames"])
            evicted += frames if name == guest.name else 0
        wrong += int((anon.read_many(pages) != blocks(pages, version)).any(axis=1).sum())
        wrong += int((vm.file.map(0, PAGES // 4) != blocks(pages)).any(axis=1).sum())
        _lost(guest)                                 # what it touches comes back, to be taken again
    return wrong, evicted


def _lost(guest: Guest) -> int:
    """Return how many of the scribbler's pages it has no more, or cannot touch."""
    lost = 0
    for gfn, content in enumerate(blocks(range(PAGES))):
        try:
            lost += guest.memory.read(gfn) != content.tobytes()
        except (AddressingException, DiscardFault):
            lost += 1
            guest.essa_one(Essa.SET_STABLE, gfn)
    return lost


def _bad_contents(guest: Guest) -> int:
    """Return how many pages have a content that does not exist (R1)."""
    return int((~np.isin(guest.memory.map.content, (RESIDENT, PRESERVED, ZERO))).sum())


def _writes_the_hosts_half(guest: Guest) -> bool:
    """Say whether the guest can write what is the host's alone (R21)."""
    with suppress(ValueError):
        guest.memory.map.content[0] = RESIDENT
        return True
    return False


class Scribbler:
    """Writes random bytes over a guest's own states without its lock, and posts the lock; until the block ends."""

    def __init__(self, guest: Guest) -> None:
        self.done = 0
        self._usage, self._lock = guest.memory.map.usage, guest.memory.map.lock
        self._end, self._rng = Event(), np.random.default_rng(1)
        self._thread = Thread(target=self._scribble, daemon=True)

    def _scribble(self) -> None:
        while not self._end.is_set():
            where = self._rng.integers(0, PAGES, SCRIBBLES)
            self._usage[where] = self._rng.integers(0, 256, SCRIBBLES, np.uint8)
            self._lock.release()
            self.done += SCRIBBLES

    def __enter__(self) -> "Scribbler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(JOIN_S)
