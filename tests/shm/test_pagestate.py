"""The page states: the reference's tables written out once more, and rules that hold for every pair of bytes.

The expectations below are data taken from the reference (1.2 to 1.7), not from `shm.pagestate`: states are named by
their letters here, and bytes are put together from the reference's masks.
"""

from itertools import product

import numpy as np
import pytest

from shm import pagestate
from shm.pagestate import GUEST, HOST, Access, Deed, Essa, Event, State, decode, hinted, lookup, pair_of, was_discarded

STATES = ("Sr", "Sp", "Sz", "Ur", "Uz", "Vr", "Vz", "Pr")
USAGE_BITS = {"S": 0x00, "U": 0x04, "P": 0x08, "V": 0x0C}
CONTENT_BITS = {"r": 0x00, "p": 0x02, "z": 0x03}
DIRTY, HOST_CHANGE, REFERENCED, NO_DAT, RELEASED = 0x01, 0x02, 0x10, 0x20, 0x40
ORDERS = range(8)
ALL_PAIRS = np.arange(1 << 16)


def pair(state, bits=0):
    """The stored bytes of a state, as the one number that indexes the tables."""
    return USAGE_BITS[state[0]] | bits | CONTENT_BITS[state[1]] << 8


def after(order, stored, kvm=False):
    """The pair after a guest's order: the guest can change `usage` alone."""
    return hinted(Essa(order), stored, kvm) | stored & 0xFF00


# Table 1.5, R4: new state for codes 0 to 7; two states in one cell are clean/dirty.
GUEST_TABLE = """
    old  0   1   2   3   4      5   6   7
    Sr   Sr  Sr  Ur  Vr  Pr     Sr  Sr  Sr
    Sp   Sp  Sp  Uz  Vz  Vz/Sp  Sr  Sp  Sp
    Sz   Sz  Sz  Uz  Vz  Vz     Sr  Sz  Sz
    Ur   Ur  Sr  Ur  Vr  Pr     Sr  Sr  Sr
    Uz   Uz  Sz  Uz  Vz  Vz     Sr  Sz  Sz
    Vr   Vr  Sr  Ur  Vr  Pr     Sr  Sr  Sr
    Vz   Vz  Sz  Uz  Vz  Vz     Sr  Vz  Sz
    Pr   Pr  Sr  Ur  Vr  Pr     Sr  Sr  Sr
"""
KVM_CODE_6 = {"Sr": "Sr", "Sp": "Sp", "Sz": "Sz", "Ur": "Sr", "Uz": "Uz", "Vr": "Sr", "Vz": "Vz", "Pr": "Sr"}


def guest_cases():
    for line in GUEST_TABLE.strip().splitlines()[1:]:
        old, *cells = line.split()
        for order, cell in enumerate(cells):
            clean, _, dirty = cell.partition("/")
            yield old, order, False, clean
            yield old, order, True, dirty or clean


GUEST_CASES = list(guest_cases())


def test_the_golden_table_has_all_128_cases():
    assert {case[:3] for case in GUEST_CASES} == set(product(STATES, ORDERS, (False, True)))
    assert len(GUEST_CASES) == 128


@pytest.mark.parametrize(("old", "order", "dirty", "new"), GUEST_CASES,
                         ids=[f"R4-{old}-code{order}-{'dirty' if d else 'clean'}" for old, order, d, _ in GUEST_CASES])
def test_guest_order(old, order, dirty, new):
    stored = pair(old, DIRTY if dirty else 0)
    row = GUEST[Essa(order)]
    assert (row.dirty if dirty else row.clean)[State[old]].name == new
    # Code 5 needs the hypervisor for its frame: what the guest alone can do is make the page stable (R11).
    alone = {"r": "Sr", "p": "Sp", "z": "Sz"}[old[1]] if order == 5 else new
    assert decode(after(order, stored)).name == alone
    assert after(order, stored) & DIRTY == stored & DIRTY


@pytest.mark.parametrize("dirty", [False, True])
@pytest.mark.parametrize("old", STATES)
def test_code_6_as_kvm_has_it(old, dirty):
    """R10: KVM executes code 6 only where there is a frame."""
    assert decode(after(6, pair(old, DIRTY if dirty else 0), kvm=True)).name == KVM_CODE_6[old]


