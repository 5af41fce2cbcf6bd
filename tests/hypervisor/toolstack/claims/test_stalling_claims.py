"""E24 on results made by hand: the best of the balloons decides."""

import pytest
from made_up_results import played

from hypervisor.toolstack.claims.claim import FULL, QUICK, Found, Verdict, judged
from hypervisor.toolstack.claims.stages import BUDGET, LARGE, RAM, SMALL, part
from hypervisor.toolstack.claims.thread.stalling import (
    CLAIMS,
    ENOUGH,
    HINTS,
    RAMPS,
    REACTING,
    TOLD,
    division,
    jobs,
    ramped,
    told,
)
from shm.latency import bucket_of

(E24,) = CLAIMS
AT_THE_STEP, AHEAD = TOLD


def stalled(ms, settled_ms=3, longest_us=100):
    """A run whose guests wait so long each in the first window after the step, and `settled_ms` long after it."""
    histogram = [0] * (bucket_of(longest_us * 1000) + 1)
    histogram[0], histogram[-1] = 999, 1
    first, later = {"waited_ns": ms * 1_000_000}, {"waited_ns": settled_ms * 1_000_000}
    windows = [(first, first | {"pages": 1000})] + [({}, {})] * 13 + [(later, later)] * 3
    return Found("a run", played([({}, {})], windows, stalls=[[[1], [1]], [histogram, [5]]]))


def stalls(cmm2, at_the_step, ahead, reacting=500, seeds=("1",)):
    waits = {ENOUGH: 10, HINTS: cmm2, AT_THE_STEP: at_the_step, AHEAD: ahead} | dict.fromkeys(REACTING, reacting)
    return {f"{arm}/{ramp}/{seed}": stalled(ms) for arm, ms in waits.items() for ramp in RAMPS for seed in seeds}


@pytest.mark.parametrize(("waits", "verdict"), [
    ((90, 40, 60), Verdict.SUPPORTED), ((90, 400, 60), Verdict.SUPPORTED), ((90, 400, 400, 60), Verdict.SUPPORTED),
    ((90, 100, 400), Verdict.REFUTED)])
def test_who_stalls(waits, verdict):
    answer = judged(E24, stalls(*waits))
    assert answer.verdict is verdict
    assert f"cmm2 {2 * (waits[0] - 10)}," in answer.figure, "of both, beyond those with all memory"
    assert "later on, us, at once: cmm2 0.8, " in answer.why, "3 ms in 1000 operations in 3 of 12 windows"
    assert "timed balloon, in ten steps 0.2 s" in answer.why


def test_a_pace_that_decides():
    results = stalls(90, 40, 60) | {f"{HINTS}/in ten steps/1": stalled(20)}
    answer = judged(E24, results)
    assert answer.verdict is Verdict.DEPENDS
    assert answer.why.startswith("on the pace of the step: at once they stall less, in ten steps they stall longer; ")


def test_seeds_that_disagree_decide_nothing():
    results = stalls(90, 40, 60, seeds=("1", "2")) | {f"{HINTS}/{ramp}/2": stalled(20) for ramp in RAMPS}
    assert judged(E24, results).verdict is Verdict.DEPENDS


def test_a_ramp_ends_where_it_should():
    phases = ramped(4, 7)
    assert [phase["windows"] for phase in phases] == [7, 1, 1, 1, 7]
    assert phases[0]["loads"] == phases[-1]["loads"][::-1]
    grown = [phase["loads"][0][0] for phase in phases]
    assert grown == sorted(grown)


@pytest.mark.parametrize(("lead", "windows"), [(0, [[0], [0], [0]]), (1, [[0, 6], [0], []])])
def test_balloons_are_told_each_division_once_and_in_time(lead, windows):
    phases = ramped(2, 7)
    found = told(phases, lead)
    assert [[window for window, _ in phase["deals"]] for phase in found] == windows
    assert [pages for phase in found for _, pages in phase["deals"]] == [division(phase["loads"]) for phase in phases]


def test_a_division_is_what_is_needed_and_an_equal_part_of_the_rest():
    small, large = division([[part(share) for share in SMALL], [part(share) for share in LARGE]])
    assert large - small == sum(map(part, LARGE)) - sum(map(part, SMALL))
    assert part(BUDGET) - RAM // 8 < small + large < part(BUDGET)
    assert division([[RAM, 0], [0, 0]])[0] == RAM, "no more than it has"


def test_what_is_planned():
    assert len(jobs(QUICK)) == 6 * 2 and len(jobs(FULL)) == 6 * 2 * 5
    phases = {str([{**phase, "deals": None} for phase in job.options["phases"]]) for label, job in jobs(QUICK).items()
              if "at once" in label}
    assert len(phases) == 1, "the same load in all arms"
