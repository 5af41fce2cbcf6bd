"""The page of one run: the same work with all memory granted and under a scheme, or several, side by side."""

from collections.abc import Mapping, Sequence

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.reporting.avoided import ledger_rows, ledgers
from hypervisor.toolstack.reporting.charts import Chart
from hypervisor.toolstack.reporting.markup import Child, Markup, joined
from hypervisor.toolstack.reporting.memory_charts import arena_charts, held_charts
from hypervisor.toolstack.reporting.page import (
    Page,
    Section,
    badge,
    figures,
    folded,
    items,
    one_line,
    paragraph,
    table,
    tiles,
)
from hypervisor.toolstack.reporting.palette import GREY, number_of
from hypervisor.toolstack.reporting.repeat import explained, repeat
from hypervisor.toolstack.reporting.sources import RunFound
from hypervisor.toolstack.reporting.tail import Buckets, latency_charts
from hypervisor.toolstack.reporting.told import FailedRun, MapSample, Summary
from hypervisor.toolstack.reporting.words import FAULTS, disk_told
from hypervisor.toolstack.table import less, mib, number, percent, ratio
from shm.latency import merged
from shm.units import format_size

MILLI = 1e6                      # nanoseconds of a millisecond


def run_page(found: RunFound) -> Page:
    """Return the page of a run that was found."""
    if found.failed:
        return _failed(found.failed, found)
    first, summaries = found.summaries[0], found.summaries
    samples = {phase: found.samples[phase] for phase in (BASELINE, *(s.scheme for s in summaries))
               if phase in found.samples}
    memory, held = arena_charts(samples, first.budget_bytes), _held(summaries, found.samples)
    slow, io = latency_charts(_works(summaries)), ledgers(_counted(summaries))
    charts: list[Chart] = [*held, *memory, *slow, *io]
    sections = (
        explained([BASELINE, *(summary.scheme for summary in summaries)]),
        Section("Memory: who has it, and in which states", (figures(held),)),
        Section("Memory: baseline against measured", (figures(memory), _memory_table(summaries))),
        Section("How long operations took", (_guests_tables(summaries), figures(slow))),
        Section("Where each input and output went", (figures(io), _ledger_table(summaries))),
        Section("Everything that was counted", (_counters(summaries),)),
        repeat(found.origin, first.machine, None))
    schemes = ", ".join(summary.scheme for summary in summaries)
    return Page(f"{one_line(first.name)}: {schemes} against all memory granted", _lead(summaries), sections,
                tuple(charts))


def _failed(failed: FailedRun, found: RunFound) -> Page:
    lead = joined(paragraph(badge("bad", "failed"), " The baseline did not come to its end, so nothing was compared.",
                            class_="lead"), items(failed.problems))
    return Page(f"{one_line(failed.name)}: failed", lead,
                (explained([BASELINE, *failed.scheme.split(",")]), repeat(found.origin, {}, None)), ())


# -- what is read first

def _lead(summaries: Sequence[Summary]) -> Markup:
    first = summaries[0]
    promised, count = sum(guest.ram_bytes for guest in first.guests), len(first.guests)
    text = paragraph(
        f"{count} guest{'s' * (count != 1)} with {format_size(promised)} of memory between them did the same work "
        f"{'twice' if len(summaries) == 1 else 'again and again'}: once with all of it granted, and "
        f"under {', '.join(summary.scheme for summary in summaries)} in {format_size(first.budget_bytes)}. ",
        class_="lead")
    facts = paragraph(f"Overcommit {promised / first.budget_bytes:.2f}; seed {first.seed}; faults: "
                      f"{FAULTS.get(first.faults, first.faults)}; guests' disks: {disk_told(first.disk)}.",
                      class_="muted")
    return joined(text, facts, *(_tiles(summary, len(summaries) > 1) for summary in summaries),
                  *(items(summary.problems) for summary in summaries if summary.problems))


def _tiles(summary: Summary, several: bool) -> Markup:
    slowest = max((guest.slowdown for guest in summary.guests if guest.slowdown), default=None)
    verified, wrong = (sum(getattr(guest, what) for guest in summary.guests)
                       for what in ("pages_verified", "mismatches"))
    sound = badge("bad", "failed") if summary.problems else badge("good", "sound")
    why = "see below" if summary.problems else (
        f"{number(verified)} pages verified, {number(wrong)} wrong; ledger and kernel {summary.audit.max_drift_frames} "
        f"frames apart")
    return tiles((joined(sound, f" {summary.scheme}" if several else None), why),
                 (percent(summary.rss.saved_percent), "less memory than the baseline (the lesser of two counts)"),
                 (ratio(slowest), "times the baseline's time, for the slowest guest"))


