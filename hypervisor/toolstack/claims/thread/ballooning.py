"""Ballooning and hints side by side in a steady state: E6."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.stages import (
    HEADROOM,
    LIMIT_S,
    above,
    below,
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
from hypervisor.toolstack.compare.statistics import Estimate

OVERCOMMITS = (1.5, 2.0, 2.5)
FILES, NUMBERS = (0.6, 0.2), (0.2, 0.6)      # working sets of the two guests, file and anonymous, in RAM
WARM, WORK = 4000, 6000                      # operations of each
SPLITS = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)     # of the memory, to the first guest: the best is the oracle's
ABOUT = (0.9, 1.1)                           # of reference 5: about equal


def jobs(size: Size) -> Mapping[str, Job]:
    return {f"{scheme}/{seed}": steady(scheme, seed, size) for seed in size.seeds for scheme in ("balloon", "cmm2")}


def steady(scheme: str, seed: int, size: Size) -> Trial:
    splits, part_of = (SPLITS[1::2], 2) if size.quick else (SPLITS, 1)
    cases = [case(overcommit, splits if scheme == "balloon" else ()) for overcommit in OVERCOMMITS]
    more = {"balloon": {"controller": "self"}} if scheme == "balloon" else {}
    return Trial("steady", order(scheme, 2.0, **more), {
        "cases": cases, "warm": WARM // part_of, "work": WORK // part_of, "seed": seed}, LIMIT_S)


def case(overcommit: float, splits: Sequence[float]) -> dict[str, Any]:
    budget = part(2 / overcommit)
    dealt = int(budget * (1 - HEADROOM))
    return {"budget": budget, "tenants": [needs(*FILES), needs(*NUMBERS)], "loads": [load(FILES), load(NUMBERS)],
            "splits": [[round(dealt * share), dealt - round(dealt * share)] for share in splits]}


def ratio(results: Results, at: int) -> Estimate:
    """Return the total I/O of cmm2 relative to the best split of a case, over the seeds."""
    io = {label: [disk_pages(split) for split in found.value["cases"][at]] for label, found in results.items()}
    seeds = seeds_of(results)
    balloons = {seed: io[f"balloon/{seed}"] for seed in seeds}
    return over_seeds([io[f"cmm2/{seed}"][0] / balloons[seed][oracle(balloons, seed)] for seed in seeds])


def oracle(balloons: Mapping[str, Sequence[int]], seed: str) -> int:
    """Return the split that is best with the other seeds: chosen on its own, it would be the luckiest."""
    others = [row for name, row in balloons.items() if name != seed] or list(balloons.values())
    sums = [sum(column) for column in zip(*others, strict=True)]
    return sums.index(min(sums))


def inside(ratio: Estimate) -> bool:
    """Say whether a ratio is about 1, with all of its interval."""
    return above(ratio, ABOUT[0]) and below(ratio, ABOUT[1])


def outside(ratio: Estimate) -> bool:
    return below(ratio, ABOUT[0]) or above(ratio, ABOUT[1])


def place(ratio: Estimate) -> str:
    return "about equal" if inside(ratio) else "not equal" if outside(ratio) else "open"


def alike(results: Results) -> Answer:
    ratios = {overcommit: ratio(results, at) for at, overcommit in enumerate(OVERCOMMITS)}
    figure = ", ".join(f"{overcommit:g}: {shown(found)}" for overcommit, found in ratios.items())
    verdict = ruled(all(map(inside, ratios.values())), all(map(outside, ratios.values())))
    each = ", ".join(f"{overcommit:g}: {place(found)}" for overcommit, found in ratios.items())
    return Answer(verdict, f"total I/O of cmm2 relative to the best split by balloons, by overcommit: {figure}; "
                           f"{runs(results)}", each, on="the overcommit")


CLAIMS = (
    Claim("E6", "Martin Schwidefsky, Mar 2009; Rik van Riel", "20090329162336",
          "page hinting gains about as much as ballooning",
          "two guests of 8 MiB whose working sets stay as they are, one mostly files, one mostly anonymous, at "
          f"overcommit {', '.join(f'{at:g}' for at in OVERCOMMITS)}; the balloons are an oracle's: of "
          f"{len(SPLITS)} ways to split the memory the one with the least I/O with the other seeds; cmm2 is left to "
          "itself",
          f"supported if total I/O of cmm2 is {ABOUT[0]:g} to {ABOUT[1]:g} times the best balloons' at every "
          "overcommit, with its 95 % interval; refuted if it is outside at every one, alike", jobs, alike),
)
