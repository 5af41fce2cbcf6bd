"""The summary, version 1, of a baseline and a measured run: a pure function of what the two phases handed over.

    saved      means over the samples from go to the last done.  psutil and the kernel are both asked, and whichever
               claims less is what we claim.
    seconds    of a guest: by its own clock, real_seconds and virtual_seconds (what disks cost by the model) together
    slowdown   a guest's seconds measured / its seconds in the baseline, for equal work
    counters   of all guests, summed, and the hypervisor's own; where both count the same thing (hypercalls,
               multicalls), the hypervisor's word counts: a guest may write what it likes on its page.  What is counted
               here by one and there by the other is added, so that both fault modes can be compared

Keys may be added, none removed.  None stands for what could not be measured, because a guest or a run failed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from hypervisor.toolstack.faultmode import SOFTWARE_MODE, FaultMode
from hypervisor.toolstack.results import GuestResult, PhaseResult
from hypervisor.toolstack.scenario import DiskTable, Scenario
from shm.abi import PAGE_SIZE
from shm.diskcost import MODELS, NANO
from shm.errors import BrokenInvariant
from shm.latency import figures, merged

VERSION = 1
PROMISED_COUNTERS = (
    "hypercalls", "multicalls", "essa", "discards", "discard_faults", "volatile_swap_writes", "swap_out", "swap_in",
    "guest_disk_reads", "guest_disk_writes", "tmem_puts", "tmem_gets", "tmem_hits", "tmem_evictions")
AVOIDED = ("cleancache_hits", "frontswap_loads", "host_cache_hits")
REAL_READS = ("guest_disk_reads", "guest_swap_reads")
WAIT_PREFIX, WAIT_SUFFIX = "wait_", "_ns"


def summarise(scenario: Scenario, baseline: PhaseResult, measured: PhaseResult,
              machine: Mapping[str, Any], mode: FaultMode = SOFTWARE_MODE) -> dict[str, Any]:
    """Return the summary of one scheme's run against the baseline, both in fault mode `mode`."""
    table = scenario.table
    phases = (baseline, measured)
    return {
        "version": VERSION, "name": scenario.name, "scheme": measured.label, **mode.facts(), "seed": table.seed,
        "budget_bytes": measured.budget, "duration_s": measured.seconds,
        "guests": [_guest(guest, _same(guest, baseline), measured) for guest in measured.guests],
        "latency_ns": _latency(measured),
        "rss": _rss(baseline, measured),
        "kernel": {"source": "st_blocks", **_against(spread(_kernel(baseline)), spread(_kernel(measured)))},
        "processes": {phase: _processes(result) for phase, result in _named(phases)},
        "arena": _arena(measured), "counters": counters_of(measured),
        "audit": {"checks": sum(p.audit_checks for p in phases),
                  "max_drift_frames": max(p.max_drift_frames for p in phases)},
        "tmem": tmem_of(measured, table.tmem.form), "disk": disk_of(table.disk, measured),
        "policy": {"reclaim": table.hypervisor.reclaim, "bias": table.hypervisor.bias, "targets": table.tmem.targets,
                   "balloon": table.balloon.model_dump()},
        "baseline": {"budget_bytes": baseline.budget, "duration_s": baseline.seconds, "arena": _arena(baseline),
                     "counters": counters_of(baseline),
                     "guests": {guest.name: {**_seconds(guest), "operations": guest.operations,
                                             "cpu_s": guest.cpu_seconds,
                                             "latency_ns": {**figures(guest.latency), "buckets": list(guest.latency)}}
                                for guest in baseline.guests}},
        "machine": dict(machine), "problems": [f"{p.label}: {line}" for p in phases for line in p.problems],
    }


def counters_of(phase: PhaseResult) -> dict[str, int]:
    """Return the counters of a phase; those promised are always there."""
    summed: Counter[str] = Counter(dict.fromkeys(PROMISED_COUNTERS, 0))
    for guest in phase.guests:
        summed.update({name: int(value) for name, value in guest.counters.items()})
    return {**summed, **phase.counters, **_added(summed, phase.counters)}


