"""Two guests and their pools against dictionaries that may forget.

An ephemeral page may miss, a persistent one must hit, and nobody ever sees a page that was not put there (invariants 5
and 6).
"""

from contextlib import ExitStack

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stores import (
    EPHEMERAL,
    PERSISTENT,
    A,
    B,
    a_store,
    content,
    new_pool,
    no_room_for_replacements,
    page,
    prove_sound,
)

from hypervisor.ledger import HEAP
from shm.abi import Refusal, Status

PLACES = [(owner, pool) for owner in (A, B) for pool in (0, 1)]     # of each guest: pool 0 ephemeral, 1 persistent
MOST_PERSISTENT = 6
places = st.sampled_from(PLACES)
oids = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1)])
indexes = st.integers(0, 3)


class TwoGuests(RuleBasedStateMachine):
    """The model of a place is what was put there last; `None` forbids a hit until the next put."""

    @initialize(budget=st.sampled_from([6, 12, 64]), cap=st.sampled_from([0, 3]))
    def begin(self, budget, cap):
        self.closing = ExitStack()
        self.store = self.closing.enter_context(a_store(budget, cap))
        self.store.shelf.allowance = lambda owner: (
            MOST_PERSISTENT - self.store.pages_of(owner, persistent=True), Refusal.MAX_MEM)
        for owner in (A, B):
            assert [new_pool(self.store, owner, flags) for flags in (EPHEMERAL, PERSISTENT)] == [0, 1]
        self.model = {place: {} for place in PLACES}
        self.next = 1

    @rule(place=places, oid=oids, index=indexes)
    def put(self, place, oid, index):
        self.next += 1
        status = self.store.put(*place, oid, index, page(self.next))
        assert status in (Status.OK, Status.ENOMEM)
        if status == Status.OK:
            self.model[place][oid, index] = self.next
        else:
            assert (oid, index) not in self.model[place] or place[1] == 0, "a persistent page is always replaced"
            self.model[place].pop((oid, index), None)

    @rule(place=places, oid=oids, index=indexes)
    def put_without_memory(self, place, oid, index):
        """T33: a duplicate put that fails leaves nothing."""
        no_room_for_replacements(self.store)
        known = (oid, index) in self.model[place]
        self.next += 1
        status = self.store.put(*place, oid, index, page(self.next))
        del self.store.storage.rewrite, self.store.storage.rewrite_many
        if place[1] == 1:
            assert (status == Status.ENOSPC) == known
        self.model[place].pop((oid, index), None)
        if status == Status.OK:
            self.model[place][oid, index] = self.next

    @rule(place=places, oid=oids, index=indexes)
    def get(self, place, oid, index):
        expected = self.model[place].get((oid, index))
        out = page(0)
        status = self.store.get(*place, oid, index, out)
        if status == Status.OK:
            assert content(out) == expected, "not the page put last, or another's"
        else:
            assert content(out) == 0
            assert expected is None or place[1] == 0, "a persistent page is gone"
        if place[1] == 0:                                    # taken out, or forgotten: it may not come back (T26)
            self.model[place].pop((oid, index), None)

    @rule(place=places, oid=oids, index=indexes)
    def flush(self, place, oid, index):
        assert self.store.flush_page(*place, oid, index) == Status.OK
        self.model[place].pop((oid, index), None)

    @rule(place=places, oid=oids)
    def flush_object(self, place, oid):
        assert self.store.flush_object(*place, oid) == Status.OK
        self.model[place] = {handle: value for handle, value in self.model[place].items() if handle[0] != oid}

    @rule(place=places)
    def make_the_pool_anew(self, place):
        """T11."""
        owner, pool = place
        assert self.store.destroy_pool(owner, pool) == Status.OK
        assert new_pool(self.store, owner, (EPHEMERAL, PERSISTENT)[pool]) == pool
        self.model[place] = {}

    @rule(owner=st.sampled_from([A, B]))
    def guest_dies_and_comes_back(self, owner):
        """T83."""
        self.store.forget(owner)
        for pool, flags in enumerate((EPHEMERAL, PERSISTENT)):
            assert new_pool(self.store, owner, flags) == pool
            self.model[owner, pool] = {}

    @rule(count=st.integers(1, 4))
    def evict(self, count):
        ephemeral = self.store.ephemeral
        assert self.store.evict(count) == min(count, ephemeral)

    @rule(count=st.integers(1, 8))
    def trim(self, count):
        self.store.heap.trim(count)

    @rule(count=st.integers(0, 5))
    def the_others_take_frames(self, count):
        ledger = self.store.heap.ledger
        ledger.forget(7)
        ledger.reserve(7, min(count, ledger.free))

    @rule()
    def the_hand_passes(self):
        self.store.pass_hand()

    @invariant()
    def sound(self):
        if not hasattr(self, "store"):
            return
        self.check()

    def check(self):
        store = self.store
        ledger = store.heap.ledger
        assert store.audit() + ledger.audit() == []
        assert store.heap.object.resident() == ledger.held.get(HEAP, 0)
        assert not store.rules.ephemeral_cap or store.ephemeral <= store.rules.ephemeral_cap
        for owner, pool in PLACES:
            held = store.pools.get(owner, pool)
            assert held.pages <= len(self.model[owner, pool])
            if held.persistent:
                assert held.pages == len(self.model[owner, pool]) <= MOST_PERSISTENT

    def teardown(self):
        if hasattr(self, "store"):
            self.store.heap.ledger.forget(7)
            prove_sound(self.store)
            self.closing.close()


TwoGuests.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
test_two_guests_against_dictionaries_that_may_forget = TwoGuests.TestCase
