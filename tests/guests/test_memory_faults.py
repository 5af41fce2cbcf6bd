"""Faults of guest memory in software mode: unused, discarded and restored pages, and no memory at all."""

import numpy as np
import pytest

from guests import memory as memory_module
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import AddressingException, BrokenInvariant, DiscardFault, HypervisorGone, OutOfMemory
from shm.pagestate import Essa, State

ZERO = bytes(PAGE_SIZE)


def page(number):
    return bytes([number % 251 + 1]) * PAGE_SIZE


def pages(*numbers):
    return np.array([np.frombuffer(page(number), np.uint8) for number in numbers])


@pytest.fixture
def running(machine):
    return machine(budget=128, swap=1024)


@pytest.fixture
def guest(running):
    return running.guest(pages=32)


@pytest.fixture
def memory(guest):
    return guest.memory


@pytest.fixture
def evict(running):
    """Have the hypervisor take frames of pages."""
    def take(*gfns):
        domain = running.domain()
        return running.inside(lambda: running.machine.cmm2.evict(domain, np.array(gfns)))
    return take


@pytest.fixture
def states(guest):
    return lambda *gfns: [State(state).name for state in guest._map.states(np.array(gfns))]


# faults of the guest's own making


@pytest.mark.parametrize("resident", [True, False])
def test_an_unused_page_is_an_addressing_exception(memory, guest, resident):
    """R24: any access, to Ur and Uz."""
    if resident:
        memory.write(3, page(1))
    guest.essa(Essa.SET_UNUSED, [3])
    for access in (lambda: memory.read(3), lambda: memory.write(3, ZERO), lambda: memory.read_part(3, 5, 1),
                   lambda: memory.read_many([2, 3]), lambda: memory.write_many([3], pages(1))):
        with pytest.raises(AddressingException) as caught:
            access()
        assert caught.value.gfns.tolist() == [3]
    guest.essa(Essa.SET_STABLE, [3])
    assert memory.read(3) in (page(1), ZERO)


@pytest.fixture
def discarded(memory, guest, evict):
    """Pages 2 and 5 of 0 to 7 are discarded."""
    memory.write_many(range(8), pages(*range(8)), clean=True)
    guest.essa(Essa.SET_VOLATILE, [2, 5])
    assert evict(2, 5) == 2
    return [2, 5]


def test_a_discarded_page_is_a_discard_fault_at_each_touch(memory, discarded, states):
    """R26: exactly one an access attempt, with the page's number; the state is unchanged by it."""
    for n, access in enumerate([lambda: memory.read(2), lambda: memory.write(2, ZERO),
                                lambda: memory.write_part(2, 0, b"x"), lambda: memory.read_many([2])], 1):
        with pytest.raises(DiscardFault) as caught:
            access()
        assert caught.value.gfns.tolist() == [2]
        assert memory.counters[Count.DISCARD_FAULTS] == n
        assert states(2) == ["Vz"]


def test_a_batch_with_discarded_pages_names_them_and_stores_nothing(memory, discarded):
    with pytest.raises(DiscardFault) as caught:
        memory.write_many([7, 5, 1, 2], pages(50, 51, 52, 53))
    assert caught.value.gfns.tolist() == [5, 2], "in order of access"
    with pytest.raises(DiscardFault):
        memory.read_many([7, 5])
    assert [memory.read(gfn) for gfn in (7, 1)] == [page(7), page(1)]
    assert not memory.dirty([1, 7]).any()


def test_an_unused_page_comes_before_a_discarded_one(memory, guest, discarded):
    guest.essa(Essa.SET_UNUSED, [4])
    with pytest.raises(AddressingException) as caught:
        memory.read_many([2, 4])
    assert caught.value.gfns.tolist() == [4]


def test_a_discarded_page_never_touched_is_no_event(memory, discarded):
    """R27."""
    assert memory.counters[Count.DISCARD_FAULTS] == 0


def test_a_discarded_page_made_stable_reads_zeros_and_says_so(memory, guest, discarded):
    """R9: code 6 leaves it Vz; code 1 loses the data, and zeros are read."""
    assert guest.essa(Essa.SET_STABLE_IF_NOT_DISCARDED, [1, 2]).tolist() == [0x00, 0x0F]
    with pytest.raises(DiscardFault):
        memory.read(2)
    assert guest.essa(Essa.SET_STABLE, [2]).tolist() == [0x0F]
    assert memory.read(2) == ZERO


# a restore function


def test_restored_pages_are_read_as_if_nothing_had_been(memory, guest, discarded, states):
    asked = []

    def restore(gfn):
        asked.append(gfn)
        return page(gfn)

    guest.on_discard(restore)
    assert memory.read(2) == page(2)
    assert (memory.read_many(range(8)) == pages(*range(8))).all()
    assert asked == [2, 5]
    assert memory.counters[Count.DISCARD_FAULTS] == 2
    assert states(2, 5) == ["Vr", "Vr"], "volatile again, and clean"
    assert not memory.dirty([2, 5]).any()


def test_a_store_goes_on_after_the_restore(memory, guest, discarded):
    guest.on_discard(page)
    memory.write_part(2, 5, b"new")
    assert memory.read(2) == page(2)[:5] + b"new" + page(2)[8:]
    memory.write_many([4, 5], pages(70, 71))
    assert (memory.read_many([4, 5]) == pages(70, 71)).all()


def test_a_restore_function_that_gives_too_little_is_told(memory, guest, discarded, states):
    guest.on_discard(lambda gfn: b"short")
    with pytest.raises(ValueError, match="5 bytes for page 2, not 4096"):
        memory.read(2)
    assert states(2) == ["Vz"]
    guest.on_discard(None)
    with pytest.raises(DiscardFault):
        memory.read(2)


def test_a_restore_function_that_fails_fails_the_access(memory, guest, discarded, states):
    def restore(gfn):
        raise LookupError("the disk is gone")

    guest.on_discard(restore)
    with pytest.raises(LookupError, match="disk is gone"):
        memory.read(2)
    assert states(2) == ["Vz"]


# no memory


def test_when_nothing_can_be_reclaimed_the_guest_is_out_of_memory_and_keeps_what_it_has(machine):
    running = machine(budget=8, swap=0)
    memory = running.guest(pages=32).memory
    memory.write_many(range(8), pages(*range(8)))
    for access in (lambda: memory.read(8), lambda: memory.write(8, ZERO), lambda: memory.read_many([0, 8])):
        with pytest.raises(OutOfMemory):
            access()
    assert (memory.read_many(range(8)) == pages(*range(8))).all()
    memory.map.essa_one(Essa.SET_UNUSED, 3)
    memory.write(8, page(8))
    assert memory.read(8) == page(8), "as soon as there is a frame"


def test_pages_granted_and_lost_again_without_end_are_given_up(still_machine, monkeypatch):
    """A hypervisor that says look again and never grants is no hypervisor."""
    guest = still_machine().guest()
    monkeypatch.setattr(memory_module, "GRANT_DEADLINE_S", 0.01)
    with guest.domain.map.lock:                      # the hypervisor cannot look, and says so each time
        monkeypatch.setattr(guest.memory.map, "lock", Unlocked())
        with pytest.raises(HypervisorGone, match="granted and lost again"):
            guest.memory.read_many([3, 4])


class Unlocked:
    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


def test_a_hypervisor_that_does_not_know_our_pages_is_a_bug(still_machine):
    guest = still_machine().guest()
    guest.memory.pages = guest.memory.map.pages = 1 << 20
    with pytest.raises(BrokenInvariant, match="does not know pages"):
        guest.memory._ask(np.array([1 << 19]))
