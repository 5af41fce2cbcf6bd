"""Mappings broken on purpose: the machines of the equivalence tests find each of them out.

The programs are as short as Hypothesis made them, so that they fail every time.  So those tests can fail, and what they
notice is written down: wrong bytes, stale bytes, bytes twice, another order of forgetting, frames kept.
"""

import numpy as np
import pytest
import test_mark_equivalence as of_marks
import test_pool_equivalence as of_pools

from guests.mappings.marks_on_tmem import MarksOnTmem
from guests.mappings.volatile_pool import VolatilePool
from shm.pagestate import Essa

A, B, C, D, E = [((0, 0, 0), 0), ((0, 0, 0), 1), ((0, 0, 0), 2), ((1, 0, 0), 0), ((1, 0, 0), 1)]
REGION = set(range(of_pools.FIRST, of_pools.FIRST + of_pools.ROOM))


INVARIANTS = {"nobody_is_billed_for_the_other", "both_hold_as_many", "no_volatile_page_was_swapped"}


@pytest.fixture(autouse=True)
def differences_are_told_whole(monkeypatch):
    """As pytest does it where CI is set: what takes it long there takes it long everywhere (`harness.pages.same`)."""
    monkeypatch.setenv("CI", "true")


def put(*handles):
    return [("put", {"handle": handle}) for handle in handles]


def get(*handles):
    return [("get", {"handle": handle}) for handle in handles]


def run(programs, steps):
    """Take the steps, each followed by the invariants, as Hypothesis does."""
    state = programs()
    try:
        for name, arguments in steps:
            getattr(state, name)(**arguments)
            for held in INVARIANTS & set(dir(state)):
                getattr(state, held)()
    finally:
        state.teardown()


def discards_are_not_looked_at(pool, gfn):
    """get: a discarded page is zeros, and no miss."""
    pool._essa_one(Essa.SET_STABLE, gfn)
    return True


def a_refused_put_keeps_the_old_page(pool, handle, offset, data):
    """put: looks for a frame first, and when there is none leaves what the handle had."""
    ledger, known = pool._memory.channel.machine.ledger, pool._pages.get(handle)
    if known is not None and not ledger.free:
        return False
    return REAL_STORE(pool, handle, offset, data)


def a_get_leaves_the_page(pool, oid, index):
    """get: not exclusive."""
    gfn = pool._pages.get(pool._handle(oid, index))
    if gfn is None or not pool._stabilised(gfn):
        return None
    page = pool._memory.read(gfn)
    pool._essa_one(Essa.SET_VOLATILE, gfn)
    return page


REAL_PAGE_OF, REAL_STORE = VolatilePool._page_of, VolatilePool._store


def a_put_over_makes_younger(pool, handle):
    """put: a known handle goes to the end of the order."""
    if handle in pool._pages:
        pool._pages[handle] = pool._pages.pop(handle)
    return REAL_PAGE_OF(pool, handle)


def a_flush_of_an_object_leaves_an_index(pool, oid):
    """flush_object: all but one."""
    words = pool._handle(oid, 0)[0]
    pool._drop([(words, index) for index in sorted(pool._objects.get(words, ()))[1:]])


def a_full_region_refuses_nothing_and_drops_the_youngest(pool):
    """put: the wrong one makes room."""
    pool._drop([next(reversed(pool._pages))])


def the_host_gets_nothing_back(pool, gfns):
    """flush, get: pages stay volatile when nothing is under them any more."""
    pool._free += gfns


POOLS = [
    (of_pools.Forgetful, "_stabilised", discards_are_not_looked_at,
     [*put(A), ("the_host_discards", {"pages": REGION}), *get(A)]),
    (of_pools.Forgetful, "_store", a_refused_put_keeps_the_old_page,
     [("put_where_no_frame_is_free", {"handle": A, "twice": True})]),
    (of_pools.Forgetful, "get", a_get_leaves_the_page, [*put(A), *get(A, A)]),
    (of_pools.Forgetful, "_give_back", the_host_gets_nothing_back, [*put(A), *get(A)]),
    (of_pools.Exact, "flush_object", a_flush_of_an_object_leaves_an_index,
     [*put(A, B), ("flush_object", {"oid": A[0]})]),
    (of_pools.Exact, "_page_of", a_put_over_makes_younger, [*put(A, B, C, D, A, E), *get(A)]),
    (of_pools.Exact, "_make_room", a_full_region_refuses_nothing_and_drops_the_youngest,
     [*put(A, B, C, D, E), *get(A)]),
]
BY_NAME = {"ids": lambda value: getattr(value, "__name__", "")}


@pytest.mark.parametrize(("programs", "method", "broken", "steps"), POOLS, **BY_NAME)
def test_a_broken_pool_is_found_out(on_a_machine, monkeypatch, programs, method, broken, steps):
    run(on_a_machine(programs), steps)
    monkeypatch.setattr(VolatilePool, method, broken)
    with pytest.raises(AssertionError):
        run(on_a_machine(programs), steps)


# marks

def discards_are_not_told(marks, gfns):
    """keep: a page that was discarded is zeros, and nobody hears of it."""
    gone = REAL_KEEP(marks, gfns)
    missed = np.asarray(gfns)[gone]
    marks._gone.difference_update(missed.tolist())
    marks._make_stable(missed)
    return np.zeros(len(gfns), bool)


REAL_KEEP, REAL_FETCH, REAL_VOLATILE = (MarksOnTmem.set_stable_if_not_discarded, MarksOnTmem._fetch,
                                        MarksOnTmem.set_volatile)


def a_store_is_lost(marks, gfn, data=None):
    """write: the old bytes are put again."""
    return REAL_FETCH(marks, gfn)


def a_touch_takes_the_page(marks, gfn, data=None):
    """read: what was got is not put again."""
    return marks._pool.get(marks._oid, gfn) if gfn in marks._kept else None


def frames_are_kept(marks, gfns):
    """volatile: the frame is taken back at once."""
    REAL_VOLATILE(marks, gfns)
    for gfn in gfns:
        marks._essa_one(Essa.SET_STABLE, gfn)
        marks._memory.make_resident([gfn])


WRITE, READ, VOLATILE = ("write", {"gfn": 0}), ("read", {"gfn": 0}), ("set_volatile", {"gfns": [0]})
MARKS = [
    (of_marks.Forgetful, "set_stable_if_not_discarded", discards_are_not_told,
     [WRITE, VOLATILE, ("the_host_wants_ephemeral_pages", {"count": 4}), ("keep", {"gfns": [0]})]),
    (of_marks.Forgetful, "_fetch", a_store_is_lost, [WRITE, VOLATILE, WRITE, READ]),
    (of_marks.Forgetful, "set_volatile", frames_are_kept, [WRITE, VOLATILE]),
    (of_marks.Exact, "_fetch", a_touch_takes_the_page, [VOLATILE, READ, READ]),
]


@pytest.mark.parametrize(("programs", "method", "broken", "steps"), MARKS, **BY_NAME)
def test_broken_marks_are_found_out(on_a_machine, monkeypatch, programs, method, broken, steps):
    run(on_a_machine(programs), steps)
    monkeypatch.setattr(MarksOnTmem, method, broken)
    with pytest.raises(AssertionError):
        run(on_a_machine(programs), steps)
