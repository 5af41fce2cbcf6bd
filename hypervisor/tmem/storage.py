"""Storage: where the bytes of stored pages are, in whatever form (`forms`).

    raw      a frame of the heap                       any page; also what no other form makes shorter
    zero     nothing                                   all-zero pages, in every form but RAW
    lz4      a slot of a slab                          form LZ4, when that is smaller than a frame (T92)
    tze      a slot of a slab                          form TZE, when at most TZE_LONGEST bytes remain (T93)
    shared   a frame with users                        form DEDUP, ephemeral pages alone (T94)
    swapped  a slot of the hypervisor's swap disk      persistent pages, when they are written back (T70)

The catalogue keeps one place for each page, and only this file knows what a place means.

Rule 1: looking for room may evict, so `free`, `free_many` and `compact` may be called from inside `write`.  Sizes are
        decided and room is found before anything is written; frames in hand meanwhile are nobody else's.
Rule 2: a page that comes may lie in memory that a guest writes to.  It is copied before anything is decided by its
        content: lz4 of bytes that change meanwhile need not be what it can read back.
Rule 3: `rewrite` frees the old data before it looks for room: the caller has made the old place `zero` by then.

`shared_across` shares equal pages of different groups too.  It is off by default: the time that a put takes would tell
a guest what other guests hold.  One writer, the event loop.
"""

from dataclasses import dataclass

import numpy as np

from hypervisor.swap import SwapDisk
from hypervisor.tmem.dedup import Shared
from hypervisor.tmem.forms import (
    KIND_SHIFT,
    RAW_LIMIT,
    TZE_LONGEST,
    ZERO_PLACE,
    Form,
    Kind,
    at_of,
    ats_of,
    kinds_of,
    length_of,
    lengths_of,
    pack,
    pack_one,
    places_of,
    unpack,
)
from hypervisor.tmem.heap import Heap
from hypervisor.tmem.numbers import among
from hypervisor.tmem.slabs import PAYING, TAG_BYTES, Slabs
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant

_BATCH = 256                 # pages written back at once
_KINDS = {Form.LZ4: Kind.LZ4, Form.TZE: Kind.TZE}
_LONGEST = {Form.LZ4: PAYING, Form.TZE: TZE_LONGEST}         # longer data: the page stays raw
_PACKED = (int(Kind.LZ4), int(Kind.TZE))


@dataclass
class GroupCounts:
    """What compression did for one group, under the letters of Xen's list format."""

    cn: int = 0              # pages kept raw because they compress poorly
    cm: int = 0              # pages put one by one and refused for want of room for their compressed data


