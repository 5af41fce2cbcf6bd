"""What a folder holds, found out by its files, and read: of a run, a comparison, a search for density, or claims.

Whatever is missing, half-written or of another form is a UsageProblem of one line that names the file.
"""

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hypervisor.toolstack.compare.keep import MANIFEST, POINTS, digest
from hypervisor.toolstack.compare.points import Point as PointKey
from hypervisor.toolstack.complaints import sentence
from hypervisor.toolstack.origin import ORIGIN
from hypervisor.toolstack.reporting.markup import clean
from hypervisor.toolstack.reporting.told import (
    Claims,
    Comparison,
    CurvesRun,
    Density,
    FailedRun,
    MapSample,
    Origin,
    Point,
    Summary,
)
from shm.errors import UsageProblem

WRITERS = "run, compare, density, curves or claims"
SUMMARY, SAMPLES, CLAIMS = "summary.json", "samples.jsonl", "claims.json"
MOST_BYTES = 1 << 30             # of one file: more than this is none of ours
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class RunFound:
    summaries: tuple[Summary, ...]               # one a scheme; none where the baseline failed
    failed: FailedRun | None
    samples: dict[str, list[MapSample]]          # by phase
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class CompareFound:
    told: Comparison
    points: dict[str, list[tuple[PointKey, Point]]]      # by scheme: what finished, where most is overcommitted
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class DensityFound:
    told: Density
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class ClaimsFound:
    told: Claims


@dataclass(frozen=True, slots=True)
class CurvesFound:
    told: CurvesRun


Found = RunFound | CompareFound | DensityFound | ClaimsFound | CurvesFound


def found_in(folder: Path) -> Found:
    """Return what a folder holds; UsageProblem where that is nothing that can be reported."""
    if not folder.is_dir():
        raise UsageProblem(f"{folder}: no such folder; give one that --out of {WRITERS} named")
    if (folder / CLAIMS).exists():
        return _claims(folder)
    if (folder / MANIFEST).exists():
        return _series(folder)
    if (folder / SAMPLES).exists():
        return _run(folder)
    raise UsageProblem(f"{folder}: holds no results; give a folder that --out of {WRITERS} named")


# -- one file

def _document(path: Path, missing: str) -> Any:
    """Return a file's JSON; `missing` says what it means when there is none."""
    try:
        _check_file(path)
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageProblem(f"{path}: is missing: {missing}") from None
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise UsageProblem(f"{path}: is no JSON, or only half of it") from None


def _check_file(path: Path) -> None:
    """Refuse what is no ordinary file, whose end might never come, and what is too large for any of ours."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UsageProblem(f"{path}: is no ordinary file")
    if found.st_size > MOST_BYTES:
        raise UsageProblem(f"{path}: is larger than {MOST_BYTES >> 20} MiB: none of our files")


def checked(model: type[Model], document: Any, source: str) -> Model:
    """Return a document as its model, or say in one line what it should have been."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        key, said = sentence(error.errors()[0], {})
        raise UsageProblem(f"{source}: {clean(f'{key}: {said}' if key else said)}") from None


def _origin(folder: Path) -> Origin | None:
    path = folder / ORIGIN
    return checked(Origin, _document(path, ""), str(path)) if path.exists() else None


# -- a run

def _run(folder: Path) -> RunFound:
    path = folder / SUMMARY
    document = _document(path, "the run has not come to its end; run it again")
    if isinstance(document, dict) and "failed" in document:
        return RunFound((), checked(FailedRun, document, str(path)), _samples(folder / SAMPLES), _origin(folder))
    runs = document.get("runs", [document]) if isinstance(document, dict) else document
    if not isinstance(runs, list) or not runs:
        raise UsageProblem(f"{path}: holds no run")
    summaries = tuple(checked(Summary, run, str(path)) for run in runs)
    return RunFound(summaries, None, _samples(folder / SAMPLES), _origin(folder))


def _samples(path: Path) -> dict[str, list[MapSample]]:
    """Return the samples of the maps, by phase, in the order of time."""
    found: dict[str, list[MapSample]] = {}
    for sample in _map_samples(path):
        found.setdefault(sample.phase, []).append(sample)
    return {phase: sorted(samples, key=lambda sample: sample.at) for phase, samples in found.items()}


def _map_samples(path: Path) -> Iterator[MapSample]:
    try:
        _check_file(path)
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                sample = _line(path, number, line)
                if isinstance(sample, dict) and sample.get("kind") == "maps":
                    yield checked(MapSample, sample, f"{path}: line {number}")
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from error


def _line(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise UsageProblem(f"{path}: line {number} is no JSON, or only half of it") from None


# -- a comparison, a search

def _series(folder: Path) -> CompareFound | DensityFound | CurvesFound:
    manifest = _document(folder / MANIFEST, "")
    identity = manifest.get("identity") if isinstance(manifest, dict) else None
    command = identity.get("command") if isinstance(identity, dict) else None
    path = folder / SUMMARY
    if command not in ("compare", "density", "curves"):
        raise UsageProblem(f"{folder / MANIFEST}: says of neither compare, density nor curves that it wrote this")
    document = _document(path, f"{command} has not come to its end; go on with --resume")
    if command == "density":
        return DensityFound(checked(Density, document, str(path)), _origin(folder))
    if command == "curves":
        return CurvesFound(checked(CurvesRun, document, str(path)))
    told = checked(Comparison, document, str(path))
    return CompareFound(told, _points(folder, told), _origin(folder))


def _points(folder: Path, told: Comparison) -> dict[str, list[tuple[PointKey, Point]]]:
    """Return of each scheme the runs with the most overcommit with which any of its seeds finished."""
    found = {}
    for scheme in told.schemes:
        finished = [run for run in told.runs if run.scheme == scheme and run.failed is None]
        most = max((run.overcommit for run in finished), default=0.0)
        keys = [PointKey(scheme, run.seed, most) for run in finished if run.overcommit == most]
        if keys:
            found[scheme] = [(key, _point(folder, key.key)) for key in sorted(keys, key=lambda key: key.seed)]
    return found


def _point(folder: Path, key: str) -> Point:
    """Return one finished run, if its file is whole."""
    path = folder / POINTS / f"{key}.json"
    if path.name != f"{key}.json":
        raise UsageProblem(f"{folder / SUMMARY}: {clean(key)!r} is no name of a run")
    document = _document(path, "--resume runs it again")
    kept = dict(document) if isinstance(document, dict) else {}
    if kept.pop("checksum", None) != digest(kept) or kept.get("key") != key:
        raise UsageProblem(f"{path}: is damaged; remove it, and --resume runs it again")
    return checked(Point, kept.get("body"), str(path))


# -- claims

def _claims(folder: Path) -> ClaimsFound:
    path = folder / CLAIMS
    return ClaimsFound(checked(Claims, _document(path, ""), str(path)))
