"""Both mappings beside each other: put and get in a pool of tmem, on volatile pages; and marks, CMM2's and on tmem.

    .venv/bin/python scripts/bench/mappings.py [--rounds 9] [--pages 512] [--cores 1]

One operation is a pair, a put and the get that follows, or a mark and its undoing; every figure is of one page.  Bytes
copied are counted: what the guest's memory was read and written, and for each page that tmem stored or gave back two
pages more, into the transfer buffer and out of it.

Rule 1: the sides are timed in turn, round after round; a ratio is the median of the rounds' own ratios.
Rule 2: before anything is timed, what is got is compared with what was put.
Rule 3: guest and hypervisor share one core, or have one each (`--cores 2`), which is better on a machine that does
        nothing else, and far worse on any other: both sides poll.  The load before the run is printed.
"""

import argparse
import os
import secrets
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from cluster import hypervisor, pin
from measure import once
from pages import PAGE
from rich.console import Console
from rich.table import Table

from guests import Guest, Pool
from guests.mappings.marks import Marks, NativeMarks
from guests.mappings.marks_on_tmem import MarksOnTmem
from guests.mappings.operator import Operator
from guests.mappings.volatile_pool import VolatilePool
from guests.memory import Memory
from shm.counters import Count

BUDGET, SWAP = 64 << 20, 16 << 20
SIZES = (1, 64)
ROUNDS, PAGES = 9, 512
THROUGH_THE_BUFFER = 2       # copies of a page that goes to tmem or comes from there


@dataclass(frozen=True)
class Contestant:
    """One side: `pair(batch)` puts and gets it, or marks it and takes the mark back."""

    name: str
    pair: Callable[[np.ndarray], object]


@dataclass(frozen=True)
class Figure:
    """What one side cost, a page."""

    name: str
    us: float
    ratio: float                 # to the first side of its table
    spread: tuple[float, float]
    hypercalls: float
    hints: float                 # pages named in ESSA
    copied: float                # bytes


def pools(guest: Guest, pages: np.ndarray, size: int) -> list[Contestant]:
    """Return both kinds of pool, the first the original."""
    sides: dict[str, Pool | VolatilePool] = {"tmem": guest.tmem.new_pool(persistent=False),
                                             "volatile pages": VolatilePool(guest, range(len(pages)))}

    def contestant(name: str, pool: Pool | VolatilePool) -> Contestant:
        def one(numbers: np.ndarray) -> np.ndarray:
            number = int(numbers[0])
            pool.put(1, number, pages[number])
            return np.frombuffer(pool.get(1, number) or b"", np.uint8).reshape(-1, PAGE)

        def many(numbers: np.ndarray) -> np.ndarray:
            pool.put_many(1, numbers, pages[numbers])
            return pool.get_many(1, numbers)[1]
        return Contestant(name, one if size == 1 else many)
    return [contestant(name, pool) for name, pool in sides.items()]


def marks(guest: Guest, pages: np.ndarray) -> list[Contestant]:
    """Return both kinds of marks, each on pages of its own, which are written."""
    count = len(pages) // 2
    guest.memory.write_many(np.arange(2 * count), pages[:2 * count])
    sides: list[tuple[str, Marks, int]] = [
        ("CMM2", NativeMarks(guest), 0), ("on tmem", MarksOnTmem(guest, guest.tmem.new_pool(persistent=False)), count)]

    def contestant(name: str, side: Marks, first: int) -> Contestant:
        def pair(numbers: np.ndarray) -> np.ndarray:
            gfns = first + numbers % count
            side.set_volatile(gfns)
            if side.set_stable_if_not_discarded(gfns).any():
                raise SystemExit(f"{name}: pages were discarded without want")
            return gfns
        return Contestant(name, pair)
    return [contestant(*side) for side in sides]


def measure(guest: Guest, sides: list[Contestant], batches: list[np.ndarray], rounds: int) -> list[Figure]:
    """Time the sides in turn, each with every batch once a round."""
    times: list[list[float]] = [[] for _ in sides]
    costs = [_counted(guest, side, batches) for side in sides]           # and warm
    size = len(batches[0])
    for _ in range(rounds):
        for took, side in zip(times, sides, strict=True):
            order = iter(batches)
            took.append(once(lambda side=side, order=order: side.pair(next(order)), len(batches)) / size)
    found = []
    for side, took, (calls, hints, copied) in zip(sides, times, costs, strict=True):
        ratios = [mine / first for mine, first in zip(took, times[0], strict=True)]
        found.append(Figure(side.name, statistics.median(took), statistics.median(ratios), (min(ratios), max(ratios)),
                            calls, hints, copied))
    return found


