"""Private pages: what CMM2 promises of a page, said once more and independently of the code, held against it.

The host is played by hand: it puts the page into a state, and the next deed must be content with it, or find it wrong.
"""

from contextlib import nullcontext
from random import Random

import numpy as np
import pytest

from guests.workloads.private import P, PrivatePages, S, U, V
from guests.workloads.proof import Proof, WrongContent
from shm.pagestate import Essa, Pr, Sp, Sr, State, Sz, Ur, Uz, Vr, Vz

ORDER = {S: Essa.SET_STABLE, U: Essa.SET_UNUSED, V: Essa.SET_VOLATILE, P: Essa.SET_POT_VOLATILE}
ALL = frozenset(State)


class OnePage:
    """One private page, number 0, which holds something."""

    def __init__(self, prepare) -> None:
        self.run = prepare("stress", dict.fromkeys(
            ("files", "anonymous", "rebuildable", "ephemeral", "persistent", "private"), 0), pages=32)
        self.guest = self.run.guest
        self.pages = PrivatePages(self.run.kernel, Proof(self.guest.counters), Random(1), 1)
        self.gfn = self.pages.gfns[0]

    def give(self, usage: str, clean: bool = False) -> None:
        if clean:
            self.pages._launder(0)
        self.pages._hint(0, ORDER[usage])

    def put(self, state: State) -> None:
        self.guest.states[self.gfn] = state

    def scribble(self) -> None:
        self.guest.memory.rows[self.gfn] = 0xEE


@pytest.fixture
def page(prepare) -> OnePage:
    return OnePage(prepare)


def found_out(wrong: bool, what: str | None = None):
    return pytest.raises(WrongContent, match=what) if wrong else nullcontext()


# usage given, changed since: the states in which the host may leave a page that holds something (1.5, 1.6)
LEFT_IN = [
    (S, True,  {Sr, Sp}),
    (S, False, {Sr, Sp}),
    (U, True,  {Ur, Uz}),
    (U, False, {Ur, Uz}),
    (V, True,  {Vr, Vz}),
    (V, False, {Vr, Vz}),
    (P, True,  {Pr, Sr, Sp}),        # dirty: preserved, never lost (R16)
    (P, False, {Pr, Vz}),            # clean: discarded, never written
]


@pytest.mark.parametrize("state", sorted(ALL))
@pytest.mark.parametrize(("usage", "changed", "allowed"), LEFT_IN)
def test_essa_may_report_what_the_host_may_do(page: OnePage, usage: str, changed: bool, allowed: set[State],
                                              state: State) -> None:
    page.give(usage, clean=not changed)
    page.put(state)
    with found_out(state not in allowed, "private page 0: "):
        page.pages._hint(0, Essa.GET_STATE)


# usage given, changed, the state at the access: is it right that the access ...   succeeds, ends in a fault
ACCESSES = [
    (S, True,  Sr, True,  None),
    (S, True,  Ur, None,  False),
    (S, True,  Vz, None,  False),
    (U, True,  Ur, None,  True),
    (U, True,  Uz, None,  True),
    (U, True,  Sr, False, None),
    (U, True,  Vz, None,  False),
    (V, True,  Vr, True,  None),
    (V, True,  Vz, None,  True),
    (V, True,  Uz, None,  False),
    (P, True,  Pr, True,  None),
    (P, True,  Sr, True,  None),
    (P, True,  Vz, None,  False),
    (P, False, Pr, True,  None),
    (P, False, Vz, None,  True),
    (P, False, Ur, None,  False),
]


@pytest.mark.parametrize("deed", ["_load", "_store"])
@pytest.mark.parametrize(("usage", "changed", "state", "success", "fault"), ACCESSES)
def test_accesses_end_as_they_may(page: OnePage, deed: str, usage: str, changed: bool, state: State,
                                  success: bool | None, fault: bool | None) -> None:
    page.give(usage, clean=not changed)
    page.put(state)
    with found_out(success is False or fault is False):
        getattr(page.pages, deed)(0)


