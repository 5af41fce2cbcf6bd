"""Weights at work: guests that press equally hard, the shares that their weights stand for, and what they get.

    fairness.py [--weights 1,2,4] [--frames N] [--json]

Every guest puts new ephemeral pages as fast as every other, in turns, many times what the frames hold.  Once by the
documented rule (T58-T62: who is over its share pays), once with the inequality that Xen shipped (`quirks`).
"""

import argparse
import json
import os
import secrets
import socket
from contextlib import closing

import numpy as np

from hypervisor.domains import make_domain
from hypervisor.machine import Machine, Settings
from shm.abi import PAGE_SIZE, TMEM_VERSION, VERSION_SHIFT, Status

BATCH = 16                   # pages a turn, as one multicall would put
TURNOVERS = 8                # how often each guest could have filled all frames
RAM = 16                     # pages of each guest's memory


def shares(weights: list[int], frames: int, quirks: str) -> list[float]:
    """Return the part of all ephemeral pages that each guest holds in the end."""
    name = f"bench-{os.getpid()}-{secrets.token_hex(2)}"
    with closing(Machine(Settings(name, frames, "tmem", quirks=quirks))) as machine:
        for number, weight in enumerate(weights):
            here, _ = socket.socketpair()
            machine.admit(make_domain(number, f"g{number}", os.getpid(), here, RAM, RAM, weight, machine.stem))
            status, _ = machine.store.create_pool(number, TMEM_VERSION << VERSION_SHIFT)
            assert status == Status.OK
        _press(machine, len(weights), TURNOVERS * frames)
        held = [machine.store.pages_of(number, persistent=False) for number in range(len(weights))]
        return [pages / sum(held) for pages in held]


def _press(machine: Machine, guests: int, pages: int) -> None:
    """Have every guest put so many pages, all of one content: as raw pages they take a frame each."""
    content, oids = np.ones((BATCH, PAGE_SIZE), np.uint8), np.zeros((BATCH, 3), np.uint64)
    for first in range(0, pages, BATCH):
        indexes = np.arange(first, first + BATCH, dtype=np.uint64)
        for number in range(guests):
            statuses = machine.store.put_many(number, 0, oids, indexes, content)
            assert (statuses == Status.OK).all()


def table(weights: list[int], frames: int) -> list[dict[str, float]]:
    """Return a row a guest: its weight, the share that it stands for, and what it got under either rule."""
    documented, xen = (shares(weights, frames, quirks) for quirks in ("none", "xen-4.2"))
    return [{"weight": weight, "wanted": weight / sum(weights), "documented": ours, "xen-4.2": theirs}
            for weight, ours, theirs in zip(weights, documented, xen, strict=True)]


def main() -> None:
    """Print the table, or its rows as JSON."""
    parser = argparse.ArgumentParser(description="Guests that press equally hard: shares wanted, shares got.")
    parser.add_argument("--weights", default="1,2,4", help="one for each guest")
    parser.add_argument("--frames", type=int, default=4096, help="the budget")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    chosen = parser.parse_args()
    rows = table([int(weight) for weight in chosen.weights.split(",")], chosen.frames)
    if chosen.json:
        print(json.dumps(rows))
        return
    print(f"{'weight':>6} {'share wanted':>13} {'documented rule':>16} {'Xen 4.2':>9}")
    for row in rows:
        print(f"{row['weight']:>6} {row['wanted']:>13.1%} {row['documented']:>16.1%} {row['xen-4.2']:>9.1%}")


if __name__ == "__main__":
    main()
