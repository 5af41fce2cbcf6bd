"""What a comparison comes to: means and intervals for each scheme and overcommit, and a verdict for each pair.  Pure.

A run that did not finish is in no mean; its cell says how many did, and why the others did not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.figures import FIGURES, baseline_figures_of, figures_of
from hypervisor.toolstack.compare.pairs import Pair, pair, sentence
from hypervisor.toolstack.compare.points import Point
from hypervisor.toolstack.compare.statistics import Estimate, estimate

VERSION = 1


@dataclass(frozen=True, slots=True)
class Ran:
    """One measured point and what came of it."""

    point: Point
    failed: str | None
    wrong: bool
    figures: Mapping[str, float | None] = field(default_factory=dict)      # empty when it failed
    baseline: Mapping[str, float | None] = field(default_factory=dict)     # the same figures of its baseline
    frames: Sequence[Mapping[str, Any]] = ()     # {"at": seconds, "frames": {owner: frames}}, as it was sampled
    budget_frames: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """All seeds of one scheme at one overcommit; `scheme` may be the baseline."""

    scheme: str
    overcommit: float
    figures: Mapping[str, Estimate | None]
    finished: int
    failed: tuple[str, ...]          # "seed 3: why"


@dataclass(frozen=True, slots=True)
class Outcome:
    schemes: tuple[str, ...]
    overcommits: tuple[float, ...]
    seeds: tuple[int, ...]
    runs: tuple[Ran, ...]
    cells: tuple[Cell, ...]
    pairs: Mapping[float, tuple[Pair, ...]]
    problems: tuple[str, ...]        # of baselines, and pages that were wrong: the comparison is not sound

    def cell(self, scheme: str, overcommit: float) -> Cell:
        return next(cell for cell in self.cells if (cell.scheme, cell.overcommit) == (scheme, overcommit))


def ran(point: Point, body: Mapping[str, Any]) -> Ran:
    """Return what a point's body says."""
    if body["failed"] or "summary" not in body:
        return Ran(point, body["failed"] or "its summary is missing", body["wrong"])
    summary = body["summary"]
    return Ran(point, None, body["wrong"], figures_of(summary), baseline_figures_of(summary),
               body.get("frames", ()), summary["arena"]["budget_frames"])


def outcome(schemes: Sequence[str], factors: Sequence[float], seeds: Sequence[int], runs: Sequence[Ran],
            problems: Iterable[str]) -> Outcome:
    """Put all runs together."""
    cells = [_cell(scheme, factor, _at(runs, scheme, factor)) for factor in factors for scheme in schemes]
    cells += [_baseline_cell(factor, [run for run in runs if run.point.overcommit == factor]) for factor in factors]
    pairs = {factor: tuple(_pair(runs, factor, first, second) for first, second in combinations(schemes, 2))
             for factor in factors}
    wrong = [f"{run.point.said}: {run.failed or 'pages were wrong'}" for run in runs if run.wrong]
    return Outcome(tuple(schemes), tuple(factors), tuple(seeds), tuple(runs), tuple(cells), pairs, (*problems, *wrong))


def _at(runs: Sequence[Ran], scheme: str, factor: float) -> list[Ran]:
    return [run for run in runs if (run.point.scheme, run.point.overcommit) == (scheme, factor)]


def _means(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate | None]:
    """Return the mean of each figure over the seeds that have it."""
    known = {figure.name: [row.get(figure.name) for row in rows] for figure in FIGURES}
    return {name: estimate([value for value in values if value is not None]) for name, values in known.items()}


def _cell(scheme: str, factor: float, runs: Sequence[Ran]) -> Cell:
    finished = [run for run in runs if not run.failed]
    failed = tuple(f"seed {run.point.seed}: {run.failed}" for run in runs if run.failed)
    return Cell(scheme, factor, _means([run.figures for run in finished]), len(finished), failed)


def _baseline_cell(factor: float, runs: Sequence[Ran]) -> Cell:
    """Return the baselines of the seeds in which anybody finished, each once."""
    rows = {run.point.seed: run.baseline for run in runs if not run.failed}
    return Cell(BASELINE, factor, _means(list(rows.values())), len(rows), ())


def _pair(runs: Sequence[Ran], factor: float, first: str, second: str) -> Pair:
    return pair(first, second, *({run.point.seed: slower for run in _at(runs, scheme, factor)
                                  if (slower := run.figures.get("slowdown"))} for scheme in (first, second)))


def document(found: Outcome, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the comparison as JSON has it; keys may be added, none removed."""
    return {
        "version": VERSION, **facts, "schemes": list(found.schemes), "overcommit": list(found.overcommits),
        "seeds": list(found.seeds), "cells": [_cell_document(cell) for cell in found.cells],
        "pairs": [_pair_document(factor, one) for factor, pairs in found.pairs.items() for one in pairs],
        "runs": [{"scheme": run.point.scheme, "overcommit": run.point.overcommit, "seed": run.point.seed,
                  "failed": run.failed, "figures": dict(run.figures)} for run in found.runs],
        "problems": list(found.problems)}


def _cell_document(cell: Cell) -> dict[str, Any]:
    return {"scheme": cell.scheme, "overcommit": cell.overcommit, "finished": cell.finished,
            "did_not_finish": list(cell.failed),
            "figures": {name: value and {"mean": value.mean, "low": value.low, "high": value.high, "n": value.count}
                        for name, value in cell.figures.items()}}


def _pair_document(factor: float, found: Pair) -> dict[str, Any]:
    ratio = dict(zip(("mean", "low", "high"), found.ratio, strict=True)) if found.ratio else None
    return {"overcommit": factor, "first": found.first, "second": found.second, "verdict": found.verdict.value,
            "faster": found.faster, "time_ratio": ratio, "seeds": found.seeds, "first_faster": found.quicker,
            "second_faster": found.slower, "says": sentence(found)}
