"""E6 and E7 on results made by hand."""

import pytest

from hypervisor.toolstack.claims.claim import FULL, QUICK, Found, Verdict, judged
from hypervisor.toolstack.claims.jobs import Run
from hypervisor.toolstack.claims.stages import DISK
from hypervisor.toolstack.claims.thread.ballooning import (
    CLAIMS,
    COMPARED,
    IO,
    STEADY_OVERCOMMITS,
    curve_jobs,
    steady_jobs,
)

E6, E7 = CLAIMS


def io(pages):
    return dict.fromkeys(DISK, 0) | {"file_reads": pages}


def steady(*hints, balloons=(300, 100, 200)):
    """Runs in which cmm2 needs so much I/O at each overcommit, and each split of the balloons so much at all."""
    return {"cmm2/1": Found("a run", {"cases": [[io(pages)] for pages in hints]}),
            "balloon/1": Found("a run", {"cases": [[io(pages) for pages in balloons] for _ in hints]})}


@pytest.mark.parametrize(("hints", "verdict"), [
    ((100, 90, 110), Verdict.SUPPORTED), ((100, 150, 150), Verdict.DEPENDS), ((50, 150, 150), Verdict.REFUTED)])
def test_about_equal_to_the_best_balloons(hints, verdict):
    answer = judged(E6, steady(*hints))
    assert answer.verdict is verdict and f"1.5: {hints[0] / 100:.2f}" in answer.figure


def run(busy, pages):
    """A run whose guests needed `busy` seconds where the baseline needed one."""
    guests = [{"name": name, "cpu_s": busy / 2, "virtual_seconds": busy / 2} for name in ("a", "b")]
    return {"guests": guests, "counters": dict.fromkeys(IO, 0) | {"swap_in": pages},
            "baseline": {"guests": {guest["name"]: {"cpu_s": 0.5, "virtual_seconds": 0.5} for guest in guests},
                         "counters": {}}}


def sweep(low, high, pages):
    """Runs at two overcommits with two seeds; seconds and pages by scheme, in the order of COMPARED."""
    return {f"{scheme}/{at}/{seed}": Found("a run", run(seconds, count))
            for at, row in (("1", low), ("3", high)) for seed in (1, 2)
            for scheme, seconds, count in zip(COMPARED, row, pages, strict=True)}


@pytest.mark.parametrize(("low", "high", "pages", "verdict"), [
    ((1.0, 1.1, 1.2), (9.0, 4.0, 5.0), (300, 100, 200), Verdict.SUPPORTED),
    ((1.0, 2.0, 1.2), (9.0, 4.0, 5.0), (300, 100, 200), Verdict.DEPENDS),         # not alike where memory is there
    ((1.0, 1.1, 1.2), (4.0, 9.0, 5.0), (300, 100, 200), Verdict.DEPENDS),         # least I/O, and not the fastest
    ((1.0, 1.1, 1.2), (4.0, 9.0, 5.0), (100, 300, 200), Verdict.REFUTED)])
def test_the_finding_of_ibm(low, high, pages, verdict):
    answer = judged(E7, sweep(low, high, pages))
    assert answer.verdict is verdict and "6 runs" not in answer.figure and "12 runs" in answer.figure
    assert [line["name"] for line in answer.curves[0]["lines"]] == list(COMPARED)


def test_where_the_curves_cross():
    answer = judged(E7, sweep((1.0, 1.1, 1.2), (9.0, 4.0, 5.0), (300, 100, 200)))
    assert "cross at 1.21 in throughput and do not cross in I/O" in answer.why
    assert "the fastest: balloon at 1, cmm2 at 3" in answer.why
    assert answer.why.endswith("both together are faster than the better of the two at none of them")


def test_a_scheme_that_does_not_finish_is_not_the_best():
    results = sweep((1.0, 1.1, 1.2), (9.0, 4.0, 5.0), (300, 100, 200))
    results |= {label: Found("a run", None, "ten times slower") for label in results if label.startswith("cmm2/3")}
    results["balloon/3/2"] = Found("a run", None, "ten times slower")
    answer = judged(E7, results)
    assert answer.verdict is Verdict.REFUTED and "cmm2 did not finish" in answer.figure
    assert "balloon 0.111 with 300 (1 of 2 finished)" in answer.figure


def test_what_is_planned():
    jobs = curve_jobs(QUICK)
    assert len(jobs) == 3 * 3 and len(curve_jobs(FULL)) == 3 * 5 * 3
    assert all(isinstance(job, Run) and job.scenario.table.disk.latency == "hdd" for job in jobs.values())
    assert len({job.baseline.key for job in jobs.values()}) == 1, "one baseline a seed"
    cases = steady_jobs(FULL)["balloon/1"].options["cases"]
    assert len(cases) == len(STEADY_OVERCOMMITS) and all(sum(split) < case["budget"] for case in cases
                                                         for split in case["splits"])
