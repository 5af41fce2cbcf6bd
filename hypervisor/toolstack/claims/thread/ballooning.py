"""Ballooning and hints side by side: E6 in a steady state, E7 over the overcommit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import log
from statistics import fmean, geometric_mean
from typing import Any

from hypervisor.schemes import SCHEMES
from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.setups import grid
from hypervisor.toolstack.claims.stages import (
    LIMIT_S,
    disk_pages,
    load,
    needs,
    order,
    over_seeds,
    part,
    runs,
    seeds_of,
    shown,
)
from hypervisor.toolstack.compare.statistics import Estimate, estimate

# E6
STEADY_OVERCOMMITS = (1.5, 2.0, 2.5)
FILES, NUMBERS = (0.6, 0.2), (0.2, 0.6)      # working sets of the two guests, file and anonymous, in RAM
WARM, WORK = 4000, 6000                      # operations of each
SPLITS = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)     # of the memory, to the first guest: the best is the oracle's
HEADROOM = 1 / 32                            # of the budget: where the hypervisor's own reclaim stops
ABOUT = (0.9, 1.1)

# E7
BALLOON, HINTS, TOGETHER = COMPARED = ("balloon", "cmm2", "cmm2+balloon")
OVERCOMMITS, QUICK_OVERCOMMITS = (1.0, 1.25, 1.5, 2.0, 3.0), (1.0, 1.5, 2.0)
RULES = {"controller": "timed"}              # as VMRM steered CMM1
DISKS = {"latency": "hdd"}                   # what IBM's storage was like in 2007
ALIKE = 1.25                                 # best / worst
IO = ("guest_disk_reads", "guest_disk_writes", "guest_swap_reads", "guest_swap_writes", "swap_in", "swap_out")

Of = Callable[[Mapping[str, Any]], float]    # a figure of a run's summary


def steady_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{scheme}/{seed}": steady(scheme, seed, size) for seed in size.seeds[:3] for scheme in ("balloon", "cmm2")}


def steady(scheme: str, seed: int, size: Size) -> Trial:
    splits, part_of = (SPLITS[1::2], 2) if size.quick else (SPLITS, 1)
    cases = [case(overcommit, splits if scheme == "balloon" else ()) for overcommit in STEADY_OVERCOMMITS]
    more = {"balloon": {"controller": "self"}} if scheme == "balloon" else {}
    return Trial("steady", order(scheme, 2.0, **more), {
        "cases": cases, "warm": WARM // part_of, "work": WORK // part_of, "seed": seed}, LIMIT_S)


def case(overcommit: float, splits: Sequence[float]) -> dict[str, Any]:
    budget = part(2 / overcommit)
    dealt = int(budget * (1 - HEADROOM))
    return {"budget": budget, "tenants": [needs(*FILES), needs(*NUMBERS)], "loads": [load(FILES), load(NUMBERS)],
            "splits": [[round(dealt * share), dealt - round(dealt * share)] for share in splits]}


def steady_ratio(results: Results, at: int) -> Estimate:
    """Return the total I/O of cmm2 relative to the best split of a case, over the seeds."""
    io = {label: [disk_pages(split) for split in found.value["cases"][at]] for label, found in results.items()}
    return over_seeds([io[f"cmm2/{seed}"][0] / min(io[f"balloon/{seed}"]) for seed in seeds_of(results)])


def alike(results: Results) -> Answer:
    ratios = {overcommit: steady_ratio(results, at) for at, overcommit in enumerate(STEADY_OVERCOMMITS)}
    within = [ABOUT[0] <= ratio.mean <= ABOUT[1] for ratio in ratios.values()]
    figure = ", ".join(f"{overcommit:g}: {shown(ratio)}" for overcommit, ratio in ratios.items())
    return Answer(ruled(all(within), not any(within)),
                  f"total I/O of cmm2 relative to the best split by balloons, by overcommit: {figure}; "
                  f"{runs(results)}",
                  "" if all(within) or not any(within) else "of the overcommit")


def curve_jobs(size: Size) -> Mapping[str, Job]:
    overcommits = QUICK_OVERCOMMITS if size.quick else OVERCOMMITS
    return {label: job for scheme in COMPARED
            for label, job in grid("vmrm", (scheme,), overcommits, size.seeds[:3], size, **tables(scheme)).items()}


def tables(scheme: str) -> dict[str, Any]:
    return {"disk": DISKS} | ({"balloon": RULES} if SCHEMES[scheme].balloon else {})


def points(results: Results) -> list[float]:
    return sorted({float(label.split("/")[1]) for label in results})


def io_of(summary: Mapping[str, Any]) -> float:
    """Return all pages to and from disks, guests' and the hypervisor's."""
    return float(sum(summary["counters"].get(name, 0) for name in IO))


def speed_of(summary: Mapping[str, Any]) -> float:
    """Return the throughput relative to the baseline, by guests' processor time and their waits for disks by the model.

    Real time would have the waits for one of two cores in it, and for a hypervisor that is a process.
    """
    before = summary["baseline"]["guests"]
    return geometric_mean(busy(before[guest["name"]]) / busy(guest) for guest in summary["guests"])


def busy(guest: Mapping[str, Any]) -> float:
    """Return seconds."""
    return float(guest["cpu_s"]) + float(guest["virtual_seconds"])


def values(results: Results, scheme: str, overcommit: float, of: Of) -> list[float]:
    """Return a figure by seed; a run that took more than ten times as long has none."""
    found = (results[f"{scheme}/{overcommit:g}/{seed}"] for seed in seeds_of(results))
    return [of(one.value) for one in found if not one.failed]


def best(results: Results, overcommit: float, of: Of, better: Callable[[Iterable[float]], float]) -> str | None:
    """Return the scheme whose mean is best; those with a run that did not finish are out."""
    means = {scheme: fmean(found) for scheme in COMPARED
             if len(found := values(results, scheme, overcommit, of)) == len(seeds_of(results))}
    return next((scheme for scheme, mean in means.items() if mean == better(means.values())), None)


def crossing(results: Results, of: Of) -> str:
    """Return in words where cmm2's curve crosses the balloon's."""
    found = [(at, log(fmean(one) / fmean(other))) for at in points(results)
             if (one := values(results, HINTS, at, of)) and (other := values(results, BALLOON, at, of))]
    for (left, before), (right, after) in pairwise(found):
        if before * after < 0:
            return f"cross at {left + (right - left) * before / (before - after):.2f}"
    return "do not cross"


def winners(results: Results, of: Of, better: Callable[[Iterable[float]], float]) -> str:
    """Return the best scheme at each overcommit, in words."""
    return ", ".join(f"{best(results, at, of, better)} at {at:g}" for at in points(results))


def sweep(results: Results) -> Answer:
    ends = points(results)[0], points(results)[-1]
    near = [fmean(found) for scheme in COMPARED if (found := values(results, scheme, ends[0], speed_of))]
    alike_there = len(near) == len(COMPARED) and max(near) <= ALIKE * min(near)
    fastest, least = best(results, ends[1], speed_of, max), best(results, ends[1], io_of, min)
    figure = "; ".join(f"{at:g}: " + ", ".join(f"{scheme} {words(results, scheme, at)}" for scheme in COMPARED)
                       for at in points(results))
    return Answer(ruled(alike_there and fastest == least == HINTS, HINTS not in (fastest, least)),
                  f"throughput relative to all memory granted, and pages of I/O, by overcommit: {figure}; "
                  f"{runs(results)}",
                  f"the fastest: {winners(results, speed_of, max)}; least I/O: {winners(results, io_of, min)}; the "
                  f"curves of cmm2 and balloon {crossing(results, speed_of)} in throughput and "
                  f"{crossing(results, io_of)} in I/O; {together(results)}"
                  + ("" if alike_there else f"; they are not alike at {ends[0]:g}"),
                  (curve(results, "throughput", "throughput, 1 with all memory", speed_of),
                   curve(results, "I/O", "pages to and from disks", io_of)))


def words(results: Results, scheme: str, overcommit: float) -> str:
    speed, io = (estimate(values(results, scheme, overcommit, of)) for of in (speed_of, io_of))
    if not speed or not io:
        return "did not finish"
    short = f" ({speed.count} of {len(seeds_of(results))} finished)" if speed.count < len(seeds_of(results)) else ""
    return f"{shown(speed, '.3f')} with {io.mean:,.0f}{short}"


def together(results: Results) -> str:
    """Return in words where both are better than each."""
    good = [f"{at:g}" for at in points(results) if best(results, at, speed_of, max) == TOGETHER]
    return f"both together are faster than the better of the two at {', '.join(good) or 'none of them'}"


def curve(results: Results, title: str, axis: str, of: Of) -> Mapping[str, Any]:
    lines = [{"name": scheme, "points": [[at, found.mean, found.half] for at in points(results)
                                         if (found := estimate(values(results, scheme, at, of)))]}
             for scheme in COMPARED]
    return {"title": f"balloon and hints: {title}", "x": "overcommit", "y": axis, "lines": lines}


CLAIMS = (
    Claim("E6", "Martin Schwidefsky, Mar 2009; Rik van Riel", "20090329162336",
          "page hinting gains about as much as ballooning",
          "two guests of 8 MiB whose working sets stay as they are, one mostly files, one mostly anonymous, at "
          f"overcommit {', '.join(f'{at:g}' for at in STEADY_OVERCOMMITS)}; the balloons are an oracle's: of "
          f"{len(SPLITS)} ways to split the memory the one with the least I/O; cmm2 is left to itself",
          f"supported if total I/O of cmm2 is {ABOUT[0]:g} to {ABOUT[1]:g} times the best balloons' at every "
          "overcommit; refuted if at none", steady_jobs, alike),
    Claim("E7", "IBM, z/VM 5.3 performance report, 2007", "530imp",
          "VMRM's ballooning, CMMA and both are alike at low overcommit, and CMMA is best at high",
          f"the common guests at overcommit {', '.join(f'{at:g}' for at in OVERCOMMITS)} under balloon with CMM1's "
          "timed controller, cmm2, and both; disks by the model hdd",
          f"supported if throughputs at the lowest overcommit are within {ALIKE:g} of each other, and at the highest "
          "cmm2 is the fastest and has the least I/O (means); refuted if it is neither",
          curve_jobs, sweep),
)
