"""From plenty to want: a balloon with a timed controller, hints, and both, over the overcommit (E7).

On clocks of the model, so that the controller decides by the guests' time: an hdd's waits would outrun it otherwise.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from math import log
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.stages import (
    LIMIT_S,
    RAM,
    STEP,
    WINDOW_NS,
    Row,
    above,
    below,
    disk_pages,
    needs,
    order,
    over_seeds,
    phase,
    rows_of,
    runs,
    seeds_of,
    shown,
    slow_down,
)
from hypervisor.toolstack.compare.pairs import pair
from hypervisor.toolstack.compare.statistics import Estimate, estimate
from hypervisor.toolstack.curves.crossings import of_pair, sentence

BALLOON, HINTS, TOGETHER = COMPARED = ("balloon", "cmm2", "cmm2+balloon")
OVERCOMMITS, QUICK_OVERCOMMITS = (1.0, 1.25, 1.5, 2.0, 3.0), (1.0, 1.25, 3.0)
GUESTS = 4
WORKING = (0.35, 0.35)                       # of each, file and anonymous, in RAM: it fits up to 1.4
DISK = "hdd"                                 # what IBM's storage was like in 2007
THINK_NS, SECOND = 2_000_000, 1_000_000_000  # of an operation; a window: the controller decides once
PACE = STEP * SECOND // WINDOW_NS            # pages that it moves in a second: as in the other trials
WINDOWS, QUICK_WINDOWS = 20, 10              # to settle, and as many that count
ALIKE = log(1.1)                             # of throughputs: as much as E6 calls about equal

Of = Callable[[list[Row]], float]            # a figure of the windows that count


def jobs(size: Size) -> Mapping[str, Job]:
    overcommits = QUICK_OVERCOMMITS if size.quick else OVERCOMMITS
    windows = QUICK_WINDOWS if size.quick else WINDOWS
    return {f"{scheme}/{overcommit:g}/{seed}": trial(scheme, overcommit, windows, seed)
            for seed in size.seeds for overcommit in overcommits for scheme in COMPARED}


def trial(scheme: str, overcommit: float, windows: int, seed: int) -> Trial:
    tenants = [needs(*WORKING, think_ns=THINK_NS, disk=DISK)] * GUESTS
    return Trial("steps", order(scheme, GUESTS / overcommit, disk=DISK, balloon={"controller": "timed", "step": PACE}),
                 {"tenants": tenants, "phases": [phase(windows, *[WORKING] * GUESTS)] * 2, "window_ns": SECOND,
                  "seed": seed}, LIMIT_S)


def throughput(rows: list[Row]) -> float:
    """Return operations in a time, 1 without any wait for a disk."""
    return 1 / slow_down(rows, THINK_NS)


def io_of(rows: list[Row]) -> float:
    """Return pages to and from disks, guests' and the hypervisor's, for an operation."""
    return sum(map(disk_pages, rows)) / max(1, sum(row["operations"] for row in rows))


def overcommits(results: Results) -> list[float]:
    return sorted({float(label.split("/")[1]) for label in results})


def values(results: Results, scheme: str, overcommit: float, of: Of) -> list[float]:
    """Return a figure by seed, of the second phase."""
    return [of(rows_of(results[f"{scheme}/{overcommit:g}/{seed}"].value, phases=[1])) for seed in seeds_of(results)]


def against(results: Results, one: str, other: str, overcommit: float) -> Estimate:
    """Return the logarithm of the throughput of one relative to another's, seed by seed."""
    pairs = zip(*(values(results, scheme, overcommit, throughput) for scheme in (one, other)), strict=True)
    return over_seeds([log(first / second) for first, second in pairs])


def alike(results: Results, overcommit: float) -> bool:
    """Say whether all throughputs are about equal, with their intervals."""
    found = [against(results, one, other, overcommit) for one, other in combinations(COMPARED, 2)]
    return all(above(each, -ALIKE) and below(each, ALIKE) for each in found)


def fastest(results: Results, overcommit: float) -> str:
    """Return the scheme that is shown to be faster than both others; "none" where there is none."""
    return next((one for one in COMPARED if all(above(against(results, one, other, overcommit))
                                                for other in COMPARED if other != one)), "none")


