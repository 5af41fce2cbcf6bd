"""Stores to test: real frames of a nameless memory file, a ledger, and no machine around them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hypervisor.ledger import HEAP, Ledger
from hypervisor.swap import SwapDisk
from hypervisor.tmem.heap import Heap
from hypervisor.tmem.pools import PoolCount
from hypervisor.tmem.shelf import Rules
from hypervisor.tmem.storage import Storage
from hypervisor.tmem.store import Store
from shm.abi import PAGE_SIZE, TMEM_VERSION, VERSION_SHIFT, PoolFlag, Refusal, Status
from shm.arena import SharedObject

EPHEMERAL = TMEM_VERSION << VERSION_SHIFT
PERSISTENT = EPHEMERAL | PoolFlag.PERSIST
PLENTY = 1 << 30
A, B = 0, 1                  # two guests
OID = (1, 2, 3)


@contextmanager
def a_heap(budget: int = 1024, pages: int = 4096) -> Iterator[Heap]:
    """A heap with a ledger of `budget` frames; nobody reclaims."""
    fd = os.memfd_create("heap")
    os.ftruncate(fd, pages * PAGE_SIZE)
    ledger = Ledger(budget)
    made = SharedObject(fd, "heap")
    try:
        yield Heap(made, ledger, lambda frames: ledger.reserve(HEAP, frames))
    finally:
        made.close()


@contextmanager
def a_store(budget: int = 1024, cap: int = 0,
            allowance: Callable[[int], int] = lambda owner: PLENTY, swap: SwapDisk | None = None,
            **rules: Any) -> Iterator[Store]:
    """A store of at most `budget` frames.  Short of one, it evicts its oldest ephemeral pages, as many as are missing.

    Whatever was done to it, it is sound at the end, and the kernel agrees.
    """
    with a_heap(budget) as heap:
        store = Store(Storage(heap, swap), Rules(ephemeral_cap=cap, **rules),
                      lambda owner: (allowance(owner), Refusal.MAX_MEM))

        def room(frames: int) -> bool:
            missing = frames - heap.ledger.free
            if missing > 0:
                missing -= heap.trim(missing)
                store.evict_frames(missing)
                heap.trim(missing)
                heap.trim(store.write_back(frames - heap.ledger.free))
            return heap.ledger.reserve(HEAP, frames)

        heap.room = room
        yield store
        prove_sound(store)


def prove_sound(store: Store) -> None:
    """Recount everything from the ground, and hold Xen's sums against it (T98, T99)."""
    assert store.audit() + store.heap.ledger.audit() == []
    assert store.heap.object.resident() == store.heap.ledger.used <= store.heap.ledger.budget
    for pool in store.pools.all():
        pt, ps, pd, pr, px, gt, gs, ft, fs, ot, os_ = pool.counts.tolist()
        assert ps <= pt and gs <= gt and fs <= ft and os_ <= ot and pr <= ps
        assert ps + pd + px == pt


def page(content: int) -> np.ndarray:
    """A page that names its content in every word."""
    return np.full(PAGE_SIZE // 8, content, np.uint64).view(np.uint8)


def content(data: np.ndarray | bytes) -> int:
    """What `page` put in; AssertionError for a torn page."""
    words = np.frombuffer(bytes(data), np.uint64)
    assert (words == words[0]).all(), "torn page"
    return int(words[0])


def get(store: Store, owner: int, pool: int, oid: tuple[int, ...] = OID, index: int = 0) -> int | Status:
    """Get a page: its content, or the status that says why not."""
    out = page(0xDEAD)
    status = store.get(owner, pool, oid, index, out)
    if status == Status.OK:
        return content(out)
    assert content(out) == 0xDEAD, "a miss touched the destination (T20)"
    return status


def put(store: Store, owner: int, pool: int, value: int, oid: tuple[int, ...] = OID, index: int = 0) -> Status:
    return store.put(owner, pool, oid, index, page(value))


def new_pool(store: Store, owner: int, flags: int = EPHEMERAL) -> int:
    status, number = store.create_pool(owner, flags)
    assert status == Status.OK
    return number


def counts(store: Store, owner: int, pool: int) -> dict[str, int]:
    """The counters of a pool that are not 0, by Xen's letters."""
    found = store.pools.get(owner, pool)
    assert found is not None
    return {name.name.lower(): int(found.counts[name]) for name in PoolCount if found.counts[name]}


def no_room_for_replacements(store: Store) -> None:
    """Have every replacement find no room: the old data is gone by then."""
    vars(store.storage).update(rewrite=lambda place, form, group, page, persistent: store.storage.free(place),
                               rewrite_many=lambda places, form, pages: False)
