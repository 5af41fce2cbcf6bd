"""The real pool of tmem and the one on volatile pages, under the same operations, which nobody wrote.

    Forgetful   the host takes what it likes in between: either may forget, neither ever has wrong or stale bytes
    Exact       it takes nothing, and both hold ROOM pages at most: their answers are equal, but for what
                `guests.mappings.rules` lists: what a freeze refuses is not asked of the other side (T39)
"""

from collections.abc import Callable

import numpy as np
from harness.machines import DirectGuest, Still
from harness.pages import same
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from guests.mappings.volatile_pool import VolatilePool
from shm.abi import PAGE_SIZE
from shm.counters import HostCount
from shm.pagestate import State

ROOM, PAGES = 4, 8           # few, so that what is done meets what was done
FIRST = 2                    # the region's first page
OIDS = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
OID, INDEX = st.sampled_from(OIDS), st.integers(0, 2)
HANDLE = st.tuples(OID, INDEX)
HANDLES = st.lists(HANDLE, min_size=1, max_size=ROOM)
WINDOW = st.tuples(st.integers(0, 64), st.integers(0, 64)).map(sorted)
Handle = tuple[tuple[int, int, int], int]


class TwoPools(RuleBasedStateMachine):
    """Two guests of one machine: one with a pool of tmem, one with a pool on its own pages."""

    make: Callable[[], Still]

    def __init__(self) -> None:
        super().__init__()
        self.still = type(self).make()
        self.tmem_guest, self.volatile_guest = (self.still.guest(name, PAGES) for name in ("tmem", "volatile"))
        self.serial = 0
        self.new_pools()

    def new_pools(self) -> None:
        self.tmem = self.tmem_guest.tmem.new_pool(persistent=False)
        self.volatile = VolatilePool(self.volatile_guest, range(FIRST, FIRST + ROOM))
        self.pools = (self.tmem, self.volatile)

    def teardown(self) -> None:
        self.still.stop()

    def fresh(self, length: int = PAGE_SIZE) -> bytes:
        """Return bytes that were never put before."""
        self.serial += 1
        return (self.serial.to_bytes(4, "little") * (PAGE_SIZE // 4))[:length]

    def client(self):
        return self.still.machine.store.clients.get(self.tmem_guest.domain.number)

    @invariant()
    def nobody_is_billed_for_the_other(self):
        """What tmem holds is no page of its guest; what the region holds is, and never swapped while volatile (E10)."""
        assert resident(self.tmem_guest) == 0
        assert resident(self.volatile_guest, State.Vr) <= len(self.volatile) <= ROOM
        assert self.volatile_guest.domain.counts[HostCount.VOLATILE_SWAP_WRITES] == 0
        stable = np.isin(self.volatile_guest.map.states(slice(FIRST, FIRST + ROOM)), (State.Sr, State.Sp, State.Sz))
        assert not stable.any(), "a page of the region is stable between two calls"


def resident(guest: DirectGuest, *states: State) -> int:
    wanted = states or (State.Sr, State.Vr, State.Pr)
    return int(np.isin(guest.map.states(slice(None)), wanted).sum())


class Forgetful(TwoPools):
    """Each side is held against a dict of its own, whose entries may vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.models: tuple[dict[Handle, bytes], dict[Handle, bytes]] = ({}, {})

    def sides(self):
        return zip(self.pools, self.models, ("tmem", "volatile"), strict=True)

    @rule(handle=HANDLE)
    def put(self, handle):
        page = self.fresh()
        for pool, model, _ in self.sides():
            model.pop(handle, None)
            source = np.frombuffer(page, np.uint8).copy()
            if pool.put(*handle, source):
                model[handle] = page
            source[:] = 0xFF                         # a put copies (T19)

    @rule(handles=HANDLES)
    def put_many(self, handles):
        pages = [self.fresh() for _ in handles]
        for pool, model, _ in self.sides():
            stored = pool.put_many(*split(handles), np.frombuffer(b"".join(pages), np.uint8).reshape(-1, PAGE_SIZE))
            for handle, page, is_stored in zip(handles, pages, stored, strict=True):
                model.pop(handle, None)
                if is_stored:
                    model[handle] = page

    @rule(handle=HANDLE, window=WINDOW)
    def write(self, handle, window):
        """A part; around it is what was there, or zeros where nothing is any more."""
        data = self.fresh(window[1] - window[0])
        for pool, model, side in self.sides():
            old = model.pop(handle, bytes(PAGE_SIZE))
            if pool.write(*handle, window[0], data):
                mine = pool.get(*handle)
                within = [base[:window[0]] + data + base[window[1]:] for base in (old, bytes(PAGE_SIZE))]
                assert mine is None or mine in within, side

    @rule(handle=HANDLE)
    def get(self, handle):
        for pool, model, side in self.sides():
            self.check(side, pool.get(*handle), model.pop(handle, None))

    @rule(handles=HANDLES)
    def get_many(self, handles):
        for pool, model, side in self.sides():
            hits, pages = pool.get_many(*split(handles))
            for handle, hit, page in zip(handles, hits, pages, strict=True):
                self.check(side, bytes(page) if hit else None, model.pop(handle, None))

    def check(self, side: str, found: bytes | None, known: bytes | None) -> None:
        """What comes was put last under the handle, and did not come before; else it is a miss (T12, T14, T26)."""
        assert found is None or same(found, known), side

    @rule(handle=HANDLE)
    def flush(self, handle):
        for pool, model, _ in self.sides():
            pool.flush(*handle)
            model.pop(handle, None)

    @rule(oid=OID)
    def flush_object(self, oid):
        for pool, model, _ in self.sides():
            pool.flush_object(oid)
            for handle in [handle for handle in model if handle[0] == oid]:
                del model[handle]

    @rule()
    def renew(self):
        for pool, model, _ in self.sides():
            pool.destroy()
            model.clear()
        self.new_pools()

    # the host

    @rule(pages=st.sets(st.integers(FIRST, FIRST + ROOM - 1), min_size=1))
    def the_host_discards(self, pages):
        self.still.machine.cmm2.evict(self.volatile_guest.domain, np.array(sorted(pages), np.int64))

    @rule(count=st.integers(1, ROOM))
    def the_host_wants_ephemeral_pages(self, count):
        self.still.machine.store.evict_frames(count, insist=True)

    @rule(frozen=st.booleans())
    def freeze(self, frozen):
        self.client().frozen = frozen

    @rule(handle=HANDLE, twice=st.booleans())
    def put_where_no_frame_is_free(self, handle, twice):
        """A host that is short: the put finds what it can evict, or is refused; then nothing is left (T33, T65)."""
        if twice:
            self.put(handle)
        ledger = self.still.machine.ledger
        budget, ledger.budget = ledger.budget, ledger.used
        self.put(handle)
        ledger.budget = budget
        self.get(handle)


class Exact(TwoPools):
    """Nothing is taken but what a put drops: the answers are equal."""

    def __init__(self) -> None:
        super().__init__()
        self.client().cap = ROOM
        self.frozen = False

    def both(self, ask: Callable) -> list:
        return [ask(pool) for pool in self.pools]

    def put_one(self, ask: Callable) -> None:
        """Put on both sides.  What a freeze refuses is not asked of the other side, which knows no freeze (T39)."""
        if ask(self.tmem):
            assert ask(self.volatile)
        else:
            assert self.frozen

    @rule(handle=HANDLE)
    def put(self, handle):
        page = self.fresh()
        self.put_one(lambda pool: pool.put(*handle, page))

    @rule(handle=HANDLE)
    def new_page(self, handle):
        self.put_one(lambda pool: pool.new_page(*handle))

    @rule(handle=HANDLE, window=WINDOW)
    def write(self, handle, window):
        data = self.fresh(window[1] - window[0])
        self.put_one(lambda pool: pool.write(*handle, window[0], data))

    @rule(handles=HANDLES)
    def put_many(self, handles):
        pages = np.frombuffer(b"".join(self.fresh() for _ in handles), np.uint8).reshape(-1, PAGE_SIZE)
        oids, indexes = split(handles)
        stored = self.tmem.put_many(oids, indexes, pages)
        assert stored.all() or self.frozen
        assert self.volatile.put_many(oids[stored], indexes[stored], pages[stored]).all()

    @rule(handle=HANDLE)
    def get(self, handle):
        found, also = self.both(lambda pool: pool.get(*handle))
        assert same(found, also)

    @rule(handle=HANDLE, window=WINDOW)
    def read(self, handle, window):
        found, also = self.both(lambda pool: pool.read(*handle, window[0], window[1] - window[0]))
        assert same(found, also)

    @rule(handles=HANDLES)
    def get_many(self, handles):
        (hits, pages), (also_hits, also_pages) = self.both(lambda pool: pool.get_many(*split(handles)))
        assert hits.tolist() == also_hits.tolist()
        assert np.array_equal(pages, also_pages)

    @rule(handles=HANDLES)
    def flush_many(self, handles):
        self.both(lambda pool: pool.flush_many(*split(handles)))

    @rule(oid=OID)
    def flush_object(self, oid):
        self.both(lambda pool: pool.flush_object(oid))

    @rule()
    def renew(self):
        self.both(lambda pool: pool.destroy())
        self.new_pools()

    @rule()
    def freeze(self):
        self.frozen = self.client().frozen = not self.frozen

    @invariant()
    def both_hold_as_many(self):
        """Every page of either is a page of the other: so nothing is forgotten on one side alone."""
        held = self.still.machine.store.pages_of(self.tmem_guest.domain.number, persistent=False)
        assert held == len(self.volatile) == resident(self.volatile_guest, State.Vr)


def split(handles: list[Handle]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([oid for oid, _ in handles], np.uint64).reshape(-1, 3), np.array([index for _, index in handles])


def test_either_may_forget_and_neither_is_wrong(try_programs):
    try_programs(Forgetful, 50)


def test_without_pressure_the_answers_are_equal_but_for_the_freeze(try_programs):
    try_programs(Exact, 50)