def least_io(results: Results, overcommit: float) -> str:
    """Return the scheme with the least I/O, by the means."""
    return min(COMPARED, key=lambda scheme: sum(values(results, scheme, overcommit, io_of)))


def crossing(results: Results) -> str:
    """Return in words where the curves of cmm2 and the balloon cross, by the rule of `memcommons curves`."""
    def times(scheme: str, at: float) -> dict[int, float]:
        return dict(enumerate(1 / each for each in values(results, scheme, at, throughput)))

    pairs = [(at, pair(HINTS, BALLOON, times(HINTS, at), times(BALLOON, at))) for at in overcommits(results)]
    return "; ".join(map(sentence, of_pair(pairs))) or "no crossing of cmm2 and the balloon is shown"


def better_together(results: Results) -> str:
    """Return in words where both together are shown to be faster than each."""
    good = [f"{at:g}" for at in overcommits(results) if fastest(results, at) == TOGETHER]
    return f"both together are shown to be faster than each at {', '.join(good) or 'none of them'}"


def sweep(results: Results) -> Answer:
    low, high = next(at for at in overcommits(results) if at > 1), overcommits(results)[-1]
    said = "; ".join(f"{at:g}: " + ", ".join(f"{scheme} {words(results, scheme, at)}" for scheme in COMPARED)
                     for at in overcommits(results))
    beaten = any(above(against(results, other, HINTS, high)) for other in (BALLOON, TOGETHER))
    same, first = alike(results, low), fastest(results, high)
    shown_fastest = ", ".join(f"{fastest(results, at)} at {at:g}" for at in overcommits(results))
    return Answer(ruled(same and first == HINTS, beaten),
                  f"throughput, 1 without waits, and pages of I/O for an operation, by overcommit: {said}; "
                  f"{runs(results)}",
                  f"at {low:g} they are {'alike' if same else 'not shown to be alike'}; shown to be "
                  f"faster than both others: {shown_fastest}; least I/O at {high:g}: {least_io(results, high)}; "
                  f"{crossing(results)}; {better_together(results)}",
                  (curve(results, "throughput", "throughput, 1 without waits", throughput),
                   curve(results, "I/O", "pages to and from disks for an operation", io_of)),
                  on=f"how low is low: they are not alike at {low:g}" if first == HINTS else
                  f"how high is high: none is shown to be the fastest at {high:g}")


def words(results: Results, scheme: str, overcommit: float) -> str:
    speed, io = (over_seeds(values(results, scheme, overcommit, of)) for of in (throughput, io_of))
    return f"{shown(speed, '.3f')} with {io.mean:.3f}"


def curve(results: Results, title: str, axis: str, of: Of) -> Mapping[str, Any]:
    lines = [{"name": scheme, "points": [[at, found.mean, found.half] for at in overcommits(results)
                                         if (found := estimate(values(results, scheme, at, of)))]}
             for scheme in COMPARED]
    return {"title": f"balloon and hints: {title}", "x": "overcommit", "y": axis, "lines": lines}


CLAIMS = (
    Claim("E7", "IBM, z/VM 5.3 performance report, 2007", "530imp",
          "VMRM's ballooning, CMMA and both are alike at low overcommit, and CMMA is best at high",
          f"{GUESTS} guests of {RAM >> 8} MiB that stay as they are, {sum(WORKING):g} of their memory in use, half of "
          f"it files, so that all that is in use has room up to overcommit {1 / sum(WORKING):.1f}; at overcommit "
          f"{', '.join(f'{at:g}' for at in OVERCOMMITS)}; under balloon with CMM1's timed controller ("
          f"{PACE:,} pages a second of their clocks), cmm2, and both; an operation thinks for "
          f"{THINK_NS // 1_000_000} ms; disks by the model hdd: guests wait for what they write, what the hypervisor "
          "writes in the background is nobody's wait",
          "supported if at the lowest overcommit above 1 all throughputs are within 10 % of each other, and at the "
          "highest cmm2 is faster than both others, with 95 % intervals; refuted if another is faster there",
          jobs, sweep),
)
