"""Arrays on guest memory: numpy arrays whose pages the host may take, and that are whole again when they are used.

    rebuild given    volatile: the host drops pages at no cost, and owes no notice.  A page that is missing when the
                     array is used is computed again by rebuild(start, stop) -> elements (flat indexes)
    no rebuild       stable: the host swaps pages out, and back in

    with array.pinned() as held:        stable meanwhile; what was purged is rebuilt first
        held.values, held.purged

The fault mode decides what else there is.  Hardware: `values` is the memory itself, at any time; a plain load of a
purged page waits while the pager rebuilds it.  Software: memory is reached by calls alone, so `values` exists only
inside `pinned`, and is a private copy, written back at the end if it was asked for as writable.

Rule 1: a new array starts empty: a rebuildable one as if all of it had been purged, a stable one as zeros.
Rule 2: a store to a volatile page is lost when the page is discarded.  So outside `pinned` a rebuildable array is
        read-only; what is stored inside holds until the host discards it, and then reads as rebuild has it.
Rule 3: `rebuild` must give the same elements each time.  It is copied to the pager in hardware mode (`pager_process`),
        so it refers to no guest memory and to no array that lives there.
Rule 4: usage of an array's pages is written here alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple, NoReturn

import numpy as np

from guests.hardware import HardwareMemory
from guests.memory import Memory
from guests.pageranges import PageRanges
from guests.processor import Processor
from guests.restores import Elements
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.counters import Count
from shm.errors import UsageProblem
from shm.pagestate import CONTENT_MASK, RESIDENT, Essa, was_discarded

Rebuild = Callable[[int, int], Any]
REBUILT_AT_ONCE = 256        # pages


class Pinned(NamedTuple):
    """What a pinned array gives."""

    values: np.ndarray
    purged: int              # pages found discarded: all of a new array's

    def __repr__(self) -> str:
        return f"<pinned: {self.values.shape} {self.values.dtype}, {self.purged} pages had been purged>"


class Place(NamedTuple):
    """Where arrays live: one guest's memory, its processor, and its free pages."""

    memory: Memory
    processor: Processor
    ranges: PageRanges


