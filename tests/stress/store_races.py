"""Stores race discards and evictions: no store that completed is ever lost (R16, R19, R36).

    .venv/bin/python tests/stress/store_races.py [--seconds 600] [--faults hardware|software] [--seed 1]

One guest whose pages are potentially volatile (P) or stable (S), in frames for less than half of them, and a thief: a
process that has the hypervisor evict random ranges at all times.  The guest counts in every page, and knows what it has
counted:

    store        +1 in one word of many pages; first every one of them must hold what was counted
    write back   of dirty pages, in the order of R36: test the dirty bit, make stable, clear it, write to the disk
                 and let it be P again

A clean P page may be discarded, and comes back from the guest's own disk; a dirty one must be preserved.  So a store
that is lost, by a discard or by an eviction that overtook it, shows as a count that is too small.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from guests import DiscardFault, Essa, Guest, was_discarded
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import MemcommonsError
from shm.pagestate import CONTENT_MASK, RESIDENT

ROOT = Path(__file__).resolve().parents[2]
PAGES, BUDGET = 1024, 400                        # frames for four pages in ten
BATCH = 32                                       # pages of one step
WORDS = PAGE_SIZE // 8
STOLEN_AT_ONCE = 24


class LostStore(AssertionError):
    """A page does not hold what was counted in it."""


class Hardware:
    """Pages as plain memory; what is discarded is read again by the pager."""

    def __init__(self, guest: Guest, disk: int) -> None:
        self.guest, self.words = guest, guest.memory.view.view(np.uint64)
        guest.memory.sources._name_disk(0, disk)             # a bare file: it is no disk of a guest kernel's
        guest.memory.sources.set(np.arange(PAGES), 0, np.arange(PAGES))

    def load(self, pages: np.ndarray, word: int) -> np.ndarray:
        return self.words[pages, word]

    def store(self, pages: np.ndarray, word: int, values: np.ndarray) -> None:
        self.words[pages, word] = values

    def whole(self, pages: np.ndarray) -> np.ndarray:
        return self.guest.memory.view[pages]


class Software:
    """Pages by the access protocol; what is discarded is read again here."""

    def __init__(self, guest: Guest, disk: int) -> None:
        self.memory = guest.memory
        guest.on_discard(lambda gfn: os.pread(disk, PAGE_SIZE, gfn * PAGE_SIZE))

    def load(self, pages: np.ndarray, word: int) -> np.ndarray:
        return self.whole(pages).view(np.uint64)[:, word]

    def store(self, pages: np.ndarray, word: int, values: np.ndarray) -> None:
        for page, value in zip(pages.tolist(), values.tolist(), strict=True):
            self._store(page, word, value.to_bytes(8, "little"))

    def _store(self, page: int, word: int, value: bytes) -> None:
        self.memory.write_part(page, word * 8, value)

    def whole(self, pages: np.ndarray) -> np.ndarray:
        return self.memory.read_many(pages)


class Counting:
    """What one guest does, and what it knows."""

    def __init__(self, guest: Guest, disk: int, seed: int) -> None:
        os.ftruncate(disk, PAGES * PAGE_SIZE)
        self.guest, self.memory, self.disk = guest, guest.memory, disk
        self.pages = (Hardware if guest.faults == "hardware" else Software)(guest, disk)
        self.counted = np.zeros((PAGES, WORDS), np.uint64)
        self.random = np.random.default_rng(seed)
        self.stores = self.written = self.reread = 0

    def start(self) -> None:
        """Fill every page with zeros, which is what the disk holds, and call them clean."""
        for at in range(0, PAGES, BATCH):
            part = np.arange(at, at + BATCH)
            self.memory.write_many(part, np.zeros((BATCH, PAGE_SIZE), np.uint8), clean=True)
            self.relax(part)

    def step(self) -> None:
        pages = np.sort(self.random.choice(PAGES, BATCH, replace=False))
        if self.random.random() < 0.3:
            self.write_back(pages)
        else:
            self.count(pages, int(self.random.integers(WORDS)))

    def count(self, pages: np.ndarray, word: int) -> None:
        self.verify(pages, self.pages.load(pages, word), self.counted[pages, word], f"word {word}")
        self.counted[pages, word] += np.uint64(1)
        self.pages.store(pages, word, self.counted[pages, word])
        self.stores += len(pages)

    def write_back(self, pages: np.ndarray) -> None:
        """Hand the dirty bits over: test, make stable, clear (R36); then the disk has the page, and it is P again."""
        dirty = pages[self.memory.dirty(pages)]
        if not len(dirty):
            return
        gone = was_discarded(self.guest.essa(Essa.SET_STABLE_IF_NOT_DISCARDED, dirty))
        self.verify(dirty, np.asarray(gone), np.zeros(len(dirty), bool), "a dirty page was discarded:")
        self.memory.clear_dirty(dirty)
        content = self.pages.whole(dirty)
        self.verify(dirty, content.view(np.uint64), self.counted[dirty], "all words")
        for page, data in zip(dirty.tolist(), content, strict=True):
            os.pwrite(self.disk, data.data, page * PAGE_SIZE)
        self.relax(dirty)
        self.written += len(dirty)

    def relax(self, pages: np.ndarray) -> None:
        """Make clean pages P.  Those that have no frame just now become V by it, and a store to V may be lost: so they
        are had back, and stay stable."""
        away = pages[self.guest.essa(Essa.SET_POT_VOLATILE, pages) & CONTENT_MASK != RESIDENT]
        while len(away):
            self.pages.load(away, 0)
            gone = was_discarded(self.guest.essa(Essa.SET_STABLE_IF_NOT_DISCARDED, away))
            away = away[np.asarray(gone)]

    def verify(self, pages: np.ndarray, found: np.ndarray, expected: np.ndarray, what: str) -> None:
        if not np.array_equal(found, expected):
            at = np.argwhere(found != expected)[0]
            raise LostStore(f"page {pages[at[0]]}, {what}: {found[tuple(at)]} is there, {expected[tuple(at)]} was "
                            f"counted, after {self.stores} stores and {self.written} pages written back")

    def finish(self) -> None:
        for at in range(0, PAGES, BATCH):
            part = np.arange(at, at + BATCH)
            self.verify(part, self.pages.whole(part).view(np.uint64), self.counted[part], "at the end")


def run(seconds: float, faults: str, seed: int, name: str) -> dict[str, int]:
    """Run one guest and its thief in cluster `name`; LostStore when a store is lost, else what happened, in numbers."""
    with hypervisor(name), Guest.connect(name, "counting", PAGES * PAGE_SIZE, faults=faults) as guest, \
            tempfile.TemporaryFile(dir="/var/tmp") as disk:
        counting = Counting(guest, disk.fileno(), seed)
        counting.start()
        with thief(name, seed):
            until = monotonic() + seconds
            while monotonic() < until:
                counting.step()
        counting.finish()
        figures = call(name, {"call": "list"})["guests"][0]["host_counters"]
        audit = call(name, {"call": "audit"})
        assert audit["max_drift_frames"] == 0, audit
        figures = {key: figures[key] for key in ("discards", "swap_out", "swap_in", "swap_retries", "hardware_faults",
                                                 "write_faults", "discard_faults", "volatile_swap_writes")}
        figures["discard_faults"] += int(guest.counters[Count.DISCARD_FAULTS])
        return {"stores": counting.stores, "written_back": counting.written, "lost": 0} | figures


@contextmanager
def hypervisor(name: str) -> Iterator[None]:
    order = {"cluster": name, "budget": BUDGET * PAGE_SIZE, "swap": 2 * PAGES * PAGE_SIZE, "scheme": "cmm2"}
    with subprocess.Popen([sys.executable, "-m", "hypervisor"], cwd=ROOT, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        assert "ready" in process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(20)


@contextmanager
def thief(name: str, seed: int) -> Iterator[None]:
    with subprocess.Popen([sys.executable, __file__, "--thief", name, "--seed", str(seed)], cwd=ROOT) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def steal(name: str, seed: int) -> None:
    """Have random ranges evicted, again and again, until there is nobody to take from."""
    random = np.random.default_rng(seed)
    while True:
        first = int(random.integers(PAGES - STOLEN_AT_ONCE))
        try:
            call(name, {"call": "discard", "name": "counting", "first": first, "count": STOLEN_AT_ONCE})
        except MemcommonsError:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--faults", choices=("hardware", "software"), default="hardware")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--thief", metavar="CLUSTER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.thief:
        steal(options.thief, options.seed)
        return 0
    try:
        figures = run(options.seconds, options.faults, options.seed, f"races-{os.getpid()}-{secrets.token_hex(4)}")
    except (LostStore, DiscardFault) as lost:
        print(f"LOST: {lost}", file=sys.stderr)
        return 1
    print(f"{options.seconds:g} s, {options.faults} faults: " + ", ".join(f"{value} {key}" for key, value in
                                                                         figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
