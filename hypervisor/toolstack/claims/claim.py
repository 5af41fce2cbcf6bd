"""What a claim is: who said what, what is run for it, and a judge that reads the verdict off the results.

Rule 1: a verdict is computed from the stated criterion.  No claim has its verdict written down, but for those that are
        not tested, which say why.
Rule 2: `jobs` and `judge` are pure.  The same size gives the same jobs, the same results the same verdict.
Rule 3: a judge that asks for a result that is missing does not answer: the claim is "not tested here", with the reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from hypervisor.toolstack.claims.jobs import Job
from shm.errors import BrokenInvariant, MemcommonsError

Curves = tuple[Mapping[str, Any], ...]   # {"title", "x", "y", "lines": [{"name", "points": [[x, y, half or None]]}]}


class Verdict(Enum):
    SUPPORTED = "supported"
    REFUTED = "refuted"
    DEPENDS = "depends"
    NOT_TESTED = "not tested here"


class Missing(MemcommonsError):
    """A job did not finish, so that what it would have shown is not known."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run: a claim takes as many seeds of these as it needs, and does `work` times its operations."""

    name: str
    seeds: tuple[int, ...]
    work: float

    def operations(self, full: int) -> int:
        """Return how many operations stand for `full` of them at this size; at least one."""
        return max(1, round(full * self.work))

    @property
    def quick(self) -> bool:
        return self is QUICK


QUICK = Size("quick", (1,), 0.25)
FULL = Size("full", (1, 2, 3, 4, 5), 1.0)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a job: `value` (a run's summary, a trial's figures), or why there is none."""

    said: str
    body: Mapping[str, Any] | None
    failed: str | None = None

    @property
    def value(self) -> Mapping[str, Any]:
        if self.failed or self.body is None:
            raise Missing(f"{self.said}: {self.failed or 'it was not run'}")
        return self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, the figure that it was read off, in words with units, and a remark.

    `why`: of `not tested here` why not; else what else is to be known, or nothing.
    `on`: what the verdict hangs on, if it is `depends`; it is said then, and only then.
    """

    verdict: Verdict
    figure: str
    why: str = ""
    curves: Curves = ()
    on: str = ""


Results = Mapping[str, Found]            # under the labels that the claim gave its jobs


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the table."""

    key: str                             # "E10"
    who: str                             # and when
    mail: str                            # message-id, as the list archives have it, shortened to its unique part
    says: str
    setup: str
    criterion: str                       # what supports it and what refutes it
    jobs: Callable[[Size], Mapping[str, Job]]
    judge: Callable[[Results], Answer]


def judged(claim: Claim, results: Results) -> Answer:
    """Return the claim's answer; "not tested here" when a result that it needs is missing."""
    try:
        answer = claim.judge(results)
    except Missing as missing:
        return Answer(Verdict.NOT_TESTED, "-", f"a run did not finish: {missing}")
    if answer.verdict is not Verdict.DEPENDS:
        return answer
    if not answer.on:
        raise BrokenInvariant(f"claim {claim.key} depends, and does not say on what")
    return replace(answer, why="; ".join(filter(None, (f"on {answer.on}", answer.why))))


def ruled(supported: bool, refuted: bool) -> Verdict:
    """Return the verdict of two criteria; neither or both: it depends."""
    if supported == refuted:
        return Verdict.DEPENDS
    return Verdict.SUPPORTED if supported else Verdict.REFUTED
