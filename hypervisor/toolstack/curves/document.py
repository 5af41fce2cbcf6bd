"""The curves as JSON: DIR/summary.json; keys may be added, none removed.

    curves        as any page can draw them: {"title", "x", "y", "lines": [{"name", "points": [[x, y, half or null]]}]},
                  x: overcommit, y: throughput relative to the baseline, half: of its 95 % interval
    crossings     by picture: who passes whom, between which overcommits
    comparisons   by picture: all figures, as `memcommons compare` has them
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hypervisor.toolstack.compare import outcome as compared
from hypervisor.toolstack.compare.outcome import Outcome
from hypervisor.toolstack.curves.crossings import Crossing, crossings, sentence
from hypervisor.toolstack.curves.grid import Picture

VERSION = 1
X, Y = "overcommit (RAM of all guests / budget)", "throughput, all memory granted = 1"


def document(found: Mapping[Picture, Outcome], facts: Mapping[str, Any],
             each: Mapping[Picture, Mapping[str, Any]]) -> dict[str, Any]:
    """Return all of it; `facts` are of the whole, `each` of every picture."""
    return {"version": VERSION, **facts, "curves": [curve(picture, one) for picture, one in found.items()],
            "crossings": {picture.key: [_crossing(each) for each in crossings(one)] for picture, one in found.items()},
            "comparisons": {picture.key: compared.document(one, each[picture])
                            for picture, one in found.items()}}


def curve(picture: Picture, found: Outcome) -> dict[str, Any]:
    """Return one picture as data; a scheme has points where it finished with one seed at least."""
    return {"title": f"throughput against overcommit: {picture.said}", "x": X, "y": Y,
            "lines": [{"name": scheme, "points": points} for scheme in found.schemes
                      if (points := points_of(found, scheme))],
            "did_not_finish": [[scheme, factor] for scheme in found.schemes for factor in unfinished(found, scheme)]}


def points_of(found: Outcome, scheme: str) -> list[tuple[float, float, float | None]]:
    """Return (overcommit, mean throughput, half of its interval) in the order of overcommit."""
    means = [(factor, found.cell(scheme, factor).figures["throughput"]) for factor in sorted(found.overcommits)]
    return [(factor, mean.mean, mean.half) for factor, mean in means if mean]


def unfinished(found: Outcome, scheme: str) -> list[float]:
    """Return the overcommits at which the scheme finished with no seed."""
    cells = [found.cell(scheme, factor) for factor in sorted(found.overcommits)]
    return [cell.overcommit for cell in cells if cell.failed and not cell.finished]


def _crossing(crossing: Crossing) -> dict[str, Any]:
    ends = ("mean", "low", "high")
    return asdict(crossing) | {"before": dict(zip(ends, crossing.before, strict=True)),
                               "after": dict(zip(ends, crossing.after, strict=True)), "says": sentence(crossing)}
