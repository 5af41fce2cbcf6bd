"""SQLite's page caches in pages of the guest: which page of a database lies in which gfn, and what each is worth.

    pinned      SQLite uses it, or it is dirty: stable
    idle        clean, and SQLite will ask before it touches it again: volatile
    free        unused

A cache belongs to one connection, and its keys are SQLite's page numbers.  All caches share the guest's pages.

Rule 1: a page is found by make_stable (order 6).  One that was discarded is dropped and is a miss (R34): SQLite reads
        it again.  So nobody ever touches a discarded page, and no discard fault is delivered.
Rule 2: a cache takes a free page, then its own oldest idle one, then another's.  A page that SQLite would merely like
        to have is refused where none of these is left, or the cache is as large as it may be: SQLite then writes
        dirty pages and lets them go.  RESERVE of the pages are kept for those that it must have.
Rule 3: a cache that is not purgeable is the only place of its content: its pages stay stable until they are dropped.
Rule 4: what the scheme does not offer is not hinted.  Whatever fails here leaves the caches as they were.

Writer of PAGE_CACHE_HITS, PAGE_CACHE_MISSES, STABLE_FAILURES and RECLAIMED_PAGES of a guest that has no kernel.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shm.counters import Count
from shm.pagestate import DISCARDED, Essa

if TYPE_CHECKING:
    from guests.guest import Guest

RESERVE = 32                 # one page of that many, at least one
_HITS, _MISSES = int(Count.PAGE_CACHE_HITS), int(Count.PAGE_CACHE_MISSES)
_STABLE, _UNUSED, _VOLATILE = Essa.SET_STABLE, Essa.SET_UNUSED, Essa.SET_VOLATILE
_FOUND = Essa.SET_STABLE_IF_NOT_DISCARDED


class Watch(Protocol):
    """Looks at the content of idle pages: told when one is let go and when it is found again."""

    def let_go(self, gfn: int) -> None: ...
    def found(self, gfn: int) -> None: ...


class CacheMemory:
    """The guest's pages as all caches share them.  Used by one thread."""

    def __init__(self, guest: "Guest", gfns: Iterable[int], watch: Watch | None = None) -> None:
        self._essa, self._essa_one = guest.essa, guest.essa_one
        self._counters = guest.counters.data
        self.hints_unused = "hint-unused" in guest.features
        self.hints_volatile = "hint-volatile" in guest.features
        self.watch = watch
        self.caches: dict[int, Cache] = {}           # by a number of their own, from 1
        self._free = sorted(gfns, reverse=True)      # the lowest is taken first
        self._keys = [0] * (self._free[0] + 1)       # of each page of a cache
        self.pages = len(self._free)
        self._reserve = max(1, self.pages // RESERVE)
        self._made = 0
        self._hint_unused(self._free)

    @property
    def free(self) -> int:
        return len(self._free)

    def new_cache(self, purgeable: bool) -> int:
        """Make an empty cache; return its number."""
        self._made += 1
        self.caches[self._made] = Cache(self, purgeable)
        return self._made

    def end_cache(self, number: int) -> None:
        """Drop a cache and all its pages."""
        self.caches[number].truncate(0)
        del self.caches[number]

    # for the caches

    def take(self, cache: "Cache", must: bool) -> int | None:
        """Return a stable page of any content for `cache` (rule 2), or None."""
        within = len(cache.gfns) < cache.limit
        if (within or must) and len(self._free) > self._reserve:
            return self._take_free()
        if cache.idle:
            return self._recycle(cache)
        if not within and not must:
            return None
        other = next((other for other in self.caches.values() if other.idle), None)
        if other is not None:
            return self._recycle(other)
        return self._take_free() if must and self._free else None

    def _take_free(self) -> int:
        gfn = self._free[-1]
        if self.hints_unused or self.hints_volatile:     # it may have become free while it was volatile
            self._essa_one(_STABLE, gfn)
        return self._free.pop()

    def _recycle(self, cache: "Cache") -> int:
        """Take the page from `cache` that was let go the longest ago."""
        gfn = next(iter(cache.idle))
        if self.hints_volatile:
            self._essa_one(_STABLE, gfn)
        del cache.idle[gfn], cache.gfns[self._keys[gfn]]
        self._counters[Count.RECLAIMED_PAGES] += 1
        return gfn

    def give_back(self, gfns: list[int]) -> None:
        """Make pages free that are in no cache any more."""
        self._free += gfns
        self._hint_unused(gfns)

    def _hint_unused(self, gfns: list[int]) -> None:
        if self.hints_unused and gfns:
            self._essa(_UNUSED, np.array(gfns))


class Cache:
    """The pages of one connection.  `limit`: how many there shall be at most."""

    def __init__(self, memory: CacheMemory, purgeable: bool) -> None:
        self._memory, self.purgeable = memory, purgeable
        self.limit = memory.pages
        self.gfns: dict[int, int] = {}               # by key
        self.idle: OrderedDict[int, None] = OrderedDict()    # gfns, the oldest first
        self._essa_one, self._keys, self._counters = memory._essa_one, memory._keys, memory._counters
        self._watch = memory.watch
        self._hints = memory.hints_volatile

    def find(self, key: int) -> int | None:
        """Return the page of `key`, pinned; None when there is none, or it was discarded and is dropped now."""
        gfn = self.gfns.get(key)
        if gfn is None:
            return None
        if gfn in self.idle:
            if self._hints and self._essa_one(_FOUND, gfn) == DISCARDED:
                self._discarded(gfn)
                return None
            del self.idle[gfn]
            if self._watch is not None:
                self._watch.found(gfn)
        self._counters[_HITS] += 1
        return gfn

    def _discarded(self, gfn: int) -> None:
        self._counters[Count.STABLE_FAILURES] += 1
        self.drop(gfn)

    def add(self, key: int, must: bool) -> int | None:
        """Return a pinned page for `key`, which has none; None where there is none to be had.  `must`: see rule 2."""
        gfn = self._memory.take(self, must)
        if gfn is not None:
            self._counters[_MISSES] += 1
            self.gfns[key] = gfn
            self._keys[gfn] = key
        return gfn

    def let_go(self, gfn: int) -> None:
        """Unpin a clean page: it is idle from now on, or free if the cache has become too large."""
        if not self.purgeable:
            return
        if len(self.gfns) > self.limit:
            self.drop(gfn)
            return
        if self._watch is not None:
            self._watch.let_go(gfn)
        if self._hints:
            self._essa_one(_VOLATILE, gfn)
        self.idle[gfn] = None

    def drop(self, gfn: int) -> None:
        """Make a page free."""
        self.idle.pop(gfn, None)
        del self.gfns[self._keys[gfn]]
        self._memory.give_back([gfn])

    def rekey(self, gfn: int, old: int, new: int) -> None:
        """Let the page of `old` be that of `new`; a page that is there already is dropped."""
        if new in self.gfns:
            self.drop(self.gfns[new])
        del self.gfns[old]
        self.gfns[new] = gfn
        self._keys[gfn] = new

    def truncate(self, key: int) -> None:
        """Drop the pages of `key` and beyond, pinned or not."""
        self._drop_all([gfn for held, gfn in self.gfns.items() if held >= key])

    def shrink(self) -> None:
        """Drop all idle pages."""
        self._drop_all(list(self.idle))

    def _drop_all(self, gfns: list[int]) -> None:
        for gfn in gfns:
            self.idle.pop(gfn, None)
            del self.gfns[self._keys[gfn]]
        self._memory.give_back(gfns)


class Checksums:
    """A watch that compares: each page found again must be what it was when it was let go.

    `compared(gfn, right)` hears of each comparison.
    """

    def __init__(self, view: np.ndarray, checksum: Callable[[memoryview], int],
                 compared: Callable[[int, bool], None]) -> None:
        self._rows = [row.data for row in view]
        self._sums = [0] * len(view)
        self._checksum, self._compared = checksum, compared

    def let_go(self, gfn: int) -> None:
        self._sums[gfn] = self._checksum(self._rows[gfn])

    def found(self, gfn: int) -> None:
        self._compared(gfn, self._checksum(self._rows[gfn]) == self._sums[gfn])