class Storage:
    """The bytes of stored pages, in frames of `heap` and slots of `swap`."""

    zero = ZERO_PLACE

    def __init__(self, heap: Heap, swap: SwapDisk | None = None, shared_across: bool = False) -> None:
        self.heap = heap
        self.swap = swap
        self.slabs = Slabs(heap)
        self.shared = Shared(heap, shared_across)
        self.groups: dict[int, GroupCounts] = {}
        self.swapped = 0                                     # pages on the swap disk

    def counts_of(self, group: int) -> GroupCounts:
        return self.groups.setdefault(group, GroupCounts())

    def forget(self, group: int) -> None:
        """Forget the counters of a group."""
        self.groups.pop(group, None)

    @property
    def nbytes(self) -> int:
        """Bytes of metadata."""
        return self.slabs.nbytes + self.shared.nbytes

    # write

    def write(self, form: Form, group: int, page: np.ndarray, persistent: bool) -> int | None:
        """Store a copy of `page` (4096,) and return its place, or None when there is no room."""
        if form == Form.RAW:
            return self._write_raw(page)
        return self._write_own(form, group, page.copy(), persistent)

    def _write_own(self, form: Form, group: int, page: np.ndarray, persistent: bool, alone: bool = True) -> int | None:
        if form == Form.DEDUP:
            return self._write_shared(group, page, persistent)
        data = pack_one(form, page)
        if not data:
            return self.zero
        if len(data) > _LONGEST[form]:
            return self._write_poor(form, group, page)
        class_ = self.slabs.find_class(len(data))
        if class_ is None:
            self.counts_of(group).cm += alone and form == Form.LZ4
            return None
        return self.slabs.fill_one(_KINDS[form], class_, data)

    def _write_raw(self, page: np.ndarray) -> int | None:
        frame = self.heap.take(1)
        if not frame:
            return None
        self.heap.pages[frame[0]] = page
        return frame[0]

    def _write_poor(self, form: Form, group: int, page: np.ndarray) -> int | None:
        place = self._write_raw(page)
        self.counts_of(group).cn += form == Form.LZ4 and place is not None
        return place

    def _write_shared(self, group: int, page: np.ndarray, persistent: bool) -> int | None:
        if not page.any():
            return self.zero
        if persistent:
            return self._write_raw(page)
        key = self.shared.key(group, page)
        number = self.shared.join(key, page)
        if number is None:
            frame = self._write_raw(page)
            number = self.shared.add(key, frame) if frame is not None else None
            if number is None:                               # no room, or its fingerprint is another page's
                return frame
        return Kind.SHARED << KIND_SHIFT | number

    def write_many(self, form: Form, group: int, pages: np.ndarray, persistent: bool) -> np.ndarray:
        """Store copies of `pages` (n, 4096); return the places (uint64) of a prefix, which ends where room does."""
        if form == Form.RAW:
            frames = np.array(self.heap.take(len(pages)), np.int64)
            self.heap.pages[frames] = pages[:len(frames)]
            return frames.view(np.uint64)
        own = pages.copy()
        places = None if form == Form.DEDUP else self._write_packed(form, group, own)
        return self._write_each(form, group, own, persistent) if places is None else places

    def _write_each(self, form: Form, group: int, pages: np.ndarray, persistent: bool) -> np.ndarray:
        places = []
        for page in pages:
            place = self._write_own(form, group, page, persistent, alone=False)
            if place is None:
                break
            places.append(place)
        return np.array(places, np.uint64)

    def _write_packed(self, form: Form, group: int, pages: np.ndarray) -> np.ndarray | None:
        """Store all pages in form LZ4 or TZE; None: there is no room for all, and nothing was done."""
        data, lengths = pack(form, pages)
        is_poor = lengths > _LONGEST[form]
        poor, packed = is_poor.nonzero()[0], (~is_poor & (lengths > 0)).nonzero()[0]
        frames = self.heap.take(len(poor))
        classes = self.slabs.reserve(lengths[packed]) if len(frames) == len(poor) else None
        if classes is None:
            self.heap.give(frames)
            return None
        self.counts_of(group).cn += len(poor) if form == Form.LZ4 else 0
        self.heap.pages[frames] = pages[poor]
        places = np.full(len(pages), ZERO_PLACE, np.uint64)
        places[poor] = frames
        kept = data if len(packed) == len(data) else [data[row] for row in packed.tolist()]
        places[packed] = self.slabs.fill(_KINDS[form], classes, lengths[packed], kept)
        return places

    def rewrite(self, place: int, form: Form, group: int, page: np.ndarray, persistent: bool) -> int | None:
        """Store a copy of `page` instead of the data at `place`; None: no room, and the old data is gone too."""
        if form == Form.RAW and place < RAW_LIMIT:
            self.heap.pages[place] = page
            return place
        self.free(place)
        return self.write(form, group, page, persistent)

    def rewrite_many(self, places: np.ndarray, form: Form, pages: np.ndarray) -> bool:
        """Store copies of `pages` in place, if all are raw and stay so; False: nothing was done."""
        if form != Form.RAW or (len(places) and places.max() >= RAW_LIMIT):
            return False
        self.heap.pages[places] = pages
        return True

    # read

    def read(self, place: int, out: np.ndarray) -> None:
        """Copy the page at `place` to `out` (4096,).  OSError when the swap disk fails."""
        if place < RAW_LIMIT:
            out[:] = self.heap.pages[place]
            return
        kind = place >> KIND_SHIFT
        if kind in _PACKED:
            start = at_of(place) + TAG_BYTES
            unpack(kind, self.heap.pages.reshape(-1).data[start:start + length_of(place)], out.data)
        else:
            self.read_many(np.array([place], np.uint64), out.reshape(1, -1), np.zeros(1, np.int64))

    def read_many(self, places: np.ndarray, out: np.ndarray, slots: np.ndarray) -> None:
        """Copy pages to rows `slots` of `out` (m, 4096), rows without gaps.  OSError when the swap disk fails."""
        if not len(places) or places.max() < RAW_LIMIT:
            self.heap.gather(places.view(np.int64), out, slots)
            return
        kinds, ats = kinds_of(places), ats_of(places)
        for kind in among(kinds):
            rows = (kinds == kind).nonzero()[0]
            if kind in _PACKED:
                self.slabs.read(kind, places[rows], out, slots[rows])
            elif kind == Kind.ZERO:
                out[slots[rows]] = 0
            elif kind == Kind.SWAPPED:
                assert self.swap is not None
                out[slots[rows]] = self.swap.read(ats[rows])
            else:
                frames = ats[rows] if kind == Kind.RAW else self.shared.frames[ats[rows]]
                self.heap.gather(frames, out, slots[rows])

    # free

    def free(self, place: int) -> None:
        """Let go of the data at `place`."""
        if place < RAW_LIMIT:
            self.heap.give([place])
        elif place >> KIND_SHIFT in _PACKED:
            self.slabs.free_one(place)
        elif place != ZERO_PLACE:
            self.free_many(np.array([place], np.uint64))

    def free_many(self, places: np.ndarray) -> None:
        """Let go of the data at `places`, one user's each."""
        if not len(places) or places.max() < RAW_LIMIT:
            self.heap.give(places.tolist())
            return
        kinds = kinds_of(places)
        for kind in among(kinds):
            self._free_kind(kind, places[kinds == kind])

    def _free_kind(self, kind: int, places: np.ndarray) -> None:
        if kind == Kind.RAW:
            self.heap.give(places.tolist())
        elif kind in (Kind.LZ4, Kind.TZE):
            self.slabs.free(places)
        elif kind == Kind.SHARED:
            self.shared.leave(ats_of(places))
        elif kind == Kind.SWAPPED:
            assert self.swap is not None
            self.swap.release(ats_of(places))
            self.swapped -= len(places)
        elif kind != Kind.ZERO:
            raise BrokenInvariant(f"a place of kind {kind} freed, which is none")

    # move

    def compact(self, limit: int, thorough: bool = False) -> np.ndarray:
        """Move up to `limit` pages out of sparse slabs; return (n, 2) places, old and new, for the caller to enter."""
        return self.slabs.compact(limit, thorough)

    def write_back(self, places: np.ndarray) -> np.ndarray:
        """Move persistent pages to the swap disk; return their new places.

        What is not in the heap, finds no slot, or cannot be written keeps its place.
        """
        moved = places.copy()
        kinds = kinds_of(places)
        rows = np.flatnonzero((kinds == Kind.RAW) | (kinds == Kind.LZ4) | (kinds == Kind.TZE))
        for first in range(0, len(rows), _BATCH):
            batch = rows[first:first + _BATCH]
            fresh = self._swap_out(places[batch])
            moved[batch[:len(fresh)]] = fresh
            if len(fresh) < len(batch):
                break
        return moved

    def _swap_out(self, places: np.ndarray) -> np.ndarray:
        """Write pages to the swap disk and free what they had; return the places of those that found a slot."""
        if self.swap is None:
            return places[:0]
        slots = self.swap.allocate(len(places))
        pages = np.empty((len(slots), PAGE_SIZE), np.uint8)
        self.read_many(places[:len(slots)], pages, np.arange(len(slots)))
        try:
            self.swap.write(slots, pages)
        except OSError:
            self.swap.release(slots)
            return places[:0]
        self.free_many(places[:len(slots)])
        self.swapped += len(slots)
        return places_of(Kind.SWAPPED, slots)

    # what there is

    def tally(self, places: np.ndarray) -> np.ndarray:
        """Return (kinds, 2): how many pages of each kind are among `places`, and their bytes in slots of slabs.

        For one guest's places: cp is the LZ4 pages, cb their bytes.
        """
        kinds = kinds_of(places)
        packed = np.where((kinds == Kind.LZ4) | (kinds == Kind.TZE), lengths_of(places), 0)
        data = np.bincount(kinds, packed, len(Kind)).astype(np.int64)
        return np.column_stack((np.bincount(kinds, minlength=len(Kind)), data))

    @property
    def raw(self) -> int:
        """Pages in frames of their own."""
        return self.heap.in_use - self.slabs.frames - len(self.shared)

    def figures(self) -> dict[str, int | float]:
        """Return what is stored now.  All-zero pages cost nothing and are not counted: `tally` finds them."""
        pages, data = self.slabs.pages.tolist(), self.slabs.data_bytes.tolist()
        held = self.slabs.frames * PAGE_SIZE
        return {
            "raw_pages": self.raw, "cp": pages[Kind.LZ4], "cb": data[Kind.LZ4], "Gz": data[Kind.LZ4],
            "cn": sum(counts.cn for counts in self.groups.values()), "tze_pages": pages[Kind.TZE],
            "Zt": data[Kind.TZE], "shared_pages": self.shared.pages, "Sc": len(self.shared), "Gd": self.shared.puts,
            "swapped_pages": self.swapped, "slab_frames": self.slabs.frames,
            "slots_used": int(self.slabs.used.sum()), "slots_free": int(self.slabs.free_slots.sum()),
            "fragmentation": 1 - sum(data) / held if held else 0.0,
        }

    def audit(self, places: np.ndarray | None = None) -> list[str]:
        """Recount; return what does not add up.  `places` are those of all stored pages, to be held against it."""
        problems = self.slabs.audit() + self.shared.audit()
        if self.raw < 0:
            problems.append(f"storage: {-self.raw} frames too few for slabs and shared pages")
        if places is None:
            return problems
        kinds, ats = kinds_of(places), ats_of(places)
        frames, swapped = ats[kinds == Kind.RAW], ats[kinds == Kind.SWAPPED]
        slots = places[(kinds == Kind.LZ4) | (kinds == Kind.TZE)]
        users = np.bincount(ats[kinds == Kind.SHARED], minlength=len(self.shared.users))
        sound = {
            "raw frames": len(np.unique(frames)) == len(frames) == self.raw,
            "slots": np.array_equal(np.sort(slots), np.sort(self.slabs.places())),
            "users of shared frames": np.array_equal(users, self.shared.users),
            "swapped pages": len(np.unique(swapped)) == len(swapped) == self.swapped,
        }
        return problems + [f"storage: {what} are not what the places say" for what, holds in sound.items() if not holds]
