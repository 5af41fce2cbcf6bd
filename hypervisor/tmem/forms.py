"""The forms in which a guest's pages may be stored, and the words for where a stored page lies.

    raw      a frame each
    lz4      compressed, in a slot of a slab; pages that do not shrink stay raw
    dedup    one frame for equal pages of ephemeral pools
    tze      trailing zeros cut off, in a slot of a slab

`pack` and `unpack` turn pages into the data of lz4 and tze and back; all else here is words.

A *place* says in 64 bits where a page's bytes are and how they are kept.  Kind RAW is 0, so a raw place is its frame.
"""

from enum import IntEnum

import lz4.block
import numpy as np

from shm.abi import PAGE_SIZE


class Form(IntEnum):
    """How pages put from now on are stored; chosen per guest."""

    RAW = 0
    LZ4 = 1
    DEDUP = 2
    TZE = 3


class Kind(IntEnum):
    """What a place is."""

    RAW = 0                  # the frame
    ZERO = 1                 # all zero: no data at all
    LZ4 = 2                  # a slot of a slab
    TZE = 3                  # a slot of a slab
    SHARED = 4               # a frame with a count of its users
    SWAPPED = 5              # a slot of the hypervisor's swap disk


# Bits 56-63 of a place are its kind.  Below them: the frame (RAW), nothing (ZERO), the length in bits 44-55 and the
# slot's byte offset in the heap (LZ4, TZE), the record's number (SHARED), the swap slot (SWAPPED).
KIND_SHIFT, LENGTH_SHIFT = 56, 44
LENGTH_MASK = (1 << KIND_SHIFT - LENGTH_SHIFT) - 1
AT_MASK = (1 << LENGTH_SHIFT) - 1
RAW_LIMIT = 1 << KIND_SHIFT  # raw places are below
ZERO_PLACE = Kind.ZERO << KIND_SHIFT
EMPTY_PLACE = (1 << 64) - 1  # no page


def length_of(place: int) -> int:
    return place >> LENGTH_SHIFT & LENGTH_MASK


def at_of(place: int) -> int:
    return place & AT_MASK


def kinds_of(places: np.ndarray) -> np.ndarray:
    """Return the kinds (int64) of `places` (uint64)."""
    return (places >> np.uint64(KIND_SHIFT)).astype(np.int64)


def lengths_of(places: np.ndarray) -> np.ndarray:
    """Return the lengths (int64) of the data of `places` in slots of slabs."""
    return (places >> np.uint64(LENGTH_SHIFT)).astype(np.int64) & LENGTH_MASK


def ats_of(places: np.ndarray) -> np.ndarray:
    """Return what is below kind and length (int64): where the data of `places` is."""
    return (places & np.uint64(AT_MASK)).astype(np.int64)


def places_of(kind: Kind, ats: np.ndarray) -> np.ndarray:
    """Return the places (uint64) of one kind that has no length."""
    return ats.astype(np.uint64) | np.uint64(kind << KIND_SHIFT)


TZE_LONGEST = PAGE_SIZE - 64                                 # with more data than this a page stays raw (T93)
_WORD = 8
_LZ4_OF_ZEROS = lz4.block.compress(bytes(PAGE_SIZE), store_size=False)


def pack(form: Form, pages: np.ndarray) -> tuple[list[bytes | memoryview], np.ndarray]:
    """Return the data of `pages` (n, 4096) in form LZ4 or TZE, and its lengths (int64), 0 for an all-zero page."""
    return _pack_lz4(pages) if form == Form.LZ4 else _pack_tze(pages)


def pack_one(form: Form, page: np.ndarray) -> bytes | memoryview:
    """Return the data of one page, none for an all-zero one."""
    if form == Form.LZ4:
        data = lz4.block.compress(page, store_size=False)
        return b"" if data == _LZ4_OF_ZEROS else data
    kept = page.view(np.uint64).nonzero()[0]
    return page.data[:_WORD * (int(kept[-1]) + 1) if len(kept) else 0]


def _pack_lz4(pages: np.ndarray) -> tuple[list[bytes | memoryview], np.ndarray]:
    compress = lz4.block.compress
    data: list[bytes | memoryview] = [compress(page, store_size=False) for page in pages]
    lengths = np.fromiter(map(len, data), np.int64, len(data))
    for row in np.flatnonzero(lengths == len(_LZ4_OF_ZEROS)).tolist():
        if data[row] == _LZ4_OF_ZEROS:           # cheaper than a look at every page for a byte that is not zero
            lengths[row] = 0
    return data, lengths


def _pack_tze(pages: np.ndarray) -> tuple[list[bytes | memoryview], np.ndarray]:
    kept = pages.view(np.uint64)[:, ::-1] != 0
    lengths = np.where(kept.any(axis=1), PAGE_SIZE - _WORD * kept.argmax(axis=1), 0)
    memory = pages.reshape(-1).data
    starts = range(0, len(pages) * PAGE_SIZE, PAGE_SIZE)
    return [memory[start:start + length] for start, length in zip(starts, lengths.tolist(), strict=True)], lengths


def unpack(kind: int, data: memoryview, out: memoryview) -> None:
    """Write the page to `out`, 4096 bytes, of which `data` is what is kept."""
    if kind == Kind.LZ4:
        out[:] = lz4.block.decompress(data, uncompressed_size=PAGE_SIZE)
    else:
        out[:len(data)] = data
        out[len(data):] = bytes(PAGE_SIZE - len(data))
