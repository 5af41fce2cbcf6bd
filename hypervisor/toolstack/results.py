"""What a phase hands over: plain values, frozen, so that `summary` is a pure function of them.

Memory is in bytes, times are seconds since "go" on the monotonic clock, counters are in pages unless their name says
otherwise.  `problems` are lines for people; a phase without any did all that was asked of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Memory(NamedTuple):
    """What psutil says of one process: all of it, the part that is mappings of the arena, and what is its alone."""

    rss: int
    pss: int
    arena_rss: int
    arena_pss: int
    uss: int = 0


@dataclass(frozen=True, slots=True)
class MapSample:
    """All processes at one moment.  A process that was gone is missing."""

    at: float
    hypervisor: Memory | None
    guests: Mapping[str, Memory]
    kernel_bytes: int | None     # the kernel's own count of the arena (st_blocks), from the hypervisor's list
    pagers: Mapping[str, Memory] = field(default_factory=dict)   # of guests in hardware mode, by the guest's name

    @property
    def arena_pss(self) -> int:
        return sum(memory.arena_pss for memory in self._all())

    @property
    def process_rss(self) -> int:
        return sum(memory.rss for memory in self._all())

    @property
    def process_pss(self) -> int:
        return sum(memory.pss for memory in self._all())

    def _all(self) -> list[Memory]:
        return [*self.guests.values(), *self.pagers.values(), *([self.hypervisor] if self.hypervisor else [])]


class SharedSample(NamedTuple):
    """Sum of memory_info().shared over all processes, less what was not the arena's at the start."""

    at: float
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class GuestResult:
    name: str
    workload: str
    ram: int                    # promised by the scenario
    ram_given: int              # under this scheme
    pid: int
    operations: int             # as reported; of a guest that failed, the last that was seen
    seconds: float | None       # real ones; None: it did not finish
    pages_verified: int
    mismatches: int
    exit_status: int | None     # as subprocess has it: -9 when killed by signal 9
    counters: Mapping[str, int] = field(default_factory=dict)
    virtual_seconds: float = 0.0             # that its clock was before the real one: what disks cost by the model
    cpu_seconds: float | None = None         # of the guest's process, at work; its pager's is not in it
    latency: Sequence[int] = ()              # a histogram of its operations' times by its own clock (`shm.latency`)

    @property
    def clock_seconds(self) -> float | None:
        """Return what its work took by its own clock: real time and virtual waits."""
        return None if self.seconds is None else self.seconds + self.virtual_seconds


@dataclass(frozen=True, slots=True)
class PhaseResult:
    label: str
    cluster: str
    budget: int
    seconds: float              # from go to the last guest's end of work
    guests: tuple[GuestResult, ...]
    samples: tuple[MapSample, ...]
    shared: tuple[SharedSample, ...]
    counters: Mapping[str, int]          # the hypervisor's own
    audit_checks: int
    max_drift_frames: int
    peak_frames: int
    kernel_peak_bytes: int
    problems: tuple[str, ...]
    tmem: Mapping[str, Any] = field(default_factory=dict)    # what the store held when the work was done, and refused
    cpu_seconds: float | None = None                         # of the hypervisor
