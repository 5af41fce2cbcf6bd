"""A limited cache over an ephemeral pool is one LRU cache of both sizes (Lu and Shen, USENIX 2007; traces/README.md).

On a trace of reads: guest cache of C pages, exclusive pool of T pages in LRU order, get before the victim's put.  Then
the disk is read exactly as often as an LRU cache of C + T pages misses.  The model here shares no code with the kernel.
"""

import gzip
import random
from collections import OrderedDict
from pathlib import Path

import pytest
from fakes import ALL, FakeGuest

from guests.kernel import Kernel
from shm.counters import Count

TRACES = Path(__file__).parents[4] / "shared" / "traces"
STEPS = 1500
SYNTHETIC = {
    "loop": lambda rng: [index % 90 for index in range(STEPS)],
    "uniform": lambda rng: [rng.randrange(120) for _ in range(STEPS)],
    "skewed": lambda rng: [int(150 * rng.random() ** 3) for _ in range(STEPS)],
    "scans between hot pages": lambda rng: [rng.randrange(20) if rng.random() < 0.6 else 20 + step % 200
                                            for step in range(STEPS)],
}


def lru_misses(references: list[int], size: int) -> int:
    cache: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for page in references:
        if page in cache:
            cache.move_to_end(page)
            continue
        misses += 1
        cache[page] = None
        if len(cache) > size:
            cache.popitem(last=False)
    return misses


def disk_reads(new_disk, references: list[int], cache: int, pool: int, features, by: str) -> int:
    guest = FakeGuest(max(64, 2 * cache), features, ephemeral=pool)
    kernel = Kernel(guest, cache_pages=cache)
    file = kernel.open(new_disk(max(references) + 1, guest.counters))
    for page in references:
        file.page(page) if by == "page" else file.map(page, 1)
    kernel.check()
    assert len(file.inode.cached) == min(cache, len(set(references)))
    return int(guest.counters[Count.GUEST_DISK_READS])


@pytest.mark.parametrize(("cache", "pool", "by"), [
    (1, 0, "map"), (1, 10, "page"), (20, 0, "page"), (20, 1, "map"), (20, 40, "page"), (20, 69, "page"),
    (20, 70, "map"), (40, 200, "page"),
])
@pytest.mark.parametrize("kind", SYNTHETIC)
def test_guest_and_pool_together_are_one_lru(new_disk, kind, cache, pool, by):
    references = SYNTHETIC[kind](random.Random(4))
    features = {"cleancache"} if by == "page" else ALL
    assert disk_reads(new_disk, references, cache, pool, features, by) == lru_misses(references, cache + pool)


def test_a_batch_is_as_many_single_uses(new_disk):
    guest = FakeGuest(64, {"cleancache"}, ephemeral=7)
    kernel = Kernel(guest, cache_pages=10)
    file, references, rng = kernel.open(new_disk(60, guest.counters)), [], random.Random(1)
    for _ in range(200):
        first, count = rng.randrange(50), rng.randrange(1, 10)
        file.map(first, count)
        references += range(first, first + count)
    assert guest.counters[Count.GUEST_DISK_READS] == lru_misses(references, 17)


def test_a_real_trace(new_disk):
    """The figure of the traces' own page: sprite, guest 200, pool 508."""
    path = TRACES / "sprite.txt.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with gzip.open(path, "rt") as lines:
        references = [int(line) for line in lines if line.strip().isdigit()]
    assert len(references) == 133996
    assert lru_misses(references, 708) == 18071
    assert disk_reads(new_disk, references, 200, 508, {"cleancache"}, "page") == 18071
