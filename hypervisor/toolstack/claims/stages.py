"""Trials of tenants as data: guests whose working sets are known to the page, on clocks of their own.

Everything is small on purpose: a guest of 2048 pages.  An operation thinks for 200 us and then waits for disks as the
model `ssd` says; calls and copies take no time on these clocks, so the figures are the same on any machine
(`guests.trials.tenant`).

The load that most claims share: two guests, one large while the other is small, then the other way round.  What both
need together always fits the budget, so what is lost is lost by giving memory late, or to nobody.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.schemes import SCHEMES
from hypervisor.toolstack.claims.claim import Results, Size
from hypervisor.toolstack.claims.jobs import Trial
from hypervisor.toolstack.compare.statistics import Estimate, estimate
from shm.abi import PAGE_SIZE

RAM = 2048                       # pages of a guest
THINK_NS = 200_000
WINDOW_NS = 200_000_000          # of a tenant's clock: a balloon's controller decides once in a window
IDEAL = WINDOW_NS // THINK_NS    # operations of a window that waits for nothing
SWAP_BYTES = 64 << 20
LIMIT_S = 900.0                  # of a trial in real time: for machines that are busy
NEVER_S = 3600.0                 # interval of a controller that decides when it is told to
HEADROOM = 1 / 32                # of the budget: where the hypervisor's own reclaim stops
KEPT = 256                       # pages that a balloon leaves a guest beside its reserve, whatever it is told
STEP = 256                       # pages of a balloon's step in a window, for all guests together
DISK = ("file_reads", "file_writes", "guest_in", "guest_out", "host_in", "host_out")    # pages to and from any disk
POOL = ("cleancache_hits", "frontswap_loads")        # pages that a pool gave back in a disk's place
LARGE, SMALL = (0.5, 0.4), (0.1, 0.1)                # working sets, file and anonymous, in RAM
BUDGET = 1.25                    # in RAM, for the two guests
WINDOWS, QUICK_WINDOWS = 12, 6   # of a phase

Needs = dict[str, Any]
Shares = tuple[float, float]     # of RAM: of a file, and anonymous
Row = Mapping[str, Any]          # of a window and a tenant


def part(share: float) -> int:
    """Return a share of a guest's RAM in pages."""
    return round(share * RAM)


def load(shares: Shares) -> list[int]:
    return [part(share) for share in shares]


def needs(file: float, anon: float, ram: float = 1.0, **more: Any) -> Needs:
    """Return what a tenant is made of, in shares of a guest's RAM."""
    return {"ram": part(ram), "file": part(file), "anon": part(anon), "think_ns": THINK_NS, "most": RAM, **more}


def order(scheme: str, budget: float, **more: Any) -> dict[str, Any]:
    """Return a hypervisor's order; the budget in guests' RAM."""
    swap = SWAP_BYTES if SCHEMES[scheme].swap else 0
    balloon = {"controller": "shares", "step": STEP, "interval": NEVER_S} | more.pop("balloon", {})
    return {"scheme": scheme, "budget": part(budget) * PAGE_SIZE, "swap": swap, "disk": "ssd",
            **({"balloon": balloon} if SCHEMES[scheme].balloon else {}), **more}


def steps(scheme: str, budget: float, tenants: Sequence[Needs], phases: Sequence[Mapping[str, Any]], seed: int,
          **more: Any) -> Trial:
    """Return a trial of loads that change; `more` is the hypervisor's."""
    return Trial("steps", order(scheme, budget, **more),
                 {"tenants": list(tenants), "phases": list(phases), "window_ns": WINDOW_NS, "seed": seed},
                 LIMIT_S)


def phase(windows: int, *loads: Shares, renew: bool = False) -> dict[str, Any]:
    """Return a phase; `renew`: the programs of before end, and others begin."""
    return {"loads": [load(shares) for shares in loads], "windows": windows, "renew": renew}


def windows(size: Size) -> int:
    return QUICK_WINDOWS if size.quick else WINDOWS


def swing(count: int) -> list[dict[str, Any]]:
    """Return phases of `count` windows: the first guest small, large, small again."""
    return [phase(count, one, other, renew=True) for one, other in ((SMALL, LARGE), (LARGE, SMALL), (SMALL, LARGE))]


# What came of them

def rows_of(figures: Mapping[str, Any], tenant: int | None = None, phases: Sequence[int] | None = None) -> list[Row]:
    """Return the rows of the windows of some phases (all), of one tenant (or of all)."""
    return [row for window in figures["windows"] if phases is None or window["phase"] in phases
            for number, row in enumerate(window["tenants"]) if tenant in (None, number)]


def summed(rows: Sequence[Row], *names: str) -> int:
    return sum(row[name] for row in rows for name in names)


def slow_down(rows: Sequence[Row], think_ns: int = THINK_NS) -> float:
    """Return the time of an operation relative to one that waits for no disk."""
    return 1 + summed(rows, "waited_ns") / (think_ns * max(1, summed(rows, "operations")))


def from_memory(rows: Sequence[Row]) -> float:
    """Return which part of the pages that were missed came from a pool instead of a disk; 0 when none was missed."""
    pool, disk = summed(rows, *POOL), summed(rows, "file_reads", "guest_in")
    return pool / (pool + disk) if pool + disk else 0.0


def disk_pages(counted: Row) -> int:
    """Return all pages that went to a disk or came from one, whoever's."""
    return sum(counted[name] for name in DISK)


def seeds_of(results: Results) -> list[str]:
    """Return the seeds of results whose labels end in them."""
    return sorted({label.rsplit("/", 1)[1] for label in results})


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of a value for each seed, of which there is one at least."""
    found = estimate(values)
    assert found is not None, "there is a seed"
    return found


def below(value: Estimate, limit: float = 0.0) -> bool:
    """Say whether a value is below a limit, with its 95 % interval; with one seed, by itself."""
    return (value.mean if value.high is None else value.high) < limit


def above(value: Estimate, limit: float = 0.0) -> bool:
    """Say whether a value is above a limit, alike."""
    return (value.mean if value.low is None else value.low) > limit


def runs(results: Results) -> str:
    """Return on how many runs a figure stands."""
    return f"{len(results)} runs" + (", one seed" if len(seeds_of(results)) == 1 else "")


def shown(value: Estimate, form: str = ".2f") -> str:
    """Return a mean and its interval."""
    return f"{value.mean:{form}}" + ("" if value.half is None else f" +- {value.half:{form.lstrip('+')}}")
