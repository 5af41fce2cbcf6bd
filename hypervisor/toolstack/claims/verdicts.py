"""All claims judged: the document of a claims run, version 1, as a pure function of what was found.

    claims     a row each: the claim's words, figure, verdict, why, the command that repeats it, and its jobs
    code       digest of the code that measured
    jobs       each job by key: what it was, how many seconds it took, why it failed

Keys may be added, none removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypervisor.toolstack.claims.claim import Claim, Found, Size, Verdict, judged
from hypervisor.toolstack.claims.jobs import Job, kinds

VERSION = 1
COMMAND = "memcommons claims"


@dataclass(frozen=True, slots=True)
class Asked:
    """A claim, and the jobs that it wants, by its own labels."""

    claim: Claim
    jobs: Mapping[str, Job]


def asked(claims: Sequence[Claim], size: Size) -> list[Asked]:
    return [Asked(claim, claim.jobs(size)) for claim in claims]


def repeats(claim: Claim, size: Size) -> str:
    """Return the command that repeats one claim."""
    return f"{COMMAND} {claim.key}{' --quick' if size.quick else ''}"


def rows(wanted: Sequence[Asked], size: Size, found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """Return a row for each claim."""
    return [_row(one, size, found) for one in wanted]


def _row(one: Asked, size: Size, found: Mapping[str, Found]) -> dict[str, Any]:
    claim = one.claim
    results = {label: found.get(job.key) or Found(job.said, None) for label, job in one.jobs.items()}
    answer = judged(claim, results)
    return {"key": claim.key, "who": claim.who, "mail": claim.mail, "says": claim.says, "setup": claim.setup,
            "criterion": claim.criterion, "figure": answer.figure, "verdict": answer.verdict.value, "why": answer.why,
            "command": repeats(claim, size), "work": kinds(one.jobs.values()),
            "jobs": [job.key for job in one.jobs.values()], "curves": list(answer.curves)}


def counted(found: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many claims have each verdict."""
    return {verdict.value: sum(row["verdict"] == verdict.value for row in found) for verdict in Verdict}


def document(found: Sequence[Mapping[str, Any]], jobs: Sequence[Job], found_jobs: Mapping[str, Found],
             took: Mapping[str, float], facts: Mapping[str, Any], problems: Sequence[str]) -> dict[str, Any]:
    """Return the whole as JSON has it; `facts` says when, where and how it was run."""
    return {"version": VERSION, **facts, "verdicts": counted(found), "claims": [dict(row) for row in found],
            "jobs": {job.key: _job(job, found_jobs.get(job.key), took.get(job.key)) for job in jobs},
            "problems": list(problems)}


def _job(job: Job, found: Found | None, took: float | None) -> dict[str, Any]:
    return {"said": job.said, "seconds": took, "failed": found.failed if found else None}
