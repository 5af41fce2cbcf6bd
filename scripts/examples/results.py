"""A program that keeps results in tmem: an ephemeral pool is a cache that may forget, a persistent one keeps.

    memcommons serve --name shop --budget 32MiB
    python scripts/examples/results.py shop
"""

import sys

import numpy as np

from guests import Guest


def main(cluster: str) -> None:
    with Guest.connect(cluster, name="results", ram="4MiB", max_mem="24MiB") as guest:
        cache = guest.tmem.new_pool(persistent=False)
        kept = guest.tmem.new_pool(persistent=True)
        pages = np.random.default_rng(1).integers(0, 256, (1000, 4096), np.uint8)
        stored = cache.put_many(7, np.arange(1000), pages)
        accepted = kept.put_many(7, np.arange(1000), pages)
        print(f"put: {stored.sum()} into the cache, {accepted.sum()} to keep")
        hit, found = cache.get_many(7, np.arange(1000))
        print(f"cache: {hit.sum()} hits, all equal: {bool((found[hit] == pages[hit]).all())}; a get removes: "
              f"{cache.get(7, 0) is None}")
        hit, found = kept.get_many(7, np.arange(1000))
        print(f"kept: {hit.sum()} hits of {accepted.sum()}, all equal: {bool((found[hit] == pages[hit]).all())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
