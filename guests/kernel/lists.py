"""The order in which pages grow old.

    ActiveInactive   Linux's two lists: a page begins inactive, its second touch there makes it active, and active pages
                     come back as the inactive list runs short, those touched meanwhile after those that were not
    ExactLru         one list in the order of the last touch, for comparisons with textbook LRU

Rule 1: a page that has an owner and is not isolated is on one list, once, and has LISTED; REFERENCED and ACTIVE say
        where it stands.  These three bits are written here alone.
Rule 2: `take` isolates; whoever took pages frees them or puts them back.  Held pages are passed over.

Rule 3: pages that must keep their place (KEPT) are passed over like held ones.

Oldest first, always.  The lists know nothing of contents, dirt or hints.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np

from guests.kernel.pages import Pages
from guests.volatility import ACTIVE, HELD, KEPT, LISTED, REFERENCED

PLACE = LISTED | REFERENCED | ACTIVE


class Lists(Protocol):
    """What the owners of pages ask of either kind."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...
    def add(self, gfns: Sequence[int]) -> None: ...
    def touch(self, gfn: int) -> None: ...
    def touch_many(self, gfns: Sequence[int]) -> None: ...
    def remove(self, gfns: Sequence[int]) -> None: ...
    def take(self, count: int) -> list[int]: ...


class ActiveInactive:
    """Two lists.  `grown_inactive(gfns)`, if set, is called with pages that came back from the active list.

    `spared(gfns)`, where there is one, says which pages `take` leaves alone as long as it finds others.
    """

    def __init__(self, pages: Pages, spared: Callable[[Sequence[int]], np.ndarray] | None = None) -> None:
        self.spared = spared
        self.looks = 0                               # how often it was asked of a page whether it is spared
        self.grown_inactive: Callable[[Sequence[int]], None] | None = None
        self._facts = pages.facts
        self.inactive: OrderedDict[int, None] = OrderedDict()
        self.active: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self.inactive) + len(self.active)

    def __iter__(self) -> Iterator[int]:
        yield from self.inactive
        yield from self.active

    def add(self, gfns: Sequence[int]) -> None:
        """List pages as the youngest inactive ones."""
        for gfn in gfns:
            self.inactive[gfn] = None
            self._facts[gfn] |= LISTED

    def touch(self, gfn: int) -> None:
        """Note a use of one page."""
        facts = self._facts[gfn]
        if not facts & REFERENCED:
            self._facts[gfn] = facts | REFERENCED
        elif not facts & ACTIVE:
            del self.inactive[gfn]
            self.active[gfn] = None
            self._facts[gfn] = facts & ~REFERENCED | ACTIVE

    def touch_many(self, gfns: Sequence[int]) -> None:
        for gfn in gfns:
            self.touch(gfn)

    def remove(self, gfns: Sequence[int]) -> None:
        """Take pages off whichever list they are on."""
        for gfn in gfns:
            del (self.active if self._facts[gfn] & ACTIVE else self.inactive)[gfn]
            self._facts[gfn] &= ~PLACE

    def take(self, count: int) -> list[int]:
        """Isolate up to `count` of the oldest inactive pages, after the inactive list has been filled up."""
        before = len(self.inactive)
        self._refill(count)
        if self.grown_inactive is not None and len(self.inactive) > before:
            self.grown_inactive(list(islice(reversed(self.inactive), len(self.inactive) - before)))
        taken = self._pop_others(count) if self.spared is not None else []
        taken += _pop_oldest(self.inactive, self._facts, count - len(taken))
        for gfn in taken:
            self._facts[gfn] &= ~PLACE
        return taken

    def _pop_others(self, count: int) -> list[int]:
        """Pop up to `count` of the oldest pages that are not spared; active ones grow inactive for it."""
        taken = self._pop_not_spared(count)
        if len(taken) < count and self.active:
            self._refill(len(self.inactive) + count - len(taken))
            taken += self._pop_not_spared(count - len(taken))
        return taken

    def _pop_not_spared(self, count: int) -> list[int]:
        assert self.spared is not None
        taken: list[int] = []
        order = iter(list(self.inactive))
        while len(taken) < count and (part := list(islice(order, count))):
            self.looks += len(part)
            free = [gfn for gfn, spared in zip(part, self.spared(part).tolist(), strict=True)
                    if not spared and not self._facts[gfn] & (HELD | KEPT)]
            taken += free[:count - len(taken)]
        for gfn in taken:
            del self.inactive[gfn]
        return taken

    def _refill(self, count: int) -> None:
        """Deactivate pages until inactive ones are as many as active ones, and at least `count`."""
        short = max(count, (len(self) + 1) // 2) - len(self.inactive)
        for second_chance in (True, False):
            for _ in range(len(self.active) if short > 0 else 0):
                short -= self._age_one(second_chance)
                if short <= 0:
                    return

    def _age_one(self, second_chance: bool) -> bool:
        """Deactivate the oldest active page; one that was touched goes round once more instead."""
        gfn, _ = self.active.popitem(last=False)
        facts = self._facts[gfn]
        if second_chance and facts & REFERENCED:
            self.active[gfn] = None
            self._facts[gfn] = facts & ~REFERENCED
            return False
        self.inactive[gfn] = None
        self._facts[gfn] = facts & ~(ACTIVE | REFERENCED)
        return True


class ExactLru:
    """One list: a touch makes a page the youngest."""

    def __init__(self, pages: Pages) -> None:
        self._facts = pages.facts
        self._order: OrderedDict[int, None] = OrderedDict()
        self.touch = self._order.move_to_end         # the hot path: no Python of ours around it

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def add(self, gfns: Sequence[int]) -> None:
        for gfn in gfns:
            self._order[gfn] = None
            self._facts[gfn] |= LISTED

    def touch_many(self, gfns: Sequence[int]) -> None:
        for gfn in gfns:
            self.touch(gfn)

    def remove(self, gfns: Sequence[int]) -> None:
        for gfn in gfns:
            del self._order[gfn]
            self._facts[gfn] &= ~PLACE

    def take(self, count: int) -> list[int]:
        taken = _pop_oldest(self._order, self._facts, count)
        for gfn in taken:
            self._facts[gfn] &= ~PLACE
        return taken


def _pop_oldest(order: OrderedDict[int, None], facts: memoryview, count: int) -> list[int]:
    """Pop up to `count` of the oldest pages that nobody holds; held ones keep their place."""
    taken: list[int] = []
    for gfn in order:
        if len(taken) == count:
            break
        if not facts[gfn] & (HELD | KEPT):
            taken.append(gfn)
    for gfn in taken:
        del order[gfn]
    return taken
