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
    above,
    below,
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
from hypervisor.toolstack.compare.statistics import Estimate

SELF = {"interval_s": WINDOW_NS / 1e9, "down": 1, "min_usable": KEPT}    # a guest that looks at itself each window

# E32: a factorial of two by two
CELLS = {                                # scheme, RAM, whether it balloons itself
    "neither": ("none", BUDGET / 2, False), "tmem": ("tmem", BUDGET / 2, False),
    "balloon": ("none", 1.0, True), "both": ("tmem", 1.0, True)}
CUT = ("tmem", BUDGET / 2 * (1 - POOL_SHARE), False)     # beside the four: RAM cut for the pool, as scheme tmem does it
RAM_CUT = "tmem, RAM cut"
GAINS = {"tmem to the balloon": ("both", "balloon"), "the balloon to tmem": ("both", "tmem"),
         "the balloon to tmem with RAM cut": ("both", RAM_CUT)}


def factorial_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{name}/{seed}": cell(*row, windows(size), seed)
            for seed in size.seeds for name, row in (CELLS | {RAM_CUT: CUT}).items()}


def cell(scheme: str, ram: float, balloons: bool, count: int, seed: int) -> Trial:
    own: dict[str, Any] = {"selfballoon": SELF, "start": part(BUDGET / 2)} if balloons else {}
    tenant = needs(*LARGE, ram, **own)
    return steps(scheme, BUDGET, [tenant, tenant], swing(count), seed)


def logarithms(results: Results) -> list[dict[str, float]]:
    """Return the logarithm of an operation's time in each cell, seed by seed."""
    return [{name: log(slow_down(rows_of(results[f"{name}/{seed}"].value))) for name in (*CELLS, RAM_CUT)}
            for seed in seeds_of(results)]


def complement(results: Results) -> Answer:
    times = logarithms(results)
    inter = over_seeds([time["both"] - time["balloon"] - time["tmem"] + time["neither"] for time in times])
    adds = {name: over_seeds([time[one] - time[other] for time in times]) for name, (one, other) in GAINS.items()}
    means = ", ".join(f"{name} {over_seeds([time[name] for time in times]).mean:.3f}" for name in times[0])
    return Answer(ruled(below(inter) and all(map(below, adds.values())), above(inter)),
                  f"interaction {shown(inter, '+.3f')}; logarithm of an operation's time relative to one without "
                  f"waits: {means}; {runs(results)}",
                  "; ".join(f"{name} adds {what_it_adds(each)} ({shown(each, '+.3f')})" for name, each in adds.items()),
                  on="which of the two there is already")


def what_it_adds(change: Estimate) -> str:
    return "a gain" if below(change) else "a loss" if above(change) else "nothing that is shown"


# E9: how far a guest may balloon itself
FAR = (0.0, 0.25, 0.5, 0.75, 1.0)        # from all of its memory to the least
STEADY, THIRD = (0.35, 0.1), (4.0, 0.0)  # working sets of the two guests, and of a third that does not balloon
THIRD_RAM = 0.75                         # so what the third one reads would fill the pool more than once
IDLE, TAKEN = "idle in the host", "wanted by a third guest"      # what becomes of the memory
HOSTS = {IDLE: 2.0, TAKEN: 2.0 + THIRD_RAM}      # budgets in RAM
HALF, LITTLE = 0.5, 0.1                  # of what is lost, or missed; of what is lost
BIG, NONE, BETWEEN = "a big advantage", "none", "something between, or not to be told from these seeds"
SEEDS = 3


def valve_jobs(size: Size) -> Mapping[str, Job]:
    return {f"{scheme}/{host}/{far:g}/{seed}": aggressive(scheme, host, far, windows(size), seed)
            for seed in size.seeds[:SEEDS] for host in HOSTS for far in (FAR[::4] if size.quick else FAR)
            for scheme in ("none", "tmem")}


def aggressive(scheme: str, host: str, far: float, count: int, seed: int) -> Trial:
    rules = SELF | {"min_usable": RAM - round(far * (RAM - KEPT))}
    tenants, loads = [needs(*STEADY, selfballoon=rules)] * 2, [STEADY] * 2
    if host == TAKEN:
        tenants, loads = [*tenants, needs(*THIRD, ram=THIRD_RAM)], [*loads, THIRD]
    return steps(scheme, HOSTS[host], tenants, [phase(count, *loads)] * 2, seed)


def settled(results: Results, scheme: str, host: str, far: float, seed: str) -> list[Row]:
    """Return the rows of the two guests that balloon, once they have found their size: of the second phase."""
    found = results[f"{scheme}/{host}/{far:g}/{seed}"].value
    return [row for tenant in (0, 1) for row in rows_of(found, tenant, [1])]


