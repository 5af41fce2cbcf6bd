"""The guest's processor: two hint paths that do the same, what each costs, and the release list."""

import numpy as np
import pytest
from harness.instruction import MODES, guest_of
from harness.pages import assert_sound, evict, page
from hypothesis import given, settings
from hypothesis import strategies as st

from guests import Essa, Guest
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, Op
from shm.counters import Count
from shm.errors import AddressingException, BrokenInvariant, HypervisorGone, OperationException, UsageProblem
from shm.releaselist import RELEASES

PAGES = 6
DEEDS = st.lists(st.one_of(
    st.tuples(st.just("essa"), st.sampled_from(Essa), st.sets(st.integers(0, PAGES - 1), min_size=1)),
    st.tuples(st.just("store"), st.integers(0, PAGES - 1), st.none()),
    st.tuples(st.just("evict"), st.integers(0, PAGES - 1), st.none()),
    st.tuples(st.just("clean"), st.integers(0, PAGES - 1), st.none())), max_size=25)


def do(guest, deed, what, gfns):
    """Do one deed; return what a guest sees of it."""
    match deed:
        case "essa":
            return guest.processor.essa(what, sorted(gfns)).tolist()
        case "store" if guest.map.access_one(what) < 3:      # neither an exception nor a fault
            guest.memory.write(what, page(what))
        case "evict":
            return evict(guest, what)
        case "clean":
            guest.memory.clear_dirty([what])
    return None


@pytest.mark.parametrize("cmma", MODES)
@settings(max_examples=60)
@given(deeds=DEEDS)
def test_both_paths_do_the_same(still_machine, cmma, deeds):
    """As KVM has it, a trapped order is the same order and an exit after it: the release list is processed then."""
    shared, trap = (guest_of(still_machine, path, cmma, pages=PAGES) for path in ("shared", "trap"))
    for deed, what, gfns in deeds:
        assert do(shared, deed, what, gfns) == do(trap, deed, what, gfns)
        if cmma == "kvm":
            shared.channel.call(Op.PING)
        shared.machine.cmm2.settle(shared.domain)            # an architected trap frees void copies at once
        assert (shared.map.usage == trap.map.usage).all()
        assert (shared.map.content == trap.map.content).all()
    for guest in (shared, trap):
        assert_sound(guest)
        guest.machine.bury(guest.domain, "left")


@pytest.fixture
def guest(machine):
    return machine(budget=1024).guest(pages=600)


@pytest.mark.parametrize(("pages", "calls"), [(0, 0), (1, 1), (256, 1), (257, 2), (600, 3)])
def test_a_trapped_batch_is_a_hypercall_for_256_pages(guest, pages, calls):
    guest.hint_path = "trap"
    before = guest.counters.copy()
    assert guest.essa(Essa.SET_UNUSED, range(pages)).tolist() == [0x03] * pages
    assert guest.counters[Count.HYPERCALLS] - before[Count.HYPERCALLS] == calls
    assert guest.counters[Count.ESSA] - before[Count.ESSA] == pages
    assert (guest.counters[Count.WAIT_OTHER_NS] > before[Count.WAIT_OTHER_NS]) == (calls > 0)
    assert (guest.essa(Essa.GET_STATE, range(600)) == 0x07).sum() == pages


def test_old_states_come_back_in_the_order_of_their_pages(guest):
    guest.essa(Essa.SET_UNUSED, [5])
    guest.essa(Essa.SET_VOLATILE, [300])
    guest.hint_path = "trap"
    gfns = np.random.default_rng(3).permutation(600)
    old = guest.essa(Essa.GET_STATE, gfns)
    assert {int(gfn): int(byte) for gfn, byte in zip(gfns, old, strict=True) if byte != 0x03} == {5: 0x07, 300: 0x0F}


def test_shared_hints_take_no_hypercall_and_paths_can_be_changed(guest):
    calls = int(guest.counters[Count.HYPERCALLS])
    guest.essa(Essa.SET_UNUSED, range(600))
    assert guest.counters[Count.HYPERCALLS] == calls
    guest.hint_path = "trap"
    assert guest.essa_one(Essa.SET_STABLE, 0) == 0x07
    guest.hint_path = "shared"
    assert guest.essa_one(Essa.SET_STABLE, 1) == 0x07
    assert guest.counters[Count.HYPERCALLS] == calls + 1


@pytest.mark.parametrize("path", ["", "direct", None, 1])
def test_a_path_that_is_none(guest, path):
    with pytest.raises(UsageProblem, match="use one of shared, trap"):
        guest.hint_path = path
    assert guest.hint_path == "shared"


