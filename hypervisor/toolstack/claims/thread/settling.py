"""A step of the load: how many knobs decide how it is met, how soon it is settled (E5), and who stalls (E24)."""

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
    needs,
    part,
    phase,
    rows_of,
    runs,
    slow_down,
    steps,
    summed,
    swing,
    windows,
)
from shm.latency import figures as percentiles
from shm.latency import merged

Setting = Mapping[str, Any]

# E5
HINTS, AUTO, TOLD = "cmm2", "tmem and self-ballooning", "balloon alone"
KNOBS = {                        # what a person may turn: keys of a scenario, and `guests.selfballoon.Rules`
    HINTS: ("reclaim", "bias"),
    AUTO: ("interval_s", "down", "up", "min_usable", "inertia", "shrink", "ephemeral_pages", "targets", "weight"),
    TOLD: ("controller", "interval", "step", "tax", "weight")}
BIASES, INTERVALS, HYSTERESES, LEAST, STEPS = (0.0, 0.5, 1.0), (0.2, 1.0, 5.0), (1, 8), (KEPT, RAM // 2), (64, 512)
SETTLED = 0.9                    # of the throughput without any wait
HALF = 0.5                       # of the other's range: what a policy that hardly matters may have


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
            for seed in size.seeds[:2] for arm, points in settings(size).items() for setting in points}


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


def throughputs(results: Results, arm: str) -> dict[str, float]:
    """Return the throughput of both guests after the step, 1 without any wait, by setting; means over the seeds."""
    found: dict[str, list[float]] = {}
    for label, figures in of_arm(results, arm).items():
        found.setdefault(label.rsplit("/", 1)[0], []).append(1 / slow_down(rows_of(figures, phases=[1, 2])))
    return {setting: fmean(values) for setting, values in found.items()}


def spread(values: Mapping[str, float]) -> float:
    """Return the range over the grid in parts of the best."""
    return (max(values.values()) - min(values.values())) / max(values.values())


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
    found = {arm: throughputs(results, arm) for arm in KNOBS}
    ranges = {arm: spread(values) for arm, values in found.items()}
    figure = "; ".join(f"{arm}: {len(KNOBS[arm])} knobs, throughput {min(values.values()):.3f} to "
                       f"{max(values.values()):.3f} over {len(values)} settings, {times(results, arm)}"
                       for arm, values in found.items())
    best = max(found[AUTO], key=lambda setting: found[AUTO][setting])
    return Answer(ruled(len(KNOBS[HINTS]) < len(KNOBS[AUTO]) and ranges[HINTS] <= HALF * ranges[AUTO],
                        ranges[HINTS] >= ranges[AUTO]), f"{figure}; {runs(results)}",
                  f"ranges: {', '.join(f'{arm} {value:.1%}' for arm, value in ranges.items())}; best for {AUTO}: "
                  f"{best}, with {found[AUTO][best] / max(found[HINTS].values()):.3f} of the best of {HINTS}; how "
                  "complex a mechanism is was not measured")


# E24
ARMS: Mapping[str, tuple[str, Setting]] = {
    "cmm2": ("cmm2", {}), "balloon by shares": ("balloon", {"balloon": {"controller": "shares"}}),
    "timed balloon": ("balloon", {"balloon": {"controller": "timed"}})}
RAMPS = {"at once": 1, "in ten steps": 10}


def stall_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{arm}/{ramp}/{seed}":
            steps(scheme, BUDGET, [needs(*LARGE)] * 2, ramped(count, windows(size)), seed, **more)
            for seed in size.seeds[:3] for ramp, count in RAMPS.items() for arm, (scheme, more) in ARMS.items()}


def ramped(count: int, length: int) -> list[dict[str, Any]]:
    """Return phases in which the first guest grows as the second shrinks, in `count` steps of a window each."""
    def between(at: float, one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
        return one[0] + (other[0] - one[0]) * at, one[1] + (other[1] - one[1]) * at

    return [phase(length if number in (0, count) else 1, between(number / count, SMALL, LARGE),
                  between(number / count, LARGE, SMALL)) for number in range(count + 1)]


def waits(results: Results, arm: str) -> dict[str, float]:
    """Return how operations waited for disks from the first step on: in ms, `often` a part of them, `total` a run."""
    found = list(of_arm(results, arm).values())
    histogram = merged(tenant for figures in found for stage in figures["stalls"][1:] for tenant in stage)
    rows = [row for figures in found for row in rows_of(figures, phases=range(1, len(figures["stalls"])))]
    return {"total": summed(rows, "waited_ns") / 1e6 / len(found), "often": 1 - histogram[0] / sum(histogram),
            "longest": (percentiles(histogram)["max"] or 0) / 1e6}


def lead_s(results: Results, arm: str) -> float:
    """Return how long after the first step the guest that shrinks had given its last page; mean over the runs."""
    pages = [[row["pages"] for row in rows_of(figures, 1, range(1, len(figures["stalls"])))]
             for figures in of_arm(results, arm).values()]
    return fmean(run.index(min(run)) + 1 for run in pages) * WINDOW_NS / 1e9


def stalls(results: Results) -> Answer:
    found = {(arm, ramp): waits(results, f"{arm}/{ramp}") for ramp in RAMPS for arm in ARMS}
    figure = "; ".join(f"{ramp}, {arm}: {row['total']:,.0f} ms in all, {row['often']:.1%} of operations, longest "
                       f"{row['longest']:.2f} ms" for (arm, ramp), row in found.items())
    less = {f"{arm}, {ramp}: {what}": row[what] < found["cmm2", ramp][what] for (arm, ramp), row in found.items()
            if arm != "cmm2" for what in ("total", "longest")}
    lead = ", ".join(f"{arm}, {ramp}: {lead_s(results, f'{arm}/{ramp}'):.1f} s" for arm, ramp in found if arm != "cmm2")
    smaller = [name for name, is_less in less.items() if is_less]
    on = f"of controller, pace and what counts; less than under cmm2: {'; '.join(smaller)}. " if smaller else ""
    return Answer(ruled(len(smaller) == len(less), not smaller), f"{figure}; {runs(results)}",
                  f"{on}From the step until the balloon had its last page: {lead}")


CLAIMS = (
    Claim("E5", "Rik van Riel, Jul 2009", "4A567310, 4A5660CB",
          "CMM2's mechanism is complex and its policy trivial; with tmem and automatic ballooning it is the reverse, "
          "and the policy may never be right",
          f"two guests of 8 MiB, one growing from {sum(SMALL):g} to {sum(LARGE):g} of its memory as the other shrinks, "
          f"and back, in {BUDGET:g} guests' memory, over a grid of settings; disks by the model ssd",
          f"supported if cmm2 has fewer knobs, and the range of throughput over its grid is at most {HALF:g} of that "
          "of tmem with self-ballooning; refuted if it is as large", policy_jobs, policies),
    Claim("E24", "Jeremy Fitzhardinge, Mar 2009", "49D518E9",
          "with discard faults the guest stalls, where a balloon asks ahead",
          f"one guest's working set grows from {sum(SMALL):g} to {sum(LARGE):g} of its memory while another's shrinks, "
          f"at once or in ten steps, in {BUDGET:g} guests' memory; waits for disks by the model ssd, by "
          "operation, what every scheme must read for the first time among them; a balloon's own thread waits apart",
          "supported if operations wait less in all under the balloon, and the longest wait is shorter, with either "
          "controller and at either pace; refuted if not one of these is so", stall_jobs, stalls),
)
