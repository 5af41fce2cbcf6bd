"""Discard faults, and taking discarded pages out of wherever they stand (Linux: `page_discard`).

    a fault names pages by their numbers; each page is marked, once, by whoever comes first (R30); its owner's kind
    says who takes it out; the access is then tried again, and finds it missing

Rule 1: a page that belongs to nobody is being freed: there is nothing to do.
Rule 2: a discarded page was clean: the kernel makes no other volatile.
"""

from collections.abc import Callable, Sequence

from guests.kernel.cpus import Cpus
from guests.kernel.pages import Pages
from guests.volatility import DIRTY, PRIVATE, WRITEBACK
from shm.errors import BrokenInvariant

TakeOut = Callable[[Sequence[int]], None]


class Discards:
    """`take_out`, by the type of the owner, is set once, by the kernel that is built around this."""

    def __init__(self, pages: Pages, cpus: Cpus) -> None:
        self.take_out: dict[type, TakeOut] = {}
        self._pages = pages
        self._cpus = cpus

    def fault(self, gfns: Sequence[int]) -> None:
        """Handle a discard fault that was delivered to the current processor; the access is then tried again."""
        if self._cpus.count > 1:
            with self._cpus.outside():
                self._cpus.delivered(gfns)
        self.page_discard(gfns)

    def page_discard(self, gfns: Sequence[int]) -> None:
        """Take discarded pages out, each once, whoever else is at it."""
        by_kind: dict[type, list[int]] = {}
        for gfn in self._pages.discarded(gfns):
            if self._pages.facts[gfn] & (DIRTY | WRITEBACK | PRIVATE):
                raise BrokenInvariant(f"page {gfn} was discarded and holds what nobody else has")
            by_kind.setdefault(type(self._pages.owner[gfn]), []).append(gfn)
        for kind, group in by_kind.items():
            self.take_out[kind](group)
