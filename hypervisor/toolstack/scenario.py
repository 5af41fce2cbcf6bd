"""What a scenario is: the tables that a person may write, as models that refuse everything else.

Rule 1: an unknown key is an error, in every table; a value of another type is never bent into shape.
Rule 2: nothing here reads a file (`reading`), starts or measures anything (`preflight` looks at the machine).

A relative path in `[guest.options]` is taken from the folder of the scenario file: the guests are started there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hypervisor.schemes import SCHEMES, offered
from shm.abi import MAX_GUESTS, PAGE_SIZE
from shm.errors import UsageProblem
from shm.units import format_size, parse_size

WORKLOADS = ("sqlite", "scan", "analytics", "trace", "stress", "sqlite-cache", "speedtest", "lmdb")
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,23}$"
FLOOR_BYTES, FLOOR_PAGES_A_GUEST = 1 << 20, 64


def known_scheme(name: str) -> str:
    if name not in offered():
        raise ValueError(f"{name!r} is not a scheme; allowed: {', '.join(offered())}")
    return name


def _known_workload(name: str) -> str:
    if name not in WORKLOADS:
        raise ValueError(f"{name!r} is not a workload; allowed: {', '.join(WORKLOADS)}")
    return name


def _size(text: Any) -> int:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not a size; use B, KiB, MiB or GiB, such as \"64MiB\"")
    return parse_size(text)


def _ram(size: int) -> int:
    if size % PAGE_SIZE or size < FLOOR_BYTES:
        raise ValueError(f"{format_size(size)} is no RAM for a guest; use whole pages of 4096 bytes, at least 1 MiB")
    return size


def _step(size: int) -> int:
    if size % PAGE_SIZE or not size:
        raise ValueError(f"{format_size(size)} is no step for balloons; use whole pages of 4096 bytes")
    return size


Size = Annotated[int, BeforeValidator(_size)]
Name = Annotated[str, Field(pattern=NAME)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class HypervisorTable(_Table):
    reclaim: Literal["hint-after-choice", "u-e-v-p-s"] = "hint-after-choice"
    bias: Annotated[float, Field(ge=0, le=1)] = 0.0    # from hint-after-choice, 0, to u-e-v-p-s, 1
    swap: Size | None = None                 # None: as much as all guests have RAM
    cmma: Literal["architected", "kvm", "off"] = "architected"     # how guests' processors execute ESSA
    folder: str = "/var/tmp"                 # where the swap file lies


class TmemTable(_Table):
    ephemeral_pages: Annotated[int, Field(ge=0)] = 0
    form: Literal["raw", "lz4", "dedup", "tze"] = "raw"      # of what each guest puts, until the operator says other
    quirks: Literal["none", "xen-4.2"] = "none"
    targets: Literal["greedy", "static", "reconfigured", "demand"] = "greedy"     # of persistent pages, a guest
    write_back: bool = False                 # persistent pages may go to the hypervisor's swap disk
    dedup_across: bool = False               # equal pages of different guests share a frame: a timing channel
    selfballoon: bool = False                # guests balloon to what they have committed, where there is tmem


class BalloonTable(_Table):
    controller: Literal["timed", "shares", "self"] = "shares"
    interval: Annotated[float, Field(ge=0.1, le=60)] = 0.2   # seconds; the hypervisor looks at its clock so often
    step: Annotated[Size, AfterValidator(_step)] = 8 << 20   # of all guests together, in an interval
    tax: Annotated[float, Field(ge=0, lt=1)] = 0.75          # of an idle page, under shares


class DiskTable(_Table):
    latency: Literal["none", "ssd", "hdd", "network"] = "none"   # what disks cost: `shm.diskcost`
    time: Literal["virtual", "waited"] = "virtual"               # added to each guest's clock, or really slept
    direct: bool = False                     # no model, but files past the machine's page cache
    trim: bool = False                       # scheme `swapcache`: the host is told which blocks are dead


class GuestTable(_Table):
    name: Name
    count: Annotated[int, Field(ge=1, le=MAX_GUESTS)] = 1
    ram: Annotated[Size, AfterValidator(_ram)]
    workload: Annotated[str, AfterValidator(_known_workload)]
    weight: Annotated[int, Field(ge=1, le=1 << 16)] | None = None    # None: no guest's share is looked at
    options: dict[str, Any] = Field(default_factory=dict)


class ScenarioTable(_Table):
    name: str = ""
    budget: Size
    scheme: Annotated[str, AfterValidator(known_scheme)] = "cmm2+tmem"
    seconds: Annotated[float, Field(gt=0, le=86400)] | None = None
    operations: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 1
    faults: Literal["auto", "software", "hardware"] = "auto"
    hypervisor: HypervisorTable = HypervisorTable()
    tmem: TmemTable = TmemTable()
    balloon: BalloonTable = BalloonTable()
    disk: DiskTable = DiskTable()
    guest: list[GuestTable] = Field(default_factory=list)


TABLES: dict[str, type[_Table]] = {
    "": ScenarioTable, "hypervisor": HypervisorTable, "tmem": TmemTable, "balloon": BalloonTable,
    "disk": DiskTable, "guest": GuestTable}


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """One guest of the scenario, after counting out."""

    name: str
    workload: str
    ram: int                    # bytes; what the scenario promises, a scheme may cut it
    weight: int | None          # None: not written
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario."""

    source: str                 # the file, as the person named it
    folder: Path                # where the guests are started
    table: ScenarioTable
    guests: tuple[GuestSpec, ...]

    @property
    def name(self) -> str:
        return self.table.name or Path(self.source).stem

    @property
    def total_ram(self) -> int:
        return sum(guest.ram for guest in self.guests)

    def rams(self, scheme: str, budget: int) -> list[int]:
        """Return the RAM in bytes that each guest gets under a scheme; a weight that is not written counts as 1."""
        weights = [guest.weight or 1 for guest in self.guests]
        return SCHEMES[scheme].rams([guest.ram for guest in self.guests], weights, budget)

    @property
    def swap_bytes(self) -> int:
        return self.total_ram if self.table.hypervisor.swap is None else self.table.hypervisor.swap


def check_budget(budget: int, guests: int, where: str) -> None:
    """Refuse a budget in which `guests` guests could not even stand still."""
    floor = FLOOR_BYTES + guests * FLOOR_PAGES_A_GUEST * PAGE_SIZE
    if budget < floor:
        raise UsageProblem(f"{where}: {format_size(budget)} is below the floor; use at least {floor >> 10} KiB "
                           f"(1 MiB, and {FLOOR_PAGES_A_GUEST} pages for each guest)")
    if budget % PAGE_SIZE:
        raise UsageProblem(f"{where}: {budget} bytes are no whole pages; use a multiple of 4 KiB")
