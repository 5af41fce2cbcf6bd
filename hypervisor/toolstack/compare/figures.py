"""What is compared: each figure as a function of a summary, with the words and the unit that people read.  Pure.

Where guests differ, one number stands for all: a geometric mean of ratios and of medians, a sum of counts and of
seconds, the worst guest where the worst is what counts (p99).  None: this run has no such figure.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from hypervisor.toolstack.compare.statistics import jain
from hypervisor.toolstack.comparison import known_slowdowns, mean_slowdown
from shm.abi import PAGE_SIZE

Summary = Mapping[str, Any]
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the comparison."""

    name: str
    said: str
    of: Callable[[Summary], float | None]
    baseline: Callable[[Summary], float | None] = lambda summary: None    # of the same summary


def slowdown(summary: Summary) -> float | None:
    """Return the time for equal work relative to the baseline; None unless every guest finished."""
    return mean_slowdown(summary) if len(known_slowdowns(summary)) == len(summary["guests"]) else None


def throughput(summary: Summary) -> float | None:
    """Return the throughput relative to the baseline."""
    slower = slowdown(summary)
    return 1 / slower if slower else None


def worst_slowdown(summary: Summary) -> float | None:
    return max(known_slowdowns(summary), default=None) if slowdown(summary) else None


def fairness(summary: Summary) -> float | None:
    """Return Jain's index over the guests' speeds, each relative to its own baseline."""
    return jain([1 / slower for slower in known_slowdowns(summary)]) if slowdown(summary) else None


def _counter(name: str) -> tuple[Callable[[Summary], float | None], Callable[[Summary], float | None]]:
    return (lambda summary: float(summary["counters"].get(name, 0)),
            lambda summary: float(summary["baseline"]["counters"].get(name, 0)))


def _copies(counters: Mapping[str, int]) -> float:
    """Return the pages that tmem copied: those stored, and those given back."""
    return float(counters.get("tmem_puts_stored", 0) + counters.get("tmem_hits", 0))


def latencies(summary: Summary, which: str) -> list[float]:
    """Return a percentile of each guest's operations in microseconds; of those that have it."""
    found = [(guest.get("latency_ns") or {}).get(which) for guest in summary["guests"]]
    return [value / 1e3 for value in found if value]


def _median_latency(summary: Summary) -> float | None:
    known = latencies(summary, "p50")
    return geometric_mean(known) if known else None


def _guests_cpu(summary: Summary) -> float | None:
    return _sum(guest.get("cpu_s") for guest in summary["guests"])


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum; None unless all are known."""
    found = list(values)
    return sum(value for value in found if value is not None) if found and None not in found else None


def _memory(source: str, scale: int) -> tuple[Callable[[Summary], float | None], Callable[[Summary], float | None]]:
    def mean(key: str) -> Callable[[Summary], float | None]:
        return lambda summary: (None if summary[source][key]["mean"] is None else summary[source][key]["mean"] / scale)
    return mean("measured_bytes"), mean("baseline_bytes")


FIGURES: tuple[Figure, ...] = (
    Figure("slowdown", "time for equal work", slowdown, lambda summary: 1.0),
    Figure("worst_slowdown", "... of the worst guest", worst_slowdown, lambda summary: 1.0),
    Figure("throughput", "throughput", throughput, lambda summary: 1.0),
    Figure("latency_p50_us", "operation p50, us", _median_latency),
    Figure("latency_p99_us", "operation p99, us, worst", lambda s: max(latencies(s, "p99"), default=None)),
    Figure("fairness", "fairness (Jain)", fairness, lambda summary: 1.0),
    Figure("guest_disk_reads", "guest disk reads", *_counter("guest_disk_reads")),
    Figure("guest_disk_writes", "guest disk writes", *_counter("guest_disk_writes")),
    Figure("guest_swap_reads", "guest swap in", *_counter("guest_swap_reads")),
    Figure("guest_swap_writes", "guest swap out", *_counter("guest_swap_writes")),
    Figure("swap_in", "hypervisor swap in", *_counter("swap_in")),
    Figure("swap_out", "hypervisor swap out", *_counter("swap_out")),
    Figure("copies", "tmem pages copied", lambda s: _copies(s["counters"]),
           lambda s: _copies(s["baseline"]["counters"])),
    Figure("discards", "discards", *_counter("discards")),
    Figure("discard_faults", "discard faults", *_counter("discard_faults")),
    Figure("faults", "page faults", *_counter("faults")),
    Figure("hypercalls", "hypercalls", *_counter("hypercalls")),
    Figure("guests_cpu_s", "CPU s, guests", _guests_cpu),
    Figure("hypervisor_cpu_s", "CPU s, hypervisor", lambda s: s["tmem"]["hypervisor_cpu_s"]),
    Figure("frames_mean", "frames, mean", *_memory("kernel", PAGE_SIZE)),
    Figure("frames_peak", "frames, peak", lambda s: s["arena"]["peak_frames"],
           lambda s: s["baseline"]["arena"]["peak_frames"]),
    Figure("rss_psutil_mib", "arena MiB, psutil PSS", *_memory("rss", MIB)),
    Figure("rss_kernel_mib", "arena MiB, kernel", *_memory("kernel", MIB)),
)


def figures_of(summary: Summary) -> dict[str, float | None]:
    """Return every figure of a measured run."""
    return {figure.name: figure.of(summary) for figure in FIGURES}


def baseline_figures_of(summary: Summary) -> dict[str, float | None]:
    """Return every figure of the baseline that a summary was made against, as far as it has them."""
    return {figure.name: figure.baseline(summary) for figure in FIGURES}
