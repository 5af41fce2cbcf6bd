"""The invariants, under programs that nobody wrote: two guests and a hypervisor against a model, step by step.

The machine stands still and so does its clock, so a program that fails fails again.  What the model holds of a page is
what its guest may rely on: bytes that must be exact (S, dirty P), bytes that are exact or gone (V, clean P), or bytes
that are nobody's business as long as they are not another guest's (U taken again).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
from harness.machines import DirectGuest, Still
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hypervisor import domains
from hypervisor.domains import NO_SLOT
from hypervisor.ledger import HEAP
from hypervisor.machine import Settings
from hypervisor.policy import POLICIES
from shm.abi import PAGE_SIZE
from shm.counters import HostCount
from shm.errors import AddressingException, DiscardFault, OutOfMemory
from shm.pagestate import Essa, State

PAGES, SLOTS = 5, 6         # few, so that what is done meets what was done
ZERO = bytes(PAGE_SIZE)
WHO, GFN = st.integers(0, 1), st.integers(0, PAGES - 1)
GFNS = st.lists(GFN, min_size=1, max_size=PAGES, unique=True) | st.just(list(range(PAGES)))


@dataclass
class Page:
    """What a guest may rely on."""

    word: str = "S"
    data: bytes | None = field(default=ZERO, repr=False)         # None: undefined, but never another guest's
    dirty: bool = False
    preserved: bool = False      # P, but dirty at some time: the host may have preserved it, and made it S (R16)
    gone: bool = False           # seen as discarded: stays so until the guest says something else
    past: set[bytes] = field(default_factory=lambda: {ZERO}, repr=False)

    @property
    def may_be_gone(self) -> bool:
        return self.word == "V" or (self.word == "P" and not self.dirty)


class Cluster(RuleBasedStateMachine):
    """Guests do what they like, the hypervisor takes what it likes."""

    make: Callable[[], Still]

    def __init__(self) -> None:
        super().__init__()
        self.still = type(self).make()
        self.machine = self.still.machine
        self.guests: list[DirectGuest] = [self.still.guest(name, PAGES) for name in "ab"]
        self.pages = [[Page() for _ in range(PAGES)] for _ in self.guests]
        self.pools = [guest.tmem.new_pool(persistent=False) for guest in self.guests]
        self.stored: dict[tuple[int, int], bytes] = {}
        self.serial = 0
        self.used_before = 0

    def teardown(self) -> None:
        self.still.stop()

    def fresh(self, who: int) -> bytes:
        """Content that no other page has, and that says whose it is."""
        self.serial += 1
        return (self.serial * 2 + who + 2).to_bytes(4, "big") * (PAGE_SIZE // 4)

    # what guests do

    @rule(who=WHO, gfn=GFN, clean=st.booleans())
    def store(self, who: int, gfn: int, clean: bool) -> None:
        page, data = self.pages[who][gfn], self.fresh(who)
        try:
            self.guests[who].memory.write(gfn, data, clean=clean)
        except AddressingException:
            assert page.word == "U"
        except DiscardFault:
            self.discarded(page)
        except OutOfMemory:
            self.nothing_to_reclaim()
        else:
            assert page.word != "U" and not page.gone
            page.data, page.dirty, page.preserved = data, not clean, page.preserved or not clean
            page.past.add(data)

    @rule(who=WHO, gfn=GFN)
    def load(self, who: int, gfn: int) -> None:
        page = self.pages[who][gfn]
        try:
            found = self.guests[who].memory.read(gfn)
        except AddressingException:
            assert page.word == "U"
        except DiscardFault:
            self.discarded(page)
        except OutOfMemory:
            self.nothing_to_reclaim()
        else:
            self.check_bytes(who, gfn, found)

    @rule(who=WHO, gfns=GFNS)
    def load_many(self, who: int, gfns: list[int]) -> None:
        pages = self.pages[who]
        try:
            found = self.guests[who].memory.read_many(gfns)
        except AddressingException as fault:
            self.unused(fault.gfns.tolist(), [gfn for gfn in gfns if pages[gfn].word == "U"])
        except DiscardFault as fault:
            for gfn in fault.gfns.tolist():
                self.discarded(pages[gfn])
        except OutOfMemory:
            self.nothing_to_reclaim()
        else:
            for gfn, row in zip(gfns, found, strict=True):
                self.check_bytes(who, gfn, bytes(row))

    def check_bytes(self, who: int, gfn: int, found: bytes) -> None:
        page = self.pages[who][gfn]
        assert page.word != "U" and not page.gone
        assert found == page.data if page.data is not None else found in page.past, "stale, lost, or another guest's"
        page.data = found

    def unused(self, told: list[int], expected: list[int]) -> None:
        assert told == expected

    def discarded(self, page: Page) -> None:
        assert page.may_be_gone, "a stable or dirty page was lost"
        page.gone, page.word = True, "V"

    def nothing_to_reclaim(self) -> None:
        """Refused for want of a frame: then there is nothing left that may be taken."""
        census = self.machine.reclaim.census()
        takeable = [State.Ur, State.Vr, State.Pr] + [State.Sr] * census.can_preserve
        clean = [np.isin(guest.states, takeable) & ~guest.grace for guest in census.guests]
        dirty_p = [guest.states == State.Pr for guest in census.guests]
        assert census.heap_free == 0 == census.ephemeral
        assert not any((c & ~d).any() for c, d in zip(clean, dirty_p, strict=True))

    @rule(who=WHO, gfns=GFNS, order=st.sampled_from([order for order in Essa if order != Essa.SET_STABLE_RESIDENT]))
    def hint(self, who: int, gfns: list[int], order: Essa) -> None:
        for gfn, old in zip(gfns, self.guests[who].essa(order, gfns).tolist(), strict=True):
            self.hinted(self.pages[who][gfn], order, old & 0x0F)

    @rule(who=WHO, gfns=GFNS, order=st.sampled_from([Essa.SET_UNUSED, Essa.SET_VOLATILE, Essa.SET_POT_VOLATILE]))
    def let_go_and_look(self, who: int, gfns: list[int], order: Essa) -> None:
        self.hint(who, gfns, order)
        for gfn in gfns:
            self.load(who, gfn)

    def hinted(self, page: Page, order: Essa, old: int) -> None:
        content = old & 0x03
        assert content in (0x00, 0x02, 0x03)
        if old == 0x0F:
            self.discarded(page)
        else:
            assert not page.gone
            assert "SUPV"[old >> 2] == page.word or (page.word == "P" and page.preserved and old >> 2 == 0)
            page.word = "SUPV"[old >> 2]
        if order in (Essa.GET_STATE, Essa.SET_STABLE_IF_NOT_DISCARDED) and page.gone:
            return
        if content == 0x03:
            page.data, page.past = (ZERO, {ZERO}) if page.word in "UV" else (page.data, page.past)
        if order != Essa.GET_STATE:
            self.say(page, order, old)

    def say(self, page: Page, order: Essa, old: int) -> None:
        """Change the guest's word as table 1.5 has it."""
        content = old & 0x03
        word = {Essa.SET_UNUSED: "U", Essa.SET_VOLATILE: "V", Essa.SET_POT_VOLATILE: "P"}.get(order, "S")
        if content == 0x02 and word == "P" and page.dirty:
            word = "S"
        page.gone = word in "VP" and content != 0x00
        if content == 0x02 and word in "UVP":
            page.past = {ZERO}
        if word == "S" and page.word == "U":
            page.data = ZERO if content == 0x03 else None
        elif word == "S" and content == 0x03 and page.word == "V":
            page.data = ZERO
        page.word, page.preserved = "V" if page.gone else word, page.dirty

    @rule(who=WHO, gfn=GFN, clean=st.booleans(), order=st.sampled_from([Essa.SET_VOLATILE, Essa.SET_POT_VOLATILE]))
    def use_and_let_go(self, who: int, gfn: int, clean: bool, order: Essa) -> None:
        """What a guest kernel does all day: take a page, fill it, and mark it."""
        self.hint(who, [gfn], Essa.SET_STABLE)
        self.store(who, gfn, clean)
        self.hint(who, [gfn], order)

    @rule(who=WHO, gfn=GFN)
    def clean(self, who: int, gfn: int) -> None:
        """Hand a dirty page over to the guest's own disk: test, make stable, clear (R36)."""
        page = self.pages[who][gfn]
        if page.word == "S":
            self.guests[who].memory.clear_dirty([gfn])
            page.dirty = False

    @rule(who=WHO, index=st.integers(0, 5))
    def put(self, who: int, index: int) -> None:
        data = self.fresh(who)
        stored = self.pools[who].put(1, index, data)
        self.stored.pop((who, index), None)
        if stored:
            self.stored[who, index] = data

    @rule(who=WHO, index=st.integers(0, 5))
    def get(self, who: int, index: int) -> None:
        assert self.pools[who].get(1, index) in (None, self.stored.pop((who, index), None))

    # what the hypervisor does

    @rule(who=WHO, gfns=GFNS)
    def evict(self, who: int, gfns: list[int]) -> None:
        self.machine.cmm2.evict(self.guests[who].domain, np.array(sorted(gfns)))

    @rule(frames=st.integers(0, 2 * PAGES), background=st.booleans())
    def reclaim(self, frames: int, background: bool) -> None:
        self.machine.reclaim.background() if background else self.machine.reclaim.free_up(frames)

    @rule(who=WHO, seconds=st.sampled_from([0.0, 1.0]))
    def time_passes(self, who: int, seconds: float) -> None:
        domains.monotonic.now += seconds             # type: ignore[attr-defined]
        self.machine.cmm2.settle(self.guests[who].domain)

    @rule(budget=st.integers(1, 3 * PAGES))
    def set_budget(self, budget: int) -> None:
        ledger = self.machine.ledger
        ledger.budget = budget
        if ledger.free < 0:
            self.machine.reclaim.free_up(-ledger.free)

    @rule(who=WHO, gfn=GFN)
    @precondition(lambda self: self.serial % 3 == 0)
    def make_resident(self, who: int, gfn: int) -> None:
        """Code 5 in two halves: the guest's word, then frames (R11)."""
        with suppress(OutOfMemory):
            self.hint(who, [gfn], Essa.SET_STABLE)
            self.guests[who].memory.make_resident([gfn])
            assert self.guests[who].map.states(np.array([gfn])).tolist() == [State.Sr]

    # what holds after every step

    @invariant()
    def the_budget_holds(self) -> None:
        """Invariant 1; a budget lowered below what nobody can take is met by nobody, but nothing more is granted."""
        ledger = self.machine.ledger
        assert ledger.used <= max(ledger.budget, self.used_before)
        self.used_before = ledger.used

    @invariant()
    def the_ledger_is_what_the_kernel_says(self) -> None:
        """Invariant 2."""
        ledger = self.machine.ledger
        assert self.machine.heap.object.resident() == ledger.held.get(HEAP, 0)
        for guest in self.guests:
            resident = int(np.count_nonzero(guest.domain.resident_mask()))
            assert guest.domain.ram.resident() == ledger.held.get(guest.domain.number, 0) == resident
        assert ledger.audit() + self.machine.store.audit() == []

    @invariant()
    def only_the_eight_states_exist(self) -> None:
        """Invariant 3: and what is stored is what the two writers may store."""
        for guest in self.guests:
            content, usage = guest.domain.map.content, guest.domain.map.usage
            assert np.isin(content, [0x00, 0x02, 0x03]).all()
            assert not (usage & 0x80).any()
            assert not ((usage & 0x40 != 0) & (content != 0x02)).any(), "released, but nothing is preserved"
            preserved = content == 0x02
            assert np.isin(usage[preserved & (usage & 0x40 == 0)] & 0x0C, [0x00]).all(), "preserved, and not stable"

    @invariant()
    def the_swap_disk_holds_what_is_preserved_and_nothing_volatile(self) -> None:
        """Invariant 4."""
        slots = np.concatenate([guest.domain.slots for guest in self.guests])
        preserved = np.concatenate([guest.domain.map.content == 0x02 for guest in self.guests])
        assert ((slots != NO_SLOT) == preserved).all()
        held = slots[preserved]
        assert len(np.unique(held)) == len(held) == self.machine.swap.used
        assert self.machine.counts()[HostCount.VOLATILE_SWAP_WRITES] == 0


class Clock:
    """A clock that stands until a rule moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("policy", POLICIES)
def test_no_program_breaks_an_invariant(new_cluster_name, cluster_names, stems, monkeypatch, policy):
    monkeypatch.setattr(domains, "monotonic", Clock())

    class Made(Cluster):
        @staticmethod
        def make() -> Still:
            cluster_names.clear()
            stems.clear()
            still = Still(Settings(new_cluster_name(), 16, "cmm2+tmem", policy, swap=SLOTS))
            stems.append(still.machine.stem)
            return still

    run_state_machine_as_test(Made, settings=settings(max_examples=1500, stateful_step_count=40, deadline=None))
