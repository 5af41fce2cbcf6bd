"""The page of the crossing curves: throughput against overcommit, a picture for each workload on each disk.

The pictures are those that `memcommons curves` writes as PNG files, too.
"""

from collections.abc import Mapping
from dataclasses import replace

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.reporting.charts import Lines
from hypervisor.toolstack.reporting.compare_charts import curve_charts
from hypervisor.toolstack.reporting.markup import Markup, joined
from hypervisor.toolstack.reporting.page import Page, Section, figures, items, paragraph, preformatted, tiles
from hypervisor.toolstack.reporting.repeat import explained
from hypervisor.toolstack.reporting.told import Comparison, CurvesRun
from hypervisor.toolstack.reporting.words import disk_told

SPREAD = 10.0                    # highest / lowest throughput, above which the axis is logarithmic
COMMAND = "memcommons curves --out DIR"
NONE_SHOWN = "No scheme passes another where intervals would show it."


def curves_page(told: CurvesRun) -> Page:
    """Return the page of curves, as far as they are finished."""
    charts = pictures(told.comparisons)
    schemes = list(dict.fromkeys(scheme for one in told.comparisons.values() for scheme in one.schemes))
    sections = (
        explained([BASELINE, *schemes]),
        *(Section(chart.title, (figures([chart]), _crossings(told, key))) for key, chart in charts.items()),
        Section("How to repeat it", (preformatted(COMMAND),)))
    return Page("Which scheme passes which", _lead(told), sections, tuple(charts.values()))


def pictures(found: Mapping[str, Comparison]) -> dict[str, Lines]:
    """Return the picture of each comparison of which any run is finished, under the key that it has among the files."""
    drawn = {key: _picture(key, told) for key, told in found.items()}
    return {key: chart for key, chart in drawn.items() if chart.lines}


def _picture(key: str, told: Comparison) -> Lines:
    [chart, *_] = curve_charts(told)[0]
    means = [point.y for line in chart.lines for point in line.points]
    wide = bool(means) and max(means) > SPREAD * min(means)
    return replace(chart, key=key, title=f"Throughput against overcommit: {told.name}, {disk_told(told.disk)}",
                   y=replace(chart.y, log=wide, from_zero=not wide), note=" ".join([chart.note, *_unfinished(told)]))


def _unfinished(told: Comparison) -> list[str]:
    """Say where a scheme finished with no seed: it has no point there."""
    none = [f"{cell.scheme} at {cell.overcommit:g}" for cell in told.cells
            if cell.did_not_finish and not any(cell.figures.values())]
    return [f"Did not finish: {', '.join(none)}."] if none else []


def _crossings(told: CurvesRun, key: str) -> Markup:
    said = [crossing.says for crossing in told.crossings.get(key, ())]
    return items(said) if said else paragraph(NONE_SHOWN)


def _lead(told: CurvesRun) -> Markup:
    return joined(
        paragraph("The same work in less and less memory, under each scheme: the further right, the more memory is "
                  "promised than there is. Where two curves cross, another scheme is the better one from there on.",
                  class_="lead"),
        tiles((f"{told.done} of {told.of}", "runs are done")))
