"""ESSA on stored pages, one, few and many; and the lock, whose holders may be killed."""

import signal
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.errors import AddressingException, HypervisorGone
from shm.pagestate import Essa
from shm.statemap import SCALAR_BELOW, checked_gfns

PAGES = 4 * SCALAR_BELOW
LENGTHS = {"one": 1, "few": SCALAR_BELOW - 1, "many": SCALAR_BELOW, "all": PAGES}


@pytest.mark.parametrize("kvm", [False, True])
@pytest.mark.parametrize("order", Essa)
@pytest.mark.parametrize("length", LENGTHS.values(), ids=list(LENGTHS))
def test_all_ways_to_hint_do_the_same(state_map, length, order, kvm):
    rng = np.random.default_rng(length * 8 + order)
    for _ in range(20):
        usage, content = rng.integers(0, 256, PAGES), rng.integers(0, 256, PAGES)
        gfns = rng.permutation(PAGES)[:length]
        single, batch = state_map(usage, content, kvm), state_map(usage, content, kvm)
        old = [single.essa_one(order, int(gfn)) for gfn in gfns]
        assert batch.essa(order, gfns).tolist() == old
        assert (batch.usage == single.usage).all()
        assert (batch.content == content).all(), "a guest never writes content"
        untouched = np.delete(np.arange(PAGES), gfns)
        assert (batch.usage[untouched] == usage[untouched]).all()


@pytest.mark.parametrize("gfns", [[3], range(3, 6), np.array([3, 5], np.uint64), np.array([3], np.int32), (7, 3)])
def test_gfns_may_be_any_sequence_of_numbers(state_map, gfns):
    states = state_map([0] * 16, [0] * 16)
    assert states.essa(Essa.SET_VOLATILE, gfns).tolist() == [0x00] * len(gfns)
    assert np.flatnonzero(states.usage == 0x0C).tolist() == sorted(int(gfn) for gfn in gfns)


def test_a_hint_for_no_pages_is_nothing(state_map):
    assert state_map([0], [0]).essa(Essa.SET_UNUSED, []).tolist() == []


REFUSED = {
    "below the guest, one": ([-1], AddressingException),
    "beyond the guest, one": ([PAGES], AddressingException),
    "below the guest, few": ([0, -1], AddressingException),
    "beyond the guest, few": ([0, PAGES], AddressingException),
    "beyond the guest, many": ([*range(1, PAGES), PAGES], AddressingException),
    "below the guest, many": ([*range(PAGES - 1), -3], AddressingException),
    "twice, few": ([1, 2, 1], ValueError),
    "twice, neighbours": ([1, 1], ValueError),
    "twice, many": ([*range(PAGES), 5], ValueError),
    "twice, sorted": ([0, 1, 1, 2], ValueError),
}


@pytest.mark.parametrize(("gfns", "error"), REFUSED.values(), ids=list(REFUSED))
def test_a_refused_batch_changes_nothing(state_map, gfns, error):
    """R12: addressing exception; and a page named twice has no one old state."""
    states = state_map([0] * PAGES, [0] * PAGES)
    with pytest.raises(error) as caught:
        states.essa(Essa.SET_VOLATILE, gfns)
    assert not states.usage.any()
    assert states.lock.acquire(0), "the lock is free again"
    states.lock.release()
    if error is AddressingException:
        assert caught.value.gfns.tolist() == [gfn for gfn in gfns if not 0 <= gfn < PAGES]


@pytest.mark.parametrize("order", [-1, 8, 255])
@pytest.mark.parametrize("gfns", [[2], [2, 3], list(range(PAGES))], ids=["one", "few", "many"])
def test_an_order_that_does_not_exist_is_refused(state_map, gfns, order):
    """R12: the specification exception."""
    states = state_map([0] * PAGES, [0] * PAGES)
    with pytest.raises(ValueError, match=str(order)):
        states.essa(order, gfns)
    with pytest.raises(ValueError, match=str(order)):
        states.essa_one(order, 2)
    assert not states.usage.any()


def test_one_page_out_of_range_is_refused(state_map):
    states = state_map([0] * 4, [0] * 4)
    for gfn in (-1, 4, 1 << 40):
        with pytest.raises(AddressingException):
            states.essa_one(Essa.SET_UNUSED, gfn)
    assert not states.usage.any()


def test_arrays_of_different_lengths_are_refused(state_map):
    with pytest.raises(ValueError, match="length"):
        state_map([0, 0], [0])


