"""Pictures of a comparison: curves over the overcommit, and what happened where most is overcommitted.  Pure."""

from collections.abc import Sequence

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.points import Point as PointKey
from hypervisor.toolstack.reporting.charts import Axis, Chart, Line, Lines, Point, Rule
from hypervisor.toolstack.reporting.memory_charts import held_charts
from hypervisor.toolstack.reporting.palette import GREY, number_of
from hypervisor.toolstack.reporting.scales import Words, microsecond_words, number_words
from hypervisor.toolstack.reporting.sources import CompareFound
from hypervisor.toolstack.reporting.tail import Buckets
from hypervisor.toolstack.reporting.told import Cell, Comparison, Counters, FramesRow, Summary
from shm.latency import merged

NUDGE = 0.008                    # of the axis: so much curves are apart, so that intervals do not hide each other
OVERCOMMIT = "overcommit: memory promised to all guests / budget"
INTERVAL = ("Bars: 95 % interval of the mean over the seeds; those without an end go on beyond the picture. Hollow: "
            "not all seeds finished.")


def curve_charts(told: Comparison) -> tuple[list[Lines], list[Lines]]:
    """Return the curves of speed, and those of memory."""
    speed = [
        _curves(told, "throughput", "throughput", "Throughput against overcommit",
                "throughput, all memory granted = 1", Rule(1.0, "all memory granted"), baseline=False),
        _curves(told, "latency_p99_us", "p99", "The slow operations: 99 of 100 were faster",
                "time of an operation, of the worst guest", None, words=microsecond_words),
    ]
    memory = [
        _curves(told, "rss_psutil_mib", "rss-psutil", "Memory of the arena by psutil (PSS): baseline against measured",
                "MiB, mean over time", None),
        _curves(told, "rss_kernel_mib", "rss-kernel", "Memory of the arena by the kernel's count: baseline against "
                "measured", "MiB, mean over time", None),
    ]
    return speed, memory


def _curves(told: Comparison, figure: str, key: str, title: str, unit: str, rule: Rule | None,
            baseline: bool = True, words: Words = number_words) -> Lines:
    names = [*([BASELINE] if baseline else []), *told.schemes]
    wide = (max(told.overcommit) - min(told.overcommit)) or 1.0
    lines = [Line(name, number_of(name, n), _points(told, name, figure, NUDGE * wide * (n - (len(names) - 1) / 2)))
             for n, name in enumerate(names)]
    x = Axis(OVERCOMMIT, from_zero=False, marks=tuple((factor, f"{factor:g}") for factor in sorted(told.overcommit)))
    return Lines(key, title, x, Axis(unit, words=words), tuple(line for line in lines if line.points), rule, INTERVAL)


def _points(told: Comparison, name: str, figure: str, aside: float) -> tuple[Point, ...]:
    """Return a scheme's means, where it finished with one seed at least."""
    cells = sorted((cell for cell in told.cells if cell.scheme == name), key=lambda cell: cell.overcommit)
    return tuple(found for cell in cells if (found := _point(cell, figure, aside)))


def _point(cell: Cell, figure: str, aside: float) -> Point | None:
    mean = cell.figures.get(figure)
    if mean is None:
        return None
    half = None if mean.high is None else mean.high - mean.mean
    return Point(cell.overcommit + aside, mean.mean, half, not cell.did_not_finish)


# -- where most is overcommitted

def most_overcommit(found: CompareFound) -> float:
    """Return the most overcommit at which any scheme finished."""
    return max(run.overcommit for run in found.told.runs if run.failed is None)


def _summaries(found: CompareFound) -> list[tuple[str, list[Summary]]]:
    """Return of each scheme that finished there its runs at the most overcommit, a seed each."""
    most = most_overcommit(found) if found.points else 0.0
    at = {run.scheme for run in found.told.runs if run.failed is None and run.overcommit == most}
    return [(scheme, [point.summary for _, point in points if point.summary])
            for scheme, points in found.points.items() if scheme in at]


def held_of(point: PointKey, rows: Sequence[FramesRow], budget: int) -> list[Chart]:
    """Return the frames over time of one run, `budget` in bytes; nothing of fewer than two samples."""
    held = [(row.at, row.held) for row in rows if row.held]
    return [*held_charts(point.key, point.said, held, budget)] if len(held) > 1 else []


def held_pictures(found: CompareFound) -> list[Chart]:
    """Return the frames over time of each scheme's first seed."""
    return [chart for run, point in (points[0] for points in found.points.values()) if point.summary
            for chart in held_of(run, point.frames, point.summary.budget_bytes)]


def works(found: CompareFound) -> dict[str, list[tuple[str, int, Buckets]]]:
    """Return the histograms of each workload, all seeds together: of the baseline, and of each scheme."""
    runs = [(scheme, summaries) for scheme, summaries in _summaries(found) if summaries]
    if not runs:
        return {}
    first = runs[0][1]
    return {work: [(BASELINE, GREY, _baseline(first, work)),
                   *((scheme, number_of(scheme, n), _measured(summaries, work))
                     for n, (scheme, summaries) in enumerate(runs))]
            for work in dict.fromkeys(guest.workload for guest in first[0].guests)}


def _measured(summaries: Sequence[Summary], work: str) -> Buckets:
    return merged(guest.latency_ns.buckets for one in summaries for guest in one.guests if guest.workload == work)


def _baseline(summaries: Sequence[Summary], work: str) -> Buckets:
    names = {guest.name for guest in summaries[0].guests if guest.workload == work}
    return merged(guest.latency_ns.buckets for one in summaries for name, guest in one.baseline.guests.items()
                  if name in names)


def counted(found: CompareFound) -> list[tuple[str, dict[str, float]]]:
    """Return the counters of the baseline and of each scheme, means over the seeds."""
    runs = [(scheme, summaries) for scheme, summaries in _summaries(found) if summaries]
    before = [_means([one.baseline.counters for one in runs[0][1]])] if runs else []
    return [*((BASELINE, counters) for counters in before),
            *((scheme, _means([one.counters for one in summaries])) for scheme, summaries in runs)]


def _means(runs: Sequence[Counters]) -> dict[str, float]:
    names = {name for counters in runs for name in counters}
    return {name: sum(counters.get(name, 0) for counters in runs) / len(runs) for name in names}
