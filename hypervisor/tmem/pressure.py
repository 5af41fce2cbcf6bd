"""Pressure: what the store gives up when frames are wanted.

    evict       the oldest ephemeral pages go, whose is for `shares` to say
    write_back  the oldest persistent pages go to the swap disk (T70)
    compact     pages move together, so that slabs get empty

Rule 1: persistent pages are never given up; written back they are where a get finds them.
Rule 2: a page in a slot of a slab frees no frame by itself: whoever wants frames says how many, and whether to insist.
"""

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from hypervisor.tmem.clients import Client
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.forms import RAW_LIMIT
from hypervisor.tmem.shares import Standing, own_victims

if TYPE_CHECKING:
    from hypervisor.tmem.shelf import Shelf

_EVICTION_ROUNDS = 8         # frames are not freed by every eviction: how often to evict as many pages more
_COMPACTED = 1024            # stored pages moved together, to empty slabs, by whoever must have frames


class Pressure:
    """Takes pages of a shelf out of memory.  Written by the event loop alone, like the shelf."""

    def __init__(self, shelf: "Shelf") -> None:
        self.shelf = shelf
        self.requester: int | None = None                    # whose put looks for room now
        self._taken: dict[int | None, int] = {}              # room taken since it was last made good, and by whom

    def took(self, guest: int | None, count: int) -> None:
        """Note that a guest's puts, or something else (None), took room for so many pages."""
        if count:
            self._taken[guest] = self._taken.get(guest, 0) + count

    def forget(self, guest: int) -> None:
        """Note that a guest is gone: it asks for nothing any more."""
        self._taken.pop(guest, None)
        if self.requester == guest:
            self.requester = None

    def askers(self, frames: int) -> list[tuple[int | None, int]]:
        """Return who asks for which part of `frames` that are wanted: in the proportion of what each took.

        Not whoever came last: guests that put in turns would have one of them pay for all.
        """
        taken, self._taken = self._taken or {None: 1}, {}
        bounds = [0, *accumulate(taken.values())]
        parts = [high * frames // bounds[-1] - low * frames // bounds[-1] for low, high in pairwise(bounds)]
        return [(guest, part) for guest, part in zip(taken, parts, strict=True) if part]

    def evict(self, count: int) -> int:
        """Evict `count` ephemeral pages, or as many as there are; return how many went.

        The guest that asks pays while it is over its share, with more than asked; then the oldest go (`shares`).
        """
        if count <= 0 or not self.shelf.catalogue.ages.count:
            return 0
        self.shelf.counts[StoreCount.EA] += 1
        asking = self.shelf.clients.known(self.requester) if self.requester is not None else None
        went = self._evict_by_weight(asking, count) if asking is not None and asking.weight else 0
        return went + self._evict(self.shelf.catalogue.ages.oldest(max(0, count - went)))

    def _evict_by_weight(self, asking: Client, count: int) -> int:
        """Evict the asking guest's own pages while it is over its share, then the oldest of the others' (T58, T59)."""
        standing, quirks = self._standing(asking), self.shelf.rules.quirks
        went = self.evict_own(asking.number, own_victims(standing, count, quirks))
        if quirks or not standing.own:
            return went
        return went + self._evict(self.shelf.catalogue.ages.oldest_of_others(asking.number, max(0, count - went)))

    def _standing(self, client: Client) -> Standing:
        shelf = self.shelf
        return Standing(shelf.pages_of(client.number, persistent=False), shelf.catalogue.ages.count, client.weight,
                        shelf.clients.total_weight)

    def evict_own(self, owner: int, count: int) -> int:
        """Evict up to `count` of one guest's oldest ephemeral pages; return how many went."""
        return self._evict(self.shelf.catalogue.ages.oldest_of(owner, count)) if count > 0 else 0

    def _evict(self, pages: np.ndarray) -> int:
        if len(pages):
            self.shelf.drop_evicted(pages)
            self.shelf.counts[StoreCount.ET] += len(pages)
        return len(pages)

    def evict_frames(self, frames: int, insist: bool = False) -> int:
        """Evict until about `frames` frames more are spare in the heap; return how many pages went.

        A page in a slot of a slab frees a frame only with its neighbours, so it may take more pages than frames.
        """
        return self._free(frames, self.evict, insist)

    def _free(self, frames: int, give_up: Callable[[int], int], insist: bool) -> int:
        """Have `give_up(count)` take pages out of memory until `frames` frames more are to be had; return how many.

        All-zero pages, those that share a frame, and slots scattered over slabs free none.  `insist`: after a round
        without a frame slabs are emptied into others, and twice as many go, until it is enough or nothing is left.
        Never insist while a page is being stored: its slot may be in nobody's list yet, and must not be moved.
        """
        had = self._to_be_had()
        aim, went, batch, rounds = had + frames, 0, 0, 0
        while (missing := aim - had) > 0 and (insist or rounds < _EVICTION_ROUNDS):
            batch, rounds = max(missing, batch), rounds + 1
            gone = give_up(batch)
            went += gone
            if insist and self._to_be_had() == had:
                self.compact(_COMPACTED, thorough=True)
            batch, had = (2 * batch if insist and self._to_be_had() == had else 0), self._to_be_had()
            if not gone:
                break
        return went

    def _to_be_had(self) -> int:
        """Return the heap's free frames, and those that it has given back already."""
        return self.shelf.storage.heap.spare + self.shelf.storage.heap.ledger.free

    @property
    def lasting(self) -> int:
        """Persistent pages that may be written back to the swap disk now."""
        queue, swap = self.shelf.catalogue.lasting, self.shelf.storage.swap
        return 0 if queue is None or swap is None else min(queue.count, swap.free)

    def write_back(self, frames: int, insist: bool = False) -> int:
        """Write the oldest persistent pages to the swap disk (T70); return how many frames that made spare.

        A page that was written leaves the queue of those in memory; a get reads it from the disk and leaves it there.
        """
        before = self._to_be_had()
        self._free(frames, self.write_pages_back, insist)
        return self._to_be_had() - before

    def write_pages_back(self, count: int) -> int:
        """Write up to `count` persistent pages back; return how many went: none where the disk takes no more."""
        queue = self.shelf.catalogue.lasting
        pages = queue.oldest(count) if queue is not None else np.zeros(0, np.int64)
        if queue is None or not len(pages):
            return 0
        places = self.shelf.catalogue.places[pages]
        self.shelf.catalogue.places[pages] = moved = self.shelf.storage.write_back(places)
        gone = (moved != places) | (places == self.shelf.storage.zero)
        queue.leave(pages[gone])
        self.shelf.lasting_raw -= int(np.count_nonzero((moved != places) & (places < RAW_LIMIT)))
        return int(np.count_nonzero(gone))

    def compact(self, limit: int, thorough: bool = False) -> int:
        """Move up to `limit` pages out of sparse slabs, so that slabs get empty; return how many were moved."""
        moves = self.shelf.storage.compact(limit, thorough)
        if len(moves):
            stored = self.shelf.catalogue.stored()
            pages = stored[np.isin(self.shelf.catalogue.places[stored], moves[:, 0])]
            moves = moves[np.argsort(moves[:, 0])]
            at = np.searchsorted(moves[:, 0], self.shelf.catalogue.places[pages])
            self.shelf.catalogue.places[pages] = moves[at, 1]
        return len(moves)
