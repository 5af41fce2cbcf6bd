"""What a report needs to find in the files: models of their parts.  Other keys may be there; none is bent into shape.

A file that says something else is refused as a whole, so nothing behind this module meets a value of another kind.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Counters = Mapping[str, Annotated[int, Field(ge=-(1 << 63), lt=1 << 80)]]      # sums of what guests say


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Spread(_Told):
    """Bytes over the samples; None: nobody could tell."""

    mean: Count | None
    peak: Count | None


class Latency(_Told):
    """Nanoseconds of a guest's operations; `buckets` are those of `shm.latency`."""

    p50: Count | None = None
    p99: Count | None = None
    max: Count | None = None
    buckets: list[Count] = Field(default=[], max_length=1024)


class Guest(_Told):
    name: str
    workload: str
    ram_bytes: Count
    ram_given_bytes: Count
    operations: Count
    seconds: Number | None
    slowdown: Number | None
    pages_verified: Count
    mismatches: Count
    latency_ns: Latency


class BaselineGuest(_Told):
    seconds: Number | None
    operations: Count
    latency_ns: Latency


class Memory(_Told):
    """Of the arena: by one source, baseline and measured."""

    baseline_bytes: Spread
    measured_bytes: Spread
    saved_bytes: Whole | None
    saved_percent: Number | None


class ProcessMemory(_Told):
    pss_bytes: Spread
    rss_bytes: Spread


class Processes(_Told):
    baseline: ProcessMemory
    measured: ProcessMemory


class Baseline(_Told):
    budget_bytes: Count
    duration_s: Number
    counters: Counters
    guests: Mapping[str, BaselineGuest]


class Audit(_Told):
    checks: Count
    max_drift_frames: Count


class Arena(_Told):
    peak_frames: Count
    budget_frames: Count
    kernel_peak_bytes: Count


class Machine(_Told):
    cpus: Count | None = None
    kernel: str = ""
    python: str = ""


class Summary(_Told):
    """One scheme against the baseline: what `memcommons run` keeps, and each point of a comparison."""

    name: str
    scheme: str
    faults: str
    seed: Whole
    budget_bytes: Annotated[int, Field(gt=0)]
    duration_s: Number
    guests: Annotated[list[Guest], Field(min_length=1)]
    rss: Memory
    kernel: Memory
    processes: Processes
    arena: Arena
    counters: Counters
    audit: Audit
    baseline: Baseline
    disk: Mapping[str, Any] = {}
    machine: Machine
    problems: list[str]


class FailedRun(_Told):
    """A run of which no summary could be made."""

    name: str
    scheme: str
    failed: str
    problems: list[str]


class Holdings(_Told):
    """Frames at one moment, by owner and by state or part: see `toolstack.holdings`."""

    guests: Mapping[str, Mapping[str, Count]]
    tmem: Mapping[str, Count]
    free: Whole


class Walked(_Told):
    """What one process had mapped of the arena, bytes."""

    arena_pss: Count


class MapSample(_Told):
    phase: str
    kind: Literal["maps"]
    at: Number
    kernel_bytes: Count | None
    hypervisor: Walked | None
    guests: Mapping[str, Walked]
    pagers: Mapping[str, Walked] = {}
    frames: Holdings | None = None       # older runs do not have it

    @property
    def arena_pss(self) -> int:
        everybody = [*self.guests.values(), *self.pagers.values(), *([self.hypervisor] if self.hypervisor else [])]
        return sum(each.arena_pss for each in everybody)


class Mean(_Told):
    """A mean over seeds, and its 95 % interval where there is one."""

    mean: Number
    low: Number | None
    high: Number | None
    n: Count


class Cell(_Told):
    scheme: str
    overcommit: Positive
    finished: Count
    did_not_finish: list[str]
    figures: Mapping[str, Mean | None]


class Pair(_Told):
    overcommit: Positive
    first: str
    second: str
    verdict: str
    faster: str | None
    says: str


class Ran(_Told):
    scheme: str
    overcommit: Positive
    seed: Whole
    failed: str | None


class _Series(_Told):
    """What comparisons and searches have in common."""

    name: str
    faults: str
    disk: Mapping[str, Any]
    seeds: Annotated[list[Whole], Field(min_length=1)]
    seconds: Number | None = None
    operations: Count | None = None
    machine: Machine
    problems: list[str]


class Comparison(_Series):
    guests: Count
    ram_bytes: Count
    schemes: Annotated[list[str], Field(min_length=1)]
    overcommit: Annotated[list[Positive], Field(min_length=1)]
    cells: list[Cell]
    pairs: list[Pair]
    runs: list[Ran]


class FramesRow(_Told):
    at: Number
    frames: Mapping[str, Count]
    held: Holdings | None = None


class Point(_Told):
    """One finished run of a comparison."""

    failed: str | None
    summary: Summary | None = None
    frames: list[FramesRow] = []


class Tried(_Told):
    guests: Count
    fits: bool
    worst_slowdown: Number | None
    worst_guest: str | None
    failed: str | None
    promised: Number | None = None       # memory promised to these guests / budget


class Searched(_Told):
    scheme: str
    most: Count
    at_the_limit: bool
    at: Tried | None
    next: Tried | None
    contrary: list[Whole]
    tried: list[Tried]


class Density(_Series):
    slowdown: Number
    budget_bytes: Annotated[int, Field(gt=0)]
    limit: Count
    limit_why: str
    schemes: Annotated[list[Searched], Field(min_length=1)]


class Origin(_Told):
    command: str
    scenario: str
    text: str


Triple = tuple[Number, Number] | tuple[Number, Number, Number | None]


class CurveLine(_Told):
    name: str
    points: list[Triple]


class Curves(_Told):
    title: str
    x: str
    y: str
    lines: list[CurveLine]


class Claim(_Told):
    key: str
    who: str
    mail: str
    says: str
    setup: str
    criterion: str
    figure: str
    verdict: Literal["supported", "refuted", "depends", "not tested here"]
    why: str
    command: str
    work: str = ""                   # what was run, in words; older documents have none
    jobs: list[str]
    curves: list[Curves]


class Job(_Told):
    said: str
    seconds: Number | None
    failed: str | None


class Claims(_Told):
    quick: bool
    began: str
    took_s: Number
    machine: Mapping[str, Any]
    command: str
    claims: Annotated[list[Claim], Field(min_length=1)]
    jobs: Mapping[str, Job]


class Crossing(_Told):
    says: str


class CurvesRun(_Told):
    done: Count
    of: Count
    crossings: Mapping[str, list[Crossing]]
    comparisons: Annotated[Mapping[str, Comparison], Field(min_length=1)]