def test_both_behaviours_of_code_6_agree_everywhere_but_on_uz():
    ours, kvm = lookup(), lookup(kvm=True)
    pairs = np.flatnonzero(ours.hint[6] != kvm.hint[6])
    assert set(ours.state[pairs].tolist()) == {State.Uz}
    assert len(pairs) == np.count_nonzero(ours.state == State.Uz)


def test_the_other_orders_differ_as_kvm_has_them_where_a_released_copy_is_still_there_and_nowhere_else():
    """R11, R46: 1, 5 and 7 find the copy again; what the guest alone does for code 5 is the same in both."""
    ours, kvm = lookup(), lookup(kvm=True)
    orders, pairs = np.nonzero(ours.hint != kvm.hint)
    others = orders != 6
    assert set(orders[others].tolist()) == {1, 5, 7}
    assert set((pairs[others] >> 8 & 0x03).tolist()) == {0x02}
    assert {State(state).name for state in ours.state[pairs[others]]} == {"Sz", "Uz", "Vz"}
    for order in (1, 5, 7):
        listed = np.flatnonzero(ours.hint[order] != kvm.hint[order])
        after_it = kvm.hint[order][listed].astype(int) | listed & 0xFF00
        assert {decode(int(number)).name for number in after_it} == {"Sp"}


KVM_LISTS = {                # the orders that put a page on the release list, by its state: 1.8
    "Sp": (2, 3, 4), "Sz": (2, 3), "Uz": (2, 3), "Vz": (2, 3), "Sr": (), "Ur": (), "Vr": (), "Pr": ()}


@pytest.mark.parametrize(("state", "order", "dirty"), list(product(STATES, ORDERS, (False, True))))
def test_what_goes_on_the_release_list(state, order, dirty):
    stored = pair(state, DIRTY if dirty else 0)
    listed = order in KVM_LISTS[state] and not (order == 4 and dirty)
    assert lookup(kvm=True).lists[order][stored] == listed
    assert not lookup().lists[order][stored]


def test_access_as_kvm_has_it():
    """R24: an unused page that has its frame is there."""
    ours, kvm = lookup(), lookup(kvm=True)
    differ = ours.access != kvm.access
    assert (differ == (ours.state == State.Ur)).all()
    assert set(kvm.access[differ].tolist()) == {Access.NORMAL}


# 1.2, R2
BYTES = {"Sr": 0x00, "Sp": 0x02, "Sz": 0x03, "Ur": 0x04, "Uz": 0x07, "Pr": 0x08, "Vr": 0x0C, "Vz": 0x0F}


@pytest.mark.parametrize("no_dat", [0, NO_DAT])
@pytest.mark.parametrize(("state", "byte"), BYTES.items())
def test_byte_returned(state, byte, no_dat):
    for bits in (0, DIRTY, HOST_CHANGE, REFERENCED, DIRTY | HOST_CHANGE | REFERENCED):
        assert lookup().essa[pair(state, bits | no_dat)] == byte | no_dat


def test_content_code_01_is_never_returned():
    assert not np.isin(lookup().essa & 0x03, [0x01]).any()
    assert set(lookup().essa.tolist()) == set(BYTES.values()) | {byte | NO_DAT for byte in BYTES.values()}


def test_was_discarded_says_vz_and_nothing_else():
    """R9: the caller of code 6 tests the old state."""
    told = {state for state, byte in BYTES.items() for extra in (0, NO_DAT) if was_discarded(byte | extra)}
    assert told == {"Vz"}
    assert was_discarded(np.array(list(BYTES.values()), np.uint8)).tolist() == [s == "Vz" for s in BYTES]


# 1.6: what is not named stays as it is
HOST_ROWS = {
    Event.EVICT: "Ur>Uz Vr>Vz Pr>Vz/Sp Sr>Sp",
    Event.PAGE_IN: "Sp>Sr",
    Event.ZERO_FILL: "Sz>Sr",
    Event.RECOGNISE_ZERO: "Sr>Sz Sp>Sz Ur>Uz",
    Event.RESET: "Ur>Sr Uz>Sz Vr>Sr Vz>Sz Pr>Sr",
}


