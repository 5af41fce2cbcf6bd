"""Where the outcome of a run goes: the table or the JSON on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from hypervisor.toolstack.faultmode import FaultMode
from hypervisor.toolstack.journal import Journal
from hypervisor.toolstack.origin import origin
from hypervisor.toolstack.progress import BarProgress, Progress
from hypervisor.toolstack.run import Outcome
from hypervisor.toolstack.table import console_for

OK, FAILED = 0, 1


def journal_in(folder: Path | None, scenario: Path, words: Sequence[str]) -> Journal:
    """Return the journal of a run of `scenario`; `words`: what was typed after the command's name."""
    return Journal(folder, origin(scenario, words) if folder else None)


def progress_on(stream: TextIO, silent: bool) -> Progress:
    """Return the display for `stream`: none when silent, or when nobody would see it move."""
    return Progress() if silent or not stream.isatty() else BarProgress(console_for(stream))


def show(outcome: Outcome, journal: Journal, as_json: bool) -> int:
    """Show and keep the outcome; return the exit status."""
    document = outcome.document()
    journal.summary(document)
    journal.close()
    problems = [*outcome.problems, *([journal.problem] if journal.problem else [])]
    if as_json:
        print(json.dumps(document))
    elif outcome.summaries:
        _print_table(outcome)
    for line in [*fell_back(outcome.mode), *problems]:
        print(line, file=sys.stderr)
    return FAILED if problems else OK


def fell_back(mode: FaultMode) -> list[str]:
    """Return the line that says why there were no hardware faults, where they were looked for."""
    return [f"software faults: {mode.why}"] if mode.why else []


def _print_table(outcome: Outcome) -> None:
    from hypervisor.toolstack.comparison import several_runs
    from hypervisor.toolstack.table import one_run

    single = len(outcome.schemes) == 1
    console_for(sys.stdout).print(one_run(outcome.summaries[0]) if single else several_runs(outcome.summaries))
