"""The guest half of CMM2: which hints this kernel sends, and when it may not.

Rule 1: transitions to stable are duties and come before the use; those to volatile and unused are wishes, and dropping
        any of them changes cost only (R33, R42).
Rule 2: VOLATILE is set on every page that may be volatile or discarded, and written here alone: a page without it needs
        no make_stable.
Rule 3: where the scheme has no such hint, none is sent; pages are then stable for ever and nothing is ever lost.
Rule 4: a page that a mapping may store to becomes P and never V (R37); where others restore what was discarded, a page
        that they could not restore becomes neither.

A make_stable that finds the page discarded is no fault: the page is named to the caller, who takes it out of its
structures and reads it again (R34).  A page that must keep its place cannot be read in elsewhere: it is touched as it
lies, which has it restored there, and tried again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guests.kernel.pages import Pages
from guests.volatility import KEPT, VOLATILE, WRITABLE, Terms, refusal, willing
from shm.counters import Count
from shm.errors import BrokenInvariant
from shm.pagestate import CONTENT_MASK, RESIDENT, Essa, was_discarded

if TYPE_CHECKING:
    from guests.guest import Guest

VECTOR_FROM = 64             # pages: from here on numpy beats the loop
KEPT_TRIES = 100             # restorings of one page that the host discards again before it is made stable
_STABLE_FAILURES = int(Count.STABLE_FAILURES)
_SET_VOLATILE, _IF_NOT_DISCARDED = Essa.SET_VOLATILE, Essa.SET_STABLE_IF_NOT_DISCARDED


class Hints:
    """The only part of the kernel that executes ESSA."""

    def __init__(self, guest: "Guest", pages: Pages, terms: Terms) -> None:
        self.unused = "hint-unused" in guest.features
        self.volatile = "hint-volatile" in guest.features
        self.terms = terms
        self._mask, self._value = terms.mask | VOLATILE, terms.value
        self._essa = guest.essa
        self._essa_one = guest.essa_one
        self._memory = guest.memory
        self._in_place = getattr(guest.memory, "sources", None) is not None
        self._pages = pages
        self._facts = pages.facts
        self._counters = guest.counters.data

    def allocated(self, gfns: Sequence[int]) -> None:
        """Make pages stable that come off the free list (R40)."""
        if not self.unused:
            return
        if len(gfns) == 1:
            self._essa_one(Essa.SET_STABLE, gfns[0])
        else:
            self._essa(Essa.SET_STABLE, gfns)

    def freed(self, gfns: Sequence[int]) -> None:
        """Give pages up: unused from now on, or else stable, so that their next owner loses nothing."""
        if self.unused:
            self._essa(Essa.SET_UNUSED, gfns)
        elif volatile := self._pages.having(gfns, VOLATILE):
            self._essa(Essa.SET_STABLE, volatile)

    def make_volatile(self, gfns: Sequence[int]) -> None:
        """Wish that pages be volatile; those that a fact forbids, or that are so already, are passed over."""
        if len(gfns) == 1:
            self.make_volatile_one(gfns[0])
            return
        chosen = self._willing(gfns) if self.volatile else []
        writable = self._mark(chosen)
        if writable:
            chosen = [gfn for gfn in chosen if not self._facts[gfn] & WRITABLE]
            self._keep_p(writable, self._essa(Essa.SET_POT_VOLATILE, writable))
        if chosen:
            self._essa(Essa.SET_VOLATILE, chosen)

    def _mark(self, gfns: Sequence[int]) -> list[int]:
        """Mark pages that are about to be volatile or potentially so; return those that may be stored to."""
        facts, writable = self._facts, []
        for gfn in gfns:
            each = facts[gfn]
            facts[gfn] = each | VOLATILE
            if each & WRITABLE:
                writable.append(gfn)
        return writable

    def make_volatile_one(self, gfn: int) -> None:
        facts = self._facts[gfn]
        if self.volatile and facts & self._mask == self._value and refusal(facts) is None:
            self._facts[gfn] = facts | VOLATILE
            if facts & WRITABLE:
                self._keep_p([gfn], np.array([self._essa_one(Essa.SET_POT_VOLATILE, gfn)]))
            else:
                self._essa_one(_SET_VOLATILE, gfn)

    def _keep_p(self, gfns: Sequence[int], old: np.ndarray) -> None:
        """Have those pages back that had no frame when they were made P, and let them be stable.

        The table makes them Vz.  Restored in place they would be V, and what a program then stores to them could be
        lost.  (In software mode nothing is restored in place: their touch is a fault that takes them out.)
        """
        if not self._in_place:
            return
        for gfn in np.asarray(gfns)[np.asarray(old) & CONTENT_MASK != RESIDENT].tolist():
            self._restored(gfn)
            self._facts[gfn] &= ~VOLATILE

    def make_stable(self, gfns: Sequence[int]) -> set[int]:
        """Make pages stable before they are used; return those that the host had discarded: their data is gone."""
        volatile = self._pages.having(gfns, VOLATILE)
        if not volatile:
            return set()
        gone = np.asarray(was_discarded(self._essa(Essa.SET_STABLE_IF_NOT_DISCARDED, volatile)))
        lost = {volatile[at] for at in np.flatnonzero(gone).tolist()}
        self._counters[_STABLE_FAILURES] += len(lost)
        lost -= {gfn for gfn in lost if self._facts[gfn] & KEPT and self._restored(gfn)}
        for gfn in volatile:
            if gfn not in lost:
                self._facts[gfn] &= ~VOLATILE
        return lost

    def make_stable_one(self, gfn: int) -> bool:
        """Make one page stable before it is used; say whether its data is still there."""
        facts = self._facts[gfn]
        if not facts & VOLATILE:
            return True
        if was_discarded(self._essa_one(_IF_NOT_DISCARDED, gfn)):
            self._counters[_STABLE_FAILURES] += 1
            if not facts & KEPT or not self._restored(gfn):
                return False
        self._facts[gfn] = facts & ~VOLATILE
        return True

    def _restored(self, gfn: int) -> bool:
        """Have a discarded page restored where it lies, and make it stable.  It is restored by its touch alone: made
        stable first, it would read zero to a program that touches it meanwhile."""
        for _ in range(KEPT_TRIES):
            self._memory.read_part(gfn, 0, 1)
            if not was_discarded(self._essa_one(_IF_NOT_DISCARDED, gfn)):
                return True
        raise BrokenInvariant(f"page {gfn} was discarded {KEPT_TRIES} times before it could be made stable")

    def _willing(self, gfns: Sequence[int]) -> list[int]:
        facts, mask, value = self._facts, self._mask, self._value
        if len(gfns) < VECTOR_FROM:
            return [gfn for gfn in gfns if facts[gfn] & mask == value and refusal(facts[gfn]) is None]
        numbers = np.asarray(gfns, np.int64)
        each = self._pages.array[numbers]
        chosen: list[int] = numbers[willing(each) & (each & mask == value)].tolist()
        return chosen
