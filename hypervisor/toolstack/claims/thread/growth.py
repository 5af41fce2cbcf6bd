"""Anonymous memory: what hints can do for it (E11), and how a guest gets more of it (E12)."""

from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean

from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.stages import LIMIT_S, RAM, disk_pages, needs, order, part, runs

# E11
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)     # of the working set that is anonymous
WORKING = 0.9                            # of the guest's RAM
SHORT = 1.5                              # working set / budget
WARM, WORK = 4000, 8000                  # operations: fewer are no steady state, in a quick run either
NEAR, NOTHING = 0.1, 0.05                # of the line; of no gain

# E12
GIVEN = 0.5                              # of its RAM, to the guest
GROWN, BEFORE = 1.5, 0.8                 # its working sets, in what it was given
AMPLE = 1.5                              # the budget, in RAM: there is idle memory
ARMS = {                                 # scheme, RAM, whether the budget is what was given until it grows
    "plain memory": ("none", 1.0, False), "cmm2": ("cmm2", 1.0, True), "balloon": ("balloon", 1.0, True),
    "preswap": ("tmem", GIVEN, False), "swap to disk": ("none", GIVEN, False)}
WINDOWS, WINDOW = 8, 2000                # operations in a window
OFTEN, SELDOM, SLOWER = 0.1, 0.01, 1.1   # pages moved an operation; time relative to plain memory


def anonymous_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{scheme}/{share:g}/{seed}": Trial("steady", order(scheme, WORKING), {
                "cases": [case(share)], "warm": WARM, "work": WORK, "seed": seed}, LIMIT_S)
            for seed in size.seeds[:3] for share in SHARES[::2 if size.quick else 1] for scheme in ("swap", "cmm2")}


def case(share: float) -> dict[str, object]:
    """Return a guest with this share of its working set anonymous."""
    anon = part(WORKING * share)
    file = part(WORKING) - anon
    return {"budget": round(part(WORKING) / SHORT), "tenants": [needs(file / RAM, anon / RAM)], "loads": [[file, anon]],
            "splits": []}


def gains(results: Results) -> dict[float, float]:
    """Return the part of the I/O that cmm2 saves, by anonymous share; means over the seeds."""
    io = {label: disk_pages(found.value["cases"][0][0]) for label, found in results.items()}
    found: dict[float, list[float]] = {}
    for label, pages in io.items():
        scheme, share, seed = label.split("/")
        if scheme == "cmm2":
            found.setdefault(float(share), []).append(1 - pages / io[f"swap/{share}/{seed}"])
    return {share: fmean(values) for share, values in sorted(found.items())}


def refetchable(results: Results) -> Answer:
    found = gains(results)
    none, everything = found[0.0], found[1.0]
    off = max(abs(gain - none * (1 - share)) for share, gain in found.items())
    rises = any(later > earlier + NEAR for earlier, later in pairwise(found.values()))
    points = list(found.items())
    figure = ", ".join(f"{share:g}: {gain:+.0%}" for share, gain in points)
    lines = [{"name": "cmm2 against swap", "points": [[share, gain, None] for share, gain in points]},
             {"name": "(1 - x) of the first", "points": [[0.0, none, None], [1.0, 0.0, None]]}]
    return Answer(ruled(none > NEAR and off <= NEAR and abs(everything) <= NOTHING,
                        rises or everything > NEAR or none <= NOTHING),
                  f"I/O saved by cmm2, by anonymous share: {figure}; at most {off:.2f} off the line; {runs(results)}",
                  "", ({"title": "what hints save", "x": "anonymous share of the working set", "y": "I/O saved",
                    "lines": lines},),
                  on="the share: the gain falls with it, but not as (1 - share)")


def growth_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{name}/{seed}": grows(*arm, seed, size.operations(WINDOW))
            for seed in size.seeds[:3] for name, arm in ARMS.items()}


def grows(scheme: str, ram: float, tight: bool, seed: int, work: int) -> Trial:
    given = part(GIVEN)
    return Trial("growth", order(scheme, AMPLE), {
        "tenant": needs(0, GIVEN * GROWN, ram), "before": round(BEFORE * given), "after": round(GROWN * given),
        "tight": given if tight else 0, "windows": WINDOWS, "work": work, "seed": seed},
        LIMIT_S)


MOVES = ("frontswap_loads", "frontswap_stores", "guest_in", "guest_out", "host_in", "host_out")


def moved(results: Results, arm: str) -> float:
    """Return the pages moved an operation after it has grown, mean over the seeds."""
    rows = [row for label, found in results.items() if label.split("/")[0] == arm for row in found.value["after"]]
    return sum(row[name] for row in rows for name in MOVES) / sum(row["operations"] for row in rows)


def slower(results: Results, arm: str) -> float:
    """Return how much longer an operation takes after the growth, by the best window of each; the median seed."""
    ratios = sorted(best(found.value["after"]) / best(found.value["before"])
                    for label, found in results.items() if label.split("/")[0] == arm)
    return ratios[len(ratios) // 2]


def best(windows: list[Mapping[str, int]]) -> float:
    return min(row["clock_ns"] / row["operations"] for row in windows)


def growing(results: Results) -> Answer:
    plain = slower(results, "plain memory")
    pages = {arm: moved(results, arm) for arm in ARMS}
    times = {arm: slower(results, arm) / plain for arm in ARMS}
    figure = "; ".join(f"{arm} {pages[arm]:.2f} pages moved an operation, {times[arm]:.2f} of plain memory's time"
                       for arm in ARMS)
    return Answer(ruled(pages["cmm2"] <= SELDOM and pages["preswap"] >= OFTEN and times["preswap"] >= SLOWER,
                        pages["preswap"] <= SELDOM or pages["cmm2"] >= pages["preswap"]),
                  f"{figure}; {runs(results)}",
                  "a call and a copy cost more here than in a hypervisor, so preswap's time is too long: what it moves "
                  "is not" + ("" if pages["balloon"] <= SELDOM else "; the balloon had not settled"),
                  on="how much is slower: preswap's pages move, and time hardly shows it")


CLAIMS = (
    Claim("E11", "Rik van Riel, Jul 2009", "4A567310, 4A5660CB", "only pages that can be fetched again can be volatile",
          f"a guest of 8 MiB, its working set {SHORT:g} times the budget; a share of it from 0 to 1 is anonymous, the "
          "rest file pages; total I/O in the steady state under swap and under cmm2",
          f"supported if the part that cmm2 saves is that of file pages alone times (1 - share), within {NEAR:g}, and "
          f"within {NOTHING:g} of nothing at 1; refuted if it rises with the share, or is above {NEAR:g} at 1, or "
          f"nothing at 0", anonymous_jobs, refetchable),
    Claim("E12", "Avi Kivity, 12 Jul 2009; Dan Magenheimer agrees", "4A59AAF1, 426e84ca",
          "when an anonymous working set grows beyond the RAM that was given, the guest swaps like mad, and swapping "
          "to tmem is slower than memory",
          f"a guest that was given {part(GIVEN)} pages; its anonymous working set grows from {BEFORE:g} to {GROWN:g} "
          "of that while the host has memory to spare; figures of the steady state after it",
          f"supported if preswap moves {OFTEN:g} pages an operation or more and takes {SLOWER:g} of plain memory's "
          f"time or more, while cmm2, which gets frames at faults, moves at most {SELDOM:g}; refuted if preswap moves "
          "no more than that, or cmm2 as much as preswap", growth_jobs, growing),
)