def test_states_and_pairs_of_a_slice_and_of_numbers_agree(state_map):
    rng = np.random.default_rng(7)
    states = state_map(rng.integers(0, 256, PAGES), rng.integers(0, 256, PAGES))
    gfns = rng.permutation(PAGES)
    assert (states.states(gfns) == states.states(slice(None))[gfns]).all()
    assert (states.pairs(gfns) == states.usage[gfns] + 256 * states.content[gfns].astype(int)).all()
    assert [states.access_one(gfn) for gfn in range(PAGES)] == states.tables.access[states.pairs(slice(None))].tolist()


@given(st.lists(st.integers(-2, 12), max_size=12))
def test_checked_gfns_keeps_the_order_and_refuses_what_it_must(gfns):
    if any(not 0 <= gfn < 10 for gfn in gfns):
        with pytest.raises(AddressingException):
            checked_gfns(gfns, 10)
    elif len(set(gfns)) < len(gfns):
        with pytest.raises(ValueError, match="twice"):
            checked_gfns(gfns, 10)
    else:
        assert checked_gfns(gfns, 10).tolist() == gfns


# the lock


def test_a_free_lock_is_had_at_once_and_once(lock):
    assert lock.acquire(0)
    assert not lock.acquire(0)
    lock.release()
    assert lock.acquire(0)
    lock.release()


def test_a_held_lock_is_not_had_in_time_and_the_wait_is_counted(lock):
    assert lock.acquire(0)
    assert not lock.acquire(0.01)
    assert lock.waited_ns >= 10_000_000
    with pytest.raises(HypervisorGone, match=r"state lock was not free for 0\.05 s"), lock:
        pytest.fail("entered a lock that is held")
    lock.release()
    waited = lock.waited_ns
    with lock:
        assert not lock.acquire(0)
    assert lock.waited_ns == waited, "a free lock is no wait"


def test_a_lock_given_back_in_time_is_had(lock):
    assert lock.acquire(0)
    waiting = threading.Event()

    def give_back():
        waiting.wait(10)
        lock.release()

    other = threading.Thread(target=give_back)
    other.start()
    waiting.set()
    assert lock.acquire(10)
    other.join()
    lock.release()


@pytest.mark.parametrize("wait", [lambda lock: lock.acquire(20), lambda lock: lock.__enter__() is None],
                         ids=["acquire", "with"])
def test_a_wait_that_signals_interrupt_goes_on(lock, wait):
    """SIGTERM to a hypervisor that waits for a guest's lock, say: its handler notes it, and the wait is not harmed."""
    lock.patience = 20
    assert lock.acquire(0)
    heard, main = threading.Semaphore(0), threading.main_thread().ident

    def disturb():
        """Until ten were heard; one that comes just before the wait begins interrupts nothing, so another is sent."""
        for _ in range(10):
            while not heard.acquire(timeout=0.05):
                signal.pthread_kill(main, signal.SIGUSR1)
        lock.release()

    before = signal.signal(signal.SIGUSR1, lambda *_: heard.release())
    other = threading.Thread(target=disturb)
    other.start()
    try:
        assert wait(lock)
    finally:
        other.join()
        signal.signal(signal.SIGUSR1, before)
    lock.release()


def test_a_handler_that_raises_ends_the_wait(lock):
    def stop(*_):
        ended.set()
        raise KeyboardInterrupt

    def interrupt():
        while not ended.wait(0.05):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def wait():
        other.start()
        lock.acquire(20)

    assert lock.acquire(0)
    ended, other = threading.Event(), threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait()
    finally:
        other.join()
        signal.signal(signal.SIGUSR1, before)
    lock.release()


@pytest.mark.parametrize("call", [
    lambda states: states.essa_one(Essa.SET_UNUSED, 1),
    lambda states: states.essa(Essa.SET_UNUSED, [1, 2]),
    lambda states: states.essa(Essa.SET_UNUSED, range(PAGES)),
], ids=["one", "few", "many"])
def test_a_hint_waits_for_the_lock_and_does_nothing_without_it(state_map, lock, call):
    states = state_map([0] * PAGES, [0] * PAGES)
    assert lock.acquire(0)
    with pytest.raises(HypervisorGone):
        call(states)
    assert not states.usage.any()
    lock.release()
    call(states)
    assert states.usage.any()


HOLDER = """
import posix_ipc, sys
posix_ipc.Semaphore(sys.argv[1]).acquire(5)
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_outlives_a_killed_holder_and_can_be_inherited(lock, lock_name, python_process):
    """A killed holder leaves it taken, for ever; whoever knows that he is dead inherits it, and may give it back."""
    holder = python_process(HOLDER, lock_name)
    assert holder.line() == "held"
    assert not lock.acquire(0.01)
    holder.kill()
    assert not lock.acquire(0.01), "nobody but its heir gives it back"
    lock.release()
    assert lock.acquire(0)
    assert not lock.acquire(0), "it is a lock still: one holder"
    lock.release()