class Array:
    """One array.  Made by `Guest.array`; one thread at a time pins it."""

    def __init__(self, place: Place, shape: tuple[int, ...], dtype: np.dtype[Any], rebuild: Rebuild | None,
                 name: str) -> None:
        self.shape, self.dtype = shape, dtype
        self.nbytes = prod(shape) * dtype.itemsize
        self.pages = -(-self.nbytes // PAGE_SIZE)
        self.rebuildable = rebuild is not None
        self._place = place
        self.first = place.ranges.take(self.pages)
        self.name = name or f"array at page {self.first}"
        self._gfns = np.arange(self.first, self.first + self.pages)
        self._held: Pinned | None = None                     # while it is pinned
        self._released = False
        try:
            self._begin(rebuild)
        except BaseException:
            place.ranges.give_back(self.first, self.pages)
            raise

    def _begin(self, rebuild: Rebuild | None) -> None:
        """Empty the pages, whatever they held, and say what they are now."""
        self._elements = None if rebuild is None else Elements(rebuild, self.first, prod(self.shape), self.dtype)
        if self._elements is not None and isinstance(self._place.memory, HardwareMemory):
            self._place.memory.pager.restore(self.first, self.pages, self._elements)
        self._empty(self._gfns)
        self._hint(Essa.SET_STABLE if rebuild is None else Essa.SET_VOLATILE, self._gfns)

    @property
    def values(self) -> np.ndarray:
        """The array itself: plain memory, in hardware mode; read-only where it is volatile now (Rule 2)."""
        memory = self._used().memory
        if memory.view is None:
            raise UsageProblem(f"{self.name}: in software mode its values are there inside `with array.pinned()` "
                               f"alone; connect with faults=\"hardware\" for plain memory")
        values = self._shaped(memory.view[self.first:self.first + self.pages])
        values.flags.writeable = not self.rebuildable or (self._held is not None and self._held.values.flags.writeable)
        return values

    @contextmanager
    def pinned(self, writable: bool = False) -> Iterator[Pinned]:
        """Use the array: stable and whole meanwhile, volatile again after.  Nests; the outermost decides.

        In software mode what `rebuild` raises is raised here; in hardware mode it ends the guest, as on any touch.
        OutOfMemory when the host has no frames.
        """
        place = self._used()
        if self._held is not None:
            yield self._again(self._held, writable)
            return
        try:
            self._held = held = Pinned(*self._use(place, writable))
            try:
                yield held
            finally:
                self._held = None
                if place.memory.view is None and writable:
                    place.memory.write_many(self._gfns, self._paged(held.values))
        finally:
            if self.rebuildable:
                self._hint(Essa.SET_VOLATILE, self._gfns)

    def _again(self, held: Pinned, writable: bool) -> Pinned:
        if writable and not held.values.flags.writeable:
            raise UsageProblem(f"{self.name}: pinned read-only already; ask for writable=True where it is pinned first")
        return held._replace(purged=0)

    def _use(self, place: Place, writable: bool) -> tuple[np.ndarray, int]:
        """Make the array stable and whole; return its values, and how many pages had been purged."""
        if isinstance(place.memory, HardwareMemory):
            purged = place.memory.make_stable(self._gfns) if self.rebuildable else 0
            values = self.values
        else:
            purged = self._rebuild_purged() if self.rebuildable else 0
            values = self._shaped(place.memory.read_many(self._gfns))
        values.flags.writeable = writable or (place.memory.view is not None and not self.rebuildable)
        place.memory.counters[Count.STABLE_FAILURES] += purged
        return values, purged

    def _rebuild_purged(self) -> int:
        """Make the pages stable, and compute those again that were discarded; return how many."""
        old = self._hint(Essa.SET_STABLE_IF_NOT_DISCARDED, self._gfns)
        purged = self._gfns[np.asarray(was_discarded(old))]
        for first, count in runs(purged):
            for at in range(first, first + count, REBUILT_AT_ONCE):
                self._rebuild(np.arange(at, min(at + REBUILT_AT_ONCE, first + count)))
        return len(purged)

    def _rebuild(self, gfns: np.ndarray) -> None:
        """Compute pages in a row again.  A page that was given a frame and not its bytes must not pass for whole."""
        assert self._elements is not None
        pages = np.frombuffer(self._elements(int(gfns[0]), len(gfns)), np.uint8).reshape(-1, PAGE_SIZE)
        self._hint(Essa.SET_STABLE, gfns)
        try:
            self._place.memory.write_many(gfns, pages)
        except BaseException:
            self._empty(gfns)
            self._hint(Essa.SET_VOLATILE, gfns)
            raise
        self._place.memory.counters[Count.REBUILT_PAGES] += len(gfns)

    def _shaped(self, pages: np.ndarray) -> np.ndarray:
        return pages.reshape(-1)[:self.nbytes].view(self.dtype).reshape(self.shape)

    def _paged(self, values: np.ndarray) -> np.ndarray:
        pages = np.zeros((self.pages, PAGE_SIZE), np.uint8)
        pages.reshape(-1)[:self.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        return pages

    def _empty(self, gfns: np.ndarray) -> None:
        """Leave nothing of what pages held: unused, and then without frame and copy."""
        self._hint(Essa.SET_UNUSED, gfns)
        self._place.processor.release(gfns)
        kept = gfns[self._hint(Essa.GET_STATE, gfns) & CONTENT_MASK == RESIDENT]
        if len(kept):
            raise UsageProblem(f"{self.name}: page {kept[0]} is pinned, and keeps what it holds: leave `memory.pin` "
                               f"first, and take pages for arrays by guest.array alone")

    def _hint(self, order: Essa, gfns: np.ndarray) -> np.ndarray:
        return self._place.processor.essa(order, gfns)

    def _used(self) -> Place:
        if self._released:
            raise UsageProblem(f"{self.name}: this array was released; make another with guest.array(...)")
        return self._place

    def release(self) -> None:
        """Give the pages back: unused, and free for other arrays.  Twice is harmless; UsageProblem while pinned.

        A numpy array that was taken from `values` must not be used any more: its touch is an addressing exception.
        """
        if self._released:
            return
        if self._held is not None:
            raise UsageProblem(f"{self.name}: pinned; leave `with array.pinned()` first")
        self._released = True
        self._hint(Essa.SET_UNUSED, self._gfns)
        if self.rebuildable and isinstance(self._place.memory, HardwareMemory):
            self._place.memory.pager.forget(self.first, self.pages)
        self._place.ranges.give_back(self.first, self.pages)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __reduce__(self) -> NoReturn:
        raise UsageProblem(f"{self.name} lives in guest memory and cannot be copied to another process: a restore "
                           f"function must not refer to it")

    def __repr__(self) -> str:
        kind = "released" if self._released else "rebuildable" if self.rebuildable else "stable"
        return f"<{self.name}: {self.shape} {self.dtype}, {self.pages} pages from {self.first}, {kind}>"


def make_array(place: Place, shape: int | tuple[int, ...], dtype: Any, rebuild: Rebuild | None, name: str) -> Array:
    """Return an array; UsageProblem when its shape, dtype or rebuild function are none."""
    try:
        kind = np.dtype(dtype)
        sizes = tuple(int(size) for size in (shape if isinstance(shape, tuple | list) else (shape,)))
    except (TypeError, ValueError) as error:
        raise UsageProblem(f"array of shape {shape!r:.60} and dtype {dtype!r:.60}: {error}") from error
    if not all(size > 0 for size in sizes):
        raise UsageProblem(f"array of shape {shape!r:.60}: every dimension must be 1 or more")
    if kind.hasobject or not kind.itemsize:
        raise UsageProblem(f"array of dtype {kind}: its elements must be plain bytes, at least one each")
    if rebuild is not None and (not callable(rebuild) or PAGE_SIZE % kind.itemsize):
        raise UsageProblem(f"array of dtype {kind}: rebuild must be a function rebuild(start, stop) -> elements, and "
                           f"an element's size, {kind.itemsize}, must divide {PAGE_SIZE}")
    return Array(place, sizes, kind, rebuild, name)
