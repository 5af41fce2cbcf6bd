"""Page states: what the guest says of a page, and what the host did with it (CMM2; Schwidefsky, v7, 2009).

    usage     the guest's word   S stable, U unused, V volatile, P potentially volatile
    content   the host's deed    r resident (has a frame), p preserved (on the swap disk), z zero (neither)

Rule 1: every transition is a row of a table in this file; code elsewhere looks rows up and never computes one.
Rule 2: a row is looked up and its result stored under the guest's state lock, so that make-stable cannot overtake a
        discard already decided.
Rule 3: only the eight pairs named below exist.  Decoding is total: whatever bytes a guest scribbles, each pair of
        stored bytes means one of the eight (R1, R21).
Rule 4: the guest cannot touch `content`.  Where its word voids a preserved copy it sets RELEASED, and the pair reads
        as zero from that moment, until the hypervisor frees the copy, writes z and clears the bit.  As KVM has it, a
        word that makes the page stable takes the copy back, as long as the release list was not processed (R46).

This file does not know which process it runs in, nor where states are kept.  Sources: reference tables 1.2 to 1.7.
"""

from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np

# The usage byte.  Guest: usage, NO_DAT, GUEST_CHANGE; it sets HOST_CHANGE, REFERENCED, RELEASED.
# Hypervisor: clears HOST_CHANGE, REFERENCED, RELEASED; usage P -> S when it preserves a dirty P (R16); reset.
USAGE_MASK = 0x0C
STABLE, UNUSED, POT_VOLATILE, VOLATILE = 0x00, 0x04, 0x08, 0x0C
GUEST_CHANGE = 0x01      # dirty, as the guest sees it: decides what becomes of P
HOST_CHANGE = 0x02       # stored to since the hypervisor last cleared it: it does so while it preserves
REFERENCED = 0x10        # accessed since the clock hand came by
NO_DAT = 0x20            # the page holds no DAT tables (code 7); unrelated to reclaim
RELEASED = 0x40          # the preserved copy is void

# The content byte: the hypervisor's alone.
CONTENT_MASK = 0x03
RESIDENT, PRESERVED, ZERO = 0x00, 0x02, 0x03


class State(IntEnum):
    """The eight states, in the order of every row below."""

    Sr, Sp, Sz, Ur, Uz, Vr, Vz, Pr = range(8)


Sr, Sp, Sz, Ur, Uz, Vr, Vz, Pr = State

# What ESSA returns for each state (1.2).
BYTE = {Sr: 0x00, Sp: 0x02, Sz: 0x03, Ur: 0x04, Uz: 0x07, Pr: 0x08, Vr: 0x0C, Vz: 0x0F}
DISCARDED = BYTE[Vz]


class Essa(IntEnum):
    """Order codes of the instruction (1.4)."""

    GET_STATE = 0
    SET_STABLE = 1
    SET_UNUSED = 2
    SET_VOLATILE = 3
    SET_POT_VOLATILE = 4
    SET_STABLE_RESIDENT = 5
    SET_STABLE_IF_NOT_DISCARDED = 6
    SET_STABLE_NODAT = 7


class Row(NamedTuple):
    """The new state for each old one, by the page's dirty bit."""

    clean: tuple[State, ...]
    dirty: tuple[State, ...]


def _row(*states: State) -> Row:
    return Row(states, states)


# What the guest's word makes of each state (1.5).  R4: 8 states x 8 codes x clean and dirty.
GUEST: dict[Essa, Row] = {
    #                                                     Sr  Sp  Sz  Ur  Uz  Vr  Vz  Pr
    Essa.GET_STATE: _row(                                 Sr, Sp, Sz, Ur, Uz, Vr, Vz, Pr),
    Essa.SET_STABLE: _row(                                Sr, Sp, Sz, Sr, Sz, Sr, Sz, Sr),
    Essa.SET_UNUSED: _row(                                Ur, Uz, Uz, Ur, Uz, Ur, Uz, Ur),
    Essa.SET_VOLATILE: _row(                              Vr, Vz, Vz, Vr, Vz, Vr, Vz, Vr),
    Essa.SET_POT_VOLATILE: Row(clean=(                    Pr, Vz, Vz, Pr, Vz, Pr, Vz, Pr),
                               dirty=(                    Pr, Sp, Vz, Pr, Vz, Pr, Vz, Pr)),
    Essa.SET_STABLE_RESIDENT: _row(                       Sr, Sr, Sr, Sr, Sr, Sr, Sr, Sr),
    Essa.SET_STABLE_IF_NOT_DISCARDED: _row(               Sr, Sp, Sz, Sr, Sz, Sr, Vz, Sr),
    Essa.SET_STABLE_NODAT: _row(                          Sr, Sp, Sz, Sr, Sz, Sr, Sz, Sr),
}
# KVM executes code 6 only where the pte is valid; it differs for Uz alone (R10).  Its code 5 pages nothing in: what is
# resident now may not be so right after (R11).
KVM_STABLE_IF_RESIDENT = _row(                            Sr, Sp, Sz, Sr, Uz, Sr, Vz, Sr)
KVM_GUEST = GUEST | {Essa.SET_STABLE_IF_NOT_DISCARDED: KVM_STABLE_IF_RESIDENT,
                     Essa.SET_STABLE_RESIDENT: GUEST[Essa.SET_STABLE]}
