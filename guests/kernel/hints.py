"""The guest half of CMM2: which hints this kernel sends, and when it may not.

Rule 1: transitions to stable are duties and come before the use; those to volatile and unused are wishes, and dropping
        any of them changes cost only (R33, R42).
Rule 2: VOLATILE is set on every page that may be volatile or discarded, and written here alone: a page without it needs
        no make_stable.
Rule 3: where the scheme has no such hint, none is sent; pages are then stable for ever and nothing is ever lost.

A make_stable that finds the page discarded is no fault: the page is named to the caller, who takes it out of its
structures and reads it again (R34).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from guests.kernel.pages import Pages
from guests.volatility import VOLATILE, refusal, willing
from shm.counters import Count
from shm.pagestate import Essa, was_discarded

if TYPE_CHECKING:
    from guests.guest import Guest

VECTOR_FROM = 64             # pages: from here on numpy beats the loop
_STABLE_FAILURES = int(Count.STABLE_FAILURES)
_SET_VOLATILE, _IF_NOT_DISCARDED = Essa.SET_VOLATILE, Essa.SET_STABLE_IF_NOT_DISCARDED


class Hints:
    """The only part of the kernel that executes ESSA."""

    def __init__(self, guest: "Guest", pages: Pages) -> None:
        self.unused = "hint-unused" in guest.features
        self.volatile = "hint-volatile" in guest.features
        self._essa = guest.essa
        self._essa_one = guest.essa_one
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
        if not chosen:
            return
        self._essa(Essa.SET_VOLATILE, chosen)
        for gfn in chosen:
            self._facts[gfn] |= VOLATILE

    def make_volatile_one(self, gfn: int) -> None:
        facts = self._facts[gfn]
        if self.volatile and not facts & VOLATILE and refusal(facts) is None:
            self._essa_one(_SET_VOLATILE, gfn)
            self._facts[gfn] = facts | VOLATILE

    def make_stable(self, gfns: Sequence[int]) -> set[int]:
        """Make pages stable before they are used; return those that the host had discarded: their data is gone."""
        volatile = self._pages.having(gfns, VOLATILE)
        if not volatile:
            return set()
        gone = np.asarray(was_discarded(self._essa(Essa.SET_STABLE_IF_NOT_DISCARDED, volatile)))
        lost = {volatile[at] for at in np.flatnonzero(gone).tolist()}
        for gfn in volatile:
            if gfn not in lost:
                self._facts[gfn] &= ~VOLATILE
        self._counters[_STABLE_FAILURES] += len(lost)
        return lost

    def make_stable_one(self, gfn: int) -> bool:
        """Make one page stable before it is used; say whether its data is still there."""
        facts = self._facts[gfn]
        if not facts & VOLATILE:
            return True
        if was_discarded(self._essa_one(_IF_NOT_DISCARDED, gfn)):
            self._counters[_STABLE_FAILURES] += 1
            return False
        self._facts[gfn] = facts & ~VOLATILE
        return True

    def _willing(self, gfns: Sequence[int]) -> list[int]:
        facts = self._facts
        if len(gfns) < VECTOR_FROM:
            return [gfn for gfn in gfns if not facts[gfn] & VOLATILE and refusal(facts[gfn]) is None]
        numbers = np.asarray(gfns, np.int64)
        each = self._pages.array[numbers]
        chosen: list[int] = numbers[willing(each) & (each & VOLATILE == 0)].tolist()
        return chosen