def host_after(event, state, dirty):
    rows = dict(row.split(">") for row in HOST_ROWS[event].split())
    clean, _, other = rows.get(state, state).partition("/")
    return (other or clean) if dirty else clean


@pytest.mark.parametrize(("event", "state", "dirty"), list(product(Event, STATES, (False, True))))
def test_host_event(event, state, dirty):
    row = HOST[event]
    assert (row.dirty if dirty else row.clean)[State[state]].name == host_after(event, state, dirty)


def test_the_only_usage_changes_that_are_the_hosts_are_those_of_p():
    """R18: to S when it is preserved; and a P that was discarded is called Vz, as there is no Pz.  Reset is apart."""
    changed = {(event, state, dirty) for event, state, dirty in product(Event, STATES, (False, True))
               if event != Event.RESET
               and (HOST[event].dirty if dirty else HOST[event].clean)[State[state]].name[0] != state[0]}
    assert changed == {(Event.EVICT, "Pr", True), (Event.EVICT, "Pr", False)}


def test_after_reset_nothing_can_be_freed_without_io():
    """R22: bar zero pages."""
    for row in HOST[Event.RESET]:
        assert {pagestate.usage_of(state) for state in row} == {pagestate.STABLE}


# 1.7
ACCESS = {"Sr": Access.NORMAL, "Vr": Access.NORMAL, "Pr": Access.NORMAL, "Sp": Access.PAGE_IN, "Sz": Access.ZERO_FILL,
          "Ur": Access.ADDRESSING, "Uz": Access.ADDRESSING, "Vz": Access.DISCARD_FAULT}


@pytest.mark.parametrize(("state", "found"), ACCESS.items(), ids=list(ACCESS))
def test_access(state, found):
    """R24, R25, R26."""
    assert {int(lookup().access[pair(state, bits)]) for bits in (0, DIRTY, 0x33)} == {found}


# Every pair of bytes


def meaning(usage, content):
    """What a pair of stored bytes means, in the words of the design ("Page state is two arrays")."""
    word = {0x00: "S", 0x04: "U", 0x08: "P", 0x0C: "V"}[usage & 0x0C]
    deed = {0x00: "r", 0x01: "z", 0x02: "p", 0x03: "z"}[content & 0x03]
    if deed == "p" and usage & RELEASED:
        deed = "z"                                   # the preserved copy is void
    if deed == "p" and word in "UV":
        deed = "z"                                   # U or V over p reads as z
    if word + deed == "Pp":
        return "Sp" if usage & DIRTY else "Vz"
    return "Vz" if word + deed == "Pz" else word + deed


def test_every_pair_of_bytes_means_one_of_the_eight():
    """R1, R21: whatever a guest scribbles; scalar and vectorised agree."""
    meanings = [meaning(number & 0xFF, number >> 8) for number in ALL_PAIRS.tolist()]
    assert set(meanings) == set(STATES)
    tables = lookup()
    assert [State(state).name for state in tables.state.tolist()] == meanings
    assert [decode(number).name for number in ALL_PAIRS.tolist()] == meanings
    assert tables.access.tolist() == [ACCESS[state] for state in meanings]


def test_every_order_on_every_pair_ends_in_its_row_of_the_table():
    """R1, R4: also on pairs that only a scribbling guest can make."""
    expected = {(old, order, dirty): new for old, order, dirty, new in GUEST_CASES}
    states = [meaning(number & 0xFF, number >> 8) for number in ALL_PAIRS.tolist()]
    for order in ORDERS:
        usage = lookup().hint[order]
        for number in range(1 << 10):                # content bits 2 to 7 mean nothing: the rest repeats
            new = meaning(int(usage[number]), number >> 8)
            wanted = expected[states[number], order, bool(number & DIRTY)]
            if order == 5:
                wanted = "S" + ("z" if states[number] == "Vz" else states[number][1])
            assert new == wanted, (order, hex(number))
        assert (usage.reshape(-1, 1 << 10) == usage[:1 << 10]).all()


def test_reserved_bits_change_nothing():
    tables = lookup()
    reserved = ALL_PAIRS & ~(0xFC00 | 0x80)
    for table in (tables.state, tables.essa, tables.access, tables.deed, *tables.hint[1:]):
        assert (table == table[reserved]).all()


