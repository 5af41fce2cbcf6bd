"""How long operations took, as a curve of the slow ones: "1 in 100 took longer than 3 ms".  Pure.

A mean hides the few operations that waited; this curve shows nothing else.  Where guests do different work their
operations are different things, so there is a picture for each workload.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from hypervisor.toolstack.reporting.charts import Axis, Line, Lines, Point, key_of
from hypervisor.toolstack.reporting.scales import time_words
from shm.latency import upper_ns

NANO = 1e9
MARKS = ((2.0, "half of them"), *((10.0 ** n, f"1 in {10 ** n:,}") for n in range(1, 13)))
X = Axis("so many operations took longer than the curve (logarithmic)", log=True, marks=MARKS)
Y = Axis("time of one operation (logarithmic)", log=True, words=time_words)
Buckets = Sequence[int]


def tail(buckets: Buckets) -> tuple[Point, ...]:
    """Return (n, seconds) where one operation in n took longer, from the slower half on; none of no operation."""
    total = sum(buckets)
    points = (Point(total / (total - below or 1), upper_ns(n) / NANO) for n, below in enumerate(accumulate(buckets))
              if buckets[n])
    return tuple(point for point in points if point.x >= 2.0)


def latency_charts(works: Mapping[str, Sequence[tuple[str, int, Buckets]]], where: str = "") -> list[Lines]:
    """Return a picture a workload; `works`: workload -> (name of a run, its number, its histogram)."""
    charts = []
    for work, runs in works.items():
        lines = tuple(Line(name, number, points) for name, number, buckets in runs if (points := tail(buckets)))
        charts.append(Lines(
            key_of("latency", work), f"How long operations took: {work}{where}", X, Y, lines,
            note="Further right are the rarer, slower operations. Lower is better. Each point is the upper end of a "
                 "class of times at most an eighth wide."))
    return charts