def _counted(guest: Guest, side: Contestant, batches: list[np.ndarray]) -> tuple[float, float, float]:
    """Return hypercalls, hinted pages and copied bytes, a page, of the second time round: frames are there by then."""
    for batch in batches:
        side.pair(batch)
    before, through = guest.counters[[Count.HYPERCALLS, Count.ESSA]].copy(), _through_the_buffer(guest)
    with _accesses(guest.memory) as accessed:
        for batch in batches:
            side.pair(batch)
    pages = sum(map(len, batches))
    calls, hints = (guest.counters[[Count.HYPERCALLS, Count.ESSA]] - before) / pages
    copied = sum(accessed) + THROUGH_THE_BUFFER * PAGE * (_through_the_buffer(guest) - through)
    return float(calls), float(hints), copied / pages


def _through_the_buffer(guest: Guest) -> int:
    """Return how many pages tmem has stored and given back for a guest."""
    with Operator(guest.cluster) as operator:
        counts = operator.row(guest)["host_counters"]
    return int(counts["tmem_puts_stored"] + counts["tmem_hits"])


@contextmanager
def _accesses(memory: Memory) -> Iterator[list[int]]:
    """Note how many bytes each access to a guest's memory moves."""
    moved: list[int] = []
    plain = {name: getattr(memory, name) for name in ("read_part", "write_part", "read_many", "write_many")}
    moves = {"read_part": lambda _, __, length: length, "write_part": lambda _, __, data, *___: len(data),
             "read_many": lambda gfns: len(gfns) * PAGE, "write_many": lambda gfns, *_: len(gfns) * PAGE}

    def noting(name: str) -> Callable[..., object]:
        def access(*arguments: Any) -> object:
            moved.append(moves[name](*arguments))
            return plain[name](*arguments)
        return access

    for name in plain:
        setattr(memory, name, noting(name))
    try:
        yield moved
    finally:
        for name in plain:
            delattr(memory, name)


def _verify(sides: list[Contestant], pages: np.ndarray, batches: list[np.ndarray]) -> None:
    for side in sides:
        for batch in batches:
            if not np.array_equal(side.pair(batch), pages[batch]):
                raise SystemExit(f"{side.name}: the pages got are not the pages put")


def table(title: str, figures: list[Figure]) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for column in ("us a page", f"x {figures[0].name}", "min to max", "hypercalls", "pages hinted", "bytes copied"):
        shown.add_column(column, justify="right")
    for figure in figures:
        shown.add_row(figure.name, f"{figure.us:.2f}", f"{figure.ratio:.2f}",
                      f"{figure.spread[0]:.2f} to {figure.spread[1]:.2f}", f"{figure.hypercalls:.3f}",
                      f"{figure.hints:.2f}", f"{figure.copied:,.0f}")
    return shown


@contextmanager
def attached(pages: int, cores: int) -> Iterator[Guest]:
    """A guest of `pages` in a cluster of its own, on one core or two."""
    cluster = f"bench-{os.getpid()}-{secrets.token_hex(2)}"
    with hypervisor(cluster, BUDGET, SWAP, scheme="cmm2+tmem") as pid:
        allowed = os.sched_getaffinity(0)
        pin(pid, cores - 1)
        pin(0, 0)
        try:
            with Guest.connect(cluster, "bench", pages * PAGE, faults="software") as guest:
                yield guest
        finally:
            os.sched_setaffinity(0, allowed)


def report(rounds: int = ROUNDS, count: int = PAGES, cores: int = 1) -> None:
    """Time everything and print it."""
    console = Console(width=120)
    console.print(f"load before: {os.getloadavg()[0]:.2f}; {cores} core(s); software faults; per page")
    pages = np.random.default_rng(7).integers(0, 256, (count, PAGE), np.uint8)
    for size in SIZES:
        batches = [np.arange(at, at + size) for at in range(0, count // 2 - size + 1, size)]
        with attached(count, cores) as guest:
            sides = pools(guest, pages, size)
            _verify(sides, pages, batches)
            console.print(table(f"put and get, {size} a call", measure(guest, sides, batches, rounds)))
        with attached(count, cores) as guest:
            console.print(table(f"volatile and stable again, {size} a call",
                                measure(guest, marks(guest, pages), batches, rounds)))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--pages", type=int, default=PAGES)
    parser.add_argument("--cores", type=int, choices=(1, 2), default=1)
    wanted = parser.parse_args(arguments)
    report(wanted.rounds, wanted.pages, wanted.cores)


if __name__ == "__main__":
    main(sys.argv[1:])