def test_pair_of_puts_usage_low_and_content_high():
    usage, content = np.array([0x12, 0xFF], np.uint8), np.array([0x34, 0x01], np.uint8)
    assert pair_of(usage, content).tolist() == [0x3412, 0x01FF]


# Rules that say the same again, from another side


AGREED_TO_LOSE = {"S": (), "U": (False, True), "V": (False, True), "P": (False,)}


@pytest.mark.parametrize(("state", "dirty"), list(product(STATES, (False, True))))
def test_an_eviction_loses_content_exactly_where_the_guest_agreed(state, dirty):
    """R13 to R17."""
    deed = Deed(int(lookup().deed[pair(state, DIRTY if dirty else 0)]))
    if state[1] != "r":
        assert deed == Deed.NOTHING
    elif dirty in AGREED_TO_LOSE[state[0]]:
        assert deed == (Deed.FREE if state[0] == "U" else Deed.DISCARD)
    else:
        assert deed == Deed.PRESERVE


def test_no_volatile_page_is_ever_to_be_preserved():
    """E10, R44: over all pairs."""
    volatile = (ALL_PAIRS & 0x0C) == 0x0C
    assert not (lookup().deed[volatile] == Deed.PRESERVE).any()


@pytest.mark.parametrize(("order", "dirty"), list(product(ORDERS, (False, True))))
def test_a_preserved_copy_is_dropped_exactly_where_the_guest_says_so(order, dirty):
    """R6, R7, and R9 for everything that keeps it."""
    stored = pair("Sp", DIRTY if dirty else 0)
    dropped = order in (2, 3) or (order == 4 and not dirty)
    assert bool(hinted(Essa(order), stored) & RELEASED) == dropped
    assert (decode(after(order, stored)).name[1] == "z") == dropped


def test_an_order_never_brings_content_back():
    for order, number in product(ORDERS, range(1 << 10)):
        if decode(number).name[1] == "z":
            assert decode(after(order, number)).name[1] == "z", (order, hex(number))


@pytest.mark.parametrize("release", [2, 3, 4])
def test_a_released_copy_stays_void_whatever_comes_next(release):
    """A preserved page that was released reads as zero until the hypervisor has freed the copy."""
    for following in product(ORDERS, repeat=3):
        stored = after(release, pair("Sp"))
        for order in following:
            assert stored & RELEASED
            assert decode(stored).name[1] == "z"
            stored = after(order, stored)


def test_released_is_set_only_over_a_preserved_copy():
    content = ALL_PAIRS >> 8 & 0x03
    for order in range(1, 8):
        assert not (lookup().hint[order][content != 0x02] & RELEASED).any()
        void = (content == 0x02) & (ALL_PAIRS & RELEASED != 0)
        assert (lookup().hint[order][void] & RELEASED != 0).all(), "an order does not make a void copy good again"


def test_get_state_changes_nothing():
    """R3."""
    assert (lookup().hint[0] == ALL_PAIRS & 0xFF).all()


@pytest.mark.parametrize(("order", "kept"), [(1, 0), (7, 1), *((order, None) for order in (0, 2, 3, 4, 5, 6))])
def test_no_dat_is_set_by_code_7_cleared_by_code_1_and_else_kept(order, kept):
    before, now = ALL_PAIRS & NO_DAT, lookup().hint[order] & NO_DAT
    assert (now == (before if kept is None else kept * NO_DAT)).all()


def test_orders_keep_the_change_and_referenced_bits():
    kept = DIRTY | HOST_CHANGE | REFERENCED
    for order in ORDERS:
        assert (lookup().hint[order] & kept == ALL_PAIRS & kept).all()


def test_tables_never_leave_the_named_states():
    """R1: closed over the eight."""
    assert [state.name for state in State] == list(STATES)
    for row in (*GUEST.values(), *HOST.values(), (pagestate.KVM_STABLE_IF_RESIDENT.clean,)):
        for states in row:
            assert len(states) == 8 and set(states) <= set(State)
    assert set(GUEST) == set(Essa) and set(HOST) == set(Event)