# ... and frees a released copy when it processes the release list: before that, these orders find it again (R46).
KVM_TAKES_BACK = (Essa.SET_STABLE, Essa.SET_STABLE_RESIDENT, Essa.SET_STABLE_NODAT)
KVM_TAKEN_BACK = _row(                                    Sr, Sp, Sp, Sr, Sp, Sr, Sp, Sr)
# The orders that put a page without a frame on the release list: by old state, for clean and dirty (1.8).
_NONE, _ANY = "", "Sp Sz Uz Vz"
KVM_LISTS: dict[Essa, tuple[str, str]] = dict.fromkeys(Essa, (_NONE, _NONE)) | {
    Essa.SET_UNUSED: (_ANY, _ANY), Essa.SET_VOLATILE: (_ANY, _ANY), Essa.SET_POT_VOLATILE: ("Sp", _NONE),
}


class Event(IntEnum):
    """What the host does to a page."""

    EVICT = 0
    PAGE_IN = 1
    ZERO_FILL = 2
    RECOGNISE_ZERO = 3       # all zeros, or given up by diag 10 (4.1), which drops a preserved copy as it does a frame
    RESET = 4                # of the guest's processor: usage S everywhere


# What the host's deed makes of each state (1.6); a state that stays is one the event does not apply to.
HOST: dict[Event, Row] = {
    #                                                     Sr  Sp  Sz  Ur  Uz  Vr  Vz  Pr
    Event.EVICT: Row(clean=(                              Sp, Sp, Sz, Uz, Uz, Vz, Vz, Vz),
                     dirty=(                              Sp, Sp, Sz, Uz, Uz, Vz, Vz, Sp)),
    Event.PAGE_IN: _row(                                  Sr, Sr, Sz, Ur, Uz, Vr, Vz, Pr),
    Event.ZERO_FILL: _row(                                Sr, Sp, Sr, Ur, Uz, Vr, Vz, Pr),
    Event.RECOGNISE_ZERO: _row(                           Sz, Sz, Sz, Uz, Uz, Vr, Vz, Pr),
    Event.RESET: _row(                                    Sr, Sp, Sz, Sr, Sz, Sr, Sz, Sr),
}


class Access(IntEnum):
    """What an access finds (1.7)."""

    NORMAL = 0
    PAGE_IN = 1              # transparent: the host reads the page from its swap disk
    ZERO_FILL = 2            # transparent: a fresh zero page
    ADDRESSING = 3           # the guest said that it would not
    DISCARD_FAULT = 4


#                Sr             Sp              Sz                Ur                 Uz
ACCESS = (Access.NORMAL, Access.PAGE_IN, Access.ZERO_FILL, Access.ADDRESSING, Access.ADDRESSING,
          Access.NORMAL, Access.DISCARD_FAULT, Access.NORMAL)
#                Vr             Vz                    Pr
# KVM leaves an unused page mapped as long as it has its frame (R24).
KVM_ACCESS = tuple(Access.NORMAL if state == Ur else found for state, found in zip(State, ACCESS, strict=True))


class Deed(IntEnum):
    """What an eviction has to do to get the frame; a fact about two states, see `deed_of`."""

    NOTHING = 0              # there is no frame to take
    FREE = 1                 # unused: forget it
    DISCARD = 2              # volatile: forget it, and owe a discard fault
    PRESERVE = 3             # write it to the swap disk first


def usage_of(state: State) -> int:
    return BYTE[state] & USAGE_MASK


def content_of(state: State) -> int:
    return BYTE[state] & CONTENT_MASK


def deed_of(old: State, new: State) -> Deed:
    """Return what it takes to evict `old` to `new`."""
    if content_of(old) != RESIDENT:
        return Deed.NOTHING
    if content_of(new) == PRESERVED:
        return Deed.PRESERVE
    return Deed.FREE if usage_of(old) == UNUSED else Deed.DISCARD


