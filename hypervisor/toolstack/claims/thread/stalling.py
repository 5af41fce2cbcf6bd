"""Who stalls when the load takes a step: guests that take discard faults, or guests that are asked ahead (E24)."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job
from hypervisor.toolstack.claims.stages import (
    BUDGET,
    HEADROOM,
    LARGE,
    RAM,
    SMALL,
    STEP,
    WINDOW_NS,
    above,
    below,
    needs,
    over_seeds,
    part,
    phase,
    rows_of,
    runs,
    seeds_of,
    shown,
    steps,
    summed,
    windows,
)
from hypervisor.toolstack.compare.statistics import Estimate
from shm.latency import figures as percentiles
from shm.latency import merged

HINTS, ENOUGH = "cmm2", "all memory"
REACTING = {"balloon by shares": "shares", "timed balloon": "timed"}
TOLD = {"balloon told at the step": 0, "balloon told a window ahead": 1}     # windows before the load changes
BALLOONS = (*REACTING, *TOLD)
RAMPS = {"at once": 1, "in ten steps": 10}
AFTER = 5                        # windows behind the last step that are its matter, too: a second


def jobs(size: Size) -> Mapping[str, Job]:
    return {f"{arm}/{ramp}/{seed}": trial(arm, ramped(count, windows(size)), seed) for seed in size.seeds
            for ramp, count in RAMPS.items() for arm in (ENOUGH, HINTS, *BALLOONS)}


def trial(arm: str, phases: Sequence[dict[str, Any]], seed: int) -> Job:
    tenants = [needs(*LARGE)] * 2
    if arm == ENOUGH:
        return steps("none", 2.0, tenants, phases, seed)
    if arm == HINTS:
        return steps("cmm2", BUDGET, tenants, phases, seed)
    if arm in REACTING:
        return steps("balloon", BUDGET, tenants, phases, seed, balloon={"controller": REACTING[arm]})
    return steps("balloon", BUDGET, tenants, told(phases, TOLD[arm]), seed)


def ramped(count: int, length: int) -> list[dict[str, Any]]:
    """Return phases in which the first guest grows as the second shrinks, in `count` steps of a window each."""
    def between(at: float, one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
        return one[0] + (other[0] - one[0]) * at, one[1] + (other[1] - one[1]) * at

    return [phase(length if number in (0, count) else 1, between(number / count, SMALL, LARGE),
                  between(number / count, LARGE, SMALL)) for number in range(count + 1)]


def told(phases: Sequence[dict[str, Any]], lead: int) -> list[dict[str, Any]]:
    """Return the phases with what balloons are told: each phase's division, so many windows before it begins."""
    starts = list(accumulate((each["windows"] for each in phases), initial=0))[:-1]
    found: list[dict[str, Any]] = [{**each, "deals": []} for each in phases]
    for start, each in zip(starts, phases, strict=True):
        moment = max(0, start - lead)
        at = bisect_right(starts, moment) - 1
        found[at]["deals"].append([moment - starts[at], division(each["loads"])])
    return found


