"""`memcommons claims`: plans the jobs of all claims that are wanted, does them, judges, and shows."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.claims.bench import Bench
from hypervisor.toolstack.claims.book import CLAIMS
from hypervisor.toolstack.claims.claim import Claim, Size
from hypervisor.toolstack.claims.jobs import Job, Run, planned
from hypervisor.toolstack.claims.page import page as page_of
from hypervisor.toolstack.claims.table import verdict_table
from hypervisor.toolstack.claims.verdicts import COMMAND, asked, document, rows
from hypervisor.toolstack.compare.identity import identity
from hypervisor.toolstack.compare.series import Series
from hypervisor.toolstack.compare.session import Manner, folder, progress_for, show
from hypervisor.toolstack.faultmode import decided
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.preflight import check
from hypervisor.toolstack.run import machine
from shm.errors import UsageProblem

DOCUMENT, PAGE = "claims.json", "claims.md"


def check_all(jobs: Sequence[Job], means: Means) -> None:
    """Raise UsageProblem for the first scenario that will not do here, before anything is started."""
    seen: set[str] = set()
    for job in jobs:
        if isinstance(job, Run) and job.scheme != BASELINE and (guests := guests_of(job)) not in seen:
            seen.add(guests)
            check(job.scenario, [job.scheme], means)


def guests_of(job: Run) -> str:
    """Return what the check of a run's guests depends on."""
    return str([guest.model_dump() for guest in job.scenario.table.guest])


def run_claims(claims: Sequence[Claim], size: Size, faults: str, means: Means, manner: Manner,
               page: Path | None) -> int:
    """Do all of it, and show it; return the exit status."""
    mode, wanted = decided(faults), asked(claims, size)
    jobs = planned({one.claim.key: one.jobs for one in wanted})
    found = identity("claims", b"", {"size": size.name}, mode.name, machine())
    began = date.today().isoformat()
    check_all(jobs, means)
    if page and not page.parent.is_dir():
        raise UsageProblem(f"--page: {page.parent} is no folder; give a file in one")
    progress = progress_for(manner, len(jobs))
    with folder(found, manner) as keep:
        bench = Bench(keep, means, Series(keep, means, mode, progress), progress)
        try:
            bench.do(jobs)
        finally:
            progress.close()
        facts = {"size": size.name, "quick": size.quick, "began": began, "command": command(claims, size),
                 "took_s": sum(bench.took.values()), "code": found["code"], "machine": machine(), **mode.facts()}
        made = document(rows(wanted, size, bench.found), jobs, bench.found, bench.took, facts, bench.problems)
        problems = [*bench.problems, *_written(made, page, manner.out)]
        return show(made, verdict_table(made), problems, mode, manner, name=DOCUMENT)


def command(claims: Sequence[Claim], size: Size) -> str:
    """Return the command that runs the same again."""
    names = [] if len(claims) == len(CLAIMS) else [claim.key for claim in claims]
    return " ".join([COMMAND, *names, *(["--quick"] if size.quick else [])])


def _written(made: dict[str, Any], page: Path | None, out: Path | None) -> list[str]:
    """Write the page where one is wanted; return what went wrong."""
    again = f"{made['command']} --out DIR --page docs/claims.md"
    for place in (page, out and out / PAGE):
        if place:
            try:
                place.write_text(page_of(made, again), encoding="utf-8")
            except OSError as error:
                return [f"--page: {place}: {error.strerror}; give a file that can be written"]
    return []
