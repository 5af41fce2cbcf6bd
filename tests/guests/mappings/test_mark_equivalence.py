"""CMM2's own marks and those on tmem, under the same operations, which nobody wrote.

    Forgetful   the host takes what it likes in between: what is stable is exact on both sides, what is volatile is
                exact or gone, and what is gone stays gone until the guest says something else
    Exact       it takes nothing: both answer alike, but for what `guests.mappings.mark_rules` lists.  A page without
                bytes is discarded by the mark on one side alone (R4b), and what an unused page holds when it is taken
                again is nobody's promise (R24a): it is written at once
"""

from collections.abc import Callable

import numpy as np
from harness.machines import Still
from harness.pages import same
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from guests.mappings.marks import Marks, NativeMarks
from guests.mappings.marks_on_tmem import MarksOnTmem
from shm.abi import PAGE_SIZE
from shm.counters import HostCount
from shm.errors import AddressingException, DiscardFault
from shm.pagestate import BYTE, DISCARDED, State

PAGES = 4
GFN = st.integers(0, PAGES - 1)
GFNS = st.lists(GFN, min_size=1, max_size=PAGES, unique=True)
DISCARD, ADDRESSING = "discard fault", "addressing exception"
UNUSED, VOLATILE = (BYTE[State.Ur], BYTE[State.Uz]), (BYTE[State.Vr], DISCARDED)


