"""Who should sleep while a page comes in: E26."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from hypervisor.toolstack.claims.claim import Answer, Claim, Missing, Results, Size, ruled
from hypervisor.toolstack.claims.jobs import Run
from hypervisor.toolstack.claims.setups import NUMBERS, grid, label
from hypervisor.toolstack.claims.thread.bias import transfers
from shm.diskcost import MODELS

ANONYMOUS = (NUMBERS | {"count": 3, "options": {"table": "12MiB", "derived": "1MiB"}},)
TIGHT, PAGE_INS = (1.25, 1.5), 2000      # overcommits and operations
DISK = MODELS["hdd"]
TASKS = (1, 2, 4, 8)
MANY_TASKS, NO_CHEAPER = 4, 1.05


def page_in_jobs(size: Size) -> Mapping[str, Run]:
    return grid("anonymous, hdd", ("swap", "tmem"), TIGHT, size.seeds[:3], size, ANONYMOUS, PAGE_INS,
                disk={"latency": DISK.name})


def parts(summary: Mapping[str, Any]) -> tuple[float, float]:
    """Return what a run computed (CPU seconds of guests and hypervisor), and what its guests waited for disks."""
    computed = [guest["cpu_s"] for guest in summary["guests"]]
    waited = [guest["virtual_seconds"] for guest in summary["guests"]]
    if None in computed or None in waited:
        raise Missing("a guest did not say what it took")
    return sum(computed) + (summary["tmem"]["hypervisor_cpu_s"] or 0.0), sum(waited)


def with_tasks(computed: float, waited: float, tasks: int, channels: int = DISK.channels) -> float:
    """Return the least time with so many runnable tasks of which each waits alone: one processor, one disk."""
    return max(computed, waited / channels, (computed + waited) / tasks)


def at_its_worst(summary: Mapping[str, Any]) -> float:
    """Return the time in which nobody computes while anybody waits, and all that the host's disk does is waited for."""
    return sum(parts(summary)) + float(summary["disk"]["swap_busy_s"])


def no_cheaper(results: Results) -> Answer:
    ratios = {(k, tasks): _host_against_guest(results, k, tasks) for k in TIGHT for tasks in TASKS}
    worst = {k: _worst_against_guest(results, k) for k in TIGHT}
    said = "; ".join(f"overcommit {k:g}: " + ", ".join(f"{tasks}: {ratios[k, tasks]:.2f}" for tasks in TASKS)
                     for k in TIGHT)
    crossed = ", ".join(f"{k:g}: {_crossed(results, k):.2f}" for k in TIGHT)
    at_many = [ratios[k, MANY_TASKS] for k in TIGHT]
    lines = [{"name": f"overcommit {k:g}", "points": [[tasks, ratios[k, tasks], None] for tasks in TASKS]}
             for k in TIGHT]
    return Answer(ruled(max(worst.values()) <= NO_CHEAPER, min(at_many) > NO_CHEAPER),
                  f"time with host swap / with preswap of {MANY_TASKS} tasks, the host at its worst (without PFAULT, "
                  f"and all that its disk does is waited for): "
                  + ", ".join(f"overcommit {k:g}: {ratio:.2f}" for k, ratio in worst.items())
                  + f"; at its best, by runnable tasks of both, {said}",
                  f"pages that cross to and from disks, host swap / preswap: {crossed}"
                  + ("; so it is not PFAULT that decides here" if max(worst.values()) <= NO_CHEAPER else ""),
                  ({"title": "Host swap with PFAULT against preswap", "x": "runnable tasks", "y": "time, relative",
                    "lines": lines},), on="how much of its disk's time the host can hide from the guests")


def _pairs(results: Results, overcommit: float) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return the runs under host swap and under preswap, seed by seed."""
    seeds = sorted({int(key.rsplit("/", 1)[1]) for key in results})
    return [(results[label("swap", overcommit, seed)].value, results[label("tmem", overcommit, seed)].value)
            for seed in seeds]


def _host_against_guest(results: Results, overcommit: float, tasks: int) -> float:
    return fmean(with_tasks(*parts(host), tasks) / with_tasks(*parts(guest), tasks)
                 for host, guest in _pairs(results, overcommit))


def _worst_against_guest(results: Results, overcommit: float) -> float:
    return fmean(at_its_worst(host) / with_tasks(*parts(guest), MANY_TASKS)
                 for host, guest in _pairs(results, overcommit))


def _crossed(results: Results, overcommit: float) -> float:
    host, guest = (sum(transfers(found.value) for key, found in results.items()
                       if key.startswith(f"{scheme}/{overcommit:g}/")) for scheme in ("swap", "tmem"))
    return host / max(1, guest)


CLAIMS = (
    Claim("E26", "Martin Schwidefsky, 2009", "v7 thread",
          "a guest's preswap is no cheaper than host swap where the host lets only the waiting task sleep (PFAULT)",
          "three guests of anonymous memory on disks like an hdd, under swap and tmem; no PFAULT was built: CPU time "
          "and waits are measured, and what m tasks could do at best is computed, one task's wait over another's work; "
          "the same for the guest's own swap; the pool has 0.3 of the budget, which the guests have less",
          f"supported if host swap at its worst takes at most {NO_CHEAPER:g} times as long as preswap at its best with "
          f"{MANY_TASKS} runnable tasks, at each overcommit; refuted if it takes longer at each, though both are at "
          "their best", page_in_jobs, no_cheaper),
)
