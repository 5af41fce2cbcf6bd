"""A step of the load: how many knobs decide how it is met, how much they decide, and how soon it is settled (E5)."""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.stages import (
    BUDGET,
    IDEAL,
    KEPT,
    LARGE,
    RAM,
    SMALL,
    WINDOW_NS,
    above,
    below,
    needs,
    over_seeds,
    part,
    rows_of,
    runs,
    seeds_of,
    shown,
    slow_down,
    steps,
    swing,
    windows,
)
from hypervisor.toolstack.compare.statistics import Estimate

Setting = Mapping[str, Any]

# E5
HINTS, AUTO, TOLD = "cmm2", "tmem and self-ballooning", "balloon alone"
KNOBS = {                        # what a person may turn: keys of a scenario, and `guests.selfballoon.Rules`
    HINTS: ("reclaim", "bias"),
    AUTO: ("interval_s", "down", "up", "min_usable", "inertia", "shrink", "ephemeral_pages", "targets", "weight"),
    TOLD: ("controller", "interval", "step", "tax", "weight")}
BIASES, INTERVALS, HYSTERESES, LEAST, STEPS = (0.0, 0.5, 1.0), (0.2, 1.0, 5.0), (1, 8), (KEPT, RAM // 2), (64, 512)
SETTLED = 0.9                    # of the throughput without any wait
MATTERS = 0.05                   # of the throughput; ours


def settings(size: Size) -> dict[str, Sequence[Setting]]:
    """Return the points of the grid of each arm."""
    every = 2 if size.quick else 1
    return {
        HINTS: [{"bias": bias} for bias in BIASES[::every]],
        AUTO: [{"interval_s": interval, "down": down, "min_usable": least}
               for interval, down, least in product(INTERVALS[::every], HYSTERESES[::every], LEAST)],
        TOLD: [{"controller": name, "step": step} for name, step in product(("shares", "timed"), STEPS[::every])]}


def policy_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{arm}/{' '.join(f'{key}={value}' for key, value in setting.items())}/{seed}":
            under(arm, setting, windows(size), seed)
            for seed in size.seeds for arm, points in settings(size).items() for setting in points}


def under(arm: str, setting: Setting, count: int, seed: int) -> Trial:
    own: dict[str, Any] = {"selfballoon": dict(setting), "start": part(BUDGET / 2)} if arm == AUTO else {}
    tenant = needs(*LARGE, **own)
    more: Setting = {HINTS: setting, AUTO: {}, TOLD: {"balloon": dict(setting)}}[arm]
    scheme = {HINTS: "cmm2", AUTO: "tmem", TOLD: "balloon"}[arm]
    return steps(scheme, BUDGET, [tenant, tenant], swing(count), seed, **more)


def settled(operations: Sequence[int]) -> int | None:
    """Return the window from which on throughput is good and stays so, 1 the first; None: it never does."""
    bad = [number for number, count in enumerate(operations, 1) if count < SETTLED * IDEAL]
    last = bad[-1] if bad else 0
    return last + 1 if last < len(operations) else None


def of_arm(results: Results, arm: str) -> dict[str, Mapping[str, Any]]:
    """Return the figures of an arm, under what follows its name in the labels."""
    return {label.removeprefix(f"{arm}/"): found.value for label, found in results.items()
            if label.startswith(f"{arm}/")}


def throughputs(results: Results, arm: str, seed: str) -> dict[str, float]:
    """Return the throughput of both guests after the step, 1 without any wait, by setting."""
    return {label.rsplit("/", 1)[0]: 1 / slow_down(rows_of(figures, phases=[1, 2]))
            for label, figures in of_arm(results, arm).items() if label.endswith(f"/{seed}")}


def knobs_of(setting: str) -> dict[str, str]:
    """Return the values of the knobs of a setting, as its label has them."""
    return dict(pair.split("=") for pair in setting.split())


def weight_of(found: Mapping[str, float], knob: str) -> float:
    """Return what one knob decides: the range over its values, means over the others', in parts of the best."""
    by_value: dict[str, list[float]] = {}
    for setting, value in found.items():
        by_value.setdefault(knobs_of(setting)[knob], []).append(value)
    means = [fmean(values) for values in by_value.values()]
    return (max(means) - min(means)) / max(found.values())