class Ends:
    """What the way from the near end to the far one does in one host, over the seeds."""

    def __init__(self, results: Results, host: str, near: float, far: float) -> None:
        self._rows = {(scheme, end, seed): settled(results, scheme, host, end, seed) for scheme in ("none", "tmem")
                      for end in (near, far) for seed in seeds_of(results)}
        self._seeds, self._near, self._far = seeds_of(results), near, far
        self.lost = {scheme: over_seeds([self._lost(scheme, seed) for seed in self._seeds])
                     for scheme in ("none", "tmem")}
        self.spared = over_seeds([self._spared(seed) for seed in self._seeds])
        self.served = over_seeds([from_memory(self._rows["tmem", far, seed]) for seed in self._seeds])

    def _lost(self, scheme: str, seed: str) -> float:
        """Return by which part an operation takes longer at the far end."""
        near, far = (slow_down(self._rows[scheme, end, seed]) for end in (self._near, self._far))
        return far / near - 1

    def _spared(self, seed: str) -> float:
        """Return which part of that tmem spares; nothing where nothing is lost."""
        without = self._lost("none", seed)
        return 1 - self._lost("tmem", seed) / without if without > 0 else 0.0

    @property
    def advantage(self) -> str:
        """How much tmem spares: most of a loss, and the pool is why; or hardly anything of it."""
        if above(self.lost["none"]) and above(self.spared, HALF) and above(self.served, HALF):
            return BIG
        return NONE if below(self.spared, LITTLE) else BETWEEN


def valve(results: Results) -> Answer:
    points = sorted({float(label.split("/")[2]) for label in results})
    ends = {host: Ends(results, host, points[0], points[-1]) for host in HOSTS}
    figure = "; ".join(
        f"memory {host}: time {shown(each.lost['none'], '+.1%')} without tmem, {shown(each.lost['tmem'], '+.1%')} "
        f"with, {shown(each.served, '.0%')} of what was missed came from the pool" for host, each in ends.items())
    advantages = {host: each.advantage for host, each in ends.items()}
    return Answer(ruled(set(advantages.values()) == {BIG}, set(advantages.values()) == {NONE}),
                  f"{figure}; {runs(results)}",
                  "; ".join(f"memory {host}: {advantages[host]}, tmem spares {shown(each.spared, '.0%')} of what is "
                            f"lost" for host, each in ends.items()),
                  ({"title": "self-ballooning, how far", "x": "from all of its memory (0) to the least (1)",
                    "y": "throughput, 1 without any wait", "lines": lines(results, points)},),
                  on="what becomes of the memory" if len(set(advantages.values())) > 1 else "how big is big")


def lines(results: Results, points: list[float]) -> list[Mapping[str, Any]]:
    """Return throughput over how far guests balloon themselves, a line for each scheme and host."""
    def at(scheme: str, host: str, far: float) -> list[Any]:
        found = over_seeds([1 / slow_down(settled(results, scheme, host, far, seed)) for seed in seeds_of(results)])
        return [far, found.mean, found.half]

    return [{"name": f"{scheme}, {host}", "points": [at(scheme, host, far) for far in points]}
            for scheme in ("none", "tmem") for host in HOSTS]


CLAIMS = (
    Claim("E9", "Dan Magenheimer, Jul 2009", "c0e57d57, fa083462",
          "tmem is a safety valve for a balloon that is too aggressive: a big advantage over self-ballooning alone",
          f"two guests of 8 MiB, {sum(STEADY):g} of it in use, that balloon themselves, from not at all (0) down to "
          f"what they have committed (1), with and without tmem; the memory lies idle in the host, or a third guest "
          f"fills the pool as well: {THIRD_RAM:g} of a guest's RAM, and a file of {THIRD[0]:g}; disks by the model ssd",
          "supported if at the far end time is lost without tmem, tmem spares more than half of that, and more than "
          "half of what was missed comes from the pool, whatever becomes of the memory, with 95 % intervals; refuted "
          f"if it spares less than {LITTLE:.0%} of it in either, alike", valve_jobs, valve),
    Claim("E32", "Dan Magenheimer, Jul 2009", "675faabd, e60ab548",
          "a balloon and tmem complement each other: similar, but far from the same",
          f"two guests that are large and small by turns, in {BUDGET:g} guests' memory: RAM fixed or self-ballooned, "
          f"with and without tmem, and with RAM cut for the pool as scheme tmem cuts it; disks by the model ssd; the "
          f"balloon is hasty: each {SELF['interval_s']:g} s it goes all the way to its goal, down to {KEPT} pages",
          "supported if both together gain more than the sum of each (interaction of the logarithms of time), and are "
          "faster than the balloon and than tmem, RAM cut or not, with 95 % intervals; refuted if the interaction is "
          "above 0",
          factorial_jobs, complement),
)
