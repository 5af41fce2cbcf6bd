"""Counters of the whole store, and the most there ever was of each thing."""

from dataclasses import dataclass
from enum import IntEnum


class StoreCount(IntEnum):
    """Counters of the whole store, under the letters of Xen's list format."""

    TT = 0                   # operations
    TE = 1                   # of these, answered with a negative status
    CF = 2                   # copies that failed: a bad frame of the guest's
    AF = 3                   # allocations of metadata that failed
    PF = 4                   # puts that found no frame
    ET = 5                   # pages evicted
    EA = 6                   # times that eviction was asked for
    RT = 7                   # frames given back on request
    RA = 8                   # such requests
    RX = 9                   # the most evictions for one
    FP = 10                  # pools flushed whole
    EP = 11                  # ephemeral puts stored under a new handle


@dataclass(slots=True)
class Most:
    """The most that a shelf ever held, looked at after each put under a new handle."""

    pages: int = 0
    ephemeral: int = 0
    objects: int = 0
    frames: int = 0
    shared: int = 0          # frames that several pages share

    def note(self, pages: int, ephemeral: int, objects: int, frames: int, shared: int) -> None:
        if (pages > self.pages or ephemeral > self.ephemeral or objects > self.objects or frames > self.frames
                or shared > self.shared):                    # seldom, once a store is full: every put asks
            self.pages, self.ephemeral = max(self.pages, pages), max(self.ephemeral, ephemeral)
            self.objects, self.frames = max(self.objects, objects), max(self.frames, frames)
            self.shared = max(self.shared, shared)
