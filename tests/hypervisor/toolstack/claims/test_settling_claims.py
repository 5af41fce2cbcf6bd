"""E5 on results made by hand."""

import pytest
from made_up_results import played

from guests.selfballoon import Rules
from hypervisor.toolstack.claims.claim import FULL, QUICK, Found, Verdict, judged
from hypervisor.toolstack.claims.stages import THINK_NS
from hypervisor.toolstack.claims.thread.settling import (
    AUTO,
    CLAIMS,
    HINTS,
    KNOBS,
    TOLD,
    knobs_of,
    policy_jobs,
    settled,
    weight_of,
)
from hypervisor.toolstack.scenario import BalloonTable, GuestTable, HypervisorTable, TmemTable

(E5,) = CLAIMS


def test_the_knobs_are_those_that_there_are():
    keys = {HINTS: set(HypervisorTable.model_fields), TOLD: {*BalloonTable.model_fields, *GuestTable.model_fields},
            AUTO: {*Rules._fields, *TmemTable.model_fields, *GuestTable.model_fields}}
    assert all(set(knobs) <= keys[arm] for arm, knobs in KNOBS.items())
    assert set(Rules._fields) <= set(KNOBS[AUTO]) and set(BalloonTable.model_fields) <= set(KNOBS[TOLD])


@pytest.mark.parametrize(("operations", "window"), [
    ([1000, 1000], 1), ([800, 950, 1000], 2), ([800, 950, 890, 900], 4), ([1000, 899], None), ([], None)])
def test_when_it_has_settled(operations, window):
    assert settled(operations) == window


def policy(seeds=("1",), **shares):
    """Runs with these parts of the thinking waited, by arm and setting of one knob."""
    rows = {arm: [{"waited_ns": round(share * 1000 * THINK_NS)} for share in values] for arm, values in shares.items()}
    return {f"{arm}/n={n}/{seed}": Found("a run", played(*[[(row, row)]] * 3))
            for seed in seeds for arm, values in rows.items() for n, row in enumerate(values)}


@pytest.mark.parametrize(("hints", "auto", "verdict"), [
    ((0.10, 0.11), (0.1, 0.5), Verdict.SUPPORTED), ((0.1, 0.11), (0.1, 0.14), Verdict.DEPENDS),
    ((0.1, 0.5), (0.1, 0.2), Verdict.REFUTED)])
def test_what_hangs_on_the_policy(hints, auto, verdict):
    answer = judged(E5, policy(**{HINTS: hints, AUTO: auto, TOLD: (0.1, 0.2)}))
    assert answer.verdict is verdict and "2 knobs, n decides most" in answer.figure
    assert "settled in 0.2 to 0.2 s" in answer.figure and "self" not in answer.why.split("the knobs:")[1].split(";")[0]


def test_seeds_that_disagree_show_no_policy_that_matters():
    results = policy(**{HINTS: (0.1, 0.11), AUTO: (0.1, 0.5), TOLD: (0.1, 0.2)})
    results |= policy(("2",), **{HINTS: (0.1, 0.11), AUTO: (0.1, 0.12), TOLD: (0.1, 0.2)})
    assert judged(E5, results).verdict is Verdict.DEPENDS


def test_what_one_knob_decides_is_over_all_settings_of_the_others():
    found = {"a=1 b=1": 1.0, "a=1 b=2": 0.8, "a=2 b=1": 0.9, "a=2 b=2": 0.7}
    assert weight_of(found, "a") == pytest.approx(0.1) and weight_of(found, "b") == pytest.approx(0.2)
    assert knobs_of("a=1 b=x") == {"a": "1", "b": "x"}


def test_a_policy_without_a_run():
    results = policy(**{HINTS: (0.1,), AUTO: (0.1,), TOLD: (0.1,)}) | {f"{AUTO}/n=9/1": Found("it", None, "too slow")}
    assert judged(E5, results).verdict is Verdict.NOT_TESTED


def test_what_is_planned():
    assert len(policy_jobs(QUICK)) == 2 + 4 + 2 and len(policy_jobs(FULL)) == 5 * (3 + 12 + 4)
