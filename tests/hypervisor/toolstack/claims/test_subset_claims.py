"""The judge of E1, with rules made by hand, and the trial that it reads, for real."""

import pytest

from guests.trials import load
from hypervisor.toolstack.claims.claim import Found, Verdict
from hypervisor.toolstack.claims.thread.subset import COSTS, HAS, SEEN, subset
from shm.errors import UsageProblem


def rule(number, same):
    return {"number": number, "text": "a rule", "same": same}


@pytest.mark.parametrize(("seen", "verdict"), [(True, Verdict.SUPPORTED), (False, Verdict.REFUTED)])
def test_what_a_guest_sees_decides(seen, verdict):
    groups = {SEEN: [rule("T10", True), rule("T11", seen)], HAS: [rule("T39", False)], COSTS: [rule("E2a", False)]}
    answer = subset({"mappings": Found("a trial", {"pool": {"groups": groups}})})
    assert answer.verdict is verdict
    assert answer.figure == f"{1 + seen} of 2 rules that a guest can see are kept, {1 + seen} of all 4"
    assert "T39, E2a" in answer.why


def test_an_unknown_trial_is_refused():
    with pytest.raises(UsageProblem, match="'nothing' is not a trial; allowed: mappings"):
        load("nothing")
