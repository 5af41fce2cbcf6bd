"""CMM2's marks by tmem's put, get and the balloon: the converse of Liguori's claim.

    volatile     the page's bytes are put, and its frame goes back to the host: whether it lives is the pool's affair
    make stable  a frame is taken back, the bytes are got; a miss says that the page was discarded
    unused       what was put is flushed, and the frame goes back
    a touch      of a volatile page gets it and puts it again, changed where it is a store; a miss is a discard fault

Rule 1: a mark is never refused.  A volatile page whose put is refused is discarded from that moment: so no volatile
        page is ever swapped, as CMM2 promises (R44), and the caller learns of it as of any discard.
Rule 2: the frame comes before the bytes.  Where the host has none, OutOfMemory, and the page is as volatile as before.
Rule 3: tmem cannot be asked whether it holds a page; a get takes it out.  So `get_state` is a touch.
Rule 4: a missed page is remembered as discarded, not asked for again: a miss stays a miss (T26).

Potentially volatile pages have no counterpart: whether they may go is decided by a dirty bit, when the host needs the
frame, and a pool has the bytes of that moment at which they were put.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from guests.mappings.marks import Gfns
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import DiscardFault, OutOfMemory
from shm.pagestate import BYTE, DISCARDED, Essa, State
from shm.statemap import checked_gfns

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.pool import Pool

_VOLATILE = int(BYTE[State.Vr])


class MarksOnTmem:
    """Marks on the pages of a guest, which are all stable or unused when it is made.  `pool` is its own, ephemeral."""

    def __init__(self, guest: "Guest", pool: "Pool", oid: int = 0) -> None:
        self._memory, self._essa_one, self._counters = guest.memory, guest.essa_one, guest.counters
        self._pool, self._oid, self._pages = pool, oid, guest.pages
        self._kept = set[int]()                      # volatile: put, and not known to be gone
        self._gone = set[int]()                      # volatile, and discarded

    # marks

    def set_volatile(self, gfns: Gfns) -> None:
        """Put pages and give their frames up.  Unused ones have no bytes that could be put: they are discarded."""
        numbers = self._checked(gfns)
        fresh = numbers[[int(gfn) not in self._kept and int(gfn) not in self._gone for gfn in numbers]]
        unused = np.array([self._is_unused(int(gfn)) for gfn in fresh], bool)
        full = fresh[~unused]
        if len(full):
            stored = self._pool.put_many(self._oid, full, self._memory.read_many(full))
            self._kept.update(full[stored].tolist())
            self._gone.update(full[~stored].tolist())
            self._memory.balloon(full)
        self._gone.update(fresh[unused].tolist())

    def set_stable_if_not_discarded(self, gfns: Gfns) -> np.ndarray:
        """Take volatile pages back; return which were discarded (bool), and still are."""
        numbers = self._checked(gfns)
        kept = numbers[[int(gfn) in self._kept for gfn in numbers]]
        self._take_frames(kept)
        if len(kept):
            hits = self._bring_back(kept)
            self._memory.balloon(kept[~hits])
            self._kept.difference_update(kept.tolist())
            self._gone.update(kept[~hits].tolist())
        self._make_stable(numbers[[int(gfn) not in self._gone for gfn in numbers]])
        return np.array([int(gfn) in self._gone for gfn in numbers], bool)

    def set_stable(self, gfns: Gfns) -> None:
        """Take volatile pages back; the discarded are zero, and so are the unused."""
        numbers = self._checked(gfns)
        discarded = numbers[self.set_stable_if_not_discarded(numbers)]
        self._gone.difference_update(discarded.tolist())
        self._make_stable(discarded)

    def set_unused(self, gfns: Gfns) -> None:
        """Give pages up, bytes and frames."""
        numbers = self._checked(gfns)
        kept = numbers[[int(gfn) in self._kept for gfn in numbers]]
        if len(kept):
            self._pool.flush_many(self._oid, kept)
        self._kept.difference_update(numbers.tolist())
        self._gone.difference_update(numbers.tolist())
        self._memory.balloon(numbers)

    def get_state(self, gfn: int) -> int:
        """Return the state's byte, as ESSA gives it; of a volatile page by getting and putting it (Rule 3)."""
        self._checked([gfn])
        if gfn in self._kept:
            self._fetch(gfn)
        if gfn in self._gone:
            return DISCARDED
        return _VOLATILE if gfn in self._kept else self._essa_one(Essa.GET_STATE, gfn)

    # touches

    def read(self, gfn: int) -> bytes:
        """Return the 4096 bytes of a page; DiscardFault, AddressingException."""
        self._checked([gfn])
        return self._touched(gfn) if self._is_volatile(gfn) else self._memory.read(gfn)

    def write(self, gfn: int, data: bytes | np.ndarray) -> None:
        """Store a whole page; a volatile one stays volatile.  DiscardFault, AddressingException."""
        self._checked([gfn])
        if len(data) != PAGE_SIZE:
            raise ValueError(f"a page is {PAGE_SIZE} bytes, not {len(data)}")
        if self._is_volatile(gfn):
            self._touched(gfn, data)
        else:
            self._memory.write(gfn, data)

    def _touched(self, gfn: int, data: bytes | np.ndarray | None = None) -> bytes:
        """Return a volatile page, and have `data` in its place; a miss is a discard fault (R26)."""
        found = self._fetch(gfn, data)
        if found is None:
            self._counters[Count.DISCARD_FAULTS] += 1
            raise DiscardFault([gfn])
        return found

    def _fetch(self, gfn: int, data: bytes | np.ndarray | None = None) -> bytes | None:
        """Get a volatile page and put it again, or `data` in its place; None when it is gone."""
        found = self._pool.get(self._oid, gfn) if gfn in self._kept else None
        self._kept.discard(gfn)
        if found is not None and self._pool.put(self._oid, gfn, found if data is None else data):
            self._kept.add(gfn)
        else:
            self._gone.add(gfn)
        return found

    def _bring_back(self, gfns: np.ndarray) -> np.ndarray:
        """Get pages into frames that they have; return which came (bool).

        A frame that is lost again in between, and cannot be had, is a discard: the pool has let go of the bytes.
        """
        hits, pages = self._pool.get_many(self._oid, gfns)
        try:
            self._memory.write_many(gfns[hits], pages[hits])
        except OutOfMemory:
            hits[:] = False
        return hits

    # pages

    def _checked(self, gfns: Gfns) -> np.ndarray:
        return checked_gfns(gfns, self._pages)

    def _is_volatile(self, gfn: int) -> bool:
        return gfn in self._kept or gfn in self._gone

    def _is_unused(self, gfn: int) -> bool:
        return self._essa_one(Essa.GET_STATE, gfn) in (BYTE[State.Ur], BYTE[State.Uz])

    def _make_stable(self, gfns: Iterable[int]) -> None:
        for gfn in gfns:
            self._essa_one(Essa.SET_STABLE, int(gfn))

    def _take_frames(self, gfns: np.ndarray) -> None:
        """Have frames for pages, or raise before anything is got (Rule 2)."""
        if len(gfns) and not self._memory.deflate(gfns):
            raise OutOfMemory(f"{len(gfns)} pages: the hypervisor has no frames to take them back into")
