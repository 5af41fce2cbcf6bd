"""Rules R1, R21 to R25, R46 and R48 of CMM2: what states there are, who may change them, and what an access finds."""

import threading

import numpy as np
import pytest
from harness.instruction import MODES, PATHS, byte_of, guest_of, put
from harness.pages import assert_sound, evict, page, states

from shm.abi import PAGE_SIZE, Op
from shm.errors import AddressingException, DiscardFault
from shm.pagestate import HOST, Essa, Event, State
from shm.releaselist import RELEASES

BYTES = {"Sr": 0x00, "Sp": 0x02, "Sz": 0x03, "Ur": 0x04, "Uz": 0x07, "Pr": 0x08, "Vr": 0x0C, "Vz": 0x0F}
ORDERS_OF_THE_STRESS = 400


@pytest.fixture(params=PATHS)
def path(request):
    return request.param


@pytest.fixture(params=MODES)
def cmma(request):
    return request.param


@pytest.fixture
def guest(still_machine):
    return guest_of(still_machine)


@pytest.fixture
def either(still_machine, path, cmma):
    return guest_of(still_machine, path, cmma)


@pytest.fixture
def kvm(still_machine):
    return guest_of(still_machine, "shared", "kvm")


def test_r01_only_eight_states_under_orders_and_evictions_at_once(guest):
    """Sampled under the lock: the byte that ESSA returns, and the bytes that are stored."""
    guest.memory.write_many(range(32), np.ones((32, PAGE_SIZE), np.uint8))
    seen: set[int] = set()

    def give_orders():
        rng = np.random.default_rng(1)
        for _ in range(ORDERS_OF_THE_STRESS):
            order = Essa(int(rng.choice([1, 2, 3, 4, 6, 7])))
            seen.update(guest.processor.essa(order, rng.permutation(32)[:20]).tolist())

    orders = threading.Thread(target=give_orders)
    orders.start()
    while orders.is_alive():
        evict(guest, *range(0, 32, 3))
        guest.machine.cmm2.settle(guest.domain)
        assert guest.domain.lock()
        content, told = guest.map.content.copy(), guest.map.tables.essa.take(guest.map.pairs(slice(None)))
        guest.domain.unlock()
        seen.update(told.tolist())
        assert set(content.tolist()) <= {0x00, 0x02, 0x03}
    orders.join()
    assert {byte & 0x0F for byte in seen} <= set(BYTES.values())
    assert_sound(guest)


def test_r21_scribbling_reaches_neither_the_hosts_half_nor_another_guest(still_machine):
    machine = still_machine(budget=256, swap=64)
    guest, other = machine.guest("liar", pages=32), machine.guest("other", pages=32)
    for each in (guest, other):
        for gfn, state in enumerate(BYTES):
            put(each, gfn, state, dirty=True)
    theirs = other.map.usage.copy(), other.map.content.copy()
    rng = np.random.default_rng(2)
    for _ in range(50):
        content = guest.map.content.copy()
        guest.map.usage[:] = rng.integers(0, 256, 32)
        assert (guest.map.content == content).all() and not guest.map.content.flags.writeable
        assert set(guest.processor.essa(Essa.GET_STATE, range(32)) & 0xDF) <= set(BYTES.values())
        evict(guest, *range(32))
        machine.machine.cmm2.settle(guest.domain)
        assert_sound(guest)
    assert (other.map.usage == theirs[0]).all() and (other.map.content == theirs[1]).all()
    assert other.memory.read(0) == page(0)


@pytest.mark.parametrize("by", ["guest", "operator"])
def test_r22_after_a_reset_all_is_stable_and_nothing_can_be_had_without_io(either, by):
    for gfn, state in enumerate(BYTES):
        put(either, gfn, state, dirty=state != "Pr")
    either.processor.essa(Essa.SET_STABLE_NODAT, [9])
    if by == "guest":
        either.processor.reset()
    else:
        assert either.machine.orders.table["reset-states"]({"name": "g"}) == {"pages": 32}
    row = HOST[Event.RESET].clean
    assert states(either, *range(8)) == [row[State[state]].name for state in BYTES]
    assert not (either.processor.essa(Essa.GET_STATE, range(32)) & 0x2C).any(), "usage S and no-DAT off, everywhere"
    io = either.counts.swap_out
    held = either.domain.ram.resident()
    assert evict(either, *range(32)) == held == either.counts.swap_out - io, "every frame costs a write"
    for gfn, state in enumerate(BYTES):
        assert either.memory.read(gfn) == (bytes(PAGE_SIZE) if state[1] == "z" else page(gfn))
    assert_sound(either)


