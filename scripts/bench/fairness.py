"""Weights at work: guests that press equally hard, the shares that their weights stand for, and what they get.

    fairness.py [--weights 1,2,4] [--frames N] [--json]

Every guest puts new ephemeral pages as fast as every other, in turns, many times what the frames hold.  Once by the
documented rule (T58-T62: who is over its share pays), once with the inequality that Xen shipped (`quirks`).
"""

import argparse
import json
import os
import secrets
from contextlib import ExitStack

import numpy as np
from cluster import hypervisor

from guests import Guest
from guests.pool import Pool
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE

BATCH = 16                   # pages a turn, as one multicall would put
TURNOVERS = 8                # how often each guest could have filled all frames
RAM = 16                     # pages of each guest's memory


def shares(weights: list[int], frames: int, quirks: str) -> list[float]:
    """Return the part of all ephemeral pages that each guest of a cluster holds in the end."""
    name = f"bench-{os.getpid()}-{secrets.token_hex(2)}"
    with ExitStack() as stack:
        stack.enter_context(hypervisor(name, frames * PAGE_SIZE, scheme="tmem", quirks=quirks))
        guests = [stack.enter_context(Guest.connect(name, f"g{number}", RAM * PAGE_SIZE, weight=weight))
                  for number, weight in enumerate(weights)]
        _press([guest.tmem.new_pool(persistent=False) for guest in guests], TURNOVERS * frames)
        held = [guest["ephemeral"] for guest in call(name, {"call": "list"})["guests"]]
        return [pages / sum(held) for pages in held]


def _press(pools: list[Pool], pages: int) -> None:
    """Have every guest put so many pages, all of one content: as raw pages they take a frame each."""
    content = np.ones((BATCH, PAGE_SIZE), np.uint8)
    for first in range(0, pages, BATCH):
        for pool in pools:
            assert pool.put_many(0, range(first, first + BATCH), content).all()


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
