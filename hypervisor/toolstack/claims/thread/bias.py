"""Should the host prefer volatile pages?  E25.

Three settings: the common guests at two overcommits, and the one guest of E31, which hardly any noise touches.
"""

from collections.abc import Mapping
from math import expm1, log
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Missing, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job
from hypervisor.toolstack.claims.setups import grid
from hypervisor.toolstack.claims.thread.hostpolicy import policy_jobs
from hypervisor.toolstack.compare.statistics import Estimate, estimate

SHORT = (1.5, 2.0)
BIASES = (0.0, 0.1, 0.5, 1.0)
ALONE, OF_POLICY = "alone", {"hint-after-choice": 0.0, "bias 0.1": 0.1, "bias 0.5": 0.5, "u-e-v-p-s": 1.0}
TRANSFERS = ("guest_disk_reads", "guest_disk_writes", "guest_swap_reads", "guest_swap_writes", "swap_in", "swap_out")
CLEAR, MOST_MISSED = 0.02, 0.05          # of the transfers: less is no difference; so much may an interval leave open
INTERIOR, NO_GAIN = "an optimum between the ends", "no gain"
ALL_THE_WAY, OPEN = "the more bias the better", "not to be told from these seeds"
ANY = "any bias is better than none, and how much makes no difference that is shown"

Found = Mapping[tuple[float, str], Estimate]


def jobs(size: Size) -> Mapping[str, Job]:
    overcommits = SHORT[:1] if size.quick else SHORT
    common = {f"{bias:g}/{k:g}/{one.rsplit('/', 1)[1]}": job for bias in BIASES for k in overcommits
              for one, job in grid("common", ("cmm2",), (k,), size.seeds, size, hypervisor={"bias": bias}).items()}
    return common | {f"{OF_POLICY[policy]:g}/{ALONE}/{seed}": job for one, job in policy_jobs(size).items()
                     for policy, seed in [one.split("/")]}


def transfers(found: Mapping[str, Any]) -> int:
    """Return all transfers of a run or a trial: of guests with disks and swap, and of the host with its own."""
    if "total" in found:
        return int(found["total"])
    return sum(found["counters"].get(name, 0) for name in TRANSFERS)


def against(results: Results, bias: float, other: float, setting: str) -> Estimate:
    """Return the mean logarithm of the transfers relative to those with another bias, over the seeds that finished."""
    one, two = (_by_seed(results, f"{each:g}/{setting}/") for each in (bias, other))
    found = estimate([log(one[seed] / two[seed]) for seed in one if seed in two])
    if found is None:
        raise Missing(f"no seed finished with bias {bias:g} and with {other:g}, {_said(setting)}")
    return found


def _by_seed(results: Results, start: str) -> dict[str, int]:
    """Return the transfers of the runs that finished."""
    return {key.removeprefix(start): transfers(found.value) for key, found in results.items()
            if key.startswith(start) and not found.failed}


def better(found: Estimate) -> bool:
    return found.mean < -CLEAR and (found.high is None or found.high < 0)


def no_better(found: Estimate) -> bool:
    """Say whether there is no gain, or one too small to matter; with one seed, on the mean."""
    return found.mean > -CLEAR and (found.low is None or found.low > -MOST_MISSED)


def shape(results: Results, found: Found, setting: str) -> str:
    """Return how the transfers go with the bias: each against none, and the ends of what is above 0 against another."""
    row = {bias: found[bias, setting] for bias in BIASES[1:]}
    if any(better(row[bias]) and better(against(results, bias, BIASES[-1], setting)) for bias in BIASES[1:-1]):
        return INTERIOR
    if all(map(better, row.values())):
        return ALL_THE_WAY if better(against(results, BIASES[-1], BIASES[1], setting)) else ANY
    return NO_GAIN if all(no_better(one) for one in row.values()) else OPEN


def bias_pays(results: Results) -> Answer:
    settings = sorted({key.split("/")[1] for key in results})
    found = {(bias, setting): against(results, bias, 0.0, setting) for bias in BIASES[1:] for setting in settings}
    shapes = {setting: shape(results, found, setting) for setting in settings}
    said = "; ".join(f"{_said(setting)}: " + ", ".join(f"{bias:g}: {_percent(found[bias, setting])}"
                                                       for bias in BIASES[1:]) for setting in settings)
    unfinished = sum(bool(one.failed) for one in results.values())
    verdict = ruled(set(shapes.values()) == {INTERIOR}, set(shapes.values()) == {NO_GAIN})
    seeds = min(one.count for one in found.values())
    return Answer(verdict, f"transfers against no bias, by bias, {said}; seeds: {seeds}"
                  + (f"; {unfinished} of {len(results)} runs did not finish" if unfinished else ""),
                  "; ".join([*(f"{_said(setting)}: {one}" for setting, one in shapes.items()), *_worse_without(found),
                             *(["one seed has no interval: a first look"] if seeds == 1 else [])]),
                  curves(found, settings),
                  on="the guests" if len(set(shapes.values())) > 1 else "what is meant by a little")


def _worse_without(found: Found) -> list[str]:
    """Say so where every bias is better than none, which is what Schwidefsky was for."""
    return ["no bias at all is worse in every setting"] if all(map(better, found.values())) else []


def _said(setting: str) -> str:
    return "one guest, anonymous and file pages" if setting == ALONE else f"common guests at {setting}"


def _percent(found: Estimate) -> str:
    """Return a mean logarithm as a change, and its interval."""
    if found.low is None or found.high is None:
        return f"{expm1(found.mean):+.0%}"
    return f"{expm1(found.mean):+.0%} ({expm1(found.low):+.0%} to {expm1(found.high):+.0%})"


def curves(found: Found, settings: list[str]) -> tuple[Mapping[str, Any], ...]:
    """Return a line for each setting."""
    lines = [{"name": _said(setting), "points": [[0.0, 0.0, None]] + [
        [bias, found[bias, setting].mean, found[bias, setting].half] for bias in BIASES[1:]]} for setting in settings]
    return ({"title": "Transfers against no bias", "x": "bias towards volatile pages", "y": "log of the ratio",
             "lines": lines},)


CLAIMS = (
    Claim("E25", "Jeremy Fitzhardinge against Martin Schwidefsky, spring 2009", "v7 thread",
          "the host should prefer volatile pages a little",
          "under cmm2, a bias of 0, 0.1, 0.5 and 1 of the victims: the common guests at overcommit 1.5 (and 2, not "
          "with --quick), and one guest of anonymous and file pages at 1.5, in software mode; the share is rounded up, "
          "and a guest that waits has two frames freed, so that with many waits a little is half",
          f"supported if in each setting a bias between 0 and 1 has fewer transfers than both ends, by more than "
          f"{CLEAR:.0%} and beyond the 95 % interval of the paired difference; refuted if in none a bias has fewer, "
          f"and the intervals leave no more than {MOST_MISSED:.0%} open", jobs, bias_pays),
)