# A pair of stored bytes as one number, usage | content << 8: the index of every lookup below.
PAIRS = 1 << 16
_DISTINCT = 1 << 10          # reserved content bits mean nothing, so the rows repeat


def pair_of(usage: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Return the numbers of the pairs (usage byte, content byte)."""
    pairs = np.empty((len(usage), 2), np.uint8)
    pairs[:, 0] = usage
    pairs[:, 1] = content
    return pairs.view("<u2").reshape(-1)


def decode(pair: int) -> State:
    """Return the state that a pair of stored bytes means."""
    usage, content = pair & USAGE_MASK, pair >> 8 & CONTENT_MASK
    void = content == PRESERVED and bool(pair & RELEASED)
    if content not in (RESIDENT, PRESERVED) or void:
        return {STABLE: Sz, UNUSED: Uz, VOLATILE: Vz, POT_VOLATILE: Vz}[usage]
    if content == RESIDENT:
        return {STABLE: Sr, UNUSED: Ur, VOLATILE: Vr, POT_VOLATILE: Pr}[usage]
    return {STABLE: Sp, UNUSED: Uz, VOLATILE: Vz, POT_VOLATILE: Sp if pair & GUEST_CHANGE else Vz}[usage]


def hinted(order: Essa, pair: int, kvm: bool = False) -> int:
    """Return the usage byte that `order` leaves behind a pair: the row looked up, NO_DAT and RELEASED brought along."""
    has_copy = pair >> 8 & CONTENT_MASK == PRESERVED
    row = _kvm_row(order, has_copy) if kvm else GUEST[order]
    old, byte = decode(pair), pair & 0xFF
    new = (row.dirty if byte & GUEST_CHANGE else row.clean)[old]
    if order == Essa.GET_STATE:
        return byte
    kept = byte & (GUEST_CHANGE | HOST_CHANGE | REFERENCED)
    no_dat = NO_DAT if order == Essa.SET_STABLE_NODAT else byte & NO_DAT * (order != Essa.SET_STABLE)
    void = has_copy and new != Sp and ZERO in (content_of(old), content_of(new))
    return usage_of(new) | kept | no_dat | (RELEASED if void else 0)


def _kvm_row(order: Essa, has_copy: bool) -> Row:
    return KVM_TAKEN_BACK if has_copy and order in KVM_TAKES_BACK else KVM_GUEST[order]


def lists(order: Essa, pair: int) -> bool:
    """Say whether `order` on a pair appends the page to KVM's release list (1.8)."""
    clean, dirty = KVM_LISTS[order]
    return decode(pair).name in (dirty if pair & GUEST_CHANGE else clean).split()


class Lookup(NamedTuple):
    """The tables as arrays over all pairs; every array is indexed by `pair_of`."""

    state: np.ndarray        # uint8, State
    essa: np.ndarray         # uint8, the byte that ESSA returns: state and NO_DAT
    access: np.ndarray       # uint8, Access
    deed: np.ndarray         # uint8, Deed of an eviction
    hint: np.ndarray         # (8, pairs) uint8, the usage byte that each order leaves
    lists: np.ndarray        # (8, pairs) uint8, 1 where the page goes on the release list; KVM's alone


@cache
def lookup(kvm: bool = False) -> Lookup:
    """Return the tables spread over all pairs; built once a process, on first use (some 10 ms)."""
    states = [decode(pair) for pair in range(_DISTINCT)]
    evicted = HOST[Event.EVICT]
    deeds = [deed_of(s, (evicted.dirty if pair & GUEST_CHANGE else evicted.clean)[s])
             for pair, s in enumerate(states)]
    hints = [[hinted(order, pair, kvm) for pair in range(_DISTINCT)] for order in Essa]
    listed = [[kvm and lists(order, pair) for pair in range(_DISTINCT)] for order in Essa]
    return Lookup(
        state=_spread(states),
        essa=_spread([BYTE[s] | pair & NO_DAT for pair, s in enumerate(states)]),
        access=_spread([(KVM_ACCESS if kvm else ACCESS)[s] for s in states]),
        deed=_spread(deeds),
        hint=np.stack([_spread(row) for row in hints]),
        lists=np.stack([_spread(row) for row in listed]),
    )


def _spread(row: Sequence[int]) -> np.ndarray:
    return np.array(row, np.uint8)[np.arange(PAIRS) & _DISTINCT - 1]


def was_discarded(old: np.ndarray | int) -> np.ndarray | bool:
    """Say whether the old state that ESSA returned is Vz: the data is gone (R9)."""
    return (old & (USAGE_MASK | CONTENT_MASK)) == DISCARDED
