"""A program whose worker keeps pictures it can make again in a cluster's memory, and never minds losing some.

Start a cluster, then two of these at once, in three terminals:

    memcommons serve --name shop --budget 32MiB
    python scripts/examples/resizer.py shop left
    python scripts/examples/resizer.py shop right

Each wants 24 MiB; together they get 32.  What one touches, the other loses, and makes again when it needs it.
"""

import sys

import numpy as np

from guests import Essa, Guest

PAGES = 6144                                         # 24 MiB
READS = 5000                                         # a turn; some pages far more often than others


def thumbnail(number: int) -> bytes:
    """Stand in for work worth keeping: one page, computable from its number."""
    return np.random.default_rng(number).integers(0, 256, 4096, np.uint8).tobytes()


def main(cluster: str, name: str) -> None:
    remade = 0

    def restore(gfn: int) -> bytes:
        nonlocal remade
        remade += 1
        return thumbnail(gfn)

    with Guest.connect(cluster, name=name, ram="24MiB") as guest:
        guest.on_discard(restore)
        for gfn in range(PAGES):
            guest.memory.write(gfn, thumbnail(gfn))
            guest.essa(Essa.SET_VOLATILE, [gfn])     # from here on the hypervisor may take it
        for turn in range(5):
            remade = 0
            favourites = (np.random.default_rng(turn).beta(0.4, 2, READS) * PAGES).astype(int).tolist()
            wrong = sum(guest.memory.read(gfn) != thumbnail(gfn) for gfn in favourites)
            print(f"{name}: turn {turn}: {READS} reads, {remade} pages were gone and made again, {wrong} wrong")


if __name__ == "__main__":
    main(*sys.argv[1:])
