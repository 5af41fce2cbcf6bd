"""What a disk costs: a stated model, and the queue before it.  Both sides stand on it; nothing here reads or sleeps.

    none       nothing.  A read that the machine's page cache answers takes what it takes
    ssd        100 us, 8 requests at once, 500 MB/s.  A SATA drive: a 6 Gbit/s link brings 600 MB/s at the most, less
               what the protocol takes; 8 flash packages, as the drive that Agrawal et al. simulate (USENIX 2008)
    hdd        8 ms, one request at a time, 100 MB/s.  7,200 turns a minute are half a turn in 4.2 ms, the rest is the
               way of one arm.  Where the arm stands is not modelled: each request pays a mean seek
    network    1 ms, 16 requests at once, 117 MB/s.  A gigabit link without its headers; 16 slots, as Linux's RPC over
               TCP had them in 2009

A request is a run of neighbouring blocks.  It waits until a channel is free, then `latency_ns`, then for the link,
which carries one request's bytes after the other.  So latencies overlap as far as there are channels, bytes never.

The state of a queue is until when each channel is busy, and the link: in nanoseconds of whatever clock the caller has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

NANO = 1_000_000_000
VIRTUAL, WAITED = "virtual", "waited"
TIMES = (VIRTUAL, WAITED)


@dataclass(frozen=True, slots=True)
class DiskModel:
    """One kind of disk."""

    name: str
    latency_ns: int              # from a request's start to its first byte
    channels: int                # requests served at once
    bytes_per_s: int             # of the link that all share; 0: it takes no time

    @property
    def free(self) -> bool:
        return not self.latency_ns and not self.bytes_per_s

    def transfer_ns(self, pages: int) -> int:
        """Return how long the link is taken by so many pages."""
        return pages * PAGE_SIZE * NANO // self.bytes_per_s if self.bytes_per_s else 0

    def alone_ns(self, requests: int, pages: int) -> int:
        """Return what `requests` cost that came one after the other, `pages` in all: computed from the counts."""
        return requests * self.latency_ns + self.transfer_ns(pages)


NONE = DiskModel("none", 0, 1, 0)
MODELS: dict[str, DiskModel] = {model.name: model for model in (
    NONE,
    DiskModel("ssd", 100_000, 8, 500_000_000),
    DiskModel("hdd", 8_000_000, 1, 100_000_000),
    DiskModel("network", 1_000_000, 16, 117_000_000),
)}


class Busy(NamedTuple):
    """Until when the parts of a disk are busy."""

    channels: tuple[int, ...]
    link: int


def idle(model: DiskModel) -> Busy:
    """Return the state of a disk that never served anything."""
    return Busy((0,) * model.channels, 0)


def served(model: DiskModel, busy: Busy, now: int, lengths: Sequence[int]) -> tuple[Busy, int]:
    """Let requests of `lengths` pages come together at `now`; return the state then, and when the last is served."""
    channels, link, end = list(busy.channels), busy.link, now
    for pages in lengths:
        first = channels.index(min(channels))
        found = max(now, channels[first]) + model.latency_ns
        link = max(found, link) + model.transfer_ns(pages)
        channels[first] = link
        end = max(end, link)
    return Busy(tuple(channels), link), end


def model_named(name: str) -> DiskModel:
    """Return a model by its name; UsageProblem names those that there are."""
    if name not in MODELS:
        raise UsageProblem(f"there is no disk model {name!r}; allowed: {', '.join(MODELS)}")
    return MODELS[name]