def test_r22_a_copy_given_up_before_a_reset_does_not_come_back_by_it(either):
    put(either, 3, "Sp", dirty=True)
    either.processor.essa_one(Essa.SET_UNUSED, 3)
    either.processor.reset()
    assert (states(either, 3), either.machine.swap.used) == (["Sz"], 0)
    assert either.memory.read(3) == bytes(PAGE_SIZE)


def test_r23_states_move_with_their_guest_and_a_discarded_page_arrives_as_discarded(still_machine, path, cmma):
    source, target = guest_of(still_machine, path, cmma), guest_of(still_machine, path, cmma)
    for gfn, state in enumerate(BYTES):
        put(source, gfn, state, dirty=True)
    source.processor.essa(Essa.SET_STABLE_NODAT, [8])
    told = source.machine.orders.table["states-get"]({"name": "g", "from": 0, "count": 32})
    for gfn, state in enumerate(BYTES):                      # memory first: what the source has a content of
        if state[1] in "rp":
            target.memory.write(gfn, page(gfn))
    target.machine.orders.table["states-set"]({"name": "g", "from": 0, "states": told["states"]})
    arrived = [state.replace("p", "r") for state in BYTES]   # preserved there, resident here
    assert states(target, *range(8)) == arrived
    assert byte_of(target, 8) == 0x23
    with pytest.raises(DiscardFault):
        target.memory.read(list(BYTES).index("Vz"))
    again = target.machine.orders.table["states-get"]({"name": "g", "from": 0, "count": 32})
    assert again["states"] == told["states"]


def test_r24_an_unused_page_is_an_addressing_exception_and_in_kvm_is_there_while_it_has_its_frame(either, cmma):
    for gfn, state in ((0, "Ur"), (1, "Uz")):
        put(either, gfn, state, dirty=True)
    if cmma == "kvm":
        assert either.memory.read(0) == page(0)
        either.memory.write(0, page(9))
        assert (either.memory.read(0), states(either, 0)) == (page(9), ["Ur"])
    else:
        for touch in (lambda: either.memory.read(0), lambda: either.memory.write(0, page(9))):
            with pytest.raises(AddressingException):
                touch()
    with pytest.raises(AddressingException):
        either.memory.read(1)
    assert states(either, 0, 1) == ["Ur", "Uz"]


def test_r25_preserved_and_zero_pages_come_back_without_a_word(either):
    put(either, 0, "Sp", dirty=True)
    put(either, 1, "Sz", dirty=False)
    assert [either.memory.read(gfn) for gfn in (0, 1)] == [page(0), bytes(PAGE_SIZE)]
    assert states(either, 0, 1) == ["Sr", "Sr"]
    assert (either.counts.swap_in, either.machine.swap.used) == (1, 0)


def released(kvm, *gfns):
    """Preserve pages, then release them by ESSA: they are on the release list now."""
    for gfn in gfns:
        put(kvm, gfn, "Sp", dirty=True)
    kvm.processor.essa(Essa.SET_UNUSED, gfns)
    assert states(kvm, *gfns) == ["Uz"] * len(gfns)


