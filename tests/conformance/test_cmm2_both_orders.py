"""R2 to R12 over real worlds: what the instruction answers and does, in both fault modes and on both hint paths.

States are brought about for real: Sp by evicting a stable page, Vz by discarding a volatile one.
"""

import csv
from pathlib import Path

import pytest
from harness.instruction import PATHS
from harness.pages import page

from shm.abi import PAGE_SIZE
from shm.errors import AddressingException, OperationException, PrivilegedOperation, SpecificationException
from shm.pagestate import Essa, was_discarded

STATES = ("Sr", "Sp", "Sz", "Ur", "Uz", "Vr", "Vz", "Pr")
RESIDENT = ("Sr", "Ur", "Vr", "Pr")
BYTES = {"Sr": 0x00, "Sp": 0x02, "Sz": 0x03, "Ur": 0x04, "Uz": 0x07, "Vr": 0x0C, "Vz": 0x0F, "Pr": 0x08}
ZEROS = bytes(PAGE_SIZE)
with (Path(__file__).parent / "essa_golden.csv").open() as golden:
    GOLDEN = list(csv.DictReader(golden))


@pytest.fixture(params=PATHS)
def path(request):
    return request.param


@pytest.fixture
def on_path(world, path):
    world.guest.hint_path = path
    return world


@pytest.fixture
def kvm(new_world, path):
    made = new_world(cmma="kvm")
    made.guest.hint_path = path
    return made


def test_r02_the_old_states_byte_comes_back(on_path):
    for gfn, state in enumerate(STATES):
        on_path.bring(gfn, state)
    guest, whole = on_path.guest, range(len(STATES))
    assert guest.essa(Essa.GET_STATE, whole).tolist() == list(BYTES.values())
    assert guest.essa(Essa.SET_STABLE, whole).tolist() == list(BYTES.values())
    guest.essa_one(Essa.SET_STABLE_NODAT, 0)
    assert [guest.essa_one(Essa.SET_STABLE, 0) for _ in range(2)] == [0x20, 0x00]


def test_r03_to_look_changes_nothing(on_path):
    for gfn, state in enumerate(STATES):
        on_path.bring(gfn, state, dirty=gfn % 2 == 0)
    counts, stored = on_path.row(), on_path.map.usage.copy()
    looks = [on_path.guest.essa(Essa.GET_STATE, range(8)).tolist() for _ in range(2)]
    assert looks[0] == looks[1] and (on_path.map.usage == stored).all()
    assert on_path.row()["states"] == counts["states"] and on_path.row()["frames"] == counts["frames"]


@pytest.mark.parametrize("order", range(8))
def test_r04_each_case_of_the_table(on_path, order):
    """Sixteen of the 128 cases, a page each."""
    for gfn, row in enumerate(GOLDEN):
        on_path.bring(gfn, row["old"], row["page"] == "dirty")
    for gfn, row in enumerate(GOLDEN):
        assert on_path.guest.essa_one(Essa(order), gfn) == int(row["byte"], 16), row
    then = [row[str(order)] for row in GOLDEN]
    assert on_path.states(*range(len(GOLDEN))) == then
    for gfn, row in enumerate(GOLDEN):
        if row["old"] in RESIDENT and then[gfn] != "Ur":
            assert on_path.touch(gfn) == page(gfn), (row, "contents are kept while resident")
    on_path.audit()
    assert on_path.states(*range(len(GOLDEN))) == then, "settling void copies is no change of state"


@pytest.mark.parametrize("state", RESIDENT)
def test_r05_no_order_alters_the_contents_of_a_resident_page(on_path, state):
    on_path.bring(3, state)
    for order in (1, 3, 4, 3, 6, 4, 7, 3, 5, 2, 1):
        on_path.guest.essa_one(Essa(order), 3)
    assert on_path.touch(3) == page(3) and on_path.counts()["swap_in"] == 0


@pytest.mark.parametrize("order", [Essa.SET_UNUSED, Essa.SET_VOLATILE])
def test_r06_a_preserved_copy_that_is_given_up_is_freed_without_a_read(on_path, order):
    on_path.bring(3, "Sp")
    used = on_path.used_slots()
    assert on_path.guest.essa_one(order, 3) == BYTES["Sp"]
    on_path.audit()
    assert on_path.used_slots() == used - 1 and on_path.counts()["swap_in"] == 0
    assert on_path.states(3)[0][1] == "z"


