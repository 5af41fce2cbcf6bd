"""The page allocator: a free list, and three marks on how long it should be.

    low    an allocation that would leave less asks for reclaim first
    high   reclaim goes on until there is so much
    min    an allocation that would leave less, even after reclaim, fails

Rule 1: a page is on the free list or has an owner, never both, never neither (while it is filled, its filler owns it).
Rule 2: free pages are hinted unused, allocated ones stable, in batches (R40).  An allocated page holds anything:
        whoever asked for it writes it whole.
Rule 3: reclaim is asked for here and nowhere else, and never while it is at work: it needs no page to give pages back.

Rule 4: where there are several processors, a page that was discarded waits on the discard list before it is
        free (R31).  It stays in its state meanwhile: a late touch is still a discard fault.  Of a page that was only
        volatile nobody knows: it is made stable, and one that still can be had no fault to anybody.

A page of the guest and a frame of the host are two things: the allocator knows pages, and `with_room` alone knows that
a frame may be missing.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import NamedTuple, ParamSpec, TypeVar

from guests.kernel.cpus import Cpus
from guests.kernel.discardlist import DiscardList
from guests.kernel.hints import Hints
from guests.kernel.pages import Pages
from guests.kernel.sources import Restorable
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant, OutOfMemory

CLUSTER = 32                 # pages that one round of reclaim is worth (Linux: SWAP_CLUSTER_MAX)
P = ParamSpec("P")
T = TypeVar("T")


class Watermarks(NamedTuple):
    min: int
    low: int
    high: int


def watermarks(pages: int) -> Watermarks:
    """Return the marks for a guest of `pages` pages: Linux's min_free_kbytes, 4 * sqrt(kbytes), but at most 1/16."""
    least = max(1, min(isqrt(16 * pages * PAGE_SIZE // 1024) * 1024 // PAGE_SIZE, pages // 16))
    return Watermarks(least, least + max(1, least // 4), least + max(2, least // 2))


class Allocator:
    """The free list.  `reclaim(wanted) -> freed` is set once, by the kernel that is built around this."""

    def __init__(self, pages: Pages, hints: Hints, cpus: Cpus, restorable: Restorable) -> None:
        self.marks = watermarks(pages.count)
        self.reclaim: Callable[[int], int] = lambda _: 0
        self._pages = pages
        self._hints = hints
        self._restorable = restorable
        self._cpus = cpus
        self.discard_list = DiscardList(cpus.count)
        self._free = list(range(pages.count - 1, -1, -1))    # a stack: the page freed last is the warmest
        self._reclaiming = False
        if hints.unused:
            hints.freed(self._free)

    @property
    def free_pages(self) -> int:
        return len(self._free)

    def alloc(self, count: int) -> list[int]:
        """Return `count` pages, stable and locked; OutOfMemory when even reclaim does not find them."""
        if self._cpus.count > 1:
            self.quiescent(self._cpus.current)
        if len(self._free) - count < self.marks.low:
            self._reclaim(self.marks.high + count - len(self._free))
        if len(self._free) - count < self.marks.min:
            raise OutOfMemory(f"the guest has no page left: {len(self._free)} of {self._pages.count} are free, "
                              f"{count} are wanted and {self.marks.min} are kept back; give it more ram or swap")
        gfns = self._free[-count:]
        del self._free[-count:]
        self._pages.locked(gfns)
        self._hints.allocated(gfns)
        return gfns

    def free(self, gfns: Sequence[int]) -> None:
        """Take pages back."""
        if not gfns:
            return
        self._restorable.forget(gfns)
        if self._cpus.count > 1:
            gfns = self._delay(gfns)
        self._set_free(gfns)

    def quiescent(self, cpu: int) -> None:
        """Note that a processor has no discard fault pending; what waited for that alone is free."""
        self._set_free(self.discard_list.quiescent(cpu, self._cpus.active))

    def _delay(self, gfns: Sequence[int]) -> list[int]:
        """Put pages that were discarded on the discard list; return the others."""
        waiting = self._hints.make_stable(gfns)
        at_once = [gfn for gfn in gfns if gfn not in waiting]
        self._pages.retire(list(waiting))
        self.discard_list.add(self._cpus.current, list(waiting))
        return at_once

    def _set_free(self, gfns: Sequence[int]) -> None:
        if gfns:
            self._hints.freed(gfns)
            self._pages.forget(gfns)
            self._free.extend(gfns)

    def with_room(self, gfns: Sequence[int], access: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Access memory; when the host has no frame, give some pages up, once, and try again.  `gfns` stay."""
        try:
            return access(*args, **kwargs)
        except OutOfMemory:
            with self._pages.held(gfns):
                if not self._reclaim(CLUSTER):
                    raise
            return access(*args, **kwargs)

    def check(self) -> None:
        """Raise BrokenInvariant unless the free list holds each page once, and only pages that nobody owns."""
        if len(set(self._free)) != len(self._free):
            raise BrokenInvariant("a page stands twice on the free list")
        owned = [gfn for gfn in self._free if self._pages.owner[gfn] is not None or self._pages.facts[gfn]]
        if owned:
            raise BrokenInvariant(f"page {owned[0]} is free and has facts {self._pages.facts[owned[0]]:#x}")

    def free_list(self) -> Sequence[int]:
        """Return the free pages, for audits; those on the discard list among them."""
        return (*self._free, *self.discard_list)

    def _reclaim(self, wanted: int) -> int:
        if self._reclaiming:
            return 0
        self._reclaiming = True
        try:
            return self.reclaim(wanted)
        finally:
            self._reclaiming = False
