"""A guest without a hypervisor: what `guests.Guest` offers, in this process, with the host played by the test.

The states are the tables' own.  What the tables leave undefined is made nasty: a page that becomes unused is
overwritten at once, one that is discarded too, so that whoever relies on either reads 0xEE or 0xDD.

    discard(gfns)   play the host: discard those of the pages that are volatile
    mischief        a chance for each call that the host discards some volatile pages and frees some unused ones
    frames          how many pages may be resident; beyond that the host takes unused and volatile ones, then refuses
    drop            orders that are not carried out, each with its chance (R42)
"""

import random
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import AddressingException, DiscardFault, OutOfMemory, TmemRefused
from shm.pagestate import ACCESS, BYTE, GUEST, HOST, Access, Essa, Event, State, Sz, Ur, Vr

HINTS = frozenset({"hint-unused", "hint-volatile"})
TMEM = frozenset({"cleancache", "frontswap"})
ALL = HINTS | TMEM


class FakePool:
    """A pool: a dictionary that may refuse; an ephemeral one also forgets, oldest first beyond its capacity."""

    def __init__(self, tmem: "FakeTmem", persistent: bool, shared: bool = False) -> None:
        self.tmem = tmem
        self.persistent, self.shared = persistent, shared
        self.pages: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self.destroyed = False

    def put(self, oid, index: int, page) -> bool:
        handle = _handle(oid, index)
        self.pages.pop(handle, None)                 # a dup put that fails leaves nothing (I9)
        assert len(page) == PAGE_SIZE
        if self.destroyed or self.tmem.chance(self.tmem.refuse):
            return False
        self.pages[handle] = bytes(page)
        self._forget()
        return True

    def get(self, oid, index: int) -> bytes | None:
        self._forget()
        handle = _handle(oid, index)
        return self.pages.get(handle) if self.persistent or self.shared else self.pages.pop(handle, None)

    def put_many(self, oids, indexes: Sequence[int], pages: np.ndarray) -> np.ndarray:
        assert pages.shape == (len(indexes), PAGE_SIZE)
        return np.array([self.put(*key, page) for key, page in zip(_handles(oids, indexes), pages, strict=True)], bool)

    def get_many(self, oids, indexes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        got = [self.get(*key) for key in _handles(oids, indexes)]
        pages = np.stack([np.frombuffer(page or bytes(PAGE_SIZE), np.uint8) for page in got])
        return np.array([page is not None for page in got], bool), pages

    def flush(self, oid, index: int) -> None:
        self.pages.pop(_handle(oid, index), None)

    def flush_many(self, oids, indexes: Sequence[int]) -> None:
        for key in _handles(oids, indexes):
            self.flush(*key)

    def flush_object(self, oid) -> None:
        for handle in [handle for handle in self.pages if handle[0] == _handle(oid, 0)[0]]:
            del self.pages[handle]

    def destroy(self) -> None:
        self.pages.clear()
        self.destroyed = True

    def _forget(self) -> None:
        if self.persistent:
            return
        while len(self.pages) > self.tmem.capacity:
            self.pages.popitem(last=False)
        if self.pages and self.tmem.chance(self.tmem.forget):
            del self.pages[self.tmem.rng.choice(list(self.pages))]


def _handle(oid, index: int) -> tuple[int | tuple[int, ...], int]:
    """Return a handle as tests name it: an object id of one word is that word."""
    words = (oid, 0, 0) if isinstance(oid, int) else tuple(int(word) for word in oid)
    return (words if any(words[1:]) else words[0]), int(index)


def _handles(oids, indexes) -> list[tuple[int, int]]:
    many = [oids] * len(indexes) if np.ndim(oids) < 2 else list(oids)
    return [_handle(oid, index) for oid, index in zip(many, indexes, strict=True)]


class FakeTmem:
    """All pools of the guest; `refuse` and `forget` are chances, `pools` is how many there may be."""

    def __init__(self, rng: random.Random, capacity: int, refuse: float, forget: float, pools: int) -> None:
        self.rng = rng
        self.capacity, self.refuse, self.forget, self.limit = capacity, refuse, forget, pools
        self.pools: list[FakePool] = []
        self.shares: dict[object, FakePool] = {}     # by secret; a test may have two guests use one

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability

    def new_pool(self, persistent: bool, shared: object = None) -> FakePool:
        if len(self.pools) == self.limit:
            raise TmemRefused("no more pools")
        pool = FakePool(self, persistent, shared is not None)
        self.pools.append(pool if shared is None else self.shares.setdefault(shared, pool))
        return self.pools[-1]

    def handles(self, persistent: bool = False) -> set[tuple[int, int]]:
        return {handle for pool in self.pools if pool.persistent == persistent for handle in pool.pages}


class FakeMemory:
    """RAM under the access table.  `calls` counts accesses by name."""

    def __init__(self, guest: "FakeGuest") -> None:
        self.guest = guest
        self.rows = np.zeros((guest.pages, PAGE_SIZE), np.uint8)
        self.changed = np.zeros(guest.pages, bool)
        self.calls: Counter[str] = Counter()
        self.restore = None

    def read(self, gfn: int) -> bytes:
        return self.read_part(gfn, 0, PAGE_SIZE)

    def read_part(self, gfn: int, offset: int, length: int) -> bytes:
        assert offset + length <= PAGE_SIZE
        self._access("read", [gfn])
        return self.rows[gfn, offset:offset + length].tobytes()

    def write(self, gfn: int, data, clean: bool = False) -> None:
        assert len(data) == PAGE_SIZE
        self.write_part(gfn, 0, data, clean)

    def write_part(self, gfn: int, offset: int, data, clean: bool = False) -> None:
        assert offset + len(data) <= PAGE_SIZE
        self._access("write", [gfn])
        self.rows[gfn, offset:offset + len(data)] = np.frombuffer(data, np.uint8)
        self.changed[gfn] = not clean

    def read_many(self, gfns) -> np.ndarray:
        self._access("read_many", gfns)
        return self.rows[np.asarray(gfns, np.int64)]

    def write_many(self, gfns, pages: np.ndarray, clean: bool = False) -> None:
        assert pages.shape == (len(gfns), PAGE_SIZE)
        self._access("write_many", gfns)
        self.rows[np.asarray(gfns, np.int64)] = pages
        self.changed[np.asarray(gfns, np.int64)] = not clean

    def balloon(self, gfns) -> int:
        self.calls["balloon"] += 1
        for gfn in gfns:
            self.guest._hint(Essa.SET_UNUSED, gfn)
        return len(self.guest.discard(gfns))

    def deflate(self, gfns) -> bool:
        for gfn in gfns:
            self.guest._hint(Essa.SET_STABLE, gfn)
        try:
            self._access("deflate", gfns)
        except OutOfMemory:
            self.balloon(gfns)
            return False
        return True

    def dirty(self, gfns) -> np.ndarray:
        return self.changed[np.asarray(gfns, np.int64)]

    def clear_dirty(self, gfns) -> None:
        assert all(BYTE[self.guest.states[gfn]] & 0x0C == 0 for gfn in gfns), "cleared before make stable (R36)"
        self.changed[np.asarray(gfns, np.int64)] = False

    def evicted(self, gfns) -> np.ndarray:
        return np.array([self.guest.states[int(gfn)] == State.Sp for gfn in gfns], bool)

    def _access(self, name: str, gfns) -> None:
        """Raise what the access table says, before anything is read or written; grant what is not resident."""
        self.guest.be_mischievous()
        self.calls[name] += 1
        gfns = [int(gfn) for gfn in gfns]
        _distinct(gfns)
        states = self.guest.states
        bad = [gfn for gfn in gfns if not 0 <= gfn < self.guest.pages or ACCESS[states[gfn]] == Access.ADDRESSING]
        if bad:
            raise AddressingException(bad)
        lost = [gfn for gfn in gfns if ACCESS[states[gfn]] == Access.DISCARD_FAULT]
        if lost:
            self.guest.counters[Count.DISCARD_FAULTS] += len(lost)
            raise DiscardFault(lost)
        for gfn in gfns:
            if states[gfn] == Sz:
                self.guest.grant(gfn)


class FakeGuest:
    """One guest."""

    def __init__(self, pages: int = 256, features: Iterable[str] = ALL, seed: int = 0, *, mischief: float = 0.0,
                 frames: int | None = None, drop: Mapping[Essa, float] | None = None, ephemeral: int = 1 << 20,
                 refuse: float = 0.0, forget: float = 0.0, pools: int = 16) -> None:
        self.pages = pages
        self.features = frozenset(features)
        self.target: int | None = None
        self.counters = np.zeros(512, np.uint64)
        self.rng = random.Random(seed)
        self.mischief, self.frames, self.drop = mischief, frames, dict(drop or {})
        self.states = [Sz] * pages
        self.memory = FakeMemory(self)
        self.tmem = FakeTmem(self.rng, ephemeral, refuse, forget, pools)
        self.orders: list[tuple[Essa, tuple[int, ...]]] = []     # every ESSA that reached the machine

    def essa(self, order: Essa, gfns) -> np.ndarray:
        self.be_mischievous()
        gfns = [int(gfn) for gfn in gfns]
        _distinct(gfns)
        if order != Essa.GET_STATE:
            self.orders.append((Essa(order), tuple(gfns)))
            self.counters[Count.ESSA] += len(gfns)
        return np.array([self._hint(order, gfn) for gfn in gfns], np.uint8)

    def essa_one(self, order: Essa, gfn: int) -> int:
        return int(self.essa(order, [gfn])[0])

    def _hint(self, order: Essa, gfn: int) -> int:
        old = self.states[gfn]
        if self.rng.random() < self.drop.get(order, 0.0):
            return BYTE[old]
        row = GUEST[order]
        self.states[gfn] = (row.dirty if self.memory.changed[gfn] else row.clean)[old]
        if order == Essa.SET_UNUSED:
            self.memory.rows[gfn] = 0xEE
        return BYTE[old]

    # the host

    def discard(self, gfns: Iterable[int]) -> list[int]:
        """Take the frames of those pages that may be had without preserving them; return which."""
        taken = [int(gfn) for gfn in gfns if self.states[int(gfn)] in (Ur, Vr)]
        for gfn in taken:
            self.memory.rows[gfn] = 0 if self.states[gfn] == Ur else 0xDD
            self.states[gfn] = HOST[Event.EVICT].clean[self.states[gfn]]
        return taken

    def be_mischievous(self) -> None:
        if self.mischief and self.rng.random() < self.mischief:
            self.discard(self.rng.sample(range(self.pages), self.pages // 4))

    def resident(self) -> int:
        return sum(state in (State.Sr, State.Ur, State.Vr, State.Pr) for state in self.states)

    def grant(self, gfn: int) -> None:
        if self.frames is not None and self.resident() >= self.frames:
            for state in (Ur, Vr):
                if self.discard([other for other in range(self.pages) if self.states[other] == state][:1]):
                    break
            else:
                raise OutOfMemory(f"page {gfn}: the hypervisor has no frame for it")
        self.states[gfn] = State.Sr
        self.memory.rows[gfn] = 0

    def ordered(self, *orders: Essa) -> list[int]:
        """Return the pages of every ESSA with one of these orders, in time's order."""
        return [gfn for order, gfns in self.orders if order in orders for gfn in gfns]


def _distinct(gfns: list[int]) -> None:
    if len(set(gfns)) != len(gfns):
        raise ValueError("the same page stands twice in one batch")


def block_contents(blocks: Iterable[int]) -> np.ndarray:
    """Return what `new_disk(..., content=True)` writes to these blocks (n, 4096): no two are alike."""
    numbers = np.fromiter(blocks, np.int64)
    words = np.arange(PAGE_SIZE // 8, dtype=np.int64) * 0x0101_0307_1133 + 1
    return (numbers[:, None] * 0x1000_0001 + words[None, :]).view(np.uint8)
