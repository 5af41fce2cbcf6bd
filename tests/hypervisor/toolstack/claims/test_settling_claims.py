"""E5 and E24 on results made by hand."""

import pytest
from made_up_results import played

from guests.selfballoon import Rules
from hypervisor.toolstack.claims.claim import FULL, QUICK, Found, Verdict, judged
from hypervisor.toolstack.claims.stages import THINK_NS
from hypervisor.toolstack.claims.thread.settling import (
    ARMS,
    AUTO,
    CLAIMS,
    HINTS,
    KNOBS,
    RAMPS,
    TOLD,
    policy_jobs,
    ramped,
    settled,
    stall_jobs,
)
from hypervisor.toolstack.scenario import BalloonTable, GuestTable, HypervisorTable, TmemTable
from shm.latency import bucket_of

E5, E24 = CLAIMS


def test_the_knobs_are_those_that_there_are():
    keys = {HINTS: set(HypervisorTable.model_fields), TOLD: {*BalloonTable.model_fields, *GuestTable.model_fields},
            AUTO: {*Rules._fields, *TmemTable.model_fields, *GuestTable.model_fields}}
    assert all(set(knobs) <= keys[arm] for arm, knobs in KNOBS.items())
    assert set(Rules._fields) <= set(KNOBS[AUTO]) and set(BalloonTable.model_fields) <= set(KNOBS[TOLD])


@pytest.mark.parametrize(("operations", "window"), [
    ([1000, 1000], 1), ([800, 950, 1000], 2), ([800, 950, 890, 900], 4), ([1000, 899], None), ([], None)])
def test_when_it_has_settled(operations, window):
    assert settled(operations) == window


def policy(**shares):
    """Runs with these parts of the thinking waited, by arm and setting."""
    rows = {arm: [{"waited_ns": round(share * 1000 * THINK_NS)} for share in values] for arm, values in shares.items()}
    return {f"{arm}/n={n}/1": Found("a run", played(*[[(row, row)]] * 3))
            for arm, values in rows.items() for n, row in enumerate(values)}


@pytest.mark.parametrize(("hints", "auto", "verdict"), [
    ((0.10, 0.11), (0.1, 0.5), Verdict.SUPPORTED), ((0.1, 0.3), (0.1, 0.4), Verdict.DEPENDS),
    ((0.1, 0.5), (0.1, 0.2), Verdict.REFUTED)])
def test_what_hangs_on_the_policy(hints, auto, verdict):
    answer = judged(E5, policy(**{HINTS: hints, AUTO: auto, TOLD: (0.1, 0.2)}))
    assert answer.verdict is verdict and "2 knobs" in answer.figure and "settled in 0.2 to 0.2 s" in answer.figure


def test_a_policy_without_a_run():
    results = policy(**{HINTS: (0.1,), AUTO: (0.1,), TOLD: (0.1,)}) | {f"{AUTO}/n=9/1": Found("it", None, "too slow")}
    assert judged(E5, results).verdict is Verdict.NOT_TESTED


def stalled(total, longest_us):
    histogram = [0] * (bucket_of(longest_us * 1000) + 1)
    histogram[0], histogram[-1] = 999, 1
    row = {"waited_ns": total}
    return Found("a run", played([({}, {})], [(row, {"pages": 1000})], stalls=[[[1], [1]], [histogram, [5]]]))


def stalls(cmm2, balloon):
    return {f"{arm}/{ramp}/1": stalled(*(cmm2 if arm == "cmm2" else balloon)) for arm in ARMS for ramp in RAMPS}


@pytest.mark.parametrize(("cmm2", "balloon", "verdict"), [
    ((9_000_000, 400), (1_000_000, 100), Verdict.SUPPORTED), ((9_000_000, 100), (1_000_000, 400), Verdict.DEPENDS),
    ((1_000_000, 100), (9_000_000, 400), Verdict.REFUTED)])
def test_who_stalls(cmm2, balloon, verdict):
    answer = judged(E24, stalls(cmm2, balloon))
    assert answer.verdict is verdict
    assert "9 ms in all" in answer.figure and "timed balloon, in ten steps: 0.2 s" in answer.why


def test_a_ramp_ends_where_it_should():
    phases = ramped(4, 7)
    assert [phase["windows"] for phase in phases] == [7, 1, 1, 1, 7]
    assert phases[0]["loads"] == phases[-1]["loads"][::-1]
    grown = [phase["loads"][0][0] for phase in phases]
    assert grown == sorted(grown)


def test_what_is_planned():
    assert len(policy_jobs(QUICK)) == 2 + 4 + 2 and len(policy_jobs(FULL)) == 2 * (3 + 12 + 4)
    assert len(stall_jobs(QUICK)) == 6 and len(stall_jobs(FULL)) == 18
