"""What a balloon and a pool are to each other: E9, E32."""

from collections.abc import Mapping
from math import log
from typing import Any

from hypervisor.schemes import POOL_SHARE
from hypervisor.toolstack.claims.claim import Answer, Claim, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Job, Trial
from hypervisor.toolstack.claims.stages import (
    BUDGET,
    KEPT,
    LARGE,
    RAM,
    WINDOW_NS,
    Row,
    from_memory,
    needs,
    over_seeds,
    part,
    phase,
    rows_of,
    runs,
    seeds_of,
    shown,
    slow_down,
    steps,
    swing,
    windows,
)

SELF = {"interval_s": WINDOW_NS / 1e9, "down": 1, "min_usable": KEPT}    # a guest that looks at itself each window

# E32: a factorial of two by two
CELLS = {                                # scheme, RAM, whether it balloons itself
    "neither": ("none", BUDGET / 2, False), "tmem": ("tmem", BUDGET / 2, False),
    "balloon": ("none", 1.0, True), "both": ("tmem", 1.0, True)}
CUT = ("tmem", BUDGET / 2 * (1 - POOL_SHARE), False)     # beside the four: RAM cut for the pool, as scheme tmem does it
WORTH = 0.02                             # of the time: less is nothing
GAINS = {"tmem to the balloon": ("both", "balloon"), "the balloon to tmem": ("both", "tmem")}


def factorial_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{name}/{seed}": cell(*row, windows(size), seed)
            for seed in size.seeds for name, row in (CELLS | {"tmem, RAM cut": CUT}).items()}


def cell(scheme: str, ram: float, balloons: bool, count: int, seed: int) -> Trial:
    own: dict[str, Any] = {"selfballoon": SELF, "start": part(BUDGET / 2)} if balloons else {}
    tenant = needs(*LARGE, ram, **own)
    return steps(scheme, BUDGET, [tenant, tenant], swing(count), seed)


def logarithms(results: Results) -> list[dict[str, float]]:
    """Return the logarithm of an operation's time in each cell, seed by seed."""
    return [{name: log(slow_down(rows_of(results[f"{name}/{seed}"].value))) for name in (*CELLS, "tmem, RAM cut")}
            for seed in seeds_of(results)]


def complement(results: Results) -> Answer:
    times = logarithms(results)
    inter = over_seeds([time["both"] - time["balloon"] - time["tmem"] + time["neither"] for time in times])
    adds = {name: over_seeds([time[one] - time[other] for time in times]) for name, (one, other) in GAINS.items()}
    means = ", ".join(f"{name} {over_seeds([time[name] for time in times]).mean:.3f}" for name in times[0])
    high, low = (inter.mean if inter.half is None else end for end in (inter.high, inter.low))
    assert high is not None and low is not None
    return Answer(ruled(high < 0 and all(each.mean <= WORTH for each in adds.values()), low > 0),
                  f"interaction {shown(inter, '+.3f')}; logarithm of an operation's time relative to one without "
                  f"waits: {means}; {runs(results)}",
                  "; ".join(f"{name} adds {'a gain' if each.mean < -WORTH else 'nothing'} ({shown(each, '+.3f')})"
                            for name, each in adds.items()))


# E9: how far a guest may balloon itself
FAR = (0.0, 0.25, 0.5, 0.75, 1.0)        # from all of its memory to the least
STEADY, THIRD = (0.35, 0.1), (0.0, 0.7)  # working sets of the two guests, and of a third that does not balloon
IDLE, TAKEN = "idle in the host", "wanted by a third guest"      # what becomes of the memory
HOSTS = {IDLE: 2.0, TAKEN: 1.75}         # budgets in RAM; the third guest has 0.75 of them
LOST, HALF, LITTLE = 0.05, 0.5, 0.1      # of the time at the near end; of what is lost, or missed; of what is lost