@pytest.mark.parametrize("usage", [S, V, P])
def test_other_bytes_are_found(page: OnePage, usage: str) -> None:
    page.give(usage)
    page.pages._load(0)
    page.scribble()
    with found_out(True, "wrong page: private, page 0"):
        page.pages._load(0)


def test_a_store_is_what_is_read(page: OnePage) -> None:
    page.pages._store(0)
    before = page.guest.memory.rows[page.gfn].copy()
    page.pages._store(0)
    assert (page.guest.memory.rows[page.gfn] != before).any()
    page.pages._load(0)


@pytest.mark.parametrize("order", [Essa.SET_STABLE, Essa.SET_STABLE_RESIDENT, Essa.SET_STABLE_NODAT])
@pytest.mark.parametrize("usage", [U, V])
def test_what_was_taken_reads_zero_when_it_is_stable_again(page: OnePage, usage: str, order: Essa) -> None:
    page.give(usage)
    page.put({U: Uz, V: Vz}[usage])
    page.pages._hint(0, order)
    page.pages._load(0)
    assert not page.guest.memory.rows[page.gfn].any()
    page.scribble()
    with found_out(True):
        page.pages._load(0)


@pytest.mark.parametrize("usage", [U, V])
def test_what_was_taken_and_does_not_read_zero_is_found(page: OnePage, usage: str) -> None:
    page.give(usage)
    page.put({U: Uz, V: Vz}[usage])
    page.pages._hint(0, Essa.SET_STABLE)
    page.put(Sr)
    page.scribble()
    with found_out(True, "wrong page: private"):
        page.pages._load(0)


def test_an_unused_page_that_was_not_taken_holds_anything_and_then_that(page: OnePage) -> None:
    page.give(U)
    page.put(Ur)
    page.pages._hint(0, Essa.SET_STABLE)
    page.scribble()
    page.pages._load(0)
    page.guest.memory.rows[page.gfn, 9] = 1
    with found_out(True):
        page.pages._load(0)


def test_a_discarded_page_stays_so_until_it_is_made_stable(page: OnePage) -> None:
    page.give(V)
    page.put(Vz)
    page.pages._hint(0, Essa.SET_STABLE_IF_NOT_DISCARDED)
    page.pages._load(0)
    page.pages._store(0)
    assert page.guest.states[page.gfn] == Vz
    page.put(Vr)
    with found_out(True, "an access succeeded"):
        page.pages._load(0)


@pytest.mark.parametrize(("changed", "after"), [(True, S), (False, V)])
def test_potentially_volatile_on_a_preserved_page(page: OnePage, changed: bool, after: str) -> None:
    """Table 1.5, row Sp, code 4: dirty stays Sp, clean is dropped."""
    page.give(S, clean=not changed)
    page.put(Sp)
    page.pages._hint(0, Essa.SET_POT_VOLATILE)
    assert (page.pages._known[0].usage, page.pages._known[0].lost) == (after, not changed)
    assert page.guest.states[page.gfn] == (Sp if changed else Vz)


def test_a_stable_page_of_zeros_may_be_recognised_as_such(page: OnePage) -> None:
    page.give(U)
    page.put(Uz)
    page.pages._hint(0, Essa.SET_STABLE)
    page.pages._load(0)
    page.put(Sz)
    page.pages._hint(0, Essa.GET_STATE)
    page.pages._store(0)
    page.put(Sz)
    with found_out(True, "it is Sz, and was not all zeros"):
        page.pages._hint(0, Essa.GET_STATE)


def test_laundering_clears_the_change_bit(page: OnePage) -> None:
    assert page.guest.memory.changed[page.gfn]
    page.pages._launder(0)
    assert not page.guest.memory.changed[page.gfn]
    assert np.array_equal(page.guest.memory.dirty([page.gfn]), [page.pages._known[0].changed])
