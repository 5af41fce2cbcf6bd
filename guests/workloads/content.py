"""Pages whose content is computed from a block number and a version, so that every read can be checked completely.

Each page is 512 words of 8 bytes, word i = TABLE[i] ^ key(block, version).  The key is a bijection of (block, version),
so two different pages differ in every one of their words; the table differs by seed, so that two guests' pages do too.
The bytes look random: they do not compress.  A workload for compression needs another content.
"""

import numpy as np

from shm.abi import PAGE_SIZE

WORDS = PAGE_SIZE // 8
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15      # the increment and the mixing constants of SplitMix64
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(value: int) -> int:
    """Mix 64 bits: SplitMix64's finaliser, a bijection."""
    value = ((value ^ (value >> 30)) * MIX_1) & MASK
    value = ((value ^ (value >> 27)) * MIX_2) & MASK
    return value ^ (value >> 31)


def mix_many(values: np.ndarray) -> np.ndarray:
    """Mix an array of uint64 as `mix` does."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(MIX_1)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(MIX_2)
    return values ^ (values >> np.uint64(31))


class Content:
    """What is written where, for one seed.  Blocks and versions are below 2**32."""

    def __init__(self, seed: int) -> None:
        steps = np.arange(1, WORDS + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        self._table = mix_many(steps + np.uint64(mix(seed & MASK)))

    def page(self, block: int, version: int = 0) -> bytes:
        """Return the 4096 bytes of one block."""
        return (self._table ^ np.uint64(mix(block << 32 | version))).tobytes()

    def pages(self, blocks: np.ndarray, versions: np.ndarray | int = 0) -> np.ndarray:
        """Return the pages of `blocks`, (n, 4096) uint8."""
        keys = mix_many(np.asarray(blocks, np.uint64) << np.uint64(32) | np.asarray(versions, np.uint64))
        return (self._table ^ keys[:, None]).view(np.uint8)
