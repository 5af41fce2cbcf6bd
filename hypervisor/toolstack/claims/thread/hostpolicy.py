"""What the host's choice of victims decides, and what it could be told or taught: E23, E25, E31."""

from collections.abc import Mapping, Sequence
from math import log
from statistics import fmean
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Missing, Results, Size, Verdict, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.setups import grid, label
from hypervisor.toolstack.compare.statistics import Estimate, estimate, jain
from shm.abi import PAGE_SIZE

MIB = 1 << 20
SHORT = (1.5, 2.0)
SWAP = 16 * MIB

WORKING_SET, FRAMES = 320, 512           # pages of each guest; frames of both
RATES = (1, 2, 4, 8)
UNEQUAL, EQUAL = 1.2, 1.1                # frames of the busy guest / of the idle one

BIASES = (0.0, 0.1, 0.5, 1.0)
TRANSFERS = ("guest_disk_reads", "guest_disk_writes", "guest_swap_reads", "guest_swap_writes", "swap_in", "swap_out")
CLEAR = 0.02                             # of the transfers: where one seed gives no interval, less is no difference

GUEST = 512                              # pages of the guest of E31
POLICIES: dict[str, Mapping[str, Any]] = {
    "hint-after-choice": {}, "bias 0.1": {"bias": 0.1}, "bias 0.5": {"bias": 0.5},
    "u-e-v-p-s": {"reclaim": "u-e-v-p-s"}}
GAIN = 0.05


# E23

def rate_jobs(size: Size) -> Mapping[str, Job]:
    options = {"pages": GUEST, "working_set": WORKING_SET, "rates": list(RATES), "operations": size.operations(8000)}
    return {f"rates/{seed}": Trial("tworates", {"scheme": "cmm2", "budget": FRAMES * PAGE_SIZE, "swap": SWAP},
                                   options | {"seed": seed}, limit_s=300) for seed in size.seeds[:3]}


def global_lru(results: Results) -> Answer:
    rows = {rate: [row for found in results.values() for row in found.value["rows"] if row["rate"] == rate]
            for rate in RATES}
    shares = {rate: fmean(row["frames"][0] / row["frames"][1] for row in found) for rate, found in rows.items()}
    busiest, even = shares[RATES[-1]], shares[RATES[0]]
    said = ", ".join(f"{rate}: {shares[rate]:.2f} (best {best_share(rows[rate]):.2f}, fairness "
                     f"{fmean(jain(row['frames']) or 0.0 for row in rows[rate]):.2f})" for rate in RATES[1:])
    figure = (f"frames of the busy guest / of the idle one, used so many times as often, {RATES[0]}: {even:.2f}, "
              f"{said}; runs: {len(results)}")
    verdict = ruled(busiest >= UNEQUAL and even <= EQUAL, busiest <= EQUAL)
    on = "on how unequal is unequal, or something else divides the frames: " if verdict is Verdict.DEPENDS else ""
    return Answer(verdict, figure,
                  f"{on}reads / reads of the best division: " + ", ".join(f"{rate}: {excess(rows[rate]):.2f}"
                                                                     for rate in RATES[1:]), _share_curves(rows))