@pytest.mark.parametrize("path", ["shared", "trap"])
def test_code_5_brings_frames_in(guest, path):
    guest.hint_path = path
    assert guest.essa(Essa.SET_STABLE_RESIDENT, [1, 2]).tolist() == [0x03, 0x03]
    assert guest.essa_one(Essa.SET_STABLE_RESIDENT, 3) == 0x03
    assert guest.essa(Essa.GET_STATE, [1, 2, 3, 4]).tolist() == [0, 0, 0, 3]


def test_what_is_wrong_with_a_batch_is_found_before_any_part_is_trapped(guest):
    guest.hint_path = "trap"
    with pytest.raises(AddressingException):
        guest.essa(Essa.SET_UNUSED, [*range(MULTICALL_LIMIT), 600])
    assert (guest.essa(Essa.GET_STATE, range(600)) == 0x03).all()


def test_release_gives_frames_back_at_once(guest):
    guest.memory.write_many(range(300), np.ones((300, PAGE_SIZE), np.uint8))
    assert guest.release(range(400)) == 300
    assert not guest.memory.read_many(range(400)).any()
    assert guest.release([]) == 0


def test_reset(guest):
    guest.essa(Essa.SET_VOLATILE, range(600))
    guest.reset_states()
    assert (guest.essa(Essa.GET_STATE, range(600)) == 0x03).all()


@pytest.mark.parametrize("cmma", ["architected", "kvm", "off"])
def test_a_guest_is_told_what_its_processor_has(machine, cmma):
    guest = machine(cmma=cmma).guest()
    assert guest.processor.facilities.kvm == (cmma == "kvm")
    assert ("hint-unused" in guest.features) == ("hint-volatile" in guest.features) == (cmma != "off")
    assert "cleancache" in guest.features
    if cmma == "off":
        with pytest.raises(OperationException, match="no CMMA"):
            guest.essa_one(Essa.GET_STATE, 0)
        return
    assert guest.essa_one(Essa.GET_STATE, 0) == 0x03


def test_a_full_release_list_costs_one_hypercall_in_512_releases(machine):
    running = machine(budget=256, cmma="kvm")
    guest = running.guest(pages=2 * RELEASES + 2)
    assert (guest.essa(Essa.SET_UNUSED, range(2 * RELEASES + 2)) == 0x03).all()
    assert guest.counters[Count.HYPERCALLS] == 2
    assert len(guest.processor.releases) == 0, "the second intercept was by the last page"


@pytest.mark.parametrize("cmma", MODES)
def test_what_was_in_the_balloon_is_zero_though_no_instruction_listed_its_copy(still_machine, cmma):
    guest = guest_of(still_machine, "shared", cmma)
    guest.memory.write(0, page(0))
    assert evict(guest, 0) == 1
    guest.memory.balloon([0])
    assert guest.memory.deflate([0])
    assert guest.memory.read(0) == bytes(PAGE_SIZE)
    assert guest.machine.swap.used == 0
    assert_sound(guest)


def test_a_lock_that_the_hypervisor_never_gets_ends_a_trap(still_machine, monkeypatch):
    guest = guest_of(still_machine, "trap")
    monkeypatch.setattr("guests.processor.TRAP_DEADLINE_S", 0.01)
    assert guest.map.lock.acquire(0)
    with pytest.raises(HypervisorGone, match="state lock"):
        guest.processor.essa_one(Essa.SET_UNUSED, 0)
    guest.map.lock.release()
    assert not guest.map.usage.any()
    assert guest.processor.essa_one(Essa.SET_UNUSED, 0) == 0x03


def test_an_answer_that_cannot_be_is_a_broken_invariant(still_machine):
    guest = guest_of(still_machine, "trap")
    guest.processor.facilities = guest.processor.facilities._replace(cmma=True)
    guest.machine.dispatch.processor.facilities = guest.processor.facilities._replace(cmma=False)
    with pytest.raises(BrokenInvariant, match="ESSA of pages"):
        guest.processor.essa_one(Essa.SET_UNUSED, 0)


def test_two_guests_of_one_cluster_may_differ_in_their_path(machine):
    running = machine()
    first, second = running.guest("a"), running.guest("b")
    first.hint_path = "trap"
    for guest in (first, second):
        assert isinstance(guest, Guest)
        assert guest.essa_one(Essa.SET_VOLATILE, 0) == 0x03
        assert guest.essa_one(Essa.GET_STATE, 0) == 0x0F
    assert (first.counters[Count.HYPERCALLS], second.counters[Count.HYPERCALLS]) == (2, 0)