@pytest.mark.parametrize("order", [Essa.SET_STABLE, Essa.SET_STABLE_RESIDENT, Essa.SET_STABLE_NODAT])
@pytest.mark.parametrize("release", [Essa.SET_UNUSED, Essa.SET_VOLATILE])
def test_r46_a_page_made_stable_before_the_list_is_processed_has_its_copy_again(kvm, order, release):
    put(kvm, 3, "Sp", dirty=True)
    assert kvm.processor.essa_one(release, 3) == 0x02
    assert kvm.processor.essa_one(order, 3) & 0x0F == {Essa.SET_UNUSED: 0x07, Essa.SET_VOLATILE: 0x0F}[release]
    assert states(kvm, 3) == ["Sp"]
    kvm.channel.call(Op.PING)
    assert len(kvm.processor.releases) == 0
    assert (states(kvm, 3), kvm.machine.swap.used) == (["Sp"], 1)
    assert kvm.memory.read(3) == page(3)
    assert_sound(kvm)


@pytest.mark.parametrize("order", [Essa.SET_STABLE, Essa.SET_STABLE_RESIDENT, Essa.SET_STABLE_NODAT])
def test_r46_a_page_made_stable_after_that_is_zero(kvm, order):
    released(kvm, 3)
    kvm.channel.call(Op.PING)
    assert kvm.machine.swap.used == 0
    kvm.processor.essa_one(order, 3)
    assert (states(kvm, 3), kvm.memory.read(3)) == (["Sz"], bytes(PAGE_SIZE))
    assert_sound(kvm)


def test_r46_any_exit_of_this_guest_processes_its_list_and_no_clock_does(still_machine):
    machine = still_machine(budget=256, swap=64, cmma="kvm")
    kvm, other = machine.guest("kvm"), machine.guest("other")
    released(kvm, 1, 2)
    other.channel.call(Op.PING)
    machine.machine.check()
    assert (machine.machine.swap.used, len(kvm.processor.releases)) == (2, 2)
    kvm.memory.read(9)                                       # a page fault is an exit like any
    assert (machine.machine.swap.used, len(kvm.processor.releases)) == (0, 0)
    assert kvm.counts.released == 2


def test_r46_the_list_takes_511_pages_and_the_next_release_is_intercepted(still_machine):
    kvm = guest_of(still_machine, "shared", "kvm", pages=600)
    put(kvm, 599, "Sp", dirty=True)
    calls = kvm.counts.hypercalls
    kvm.processor.essa(Essa.SET_UNUSED, range(RELEASES - 1))
    kvm.processor.essa(Essa.SET_VOLATILE, [599])
    assert (kvm.counts.hypercalls, len(kvm.processor.releases)) == (calls, RELEASES)
    kvm.processor.essa(Essa.SET_STABLE, [0, 1])              # releases nothing, so it needs no room
    assert kvm.counts.hypercalls == calls
    kvm.processor.essa(Essa.SET_UNUSED, [0])
    assert (kvm.counts.hypercalls, len(kvm.processor.releases)) == (calls + 1, 0)
    assert (kvm.machine.swap.used, states(kvm, 0, 1, 599)) == (0, ["Uz", "Sz", "Vz"])


@pytest.mark.parametrize(("state", "then"), {"Sr": "Sz", "Sp": "Sz", "Sz": "Sz"}.items())
def test_r48_a_page_given_up_by_diag_10_is_a_zero_page_without_any_fault(either, state, then):
    put(either, 3, state, dirty=True)
    used, held = either.machine.swap.used, either.domain.ram.resident()
    assert either.processor.release([3]) == (state != "Sz")
    assert states(either, 3) == [then]
    assert used - either.machine.swap.used == (state == "Sp")
    assert held - either.domain.ram.resident() == (state == "Sr")
    assert either.counts.swap_out == (state == "Sp"), "no write but the one that preserved it before"
    assert either.memory.read(3) == bytes(PAGE_SIZE)
    assert either.counts.swap_in == 0
    assert_sound(either)


def test_r48_unused_pages_go_too_but_stay_unused_and_volatile_ones_stay_as_they_are(guest):
    for gfn, state in enumerate(("Ur", "Uz", "Vr", "Vz", "Pr")):
        put(guest, gfn, state, dirty=True)
    assert guest.processor.release(range(5)) == 1
    assert states(guest, *range(5)) == ["Uz", "Uz", "Vr", "Vz", "Pr"]
    with pytest.raises(AddressingException):
        guest.memory.read(0)
    with pytest.raises(DiscardFault):
        guest.memory.read(3)
    assert_sound(guest)