def _added(guests: Mapping[str, int], host: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of what is found here in one fault mode and there in the other, but never twice.

    A discard fault is found by the library or by the kernel, a page is asked for by hypercall or by a touch, a block is
    read by the guest or by its pager.
    """
    return {"discard_faults": guests["discard_faults"] + host.get("discard_faults", 0),
            "faults": guests.get("faults", 0) + host.get("hardware_faults", 0),
            "guest_disk_reads": guests["guest_disk_reads"] + guests.get("pager_disk_reads", 0)}


def disk_of(disk: DiskTable, phase: PhaseResult) -> dict[str, Any]:
    """Return which disks there were, and what the hypervisor's swap disk was busy with by the model."""
    model = MODELS[disk.latency]
    return {"latency": model.name, "time": disk.time, "direct": disk.direct, "latency_ns": model.latency_ns,
            "channels": model.channels, "bytes_per_s": model.bytes_per_s,
            "swap_busy_s": phase.counters.get("swap_busy_ns", 0) / NANO}


def _seconds(guest: GuestResult) -> dict[str, float | None]:
    """Return what a guest's work took: by its own clock, and its parts."""
    return {"seconds": guest.clock_seconds, "real_seconds": guest.seconds, "virtual_seconds": guest.virtual_seconds}


def _latency(phase: PhaseResult) -> dict[str, int | None]:
    """Return p50, p99 and the longest of all guests' operations together."""
    return figures(merged(guest.latency for guest in phase.guests))


def tmem_of(phase: PhaseResult, form: str) -> dict[str, Any]:
    """Return what tmem did: disk reads that it spared, what it cost, and how the pages lay at the end of the work."""
    counters, held = counters_of(phase), phase.tmem
    return {"form": form, "reads_avoided": sum(counters.get(name, 0) for name in AVOIDED),
            "reads_avoided_percent": reads_avoided(counters), "hypercalls": counters["hypercalls"],
            "hypervisor_cpu_s": phase.cpu_seconds, "forms": held.get("forms", {}), "frames": held.get("frames", 0),
            "fragmentation": held.get("fragmentation", 0.0), "refusals": held.get("refusals", {})}


def reads_avoided(counters: Mapping[str, int]) -> float | None:
    """Return the percentage of reads that tmem answered in a disk's stead; None where nothing was read."""
    avoided, real = (sum(counters.get(name, 0) for name in names) for names in (AVOIDED, REAL_READS))
    return 100.0 * avoided / (avoided + real) if avoided + real else None


def spread(values: Iterable[int | None]) -> dict[str, int | None]:
    """Return mean and peak of the values that are known, in whole bytes."""
    known = [value for value in values if value is not None]
    return {"mean": round(sum(known) / len(known)), "peak": max(known)} if known else {"mean": None, "peak": None}


def saved(baseline: int | None, measured: int | None) -> tuple[int, float] | None:
    """Return (bytes, percent) that the measured mean lies under the baseline's."""
    if not baseline or measured is None:
        return None
    return baseline - measured, 100.0 * (baseline - measured) / baseline


def slowdown(measured: GuestResult, baseline: GuestResult | None) -> float | None:
    """Return the ratio of times for equal work; None unless both runs finished."""
    if baseline is None or measured.clock_seconds is None or not baseline.clock_seconds:
        return None
    if measured.operations != baseline.operations:
        return None
    return measured.clock_seconds / baseline.clock_seconds


def _same(guest: GuestResult, phase: PhaseResult) -> GuestResult | None:
    return next((other for other in phase.guests if other.name == guest.name), None)


def _named(phases: tuple[PhaseResult, PhaseResult]) -> list[tuple[str, PhaseResult]]:
    return list(zip(("baseline", "measured"), phases, strict=True))


def _guest(guest: GuestResult, before: GuestResult | None, phase: PhaseResult) -> dict[str, Any]:
    memories = [sample.guests[guest.name] for sample in phase.samples if guest.name in sample.guests]
    pagers = [sample.pagers[guest.name] for sample in phase.samples if guest.name in sample.pagers]
    return {
        "name": guest.name, "pid": guest.pid, "workload": guest.workload, "ram_bytes": guest.ram,
        "ram_given_bytes": guest.ram_given, "operations": guest.operations, **_seconds(guest),
        "operations_per_s": guest.operations / guest.clock_seconds if guest.clock_seconds else None,
        "pages_verified": guest.pages_verified, "mismatches": guest.mismatches, "exit_status": guest.exit_status,
        "rss_bytes": spread(m.rss for m in memories), "pss_bytes": spread(m.pss for m in memories),
        "arena_rss_bytes": spread(m.arena_rss for m in memories),
        "arena_pss_bytes": spread(m.arena_pss for m in memories),
        "pager_rss_bytes": spread(m.rss for m in pagers), "pager_uss_bytes": spread(m.uss for m in pagers),
        "slowdown": slowdown(guest, before), "cpu_s": guest.cpu_seconds,
        "latency_ns": {**figures(guest.latency), "buckets": list(guest.latency)}, "waits_s": _waits(guest.counters),
        "counters": dict(guest.counters),
    }


def _waits(counters: Mapping[str, int]) -> dict[str, float]:
    """Return the seconds that a guest waited, by cause: fault, tmem, lock, disk, other."""
    return {name.removeprefix(WAIT_PREFIX).removesuffix(WAIT_SUFFIX): value / 1e9
            for name, value in counters.items() if name.startswith(WAIT_PREFIX) and name.endswith(WAIT_SUFFIX)}


def _rss(baseline: PhaseResult, measured: PhaseResult) -> dict[str, Any]:
    """Return psutil's figures, and what is saved by the more modest of psutil and the kernel."""
    figures = {phase: spread(s.arena_pss for s in result.samples) for phase, result in _named((baseline, measured))}
    claims = {"psutil": saved(figures["baseline"]["mean"], figures["measured"]["mean"]),
              "kernel": saved(spread(_kernel(baseline))["mean"], spread(_kernel(measured))["mean"])}
    known = {source: claim for source, claim in claims.items() if claim}
    modest = min(known, key=lambda source: known[source][1]) if known else None
    return {"source": "psutil", "baseline_bytes": figures["baseline"], "measured_bytes": figures["measured"],
            "saved_bytes": known[modest][0] if modest else None, "saved_percent": known[modest][1] if modest else None,
            "saved_by": modest,
            "saved_percent_by_source": {source: claim and claim[1] for source, claim in claims.items()},
            "baseline_shared_bytes": spread(s.shared_bytes for s in baseline.shared),
            "measured_shared_bytes": spread(s.shared_bytes for s in measured.shared)}


def _kernel(phase: PhaseResult) -> list[int | None]:
    return [sample.kernel_bytes for sample in phase.samples]


def _against(baseline: dict[str, int | None], measured: dict[str, int | None]) -> dict[str, Any]:
    claim = saved(baseline["mean"], measured["mean"])
    return {"baseline_bytes": baseline, "measured_bytes": measured, "saved_bytes": claim and claim[0],
            "saved_percent": claim and claim[1]}


def _processes(phase: PhaseResult) -> dict[str, Any]:
    """Return the whole processes' memory in sum, interpreters and pagers included; the pagers' part apart."""
    hypervisor = [sample.hypervisor for sample in phase.samples if sample.hypervisor]
    return {"rss_bytes": spread(s.process_rss for s in phase.samples),
            "pss_bytes": spread(s.process_pss for s in phase.samples),
            "pagers_rss_bytes": spread(sum(m.rss for m in s.pagers.values()) for s in phase.samples),
            "pagers_uss_bytes": spread(sum(m.uss for m in s.pagers.values()) for s in phase.samples),
            "hypervisor_rss_bytes": spread(m.rss for m in hypervisor),
            "hypervisor_pss_bytes": spread(m.pss for m in hypervisor)}


def _arena(phase: PhaseResult) -> dict[str, int]:
    return {"peak_frames": phase.peak_frames, "budget_frames": phase.budget // PAGE_SIZE,
            "kernel_peak_bytes": phase.kernel_peak_bytes}


def check_equal_work(baseline: PhaseResult, measured: PhaseResult) -> None:
    """Raise BrokenInvariant unless every guest that finished both runs did the same number of operations."""
    for guest in measured.guests:
        before = _same(guest, baseline)
        if before and None not in (before.seconds, guest.seconds) and before.operations != guest.operations:
            raise BrokenInvariant(f"guest {guest.name!r} did {before.operations} operations in the baseline and "
                                  f"{guest.operations} in the {measured.label} run")
