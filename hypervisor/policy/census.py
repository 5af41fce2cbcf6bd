"""What a reclaim policy is told and what it answers.  Plain data; nothing here knows a guest or the store."""

from dataclasses import dataclass

import numpy as np

EPHEMERAL = -1               # the tmem store's place in the ring of the clock; guests are numbered from 0


@dataclass(frozen=True, slots=True)
class Hand:
    """Where the clock stands: a guest (or EPHEMERAL) and a page of it.  A guest that left is stepped over."""

    owner: int = EPHEMERAL
    page: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """One guest's pages, arrays of one item a page."""

    owner: int
    states: np.ndarray           # uint8, pagestate.State
    referenced: np.ndarray       # bool: accessed since the hand came by
    grace: np.ndarray            # bool: granted a moment ago


@dataclass(frozen=True, slots=True)
class Census:
    guests: tuple[Holding, ...]  # sorted by owner
    ephemeral: int               # frames of ephemeral tmem pages, evictable oldest first
    aged: int                    # of these: put (or moved to the young end) before the hand's last visit
    heap_free: int               # free frames that the tmem heap keeps resident
    can_preserve: bool           # there is a swap disk with room
    hand: Hand
    lasting: int = 0             # persistent tmem pages that may be written back to the swap disk


@dataclass(frozen=True, slots=True)
class Plan:
    """Do in this order: trim the heap, evict, evict ephemeral pages, write back; then note what the hand has passed."""

    hand: Hand
    trim: int = 0                                            # free heap frames to give back
    evict: tuple[tuple[int, np.ndarray], ...] = ()           # (owner, sorted pages) to take frames from
    ephemeral: int = 0                                       # frames to free by evicting the oldest ephemeral pages
    write_back: int = 0                                      # oldest persistent pages to write to the swap disk
    unreference: tuple[tuple[int, np.ndarray], ...] = ()     # (owner, pages) whose referenced bit the hand clears
    passed_ephemeral: bool = False                           # the hand passed the store: what is there now is aged

    @property
    def frames(self) -> int:
        """Frames that the plan frees if all goes as it hopes."""
        return self.trim + self.ephemeral + self.write_back + sum(len(pages) for _, pages in self.evict)