def best_share(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the ratio of frames with the fewest reads: the busy guest's whole working set first."""
    frames = fmean(sum(row["frames"]) for row in rows)
    return min(WORKING_SET, frames) / (frames - min(WORKING_SET, frames))


def excess(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the reads relative to those of the best division of the same frames."""
    return fmean(sum(row["reads"]) / best_reads(row) for row in rows)


def best_reads(row: Mapping[str, Any]) -> float:
    """Return the reads of the best division: pages are chosen evenly, so a frame saves what its guest's rate says."""
    idle = sum(row["frames"]) - WORKING_SET
    return row["touches"] / (row["rate"] + 1) * (1 - max(0.0, idle) / WORKING_SET)


def _share_curves(rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> tuple[Mapping[str, Any], ...]:
    lines = [{"name": name, "points": [[rate, share(found), None] for rate, found in rows.items()]} for name, share in (
        ("the clock's", lambda found: fmean(row["frames"][0] / sum(row["frames"]) for row in found)),
        ("the best", lambda found: best_share(found) / (1 + best_share(found))))]
    return ({"title": "Frames of the busy guest, of all", "x": "its accesses for one of the other's", "y": "share",
             "lines": lines},)


# E25

def bias_jobs(size: Size) -> Mapping[str, Job]:
    overcommits = SHORT[:1] if size.quick else SHORT
    return {f"{bias:g}/{one}": job for bias in BIASES
            for one, job in grid("common", ("cmm2",), overcommits, size.seeds, size,
                                 hypervisor={"bias": bias}).items()}


def transfers(summary: Mapping[str, Any]) -> int:
    """Return all transfers of a run: of guests with their disks and their swap, and of the host with its own."""
    return sum(summary["counters"].get(name, 0) for name in TRANSFERS)


def against_none(results: Results, bias: float, overcommit: float) -> Estimate:
    """Return the mean logarithm of the transfers relative to those without bias, seed by seed."""
    seeds = sorted({int(key.rsplit("/", 1)[1]) for key in results})
    pairs = [(results[f"{one:g}/{label('cmm2', overcommit, seed)}"] for one in (bias, 0.0)) for seed in seeds]
    found = estimate([log(transfers(biased.value) / transfers(none.value)) for biased, none in pairs])
    if found is None:
        raise Missing("no seed was run")
    return found


def worse(found: Estimate) -> bool:
    return found.mean > CLEAR and (found.low is None or found.low > 0)


def better(found: Estimate) -> bool:
    return found.mean < -CLEAR and (found.high is None or found.high < 0)


def bias_pays(results: Results) -> Answer:
    tried = sorted({float(key.split("/")[2]) for key in results})
    found = {(bias, k): against_none(results, bias, k) for bias in BIASES[1:] for k in tried}
    inner = [k for k in tried if interior(found, k)]
    no_gain = [k for k in tried if not any(better(found[bias, k]) for bias in BIASES[1:])]
    said = "; ".join(f"overcommit {k:g}: " + ", ".join(f"{bias:g}: {_percent(found[bias, k])}" for bias in BIASES[1:])
                     for k in tried)
    seeds = next(iter(found.values())).count
    on = ("" if tried in (inner, no_gain) else
          f"on the overcommit and on how much is a little: an optimum between the ends at {_at(inner)}, no gain at "
          f"{_at(no_gain)}, and elsewhere the most bias is as good as any; ")
    return Answer(ruled(inner == tried, no_gain == tried),
                  f"transfers against no bias, by bias, {said}; seeds: {seeds}",
                  on + ("one seed has no interval: a first look" if seeds == 1 else ""),
                  _bias_curves(found))


def interior(found: Mapping[tuple[float, float], Estimate], overcommit: float) -> bool:
    """Say whether a bias between the ends is better than none, and than the whole."""
    inner = [found[bias, overcommit] for bias in BIASES[1:-1] if better(found[bias, overcommit])]
    return bool(inner) and min(one.mean for one in inner) < found[BIASES[-1], overcommit].mean - CLEAR


def _percent(found: Estimate) -> str:
    return f"{found.mean:+.1%}" + ("" if found.half is None else f" +- {found.half:.1%}")


def _at(overcommits: Sequence[float]) -> str:
    return ", ".join(f"{k:g}" for k in overcommits) or "none"


def _bias_curves(found: Mapping[tuple[float, float], Estimate]) -> tuple[Mapping[str, Any], ...]:
    lines = [{"name": f"overcommit {k:g}",
              "points": [[0.0, 0.0, None]] + [[b, found[b, k].mean, found[b, k].half] for b in BIASES[1:]]}
             for k in sorted({k for _, k in found})]
    return ({"title": "Transfers against no bias", "x": "bias towards volatile pages", "y": "log of the ratio",
             "lines": lines},)


# E31

def policy_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{policy}/{seed}": Trial(
        "pressure", {"scheme": "cmm2", "budget": int(GUEST / SHORT[0]) * PAGE_SIZE, "swap": SWAP, **settings},
        {"pages": GUEST, "anonymous": 240, "file": 200, "operations": size.operations(8000), "seed": seed})
        for seed in size.seeds for policy, settings in POLICIES.items()}


def evolves(results: Results) -> Answer:
    runs = {policy: [found.value for key, found in results.items() if key.split("/")[0] == policy]
            for policy in POLICIES}
    codes = {run["guest_code"] for found in runs.values() for run in found}
    crossed = {policy: fmean(run["total"] for run in found) for policy, found in runs.items()}
    first = crossed["hint-after-choice"]
    gain = 1 - min(crossed.values()) / first
    said = ", ".join(f"{policy} {count / first:.2f}" for policy, count in crossed.items())
    return Answer(ruled(len(codes) == 1 and gain >= GAIN, len(codes) > 1 or gain < GAIN),
                  f"{len(codes)} digest{'s' if len(codes) > 1 else ''} of the guest's code "
                  f"({', '.join(sorted(code[:12] for code in codes))}); transfers relative to the first: {said}; "
                  f"runs of each: {len(next(iter(runs.values())))}")


CLAIMS = (
    Claim("E23", "Jeremy Fitzhardinge against Rik van Riel, spring 2009", "49D5215D",
          "an LRU over all guests is a sizing policy by itself, though nobody decides anything",
          f"two guests of equal working sets, {WORKING_SET} pages each, evenly used, {FRAMES} frames for both, under "
          f"cmm2; one is used 1, 2, 4, 8 times as often; guests' own reclaim has nothing to do",
          f"supported if the guest used {RATES[-1]} times as often holds {UNEQUAL:g} times the frames or more, and "
          f"equal ones at most {EQUAL:g} times; refuted if it holds at most {EQUAL:g} times", rate_jobs, global_lru),
    Claim("E25", "Jeremy Fitzhardinge against Martin Schwidefsky, spring 2009", "v7 thread",
          "the host should prefer volatile pages a little",
          "the common guests at overcommit 1.5 (and 2, not with --quick) under cmm2, bias 0, 0.1, 0.5 and 1",
          f"supported if at each overcommit a bias between 0 and 1 has fewer transfers than both ends, by more than "
          f"{CLEAR:.0%} and, against 0, beyond the 95 % interval over the seeds; refuted if no bias has fewer so",
          bias_jobs, bias_pays),
    Claim("E31", "Anthony Liguori, 12 Jul 2009", "4A5A3AC1",
          "with CMM2 the policy evolves in the hypervisor alone",
          "one guest under cmm2 at overcommit 1.5, the same operations under four policies of the host",
          f"supported if the guest runs the same code, byte by byte, under all of them, and the best has at least "
          f"{GAIN:.0%} fewer transfers than the first; else refuted",
          policy_jobs, evolves),
)
