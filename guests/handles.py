"""Handles of pages, as any pool takes them: an object id (3 x 64 bits, or an int for (id, 0, 0)) and an index of 32.

What cannot be a handle is a ValueError here, before anything is sent or stored.
"""

from collections.abc import Sequence

import numpy as np

from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, U32, U64

Oid = int | Sequence[int]
_INTEGER = (int, np.integer)


def words_of(oid: Oid) -> tuple[int, int, int]:
    """Return the three words of an object id; ValueError for what can be none."""
    if type(oid) is int and 0 <= oid <= U64:
        return oid, 0, 0
    words = (int(oid), 0, 0) if isinstance(oid, _INTEGER) else tuple(int(word) for word in oid)
    if len(words) != 3 or not all(0 <= word <= U64 for word in words):
        raise ValueError(f"object id {oid!r}: use one number from 0 to 2^64 - 1, or three")
    return words


def checked_index(index: int) -> int:
    """Return an index as a plain int; ValueError beyond 32 bits."""
    if not 0 <= index <= U32:
        raise ValueError(f"index {index}: use 0 to 2^32 - 1")
    return int(index)


def check_part(offset: int, length: int) -> None:
    """Raise ValueError where bytes do not lie in a page."""
    if offset < 0 or length < 0 or offset + length > PAGE_SIZE:
        raise ValueError(f"bytes {offset} to {offset + length} do not lie in a page of {PAGE_SIZE}")


def handles_of(oids: Oid | np.ndarray, indexes: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return object ids (n, 3), or (1, 3) where all have the same, and indexes (n,), both uint64."""
    numbers = np.asarray(indexes, dtype=np.int64).reshape(-1).view(np.uint64)    # below 0: far beyond U32
    if len(numbers) and numbers.max() > U32:
        raise ValueError("indexes: use 0 to 2^32 - 1")
    one = isinstance(oids, _INTEGER) or np.ndim(oids) == 1
    words = np.array([words_of(oids)], np.uint64) if one else np.asarray(oids, np.uint64)  # type: ignore[arg-type]
    if not one and words.shape != (len(numbers), 3):
        raise ValueError(f"object ids: use one, or an array of {(len(numbers), 3)}, not {words.shape}")
    return words, numbers


def parts_of(count: int) -> list[slice]:
    """Return slices of `count` rows, a multicall each at most."""
    if 0 < count <= MULTICALL_LIMIT:
        return [slice(0, count)]
    return [slice(at, min(at + MULTICALL_LIMIT, count)) for at in range(0, count, MULTICALL_LIMIT)]
