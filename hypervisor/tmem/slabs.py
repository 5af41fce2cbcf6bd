"""Slabs: slots for pieces of data shorter than a page, packed in runs of frames of the heap.

    slab     one run of the heap, cut into equal slots; its number is its first frame / RUN
    class    a slot size; a slab is all of one class, so data above half a page still pays (7 slots in 4 frames)
    slot     2 bytes of tag, then the data; tag 0: free
    tag      kind << 12 | length: what a place says of the slot, so `place == tag << 44 | offset`

What is known of a slab beside its tags is its class and how many slots are used: 3 bytes.  Partial slabs are filled
before a new one is made, the one that became partial first before the others.  An empty slab goes back to the heap.

Rule 1: looking for room may evict, and evicting frees slots here.  So `reserve` and `grow` hold nothing while the heap
        looks for frames; `fill` writes tags and data and looks for nothing.
Rule 2: between `reserve` and `fill` new slabs may be empty; those that stay so are given back.

One writer, the storage.
"""

import sys

import numpy as np
from lz4.block import decompress

from hypervisor.tmem.forms import LENGTH_MASK, LENGTH_SHIFT, Kind, at_of, ats_of, kinds_of, lengths_of, unpack
from hypervisor.tmem.heap import RUN, Heap
from hypervisor.tmem.numbers import among
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant

SLAB_BYTES = RUN * PAGE_SIZE
TAG_BYTES = 2
_TAG_KIND_SHIFT = 12
_SLAB_SHIFT = SLAB_BYTES.bit_length() - 1
# Slots a slab, by class.  The first differ by one, then the steps widen: a class costs a partly filled slab.
_SLOTS = np.array([256, 128, 96, 64, 48, 40, 32, 28, 24, 20, 18, *range(16, 3, -1)], np.int64)
SLOT_BYTES = SLAB_BYTES // _SLOTS // 8 * 8
CLASSES = len(_SLOTS)
LONGEST = int(SLOT_BYTES[-1]) - TAG_BYTES        # the longest data that a slot holds
PAYING = int(SLOT_BYTES[-2]) - TAG_BYTES         # the longest with which a slot is smaller than a frame
CLASS_OF = np.searchsorted(SLOT_BYTES, np.arange(LONGEST + 1) + TAG_BYTES)       # by length
_EVERY = [np.arange(slots) for slots in _SLOTS]
_COUNTS, _STEPS = _SLOTS.tolist(), (SLOT_BYTES // TAG_BYTES).tolist()            # slots, and tags from slot to slot
_NO_CLASS = 255
_SLACK = 4                                       # compaction starts when one slot in this many is free


class Slabs:
    """Slots in `heap`."""

    def __init__(self, heap: Heap) -> None:
        self.heap = heap
        self.count = np.zeros(CLASSES, np.int64)             # slabs, by class
        self.used = np.zeros(CLASSES, np.int64)              # slots in use, by class
        self.pages = np.zeros(len(Kind), np.int64)           # slots in use, by kind
        self.data_bytes = np.zeros(len(Kind), np.int64)      # in slots in use, by kind
        self._class = np.zeros(0, np.uint8)                  # by slab
        self._used = np.zeros(0, np.uint16)                  # by slab
        self._partial: list[dict[int, None]] = [{} for _ in range(CLASSES)]      # slabs with a free slot, in order
        self._fresh: list[int] = []                          # slabs made since the last fill

    @property
    def frames(self) -> int:
        return RUN * int(self.count.sum())

    @property
    def free_slots(self) -> np.ndarray:
        """Free slots, by class."""
        return self.count * _SLOTS - self.used

    @property
    def nbytes(self) -> int:
        return self._class.nbytes + self._used.nbytes + sum(map(sys.getsizeof, self._partial))

    def _tags(self) -> np.ndarray:
        """Return the heap as tags: of the slot at byte `offset`, the tag is item `offset / 2`."""
        return self.heap.pages.reshape(-1).view(np.uint16)

    def _tags_of(self, slab: int, class_: int) -> np.ndarray:
        """Return a view of the tags of one slab."""
        first, step = slab * SLAB_BYTES // TAG_BYTES, _STEPS[class_]
        return self._tags()[first:first + step * _COUNTS[class_]:step]

    # room

    def reserve(self, lengths: np.ndarray) -> np.ndarray | None:
        """Find slots for data of all these lengths; return their classes, or None when there is no room for all."""
        classes = CLASS_OF[lengths]
        needed = np.bincount(classes, minlength=CLASSES)
        while True:                              # making room for one class may empty slabs of another
            short = needed - self.free_slots
            if short.max() <= 0:
                return classes
            class_ = int(short.argmax())
            for _ in range(-(-int(short[class_]) // _COUNTS[class_])):
                if not self.grow(class_):
                    self._settle()
                    return None

    def grow(self, class_: int) -> bool:
        """Make one more slab; say whether there was room."""
        first = self.heap.take_run()
        if first is None:
            return False
        slab = first // RUN
        if slab >= len(self._class):
            self._cover(slab)
        self._class[slab], self._used[slab] = class_, 0
        self._tags_of(slab, class_).fill(0)
        self.count[class_] += 1
        self._partial[class_][slab] = None
        self._fresh.append(slab)
        return True

    def _cover(self, slab: int) -> None:
        missing = max(slab + 1, 2 * len(self._class)) - len(self._class)
        self._class = np.concatenate((self._class, np.full(missing, _NO_CLASS, np.uint8)))
        self._used = np.concatenate((self._used, np.zeros(missing, np.uint16)))

    def find_class(self, length: int) -> int | None:
        """Find a slot for one piece of data, a larger one if need be; return its class, or None: no room."""
        class_ = int(CLASS_OF[length])
        if self._partial[class_] or self.grow(class_):
            return class_
        return next((other for other in range(class_, CLASSES) if self._partial[other]), None)

    # in and out

    def fill(self, kind: Kind, classes: np.ndarray, lengths: np.ndarray, data: list[bytes | memoryview]) -> np.ndarray:
        """Write data to slots of classes that were reserved just now; return the places (uint64)."""
        offsets = np.empty(len(classes), np.int64)
        for class_ in among(classes):
            rows = (classes == class_).nonzero()[0]
            offsets[rows] = self._claim(class_, len(rows))
        tags = lengths | kind << _TAG_KIND_SHIFT
        self._tags()[offsets // TAG_BYTES] = tags
        self._count(tags, 1)
        memory = self.heap.pages.reshape(-1).data
        for start, piece in zip((offsets + TAG_BYTES).tolist(), data, strict=True):
            memory[start:start + len(piece)] = piece
        self._settle()
        return tags.astype(np.uint64) << np.uint64(LENGTH_SHIFT) | offsets.astype(np.uint64)

    def fill_one(self, kind: Kind, class_: int, piece: bytes | memoryview) -> int:
        """Write one piece of data, as `fill` does."""
        offset, tag = self._claim_one(class_), len(piece) | kind << _TAG_KIND_SHIFT
        memory = self.heap.pages.reshape(-1)
        memory[offset:offset + TAG_BYTES].view(np.uint16)[0] = tag
        memory.data[offset + TAG_BYTES:offset + TAG_BYTES + len(piece)] = piece
        self.pages[kind] += 1
        self.data_bytes[kind] += len(piece)
        self._settle()
        return tag << LENGTH_SHIFT | offset

    def _claim(self, class_: int, count: int) -> np.ndarray:
        """Return the offsets of `count` free slots, which are there; the caller writes their tags at once."""
        found, missing = [], count
        while missing:
            slab = next(iter(self._partial[class_]))
            slots = self._free_in(slab, class_)[:missing]
            found.append(slab * SLAB_BYTES + slots * SLOT_BYTES[class_])
            self._take_slots(slab, class_, len(slots))
            missing -= len(slots)
        return np.concatenate(found) if len(found) > 1 else found[0]

    def _free_in(self, slab: int, class_: int) -> np.ndarray:
        return (self._tags_of(slab, class_) == 0).nonzero()[0] if self._used[slab] else _EVERY[class_]

    def _claim_one(self, class_: int) -> int:
        slab = next(iter(self._partial[class_]))
        slot = int((self._tags_of(slab, class_) == 0).argmax()) if self._used[slab] else 0
        self._take_slots(slab, class_, 1)
        return slab * SLAB_BYTES + slot * int(SLOT_BYTES[class_])

    def _take_slots(self, slab: int, class_: int, count: int) -> None:
        self._used[slab] += count
        self.used[class_] += count
        if self._used[slab] == _SLOTS[class_]:
            del self._partial[class_][slab]

    def _settle(self) -> None:
        """Give back new slabs that nothing was written to."""
        if self._fresh:
            self._drop([slab for slab in self._fresh if not self._used[slab]])
            self._fresh = []

    def read(self, kind: int, places: np.ndarray, out: np.ndarray, slots: np.ndarray) -> None:
        """Unpack the data of places of one kind to rows `slots` of `out` (m, 4096), rows without gaps."""
        memory, rows = self.heap.pages.reshape(-1).data, out.data.cast("B")
        starts, tops = ats_of(places) + TAG_BYTES, slots * PAGE_SIZE
        parts = zip(starts.tolist(), (starts + lengths_of(places)).tolist(), tops.tolist(), strict=True)
        if kind == Kind.LZ4:                     # `unpack`, written out: its call costs a tenth of a get
            for start, end, top in parts:
                rows[top:top + PAGE_SIZE] = decompress(memory[start:end], uncompressed_size=PAGE_SIZE)
            return
        for start, end, top in parts:
            unpack(kind, memory[start:end], rows[top:top + PAGE_SIZE])

    def free_one(self, place: int) -> None:
        """Free the slot of one place."""
        offset, tag = at_of(place), place >> LENGTH_SHIFT
        where = self.heap.pages.reshape(-1)[offset:offset + TAG_BYTES].view(np.uint16)
        if where[0] != tag:
            raise BrokenInvariant(f"a slot freed at {offset} that does not hold what its place says")
        where[0] = 0
        kind, slab = tag >> _TAG_KIND_SHIFT, offset >> _SLAB_SHIFT
        self.pages[kind] -= 1
        self.data_bytes[kind] -= tag & LENGTH_MASK
        class_, used = int(self._class[slab]), int(self._used[slab])
        self.used[class_] -= 1
        self._used[slab] = used - 1
        if used == _SLOTS[class_]:
            self._partial[class_][slab] = None
        if used == 1:
            self._drop([slab])

    def free(self, places: np.ndarray) -> None:
        """Free the slots of places, all different."""
        self._free(ats_of(places), (places >> np.uint64(LENGTH_SHIFT)).astype(np.int64))

    def _free(self, offsets: np.ndarray, tags: np.ndarray) -> None:
        at = offsets // TAG_BYTES
        if (self._tags()[at] != tags).any():
            raise BrokenInvariant(f"slots freed that do not hold what their places say: among {offsets[:4]}")
        self._tags()[at] = 0
        self._count(tags, -1)
        slabs, counts = np.unique(offsets >> _SLAB_SHIFT, return_counts=True)
        classes = self._class[slabs].astype(np.int64)
        np.subtract.at(self.used, classes, counts)
        self._used[slabs] -= counts.astype(np.uint16)
        self._list(slabs, classes, self._used[slabs] + counts == _SLOTS[classes])

    def _list(self, slabs: np.ndarray, classes: np.ndarray, were_full: np.ndarray) -> None:
        """Enter slabs that are full no more as partial, and drop the empty ones."""
        for slab, class_ in zip(slabs[were_full].tolist(), classes[were_full].tolist(), strict=True):
            self._partial[class_][slab] = None
        self._drop(slabs[self._used[slabs] == 0].tolist())

    def _drop(self, slabs: list[int]) -> None:
        """Give empty slabs back to the heap."""
        for slab in slabs:
            class_ = int(self._class[slab])
            del self._partial[class_][slab]
            self.count[class_] -= 1
            self._class[slab] = _NO_CLASS
        if slabs:
            self.heap.give_runs([slab * RUN for slab in slabs])

    def _count(self, tags: np.ndarray, sign: int) -> None:
        kinds, lengths = tags >> _TAG_KIND_SHIFT, tags & LENGTH_MASK
        self.pages += sign * np.bincount(kinds, minlength=len(Kind))
        self.data_bytes += sign * np.bincount(kinds, lengths, len(Kind)).astype(np.int64)

    # compaction

    def compact(self, limit: int, thorough: bool = False) -> np.ndarray:
        """Move up to `limit` pieces of data so that sparse slabs get empty; return (n, 2) places, old and new.

        A class is left alone while less than 1 / _SLACK of its slots are free; not so if `thorough`.
        """
        moved = [np.zeros((0, 2), np.uint64)]
        if self._fresh:                          # a write is looking for room and has counted on what is free
            return moved[0]
        sparse = self.free_slots >= _SLOTS if thorough else self.free_slots * _SLACK > self.count * _SLOTS
        for class_ in np.flatnonzero(sparse).tolist():
            partial = sorted(self._partial[class_], key=self._used.__getitem__, reverse=True)
            self._partial[class_] = dict.fromkeys(partial)   # the fullest is filled first, and what moved stays there
            while self.free_slots[class_] >= _SLOTS[class_] and self._used[partial[-1]] <= limit:
                moved.append(self._empty(partial.pop(), class_))
                limit -= len(moved[-1])
            if not limit:
                break
        return np.concatenate(moved)

    def _empty(self, slab: int, class_: int) -> np.ndarray:
        """Move all that is in one slab to others of its class, which have the room."""
        tags, size = self._tags_of(slab, class_), int(SLOT_BYTES[class_])
        slots = np.flatnonzero(tags)
        old, kept = slab * SLAB_BYTES + slots * size, tags[slots].astype(np.int64)
        del self._partial[class_][slab]
        new = self._claim(class_, len(old))
        self._partial[class_][slab] = None
        memory = self.heap.pages.reshape(-1).data
        for source, target in zip(old.tolist(), new.tolist(), strict=True):
            memory[target:target + size] = memory[source:source + size]
        self._count(kept, 1)
        self._free(old, kept)
        high = kept.astype(np.uint64) << np.uint64(LENGTH_SHIFT)
        return np.column_stack((high | old.astype(np.uint64), high | new.astype(np.uint64)))

    # audit

    def places(self) -> np.ndarray:
        """Return the places of all slots in use, by a look at every tag."""
        found = [np.zeros(0, np.uint64)]
        for slab in np.flatnonzero(self._class != _NO_CLASS).tolist():
            class_ = int(self._class[slab])
            tags = self._tags_of(slab, class_)
            slots = np.flatnonzero(tags)
            offsets = slab * SLAB_BYTES + slots * SLOT_BYTES[class_]
            found.append(tags[slots].astype(np.uint64) << np.uint64(LENGTH_SHIFT) | offsets.astype(np.uint64))
        return np.concatenate(found)

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        places, slabs = self.places(), np.flatnonzero(self._class != _NO_CLASS)
        classes = self._class[slabs]
        used = np.bincount(ats_of(places) >> _SLAB_SHIFT, minlength=len(self._used))
        kinds, lengths = kinds_of(places), lengths_of(places)
        partial = {slab for listed in self._partial for slab in listed}
        sound = {
            "slots used, by slab": (used[slabs] == self._used[slabs]).all() and (used[slabs] > 0).all(),
            "slabs, by class": (np.bincount(classes, minlength=CLASSES) == self.count).all(),
            "slots used, by class": (np.bincount(classes, used[slabs], CLASSES) == self.used).all(),
            "slots used, by kind": (np.bincount(kinds, minlength=len(Kind)) == self.pages).all(),
            "bytes, by kind": (np.bincount(kinds, lengths, len(Kind)) == self.data_bytes).all(),
            "partial slabs": partial == set(slabs[used[slabs] < _SLOTS[classes]].tolist()),
        }
        return [f"slabs: {what} do not add up" for what, holds in sound.items() if not holds]
