"""Rules R2 to R12 of CMM2: what the instruction answers and does, on both hint paths, by the real instruction.

`essa_golden.csv` is table 1.5 of the reference, typed in: an old state and dirty bit a row, an order code a column.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
from harness.instruction import MODES, PATHS, byte_of, guest_of, put
from harness.pages import assert_sound, page, states

from guests.processor import Processor
from shm.abi import PAGE_SIZE
from shm.errors import AddressingException, OperationException, PrivilegedOperation, SpecificationException
from shm.facilities import Facilities
from shm.pagestate import Essa, was_discarded

BYTES = {"Sr": 0x00, "Sp": 0x02, "Sz": 0x03, "Ur": 0x04, "Uz": 0x07, "Pr": 0x08, "Vr": 0x0C, "Vz": 0x0F}
ORDERS = range(8)
with (Path(__file__).parent / "essa_golden.csv").open() as golden:
    GOLDEN = list(csv.DictReader(golden))


@pytest.fixture(params=PATHS)
def path(request):
    return request.param


@pytest.fixture(params=MODES)
def cmma(request):
    return request.param


@pytest.fixture
def guest(still_machine, path):
    return guest_of(still_machine, path)


@pytest.fixture
def either(still_machine, path, cmma):
    """A guest on either path, of either kind of processor."""
    return guest_of(still_machine, path, cmma)


def test_r02_the_old_states_byte_comes_back(either):
    for gfn, state in enumerate(BYTES):
        put(either, gfn, state, dirty=True)
    assert either.processor.essa(Essa.GET_STATE, range(8)).tolist() == list(BYTES.values())
    assert either.processor.essa(Essa.SET_STABLE, range(8)).tolist() == list(BYTES.values())
    either.processor.essa(Essa.SET_STABLE_NODAT, [0])
    assert byte_of(either, 0) == 0x20
    assert either.processor.essa_one(Essa.SET_STABLE, 0) == 0x20
    assert byte_of(either, 0) == 0x00


def test_r03_to_look_changes_nothing(either):
    for gfn, state in enumerate(BYTES):
        put(either, gfn, state, dirty=gfn % 2 == 0)
    stored = either.map.usage.copy(), either.map.content.copy()
    looks = [either.processor.essa(Essa.GET_STATE, range(8)).tolist() for _ in range(2)]
    assert looks[0] == looks[1]
    assert (either.map.usage == stored[0]).all() and (either.map.content == stored[1]).all()


def test_r04_the_golden_table_is_the_whole_one():
    assert len(GOLDEN) * len(ORDERS) == 128
    assert {(row["old"], row["page"]) for row in GOLDEN} == {(old, how) for old in BYTES for how in ("clean", "dirty")}


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['old']}-{row['page']}")
@pytest.mark.parametrize("order", ORDERS)
def test_r04_each_case_of_the_table(guest, row, order):
    dirty = row["page"] == "dirty"
    put(guest, 7, row["old"], dirty)
    held = guest.map.content[7] == 0x00
    assert guest.processor.essa_one(Essa(order), 7) == int(row["byte"], 16)
    assert states(guest, 7) == [row[str(order)]]
    if held:
        assert bytes(guest.memory._rows[7]) == page(7), "contents are kept while resident"
    guest.machine.cmm2.settle(guest.domain)
    assert states(guest, 7) == [row[str(order)]], "settling a void copy is no change of state"
    assert_sound(guest)


@pytest.mark.parametrize("state", ["Sr", "Ur", "Vr", "Pr"])
def test_r05_no_order_alters_the_contents_of_a_resident_page(either, state):
    put(either, 3, state, dirty=True)
    for order in (1, 3, 4, 3, 6, 4, 7, 3, 5, 2, 1):
        either.processor.essa_one(Essa(order), 3)
    assert either.memory.read(3) == page(3)
    assert either.counts.swap_in == either.counts.zero_fills - 1 == 0


@pytest.mark.parametrize("order", [Essa.SET_UNUSED, Essa.SET_VOLATILE])
def test_r06_a_preserved_copy_that_is_given_up_is_freed_without_a_read(guest, order):
    put(guest, 3, "Sp", dirty=True)
    used = guest.machine.swap.used
    assert guest.processor.essa_one(order, 3) == 0x02
    guest.machine.cmm2.settle(guest.domain)
    assert guest.machine.swap.used == used - 1
    assert (states(guest, 3)[0][1], guest.counts.swap_in) == ("z", 0)


@pytest.mark.parametrize(("dirty", "then"), [(False, "Vz"), (True, "Sp")])
def test_r07_pot_volatile_drops_a_clean_copy_and_keeps_a_dirty_one(either, dirty, then):
    put(either, 3, "Sp", dirty)
    either.processor.essa_one(Essa.SET_POT_VOLATILE, 3)
    assert states(either, 3) == [then]
    if dirty:
        assert either.memory.read(3) == page(3)


@pytest.mark.parametrize("dirty", [False, True])
@pytest.mark.parametrize("state", ["Sz", "Uz", "Vz"])
def test_r08_there_is_no_pz(either, state, dirty):
    put(either, 3, state, dirty)
    either.processor.essa_one(Essa.SET_POT_VOLATILE, 3)
    assert states(either, 3) == ["Vz"]


def test_r09_code_6_finds_a_discarded_page_and_code_1_loses_that(either):
    put(either, 3, "Vz", dirty=True)
    assert was_discarded(either.processor.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 3))
    assert states(either, 3) == ["Vz"]
    assert either.processor.essa_one(Essa.SET_STABLE, 3) == 0x0F
    assert states(either, 3) == ["Sz"]
    assert either.memory.read(3) == bytes(PAGE_SIZE)


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['old']}-{row['page']}")
def test_r10_code_6_as_kvm_has_it_differs_for_uz_alone(still_machine, path, row):
    guest = guest_of(still_machine, path, "kvm")
    put(guest, 7, row["old"], row["page"] == "dirty")
    assert guest.processor.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 7) == int(row["byte"], 16)
    assert states(guest, 7) == [row["6kvm"]]
    assert (row["6kvm"] == row["6"]) == (row["old"] != "Uz")


@pytest.mark.parametrize("state", BYTES)
def test_r11_code_5_brings_the_frame_or_in_kvm_is_code_1(still_machine, path, cmma, state):
    guest, twin = (guest_of(still_machine, path, cmma) for _ in range(2))
    for each in (guest, twin):
        put(each, 3, state, dirty=False)
    guest.processor.essa_one(Essa.SET_STABLE_RESIDENT, 3)
    twin.processor.essa_one(Essa.SET_STABLE, 3)
    if cmma == "kvm":
        assert states(guest, 3) == states(twin, 3)
        assert guest.counts.swap_in == 0
    else:
        assert states(guest, 3) == ["Sr"]
        kept = state[1] in "rp"
        assert guest.memory.read(3) == (page(3) if kept else bytes(PAGE_SIZE))
        assert guest.counts.swap_in == (state == "Sp")
    assert_sound(guest)


def processor(guest, facilities=Facilities(), problem_state=False):  # noqa: B008  # a plain value
    made = Processor(guest.map, guest.memory, guest.channel, guest.transfer, guest.counters, facilities)
    made.problem_state, made.hint_path = problem_state, guest.processor.hint_path
    return made


BARE = Facilities(cmma=False)
WITHOUT_147 = Facilities(no_dat=False)
EXCEPTIONS = {               # what the processor is, its state, order, page -> exception; in order of priority
    "no facility, before all": (BARE, True, 9, 99, OperationException),
    "no facility": (BARE, False, 1, 0, OperationException),
    "problem state, before the order": (Facilities(), True, 9, 99, PrivilegedOperation),
    "problem state": (Facilities(), True, 0, 0, PrivilegedOperation),
    "an order beyond, before the address": (Facilities(), False, 8, 99, SpecificationException),
    "an order below": (Facilities(), False, -1, 0, SpecificationException),
    "code 7 without facility 147": (WITHOUT_147, False, 7, 0, SpecificationException),
    "beyond the guest": (Facilities(), False, 2, 99, AddressingException),
    "below the guest": (Facilities(), False, 2, -1, AddressingException),
    "code 6 without facility 147": (WITHOUT_147, False, 6, 0, None),
    "code 7 with it": (Facilities(), False, 7, 0, None),
}


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize(("facilities", "problem", "order", "gfn", "error"), EXCEPTIONS.values(), ids=list(EXCEPTIONS))
def test_r12_each_exception_comes_in_its_order_and_alters_nothing(either, facilities, problem, order, gfn, error, many):
    put(either, 0, "Vr", dirty=True)
    stored = either.map.usage.copy(), either.map.content.copy(), either.counters.copy()
    able = processor(either, facilities._replace(kvm=either.machine.facilities.kvm), problem)
    execute = (lambda: able.essa(order, [1, gfn, 2])) if many else (lambda: able.essa_one(order, gfn))
    if error is None:
        execute()
        return
    with pytest.raises(error) as caught:
        execute()
    assert "\n" not in str(caught.value)
    assert all((now == then).all() for now, then in
               zip((either.map.usage, either.map.content, either.counters), stored, strict=True))


def test_r12_the_old_name_of_the_specification_exception_still_holds(guest):
    with pytest.raises(ValueError, match="8 is no order code here; use 0 to 7"):
        guest.processor.essa(8, [0])


def test_r12_a_page_named_twice_has_no_one_old_state(guest):
    with pytest.raises(ValueError, match="twice"):
        guest.processor.essa(Essa.SET_UNUSED, [1, 2, 1])
    assert not np.asarray(guest.map.usage).any()
