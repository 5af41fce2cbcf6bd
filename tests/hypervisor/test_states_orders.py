"""Orders about page states: discard, reset-states, states-get and states-set, asked as the door brings them."""

import pytest
from harness.instruction import guest_of, put
from harness.pages import assert_sound, states

from hypervisor import states as orders
from hypervisor import usage
from shm.errors import UsageProblem
from shm.pagestate import Essa

NAMES = ("Sr", "Sp", "Sz", "Ur", "Uz", "Vr", "Vz", "Pr")
WORDS = [0x00, 0x00, 0x00, 0x04, 0x04, 0x0C, 0x0C, 0x08]


@pytest.fixture
def guest(still_machine):
    guest = guest_of(still_machine)
    for gfn, state in enumerate(NAMES):
        put(guest, gfn, state, dirty=True)
    return guest


@pytest.fixture
def order(guest):
    return lambda call, **message: guest.machine.orders.table[call]({"name": "g"} | message)


def test_discard_takes_frames_as_states_allow(guest, order):
    assert order("discard", first=0, count=8) == {"frames": 4, "pages": 8}
    assert states(guest, *range(8)) == ["Sp", "Sp", "Sz", "Uz", "Uz", "Vz", "Vz", "Sp"]
    assert order("discard", first=5, count=1) == {"frames": 0, "pages": 1}
    assert_sound(guest)


def test_get_tells_usage_and_no_dat_and_no_more(guest, order):
    guest.processor.essa(Essa.SET_STABLE_NODAT, [9])
    told = order("states-get")
    assert list(told["states"]) == WORDS + [0x00, 0x20] + [0x00] * 22
    assert (told["first"], told["rest"], told["pages"]) == (0, None, 32)


def test_get_in_parts(guest, order, monkeypatch):
    monkeypatch.setattr(orders, "PAGES_A_MESSAGE", 5)
    first, parts = 0, b""
    while first is not None:
        told = order("states-get", **{"from": first})
        assert len(told["states"]) <= 5
        parts, first = parts + told["states"], told["rest"]
    assert list(parts) == WORDS + [0] * 24


def test_without_peek_a_second_pass_tells_what_has_changed(guest, order):
    assert len(order("states-get", peek=False)["states"]) == 32
    assert order("states-get", peek=False)["states"] == b""
    guest.processor.essa(Essa.SET_VOLATILE, [10, 12])
    assert order("states-get", peek=True)["states"][10] == 0x0C
    told = order("states-get", peek=False)
    assert (told["first"], list(told["states"])) == (10, [0x0C, 0x00, 0x0C])
    assert order("states-get", peek=False, **{"from": 16})["states"] == b""


def test_what_was_told_of_a_guest_goes_with_it(guest, order):
    order("states-get", peek=False)
    machine = guest.machine
    kept = machine.orders.table["states-get"].__self__._told
    assert list(kept) == [guest.domain.number]
    machine.bury(guest.domain, "left")
    with pytest.raises(UsageProblem, match="no guest 'g' is attached"):
        order("states-get", peek=False)


@pytest.mark.parametrize("hold", [1, 1 << 16])
def test_set_gives_each_page_its_word_whatever_it_was(guest, order, hold, monkeypatch):
    """By the guest's own orders: S, U, V and P over each of the eight states."""
    monkeypatch.setattr(usage, "PAGES_A_HOLD", hold)
    table = {0x00: "Sr Sp Sz Sr Sz Sr Sz Sr", 0x04: "Ur Uz Uz Ur Uz Ur Uz Ur",
             0x0C: "Vr Vz Vz Vr Vz Vr Vz Vr", 0x08: "Pr Sp Vz Pr Vz Pr Vz Pr"}
    for word, then in table.items():
        for gfn, state in enumerate(NAMES):
            guest.processor.essa_one(Essa.SET_STABLE, 10 + gfn)
            guest.processor.release([10 + gfn])
            put(guest, 10 + gfn, state, dirty=True)
        assert order("states-set", **{"from": 10, "states": bytes([word | 0x20]) * 8}) == {"pages": 8}
        assert states(guest, *range(10, 18)) == then.split()
        assert ((guest.map.usage[10:18] & 0x20) != 0).all()
        assert_sound(guest)