class TwoMarks(RuleBasedStateMachine):
    """Two guests of one machine: one with the marks of CMM2, one with those on tmem.

    `words` is what the guest said of each page, the same on both sides.
    """

    make: Callable[[], Still]

    def __init__(self) -> None:
        super().__init__()
        self.still = type(self).make()
        self.guests = [self.still.guest(name, PAGES) for name in ("native", "on tmem")]
        self.marks: list[Marks] = [NativeMarks(self.guests[0]),
                                   MarksOnTmem(self.guests[1], self.guests[1].tmem.new_pool(persistent=False))]
        self.words = ["S"] * PAGES
        self.serial = 0

    def teardown(self) -> None:
        self.still.stop()

    def fresh(self) -> bytes:
        self.serial += 1
        return self.serial.to_bytes(4, "little") * (PAGE_SIZE // 4)

    @invariant()
    def no_volatile_page_was_swapped(self):
        """E10, R44; and on tmem a volatile page has no frame of the guest's memory (E2k)."""
        assert self.still.machine.counts()[HostCount.VOLATILE_SWAP_WRITES] == 0
        resident = np.flatnonzero(self.guests[1].map.content & 3 == 0).tolist()
        assert not [gfn for gfn in resident if self.words[gfn] in "UV"]


def touched(touch: Callable[[], bytes | None]) -> bytes | str | None:
    """Return what a touch gives, or the name of its fault."""
    try:
        return touch()
    except DiscardFault:
        return DISCARD
    except AddressingException:
        return ADDRESSING


class Forgetful(TwoMarks):
    """Each side has a model of its own: the bytes of each page, None when they are known to be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.models: list[list[bytes | None]] = [[bytes(PAGE_SIZE)] * PAGES for _ in self.marks]

    def sides(self):
        return zip(self.marks, self.models, ("native", "on tmem"), strict=True)

    @rule(gfns=GFNS)
    def set_volatile(self, gfns):
        self.take_again(gfns)
        for marks, _, _ in self.sides():
            marks.set_volatile(gfns)
        self.say("V", gfns)

    @rule(gfns=GFNS)
    def set_unused(self, gfns):
        for marks, model, _ in self.sides():
            marks.set_unused(gfns)
            for gfn in gfns:
                model[gfn] = None
        self.say("U", gfns)

    @rule(gfns=GFNS)
    def set_stable(self, gfns):
        self.take_again(gfns)
        for marks, model, side in self.sides():
            marks.set_stable(gfns)
            for gfn in gfns:
                found = marks.read(gfn)
                kept = same(found, model[gfn] or bytes(PAGE_SIZE))
                assert kept or (self.words[gfn] == "V" and not any(found)), side
                model[gfn] = found
        self.say("S", gfns)

    @rule(gfns=GFNS)
    def keep(self, gfns):
        self.take_again(gfns)
        for marks, model, side in self.sides():
            discarded = marks.set_stable_if_not_discarded(gfns)
            for gfn, gone in zip(gfns, discarded, strict=True):
                assert self.words[gfn] == "V" or not gone, side
                assert gone or model[gfn] is not None, f"{side}: what was gone came back"
                if gone:
                    model[gfn] = None
                else:
                    assert same(marks.read(gfn), model[gfn]), side
            marks.set_stable([gfn for gfn, gone in zip(gfns, discarded, strict=True) if gone])
            for gfn in gfns:
                model[gfn] = model[gfn] or bytes(PAGE_SIZE)
        self.say("S", gfns)

    @rule(gfn=GFN)
    def read(self, gfn):
        for marks, model, side in self.sides():
            self.check(side, model, gfn, touched(lambda marks=marks: marks.read(gfn)))

    @rule(gfn=GFN)
    def write(self, gfn):
        page = self.fresh()
        for marks, model, side in self.sides():
            fault = touched(lambda marks=marks: marks.write(gfn, page))
            self.check(side, model, gfn, model[gfn] if fault is None else fault)
            if fault is None:
                model[gfn] = page

    def check(self, side: str, model: list[bytes | None], gfn: int, found: bytes | str | None) -> None:
        """What a touch finds is what the word allows (R24, R26)."""
        if self.words[gfn] == "U":
            assert found == ADDRESSING, side
        elif self.words[gfn] == "V" and found == DISCARD:
            model[gfn] = None
        else:
            assert found is not None, f"{side}: what was gone came back"
            assert same(found, model[gfn]), side

    @rule(gfn=GFN)
    def get_state(self, gfn):
        for marks, model, side in self.sides():
            state = marks.get_state(gfn)
            assert (state in UNUSED) == (self.words[gfn] == "U"), side
            assert (state in VOLATILE) == (self.words[gfn] == "V"), side
            if state == DISCARDED:
                model[gfn] = None

    def take_again(self, gfns: list[int]) -> None:
        """Take pages that are unused: stable, and written, as an allocator that clears pages does it."""
        taken = [gfn for gfn in gfns if self.words[gfn] == "U"]
        for marks, model, _ in self.sides():
            marks.set_stable(taken)
            for gfn in taken:
                marks.write(gfn, bytes(PAGE_SIZE))
                model[gfn] = bytes(PAGE_SIZE)
        self.say("S", taken)

    def say(self, word: str, gfns: list[int]) -> None:
        for gfn in gfns:
            self.words[gfn] = word

    # the host

    @rule(gfns=GFNS)
    def the_host_evicts(self, gfns):
        for guest in self.guests:
            self.still.machine.cmm2.evict(guest.domain, np.array(sorted(gfns), np.int64))

    @rule(count=st.integers(1, PAGES))
    def the_host_wants_ephemeral_pages(self, count):
        self.still.machine.store.evict_frames(count, insist=True)

    @rule(frozen=st.booleans())
    def freeze(self, frozen):
        self.still.machine.store.clients.get(self.guests[1].domain.number).frozen = frozen


class Exact(TwoMarks):
    """Nobody takes anything: one answer for both."""

    def __init__(self) -> None:
        super().__init__()
        for gfn in range(PAGES):                     # a page without bytes is discarded by the mark (R4b)
            self.write(gfn)

    def both(self, ask: Callable) -> list:
        return [ask(marks) for marks in self.marks]

    def alike(self, ask: Callable):
        found, also = self.both(ask)
        assert np.array_equal(found, also), (found, also)
        return found

    @rule(gfns=GFNS)
    def set_volatile(self, gfns):
        gfns = [gfn for gfn in gfns if self.words[gfn] != "U"]
        self.both(lambda marks: marks.set_volatile(gfns))
        for gfn in gfns:
            self.words[gfn] = "V"

    @rule(gfns=GFNS)
    def set_unused(self, gfns):
        self.both(lambda marks: marks.set_unused(gfns))
        for gfn in gfns:
            self.words[gfn] = "U"

    @rule(gfns=GFNS, only_kept=st.booleans())
    def make_stable(self, gfns, only_kept):
        if only_kept:
            assert not self.alike(lambda marks: marks.set_stable_if_not_discarded(gfns)).any()
        else:
            self.both(lambda marks: marks.set_stable(gfns))
        taken = [gfn for gfn in gfns if self.words[gfn] == "U"]
        for gfn in gfns:
            self.words[gfn] = "S"
        for gfn in taken:                            # an unused page has no promised bytes (R24a)
            self.write(gfn)

    @rule(gfn=GFN)
    def read(self, gfn):
        found = self.alike(lambda marks: touched(lambda: marks.read(gfn)))
        assert (found == ADDRESSING) == (self.words[gfn] == "U")

    @rule(gfn=GFN)
    def write(self, gfn):
        page = self.fresh()
        self.alike(lambda marks: touched(lambda: marks.write(gfn, page)))

    @rule(gfn=GFN)
    def get_state(self, gfn):
        """One byte for both, but for the frame of an unused page, which the balloon takes at once."""
        found, also = self.both(lambda marks: marks.get_state(gfn))
        assert found == also or (found in UNUSED and also in UNUSED)


def test_what_is_stable_is_exact_and_what_is_volatile_exact_or_gone(try_programs):
    try_programs(Forgetful, 60)


def test_without_pressure_both_marks_answer_alike(try_programs):
    try_programs(Exact, 50)