@pytest.mark.parametrize(("dirty", "then"), [(False, "Vz"), (True, "Sp")])
def test_r07_pot_volatile_drops_a_clean_copy_and_keeps_a_dirty_one(on_path, dirty, then):
    on_path.bring(3, "Sp", dirty)
    on_path.guest.essa_one(Essa.SET_POT_VOLATILE, 3)
    assert on_path.states(3) == [then]
    if dirty:
        assert on_path.touch(3) == page(3) and on_path.counts()["swap_in"] == 1


@pytest.mark.parametrize("state", ["Sz", "Uz", "Vz"])
def test_r08_there_is_no_pz(on_path, state):
    for gfn, dirty in enumerate((False, True)):
        on_path.bring(gfn, state, dirty)
        on_path.guest.essa_one(Essa.SET_POT_VOLATILE, gfn)
    assert on_path.states(0, 1) == ["Vz", "Vz"]


def test_r09_code_6_finds_a_discarded_page_and_code_1_loses_that(on_path):
    on_path.bring(3, "Vz")
    assert was_discarded(on_path.guest.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 3))
    assert on_path.states(3) == ["Vz"]
    assert on_path.guest.essa_one(Essa.SET_STABLE, 3) == BYTES["Vz"]
    assert on_path.states(3) == ["Sz"]
    assert on_path.touch(3) == ZEROS and on_path.discard_faults() == 0


def test_r10_code_6_as_kvm_has_it_differs_for_uz_alone(kvm):
    for gfn, row in enumerate(GOLDEN):
        kvm.bring(gfn, row["old"], row["page"] == "dirty")
        assert kvm.guest.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, gfn) == int(row["byte"], 16)
    assert kvm.states(*range(len(GOLDEN))) == [row["6kvm"] for row in GOLDEN]
    assert {row["old"] for row in GOLDEN if row["6"] != row["6kvm"]} == {"Uz"}


@pytest.mark.parametrize("state", STATES)
def test_r11_code_5_brings_the_frame(on_path, state):
    on_path.bring(3, state)
    frames = on_path.row()["frames"]
    on_path.guest.essa_one(Essa.SET_STABLE_RESIDENT, 3)
    assert on_path.states(3) == ["Sr"]
    assert on_path.row()["frames"] == frames + (state not in RESIDENT)
    assert on_path.counts()["swap_in"] == (state == "Sp")
    assert on_path.touch(3) == (ZEROS if state[1] == "z" else page(3)) and on_path.discard_faults() == 0


def test_r11_code_5_as_kvm_has_it_is_code_1(kvm):
    for gfn, state in enumerate(STATES):
        for at in (gfn, 8 + gfn):
            kvm.bring(at, state, dirty=True)
        kvm.guest.essa_one(Essa.SET_STABLE_RESIDENT, gfn)
        kvm.guest.essa_one(Essa.SET_STABLE, 8 + gfn)
    assert kvm.states(*range(8)) == kvm.states(*range(8, 16)) and kvm.counts()["swap_in"] == 0


def refused(world, order, gfn, error):
    stored = world.map.usage.copy(), world.map.content.copy()
    for execute in (lambda: world.guest.essa_one(order, gfn), lambda: world.guest.essa(order, [1, gfn, 2])):
        with pytest.raises(error):
            execute()
    assert (world.map.usage == stored[0]).all() and (world.map.content == stored[1]).all()


def test_r12_each_exception_comes_in_its_order_and_alters_nothing(on_path):
    on_path.bring(0, "Vr")
    refused(on_path, 8, 99, SpecificationException)
    refused(on_path, -1, 0, SpecificationException)
    refused(on_path, Essa.SET_UNUSED, 64, AddressingException)
    refused(on_path, Essa.SET_UNUSED, -1, AddressingException)
    on_path.guest.processor.problem_state = True
    refused(on_path, 8, 99, PrivilegedOperation)


def test_r12_without_the_facility_it_is_an_operation_exception(new_world):
    refused(new_world(cmma="off"), 8, 99, OperationException)
