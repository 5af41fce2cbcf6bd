"""What the host's choice of victims decides, and what it could be told or taught: E23, E31."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.compare.statistics import jain
from shm.abi import PAGE_SIZE

MIB = 1 << 20
SHORT = 1.5
SWAP = 16 * MIB

WORKING_SET, FRAMES = 320, 512           # pages of each guest; frames of both
RATES = (1, 2, 4, 8)
UNEQUAL, EQUAL = 1.2, 1.1                # frames of the busy guest / of the idle one

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
    return Answer(verdict, figure,
                  "reads / reads of the best division: " + ", ".join(f"{rate}: {excess(rows[rate]):.2f}"
                                                                     for rate in RATES[1:]), _share_curves(rows),
                  on="how unequal is unequal, or something else divides the frames")


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


# E31

def policy_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{policy}/{seed}": Trial(
        "pressure", {"scheme": "cmm2", "budget": int(GUEST / SHORT) * PAGE_SIZE, "swap": SWAP, **settings},
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
                  f"runs of each: {len(next(iter(runs.values())))}",
                  "that the guest's code is the same is what was done, and not a finding; the gain is")


CLAIMS = (
    Claim("E23", "Jeremy Fitzhardinge against Rik van Riel, spring 2009", "49D5215D",
          "an LRU over all guests is a sizing policy by itself, though nobody decides anything",
          f"two guests of equal working sets, {WORKING_SET} pages each, evenly used, {FRAMES} frames for both, under "
          f"cmm2; one is used 1, 2, 4, 8 times as often; guests' own reclaim has nothing to do",
          f"supported if the guest used {RATES[-1]} times as often holds {UNEQUAL:g} times the frames or more, and "
          f"equal ones at most {EQUAL:g} times; refuted if it holds at most {EQUAL:g} times", rate_jobs, global_lru),
    Claim("E31", "Anthony Liguori, 12 Jul 2009", "4A5A3AC1",
          "with CMM2 the policy evolves in the hypervisor alone",
          "one guest under cmm2 at overcommit 1.5, the same operations under four policies of the host",
          f"supported if the guest runs the same code, byte by byte, under all of them, and the best has at least "
          f"{GAIN:.0%} fewer transfers than the first; else refuted",
          policy_jobs, evolves),
)