def valve_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{scheme}/{host}/{far:g}/{seed}": aggressive(scheme, host, far, windows(size), seed)
            for seed in size.seeds[:2] for host in HOSTS for far in (FAR[::4] if size.quick else FAR)
            for scheme in ("none", "tmem")}


def aggressive(scheme: str, host: str, far: float, count: int, seed: int) -> Trial:
    start = 1.0 if host == IDLE else 0.5
    rules = SELF | {"min_usable": RAM - round(far * (RAM - KEPT))}
    tenants = [needs(*STEADY, selfballoon=rules, start=part(start))] * 2
    loads = [STEADY] * 2
    if host == TAKEN:
        tenants, loads = [*tenants, needs(*THIRD, ram=HOSTS[TAKEN] - 2 * start)], [*loads, THIRD]
    return steps(scheme, HOSTS[host], tenants, [phase(count, *loads)] * 2, seed)


def settled(results: Results, scheme: str, host: str, far: float) -> list[Row]:
    """Return the rows of the two guests that balloon, once they have found their size: of the second phase."""
    return [row for label, found in results.items() if label.startswith(f"{scheme}/{host}/{far:g}/")
            for tenant in (0, 1) for row in rows_of(found.value, tenant, [1])]


def valve(results: Results) -> Answer:
    points = sorted({float(label.split("/")[2]) for label in results})
    time = {(scheme, host): [slow_down(settled(results, scheme, host, far)) for far in points]
            for scheme in ("none", "tmem") for host in HOSTS}
    loss = {key: values[-1] / values[0] - 1 for key, values in time.items()}
    spared = {host: 1 - loss["tmem", host] / loss["none", host] if loss["none", host] > 0 else 0.0 for host in HOSTS}
    served = {host: from_memory(settled(results, "tmem", host, points[-1])) for host in HOSTS}
    figure = "; ".join(f"memory {host}: {loss['none', host]:+.1%} time without tmem, {loss['tmem', host]:+.1%} with, "
                       f"{served[host]:.0%} of what was missed came from the pool" for host in HOSTS)
    lines = [{"name": f"{scheme}, {host}",
              "points": [[far, 1 / value, None] for far, value in zip(points, values, strict=True)]}
             for (scheme, host), values in time.items()]
    holds = [loss["none", host] >= LOST and spared[host] >= HALF and served[host] >= HALF for host in HOSTS]
    return Answer(ruled(all(holds), any(share <= LITTLE for share in spared.values())), f"{figure}; {runs(results)}",
                  "" if all(holds) else "of what becomes of the memory that was given up",
                  ({"title": "self-ballooning, how far", "x": "from all of its memory (0) to the least (1)",
                    "y": "throughput, 1 without any wait", "lines": lines},))


CLAIMS = (
    Claim("E9", "Dan Magenheimer, Jul 2009", "c0e57d57, fa083462",
          "tmem is a safety valve for a balloon that is too aggressive: a big advantage over self-ballooning alone",
          "two guests of 8 MiB that balloon themselves, from not at all (0) down to what they have committed (1), with "
          "and without tmem; the memory lies idle in the host, or a third guest wants it; disks by the model ssd",
          f"supported if at the far end {LOST:.0%} of time or more is lost without tmem, tmem spares half of that or "
          f"more, and half of what was missed or more comes from the pool, whatever becomes of the memory; refuted if "
          f"tmem spares {LITTLE:.0%} or less", valve_jobs, valve),
    Claim("E32", "Dan Magenheimer, Jul 2009", "675faabd, e60ab548",
          "a balloon and tmem complement each other: similar, but far from the same",
          f"two guests that are large and small by turns, in {BUDGET:g} guests' memory: RAM fixed or self-ballooned, "
          f"with and without tmem; disks by the model ssd",
          f"supported if both together gain more than the sum of each (interaction of the logarithms of time below 0, "
          f"with its interval), and are no slower than either by {WORTH:g}; refuted if the interaction is above 0",
          factorial_jobs, complement),
)
