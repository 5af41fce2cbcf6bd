"""What `compare` and `density` have in common: what is read and decided first, and the folder that they work in.

Without --out the folder is a temporary one: removed at the end, kept when a signal came, so that --resume can go on.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from hypervisor.schemes import offered
from hypervisor.toolstack import reading
from hypervisor.toolstack.compare.identity import identity
from hypervisor.toolstack.compare.keep import POINTS, Keep, write_whole
from hypervisor.toolstack.compare.progress import SeriesBar, SeriesProgress
from hypervisor.toolstack.faultmode import FaultMode, decided
from hypervisor.toolstack.interruption import Interrupted
from hypervisor.toolstack.origin import ORIGIN, origin
from hypervisor.toolstack.report import FAILED, OK, fell_back
from hypervisor.toolstack.run import machine
from hypervisor.toolstack.scenario import Scenario
from hypervisor.toolstack.table import console_for
from shm.errors import UsageProblem

SUMMARY = "summary.json"        # the whole of what was printed, as JSON


@dataclass(frozen=True, slots=True)
class Session:
    """One use of a command: a checked scenario, and what makes its points usable again."""

    path: Path
    options: Mapping[str, Any]
    scenario: Scenario
    mode: FaultMode
    identity: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manner:
    """How the person wants it."""

    out: Path | None
    resume: bool
    as_json: bool
    quiet: bool


def prepared(command: str, path: Path, options: Mapping[str, Any], seed: int | None = None,
             guests: int | None = None) -> Session:
    """Read the scenario and decide the fault mode; UsageProblem for whatever is wrong with either."""
    scenario = reading.load(path, dict(options) | ({} if seed is None else {"seed": seed}), guests)
    mode = decided(scenario.table.faults)
    found = identity(command, path.read_bytes(), options, mode.name, machine())
    return Session(path, options, scenario, mode, found)


def wanted_schemes(text: str | None) -> list[str]:
    """Return the schemes asked for; all that are offered where nobody asks."""
    return reading.listed(text, "--schemes") or offered()


@contextmanager
def folder(found: Mapping[str, Any], manner: Manner, scenario: Path | None = None) -> Iterator[Keep]:
    """Hold the folder of what has the identity `found` while the runs go on; a signal is told how to go on.

    `scenario`: the file that the runs are of, where they are of one.
    """
    out = manner.out
    if manner.resume and out is None:
        raise UsageProblem("--resume: nothing is known of before; give the folder with --out")
    keep = Keep(out or Path(tempfile.mkdtemp(prefix="memcommons-")), found)
    try:
        keep.open(manner.resume)
        _note_origin(scenario, out)
        yield keep
    except Interrupted as interrupted:
        interrupted.problems.append(kept_line(keep.folder))
        raise
    except BaseException:
        _discard(keep, out)
        raise
    finally:
        keep.close()
    _discard(keep, out)


def _note_origin(scenario: Path | None, out: Path | None) -> None:
    """Keep the command and the scenario's text where the person wants files."""
    try:
        if out and scenario:
            write_whole(out / ORIGIN, origin(scenario, sys.argv[1:]))
    except OSError as error:
        raise UsageProblem(f"--out: {out}: {error.strerror}; give a folder that can be written") from error


def _discard(keep: Keep, out: Path | None) -> None:
    if out is None:
        shutil.rmtree(keep.folder, ignore_errors=True)


def kept_line(place: Path) -> str:
    """Say what an interrupted command leaves."""
    count = len(list((place / POINTS).glob("*.json")))
    return f"{count} finished run{'s' * (count != 1)} kept in {place}; go on with --out {place} --resume"


def progress_for(manner: Manner, total: int | None) -> SeriesProgress:
    """Return the display: none when nobody wants it, or when nobody would see it move."""
    silent = manner.quiet or manner.as_json or not sys.stderr.isatty()
    return SeriesProgress(total) if silent else SeriesBar(console_for(sys.stderr), total)


def show(document: Mapping[str, Any], table: RenderableType, problems: Sequence[str], mode: FaultMode,
         manner: Manner, notes: Sequence[str] = (), name: str = SUMMARY) -> int:
    """Print what came of it, and keep it where the person wants files; return the exit status."""
    problems = [*problems, *_kept(document, manner.out, name)]
    notes = [*fell_back(mode), *notes]
    if manner.as_json:
        print(json.dumps(document))
    else:
        console_for(sys.stdout).print(table)
    for line in [*notes, *problems]:
        print(line, file=sys.stderr)
    return FAILED if problems else OK


def _kept(document: Mapping[str, Any], out: Path | None, name: str) -> list[str]:
    """Write the document where the person wants files; return what went wrong."""
    try:
        if out:
            write_whole(out / name, document)
    except OSError as error:
        return [f"--out: {out}: {error.strerror}; {name} is missing there, the points are kept"]
    return []