REFUSED = {
    "nobody": ("states-get", {"name": "nobody"}, "no guest 'nobody' is attached"),
    "no name": ("reset-states", {"name": None}, "no guest None is attached"),
    "a list for a name": ("discard", {"name": [1]}, "no guest [1] is attached"),
    "from beyond": ("states-get", {"from": 32}, "from 32 is not a page of guest 'g': use 0 to 31"),
    "from below": ("states-get", {"from": -1}, "from -1 is not a page"),
    "from a text": ("states-get", {"from": "0"}, "from '0' is not a page"),
    "from true": ("states-get", {"from": True}, "from True is not a page"),
    "too many": ("states-get", {"from": 30, "count": 3}, "count 3: from page 30 on use 1 to 2"),
    "none": ("discard", {"first": 0, "count": 0}, "count 0: from page 0 on use 1 to 32"),
    "first beyond": ("discard", {"first": 32, "count": 1}, "first 32 is not a page"),
    "peek": ("states-get", {"peek": 1}, "peek 1 is not true or false"),
    "no states": ("states-set", {"from": 0}, "send 1 to 65536 bytes"),
    "empty": ("states-set", {"states": b""}, "send 1 to 65536 bytes"),
    "a text": ("states-set", {"states": "abc"}, "send 1 to 65536 bytes"),
    "beyond the guest": ("states-set", {"from": 31, "states": bytes(2)}, "count 2: from page 31 on use 1 to 1"),
    "content": ("states-set", {"from": 3, "states": bytes([0, 0x0F])}, "page 4: 0x0f is no usage"),
    "a bit of ours": ("states-set", {"states": bytes([0x40])}, "page 0: 0x40 is no usage"),
}


@pytest.mark.parametrize(("call", "message", "said"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_is_one_line_and_changes_nothing(guest, order, call, message, said):
    stored = guest.map.usage.copy(), guest.map.content.copy()
    with pytest.raises(UsageProblem) as caught:
        order(call, **message)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert (guest.map.usage == stored[0]).all() and (guest.map.content == stored[1]).all()


@pytest.mark.parametrize(("call", "message"), [("reset-states", {}), ("states-set", {"states": bytes(2)})])
def test_a_lock_that_cannot_be_had_is_said(guest, order, call, message):
    assert guest.map.lock.acquire(0)
    with pytest.raises(UsageProblem, match="holds its state lock"):
        order(call, **message)
    guest.map.lock.release()


@pytest.mark.parametrize(("word", "kept", "then"), [(0x00, 1, "Sr"), (0x04, 0, "Uz"), (0x0C, 0, "Vz"), (0x08, 1, "Sr")])
def test_a_word_set_over_a_preserved_page_frees_its_copy_or_leaves_it_stable(guest, order, word, kept, then):
    before = guest.machine.swap.used
    order("states-set", **{"from": 1, "states": bytes([word])})
    assert guest.machine.swap.used == before - 1 + kept
    if kept:
        guest.memory.read(1)
    assert states(guest, 1) == [then]


def test_reset_goes_part_by_part(guest, order, monkeypatch):
    monkeypatch.setattr(usage, "PAGES_A_HOLD", 3)
    assert order("reset-states") == {"pages": 32}
    assert states(guest, *range(8)) == ["Sr", "Sp", "Sz", "Sr", "Sz", "Sr", "Sz", "Sr"]


def test_through_the_door(machine):
    from hypervisor.toolstack.connection import call
    running = machine()
    guest = running.guest(pages=16)
    guest.essa(Essa.SET_VOLATILE, [3])
    told = call(running.cluster, {"call": "states-get", "name": "g"})
    assert list(told["states"]) == [0, 0, 0, 0x0C] + [0] * 12
    call(running.cluster, {"call": "states-set", "name": "g", "from": 4, "states": bytes([4, 8])})
    assert guest.essa(Essa.GET_STATE, [3, 4, 5]).tolist() == [0x0F, 0x07, 0x0F]
