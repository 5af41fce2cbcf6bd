"""T98-T101: what holds between counters, after traces of every operation in every form; and that it can fail."""

import random

import numpy as np
import pytest
from caller import EP, ES, OID, PP
from identities import broken

from hypervisor.tmem.clients import ClientCount
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.pools import PoolCount
from shm.abi import Op, Status

STEPS = 400


def any_step(rng, callers):
    """One operation of one guest on one of its three pools: EP, PP and ES."""
    caller, pool = rng.choice(callers), rng.randrange(3)
    oid, index = (rng.randrange(3), 0, 0), rng.randrange(6)
    steps = [*[lambda: caller.put(pool, rng.randrange(9), oid, index)] * 4,
             *[lambda: caller.get_status(pool, oid, index)] * 3,
             lambda: caller.flush(pool, oid, index), lambda: caller.flush_object(pool, oid),
             lambda: caller.put_bad(pool, oid, index), lambda: caller.one(Op.NEW_PAGE, pool, oid, index),
             lambda: caller.one(Op.WRITE, pool, oid, index, window=(8, 16, 24))]
    return rng.choice(steps)()


@pytest.fixture
def callers(tight, new_caller):
    """Two guests of a tight machine with the same three pools; the last is shared."""
    made = [new_caller(tight), new_caller(tight)]
    for caller in made:
        assert [caller.new_pool(kind) for kind in (EP, PP, ES)] == [0, 1, 2]
    return made


def test_t98_and_t99_hold_at_every_step_of_any_trace(tight, callers):
    rng = random.Random(98)
    for step in range(STEPS):
        any_step(rng, callers)
        if step % 8 == 0:
            assert broken(tight.machine) == []
    counted = sum(pool.counts for pool in tight.machine.store.pools.all())
    assert (counted[[PoolCount.PS, PoolCount.PD, PoolCount.PR, PoolCount.PX, PoolCount.GS, PoolCount.FS,
                     PoolCount.OS]] > 0).all(), "the trace had everything in it"
    assert any(pool.evicted for pool in tight.machine.store.pools.all())


def test_t99_pages_that_leave_with_a_member_are_accounted_for(tight, callers):
    first, second = callers
    first.put(2, 5, OID, 0)
    second.put(2, 6, (9, 9, 9), 0)
    shared = second.pool(2)
    first.destroy(2)
    assert (shared.pages, shared.withdrawn) == (1, 1)
    assert broken(tight.machine) == []
    assert second.client.counts[ClientCount.EM] == 1, "what was handed over counts"


def test_t100_every_operation_counts_once_and_errors_are_the_negative_answers(tight, callers):
    store, rng = tight.machine.store, random.Random(100)
    before, caller = store.counts.copy(), callers[0]
    statuses = [any_step(rng, callers) for _ in range(STEPS)]
    statuses += [caller.call(Op.NEW_POOL, 0, 0, 0).status, caller.call(Op.DESTROY_POOL, 9).status,
                 caller.call(Op.CONTROL, 1, 0, 0, 0).status]
    assert (np.array(statuses) < 0).sum() > 0
    grown = store.counts - before
    assert grown[StoreCount.TT] == len(statuses)
    assert grown[StoreCount.TE] == sum(status < 0 for status in statuses)


def test_t100_maxima_never_decrease(tight, callers):
    store, rng, seen = tight.machine.store, random.Random(101), []
    for _ in range(STEPS // 4):
        any_step(rng, callers)
        most = store.shelf.most
        seen.append([most.pages, most.ephemeral, most.objects, most.frames, most.shared,
                     *(pool.most_pages for pool in store.pools.all()),
                     *(pool.most_objects for pool in store.pools.all()),
                     *(client.counts[ClientCount.EM] for client in store.clients.all())])
    assert (np.diff(seen, axis=0) >= 0).all()
    assert seen[-1][0] > 8


def test_t101_nothing_is_left_when_all_guests_have(tight, callers):
    rng = random.Random(102)
    for _ in range(STEPS // 2):
        any_step(rng, callers)
    store = tight.machine.store
    assert len(store.catalogue) > 0
    tight.bury_guests()
    assert (len(store.catalogue), len(store.catalogue.objects), store.heap.in_use, len(store.storage.shared),
            store.ephemeral) == (0, 0, 0, 0, 0)
    assert broken(tight.machine) == []


def unbalance(machine, what):
    """Make one counter wrong, and return a function that mends it."""
    store = machine.store
    pool = next(pool for pool in store.pools.all() if pool.pages)
    count = {"pt": PoolCount.PT, "gs": PoolCount.GS, "pr": PoolCount.PR}
    if what in count:
        pool.counts[count[what]] += 1
        return lambda: pool.counts.__setitem__(count[what], pool.counts[count[what]] - 1)
    if what == "te":
        store.counts[StoreCount.TE] += 1000
        return lambda: store.counts.__setitem__(StoreCount.TE, store.counts[StoreCount.TE] - 1000)
    before = getattr(pool, what)
    setattr(pool, what, 0 if what.startswith("most") else before + 1)
    return lambda: setattr(pool, what, before)


@pytest.mark.parametrize("what", ["pt", "gs", "pr", "te", "pages", "objects", "evicted", "flushed", "withdrawn",
                                  "most_pages", "most_objects"])
def test_a_wrong_counter_is_found(still_machine, what):
    from caller import Caller

    still = still_machine(64, "tmem", 0)
    caller = Caller(still)
    pool = caller.new_pool()
    assert caller.put(pool, 5) == Status.OK
    assert broken(still.machine) == []
    mend = unbalance(still.machine, what)
    assert broken(still.machine) != []
    mend()
