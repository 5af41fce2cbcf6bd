"""Guest memory in software mode, against a real machine: every access by the protocol, every fault to the right one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import AddressingException
from shm.pagestate import Essa, State

ZERO = bytes(PAGE_SIZE)
DIRTY, HOST_CHANGE, REFERENCED = 0x01, 0x02, 0x10


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


# one page


def test_fresh_pages_read_as_zeros_and_cost_a_frame_each(memory, running):
    assert memory.read(3) == ZERO == memory.read(31)
    assert running.inside(lambda: running.machine.ledger.used) == 2


def test_what_was_written_is_read(memory):
    memory.write(3, page(1))
    memory.write(4, np.frombuffer(page(2), np.uint8))
    memory.write(5, bytearray(page(3)))
    assert [memory.read(gfn) for gfn in (3, 4, 5, 6)] == [page(1), page(2), page(3), ZERO]
    assert type(memory.read(3)) is bytes


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 1), (100, 50), (4095, 1), (4096, 0), (0, 4096)])
def test_parts_of_pages(memory, offset, length):
    memory.write(3, page(1))
    memory.write_part(3, offset, b"\xee" * length)
    assert memory.read(3) == page(1)[:offset] + b"\xee" * length + page(1)[offset + length:]
    assert memory.read_part(3, offset, length) == b"\xee" * length


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4096), st.binary(max_size=64)), max_size=20))
def test_parts_written_one_over_the_other(still_memory, writes):
    expected = [bytearray(still_memory.read(gfn)) for gfn in range(4)]
    for gfn, offset, whole in writes:
        data = whole[:4096 - offset]
        still_memory.write_part(gfn, offset, data)
        expected[gfn][offset:offset + len(data)] = data
    assert [still_memory.read(gfn) for gfn in range(4)] == expected


@pytest.fixture
def still_memory(still_machine):
    return still_machine().guest().memory


WRONG = {
    "a page below": (lambda m: m.read(-1), AddressingException),
    "a page beyond": (lambda m: m.read(32), AddressingException),
    "a store beyond": (lambda m: m.write(32, ZERO), AddressingException),
    "a part of a page beyond": (lambda m: m.read_part(1 << 40, 0, 1), AddressingException),
    "many, one beyond": (lambda m: m.read_many([0, 32]), AddressingException),
    "many stores, one below": (lambda m: m.write_many([0, -1], pages(1, 2)), AddressingException),
    "dirty bits beyond": (lambda m: m.dirty([32]), AddressingException),
    "clear dirty bits beyond": (lambda m: m.clear_dirty([32]), AddressingException),
    "less than a page": (lambda m: m.write(0, ZERO[1:]), ValueError),
    "more than a page": (lambda m: m.write(0, ZERO + b"x"), ValueError),
    "a part past the end": (lambda m: m.write_part(0, 4095, b"xy"), ValueError),
    "a part before the start": (lambda m: m.read_part(0, -1, 2), ValueError),
    "a negative length": (lambda m: m.read_part(0, 2, -1), ValueError),
    "one page twice": (lambda m: m.read_many([1, 1]), ValueError),
    "one page stored twice": (lambda m: m.write_many([1, 1], pages(1, 2)), ValueError),
    "too few pages": (lambda m: m.write_many([0, 1], pages(1)), ValueError),
    "pages of another size": (lambda m: m.write_many([0], np.zeros((1, 512), np.uint8)), ValueError),
}


@pytest.mark.parametrize(("access", "error"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_is_refused_and_touches_nothing(memory, running, access, error):
    with pytest.raises(error):
        access(memory)
    assert running.inside(lambda: running.machine.ledger.used) == 0
    assert memory.counters[Count.HYPERCALLS] == 0


# many pages


def test_many_pages_in_the_order_asked_for(memory):
    gfns = [7, 3, 20, 4]
    memory.write_many(gfns, pages(1, 2, 3, 4))
    assert [memory.read(gfn) for gfn in gfns] == [page(n) for n in (1, 2, 3, 4)]
    assert [bytes(row) for row in memory.read_many([4, 20, 5, 7])] == [page(4), page(3), ZERO, page(1)]
    assert memory.read_many([]).shape == (0, PAGE_SIZE)
    memory.write_many([], np.zeros((0, PAGE_SIZE), np.uint8))


def test_what_is_read_is_a_private_copy(memory):
    memory.write(3, page(1))
    copy = memory.read_many([3])
    copy[:] = 0
    assert memory.read(3) == page(1)


def test_resident_preserved_and_fresh_pages_in_one_batch(memory, evict, states):
    memory.write_many(range(8), pages(*range(8)))
    assert evict(1, 3, 5) == 3
    assert states(0, 1, 9) == ["Sr", "Sp", "Sz"]
    found = memory.read_many([9, 3, 0, 1, 8, 5])
    assert [bytes(row) for row in found] == [ZERO, page(3), page(0), page(1), ZERO, page(5)]
    assert memory.counters[Count.FAULTS] == 8 + 5


def test_a_store_to_preserved_pages_brings_them_back_first(memory, evict):
    memory.write(3, page(1))
    evict(3)
    memory.write_part(3, 10, b"xyz")
    assert memory.read(3) == page(1)[:10] + b"xyz" + page(1)[13:]


@pytest.mark.parametrize("count", [16, 17, 64, 300])
def test_a_batch_larger_than_the_budget_works(machine, count):
    """Each page is accessed when its frame is there; what came first may have gone by then."""
    running = machine(budget=16, swap=1024)
    memory = running.guest(pages=300).memory
    content = np.random.default_rng(3).integers(0, 256, (count, PAGE_SIZE), np.uint8)
    memory.write_many(range(count), content)
    assert (memory.read_many(range(count)) == content).all()
    assert running.inside(lambda: running.machine.ledger.peak) <= 16


# bits


def test_stores_set_the_change_and_referenced_bits_and_loads_set_referenced_alone(memory, guest):
    usage = guest._map.usage
    memory.write(1, page(1))
    memory.write_many([2], pages(2))
    memory.write(3, page(3), clean=True)
    memory.write_many([4], pages(4), clean=True)
    memory.read(5)
    memory.read_many([6])
    store, fill = DIRTY | HOST_CHANGE | REFERENCED, HOST_CHANGE | REFERENCED
    assert usage[1:7].tolist() == [store, store, fill, fill, REFERENCED, REFERENCED]


def test_dirty_means_stored_to_since_it_was_cleared(memory):
    memory.write(1, page(1))
    memory.write(2, page(2), clean=True)
    memory.read(3)
    assert memory.dirty([1, 2, 3]).tolist() == [True, False, False]
    memory.clear_dirty([1])
    assert not memory.dirty([1]).any()
    memory.write_part(2, 0, b"")
    memory.write_part(3, 7, b"x")
    assert memory.dirty([1, 2, 3]).tolist() == [False, True, True]
    memory.write(3, page(3), clean=True)
    assert not memory.dirty([3]).any(), "input over a dirty page: as its backing store now"


def test_clearing_dirty_keeps_every_other_bit(memory, guest):
    memory.write(1, page(1))
    guest._map.usage[1] |= 0x20
    memory.clear_dirty([1])
    assert guest._map.usage[1] == 0x20 | HOST_CHANGE | REFERENCED


def test_dirty_pages_survive_eviction_and_stay_dirty(memory, evict):
    memory.write(1, page(1))
    memory.write(2, page(2), clean=True)
    evict(1, 2)
    assert memory.dirty([1, 2]).tolist() == [True, False]
    assert [memory.read(gfn) for gfn in (1, 2)] == [page(1), page(2)]
    assert memory.dirty([1, 2]).tolist() == [True, False]


# residency on demand


def test_set_stable_resident_leaves_pages_resident(guest, memory, evict, states):
    """R11: Sp by one read, Sz by a zero frame, whatever the usage was."""
    memory.write_many(range(4), pages(*range(4)))
    evict(0)
    guest.essa(Essa.SET_VOLATILE, [1, 6])
    evict(1)
    guest.essa(Essa.SET_UNUSED, [2, 7])
    old = guest.essa(Essa.SET_STABLE_RESIDENT, [0, 1, 2, 3, 5, 6, 7])
    assert old.tolist() == [0x02, 0x0F, 0x04, 0x00, 0x03, 0x0F, 0x07]
    assert states(0, 1, 2, 3, 5, 6, 7) == ["Sr"] * 7
    assert memory.read(0) == page(0) and memory.read(1) == ZERO
    assert guest.essa_one(Essa.SET_STABLE_RESIDENT, 9) == 0x03
    assert states(9) == ["Sr"]


def test_waits_for_the_hypervisor_are_counted(memory, evict):
    memory.write(1, page(1))
    evict(1)
    memory.read(1)
    memory.read(1)
    counters = memory.counters
    assert (counters[Count.HYPERCALLS], counters[Count.FAULTS]) == (2, 2)
    assert counters[Count.WAIT_FAULT_NS] > 0