def division(loads: Sequence[Sequence[int]]) -> list[int]:
    """Return the pages for each guest: its working set, and an equal part of what is left."""
    left = int(part(BUDGET) * (1 - HEADROOM)) - sum(map(sum, loads))
    return [min(RAM, sum(load) + left // len(loads)) for load in loads]


def after_the_step(results: Results, arm: str, ramp: str, seed: str) -> list[list[Mapping[str, Any]]]:
    """Return the windows from the first step on, each with a row a guest."""
    return [window["tenants"] for window in results[f"{arm}/{ramp}/{seed}"].value["windows"] if window["phase"]]


def stalled_ms(results: Results, arm: str, ramp: str) -> list[float]:
    """Return what guests waited for disks from the step on until AFTER windows behind it, in ms, seed by seed.

    Beyond what is waited with all memory, where everything is read for the first time, too.
    """
    def wait(arm: str, seed: str) -> float:
        windows = after_the_step(results, arm, ramp, seed)[:RAMPS[ramp] - 1 + AFTER]
        return sum(summed(rows, "waited_ns") for rows in windows) / 1e6

    return [wait(arm, seed) - wait(ENOUGH, seed) for seed in seeds_of(results)]


def settled_us(results: Results, arm: str, ramp: str) -> float:
    """Return how long an operation waits once all has settled: in the windows behind those, mean over the seeds."""
    rows = [row for seed in seeds_of(results)
            for window in after_the_step(results, arm, ramp, seed)[RAMPS[ramp] - 1 + AFTER:] for row in window]
    return summed(rows, "waited_ns") / 1000 / max(1, summed(rows, "operations"))


def against_hints(results: Results, arm: str, ramp: str) -> Estimate:
    """Return how much longer guests stall than under cmm2, in ms; below 0: shorter."""
    pairs = zip(stalled_ms(results, arm, ramp), stalled_ms(results, HINTS, ramp), strict=True)
    return over_seeds([one - other for one, other in pairs])


def longest_ms(results: Results, arm: str, ramp: str) -> float:
    """Return the longest wait of an operation from the first step on."""
    histograms = (tenant for seed in seeds_of(results) for stage in results[f"{arm}/{ramp}/{seed}"].value["stalls"][1:]
                  for tenant in stage)
    return (percentiles(merged(histograms))["max"] or 0) / 1e6


def lead_s(results: Results, arm: str, ramp: str) -> float:
    """Return how long after the first step the guest that shrinks had given its last page; mean over the seeds."""
    def given(seed: str) -> int:
        figures = results[f"{arm}/{ramp}/{seed}"].value
        pages = [row["pages"] for row in rows_of(figures, 1, range(1, len(figures["stalls"])))]
        return pages.index(min(pages)) + 1

    return fmean(map(given, seeds_of(results))) * WINDOW_NS / 1e9


def best_balloon(results: Results, ramp: str) -> str:
    """Return the balloon whose guests stall least at a pace."""
    return min(BALLOONS, key=lambda arm: sum(stalled_ms(results, arm, ramp)))


def stalls(results: Results) -> Answer:
    best = {ramp: best_balloon(results, ramp) for ramp in RAMPS}
    found = {ramp: against_hints(results, best[ramp], ramp) for ramp in RAMPS}
    figure = "; ".join(f"{ramp}: " + ", ".join(f"{arm} {shown(over_seeds(stalled_ms(results, arm, ramp)), '.0f')}"
                                               for arm in (HINTS, *BALLOONS)) for ramp in RAMPS)
    later = ", ".join(f"{arm} {settled_us(results, arm, next(iter(RAMPS))):.1f}" for arm in (HINTS, *BALLOONS))
    longest = ", ".join(f"{arm} {max(longest_ms(results, arm, ramp) for ramp in RAMPS):.2f}"
                        for arm in (ENOUGH, HINTS, *BALLOONS))
    lead = ", ".join(f"{arm}, {ramp} {lead_s(results, arm, ramp):.1f} s" for ramp in RAMPS for arm in REACTING)
    against = "; ".join(f"{ramp}: {best[ramp]} {shown(found[ramp], '+.0f')} ms" for ramp in RAMPS)
    return Answer(ruled(all(map(below, found.values())), all(map(above, found.values()))),
                  f"waits for disks from the step until {AFTER * WINDOW_NS / 1e9:g} s behind it, of both guests "
                  f"together, ms, {figure}; {runs(results)}",
                  f"the best balloon against cmm2, {against}; an operation's wait later on, us, at once: {later}; "
                  f"longest wait of one, ms: {longest}; until a balloon that reacts had its last page: {lead}",
                  on="the pace of the step: " + ", ".join(f"{ramp} they stall {against_words(found[ramp])}"
                                                          for ramp in RAMPS))


def against_words(change: Estimate) -> str:
    return "less" if below(change) else "longer" if above(change) else "neither less nor longer, as far as is shown"


CLAIMS = (
    Claim("E24", "Jeremy Fitzhardinge, Mar 2009", "49D518E9",
          "with discard faults the guest stalls, where a balloon asks ahead",
          f"one guest's working set grows from {sum(SMALL):g} to {sum(LARGE):g} of its memory while another's shrinks, "
          f"at once or in ten steps, in {BUDGET:g} guests' memory; an operation thinks for 200 us; waits for disks by "
          f"the model ssd, a trap itself takes no time here; balloons that react ({STEP} pages a window of "
          f"{WINDOW_NS / 1e9:g} s), and balloons that are told what the guests are about to need, as no host knows it; "
          "a balloon's own thread waits apart; what is waited with all memory, for first reads, is taken off",
          "of the balloons the one whose guests stall least: supported if they stall less than under cmm2 at either "
          "pace, with 95 % intervals; refuted if they stall longer at either pace", jobs, stalls),
)