# -- tables

def _memory_table(summaries: Sequence[Summary]) -> Markup:
    rows: list[list[Child]] = []
    for summary in summaries:
        sources = (("arena, psutil PSS", summary.rss.baseline_bytes, summary.rss.measured_bytes),
                   ("arena, kernel's count", summary.kernel.baseline_bytes, summary.kernel.measured_bytes),
                   ("whole processes, PSS", summary.processes.baseline.pss_bytes, summary.processes.measured.pss_bytes),
                   ("whole processes, RSS", summary.processes.baseline.rss_bytes, summary.processes.measured.rss_bytes))
        rows += [[summary.scheme, said, mib(before.mean), mib(before.peak), mib(after.mean), mib(after.peak),
                  percent(less(before.mean, after.mean))] for said, before, after in sources]
    head = ["scheme", "memory, MiB", "baseline, mean", "peak", "measured, mean", "peak", "less by"]
    return joined(table(head, rows, 2), paragraph(
        "Whole processes have interpreters and libraries in them, which no scheme can save.", class_="muted"))


def _guests_tables(summaries: Sequence[Summary]) -> Markup:
    head = ["guest", "workload", "RAM, MiB", "operations", "slow-down", "half within, ms", "99 % within, ms",
            "longest, ms", "pages verified", "wrong"]
    return joined(*(table(head, [_guest_row(summary, n) for n in range(len(summary.guests))], 2,
                          f"guests under {summary.scheme} (in brackets: the baseline)") for summary in summaries))


def _guest_row(summary: Summary, n: int) -> list[Child]:
    guest = summary.guests[n]
    before = summary.baseline.guests.get(guest.name)
    times = [_ms(getattr(guest.latency_ns, what)) + (f" ({_ms(getattr(before.latency_ns, what))})" if before else "")
             for what in ("p50", "p99", "max")]
    given, full = mib(guest.ram_given_bytes), mib(guest.ram_bytes)
    return [guest.name, guest.workload, full if given == full else f"{given} of {full}", number(guest.operations),
            ratio(guest.slowdown), *times, number(guest.pages_verified), number(guest.mismatches)]


def _ms(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else f"{nanoseconds / MILLI:,.3g}"


def _ledger_table(summaries: Sequence[Summary]) -> Markup:
    runs = _counted(summaries)
    return table(["what became of it", "what is counted", *(name for name, _ in runs)], ledger_rows(runs), 2,
                 "the same in pages")


def _counters(summaries: Sequence[Summary]) -> Markup:
    runs = _counted(summaries)
    names = sorted({name for _, counters in runs for name, value in counters.items() if value})
    rows = [[name, *(number(counters.get(name, 0)) for _, counters in runs)] for name in names]
    return folded("All counters, of all guests and the hypervisor together",
                  table(["counter", *(name for name, _ in runs)], rows))


# -- pictures

def _counted(summaries: Sequence[Summary]) -> list[tuple[str, Mapping[str, float]]]:
    """Return the counters of the baseline, and of each scheme."""
    return [(BASELINE, summaries[0].baseline.counters), *((summary.scheme, summary.counters) for summary in summaries)]


def _works(summaries: Sequence[Summary]) -> dict[str, list[tuple[str, int, Buckets]]]:
    """Return the histograms of each workload: of the baseline, and of each scheme."""
    works: dict[str, list[tuple[str, int, Buckets]]] = {}
    for work in dict.fromkeys(guest.workload for guest in summaries[0].guests):
        names = {guest.name for guest in summaries[0].guests if guest.workload == work}
        before = [one.latency_ns.buckets for name, one in summaries[0].baseline.guests.items() if name in names]
        works[work] = [(BASELINE, GREY, merged(before))]
        works[work] += [(summary.scheme, number_of(summary.scheme, n),
                         merged(guest.latency_ns.buckets for guest in summary.guests if guest.workload == work))
                        for n, summary in enumerate(summaries)]
    return works


def _held(summaries: Sequence[Summary], samples: dict[str, list[MapSample]]) -> list[Chart]:
    charts: list[Chart] = []
    for summary in summaries:
        rows = [(sample.at, sample.frames) for sample in samples.get(summary.scheme, ()) if sample.frames]
        charts += held_charts(summary.scheme, summary.scheme, rows, summary.budget_bytes) if len(rows) > 1 else []
    return charts
