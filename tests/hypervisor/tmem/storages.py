"""Storages to test, and pages that compress, that do not, and that end in zeros."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from stores import a_heap

from hypervisor.swap import SwapDisk
from hypervisor.tmem.storage import Storage
from shm.abi import PAGE_SIZE

GROUP = 3
NOWHERE = np.zeros(0, np.uint64)


def random_bytes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, count, np.uint8)


def cut(length: int, seed: int = 0) -> np.ndarray:
    """A page of `length` random bytes, then zeros."""
    made = np.zeros(PAGE_SIZE, np.uint8)
    made[:length] = random_bytes(length, seed)
    return made


def folded(length: int, seed: int = 0) -> np.ndarray:
    """A page that repeats its first `length` random bytes: lz4 makes about as many of it."""
    return np.resize(random_bytes(length, seed), PAGE_SIZE)


@contextmanager
def a_storage(budget: int = 1024, swap_slots: int = 0, across: bool = False) -> Iterator[Storage]:
    swap = SwapDisk(swap_slots) if swap_slots else None
    with a_heap(budget) as heap:
        yield Storage(heap, swap, across)
    if swap is not None:
        swap.close()


def read(storage: Storage, place: int) -> np.ndarray:
    out = np.full(PAGE_SIZE, 0xDB, np.uint8)
    storage.read(place, out)
    return out


def prove_sound(storage: Storage, places: np.ndarray) -> None:
    heap = storage.heap
    assert storage.audit(places) + heap.audit() + heap.ledger.audit() == []
    assert heap.object.resident() == heap.ledger.used <= heap.ledger.budget


def prove_empty(storage: Storage) -> None:
    prove_sound(storage, NOWHERE)
    storage.heap.trim(storage.heap.spare)
    assert storage.heap.in_use == storage.heap.object.resident() == storage.swapped == 0
    assert storage.swap is None or storage.swap.used == 0