def weightiest(results: Results, arm: str) -> tuple[str, list[float]]:
    """Return the knob that decides most in an arm, and what it decides, seed by seed."""
    seeds = [throughputs(results, arm, seed) for seed in seeds_of(results)]
    turned = {knob: [weight_of(found, knob) for found in seeds] for knob in knobs_of(next(iter(seeds[0])))}
    knob = max(turned, key=lambda name: sum(turned[name]))
    return knob, turned[knob]


def times(results: Results, arm: str) -> str:
    """Return in words how soon the guest that grew had settled, over all settings and seeds."""
    rows = [rows_of(figures, 0, [1]) for figures in of_arm(results, arm).values()]
    found = [settled([row["operations"] for row in run]) for run in rows]
    known = sorted(window * WINDOW_NS / 1e9 for window in found if window)
    lowest = min(row["operations"] for run in rows for row in run) / IDEAL
    never = f", never in {len(found) - len(known)} of {len(found)}" if len(known) < len(found) else ""
    return (f"settled in {known[0]:.1f} to {known[-1]:.1f} s" if known else "settled") + never + (
        f", lowest {lowest:.2f} in a window")


def policies(results: Results) -> Answer:
    found = {arm: [throughputs(results, arm, seed) for seed in seeds_of(results)] for arm in KNOBS}
    heavy = {arm: weightiest(results, arm) for arm in KNOBS}
    decides = {arm: over_seeds(values) for arm, (_, values) in heavy.items()}
    more = over_seeds([auto - hints for auto, hints in zip(heavy[AUTO][1], heavy[HINTS][1], strict=True)])
    figure = "; ".join(f"{arm}: {len(KNOBS[arm])} knobs, {heavy[arm][0]} decides most: {shown(decides[arm], '.1%')} of "
                       f"the throughput, which is {lowest_and_highest(found[arm])}, {times(results, arm)}"
                       for arm in KNOBS)
    fewer = len(KNOBS[HINTS]) < len(KNOBS[AUTO])
    return Answer(ruled(fewer and above(more) and above(decides[AUTO], MATTERS), not fewer or below(more)),
                  f"{figure}; {runs(results)}",
                  f"{AUTO} against {HINTS}: {shown(more, '+.1%')}; the best setting of {AUTO} has "
                  f"{shown(relative(found), '.3f')} of the throughput of the best of {HINTS}; how complex a mechanism "
                  f"is was not measured; the knobs: {named_knobs()}",
                  on=f"how much is much: whichever way the knobs of {AUTO} are turned, {lost(found[AUTO]):.1%} of the "
                  f"throughput is lost at most")


def lost(found: Sequence[Mapping[str, float]]) -> float:
    """Return what the worst setting loses against the best, of the means over the seeds."""
    means = [fmean(each[setting] for each in found) for setting in found[0]]
    return 1 - min(means) / max(means)


def named_knobs() -> str:
    return "; ".join(f"{arm}: {', '.join(names)}" for arm, names in KNOBS.items())


def lowest_and_highest(found: Sequence[Mapping[str, float]]) -> str:
    """Return the range over settings, of the means over the seeds, in words."""
    means = [fmean(each[setting] for each in found) for setting in found[0]]
    return f"{min(means):.3f} to {max(means):.3f} over {len(means)} settings"


def relative(found: Mapping[str, Sequence[Mapping[str, float]]]) -> Estimate:
    """Return the best of self-ballooning relative to the best of hints, seed by seed."""
    return over_seeds([max(auto.values()) / max(hints.values())
                       for auto, hints in zip(found[AUTO], found[HINTS], strict=True)])


CLAIMS = (
    Claim("E5", "Rik van Riel, Jul 2009", "4A567310, 4A5660CB",
          "CMM2's mechanism is complex and its policy trivial; with tmem and automatic ballooning it is the reverse, "
          "and the policy may never be right",
          f"two guests of 8 MiB, one growing from {sum(SMALL):g} to {sum(LARGE):g} of its memory as the other shrinks, "
          f"and back, in {BUDGET:g} guests' memory, over a grid of settings; disks by the model ssd",
          "supported if tmem with self-ballooning has more knobs, the one that decides most there decides more than "
          f"the one of cmm2, and more than {MATTERS:.0%} of the throughput, with 95 % intervals; refuted if it decides "
          "less than the one of cmm2", policy_jobs, policies),
)
