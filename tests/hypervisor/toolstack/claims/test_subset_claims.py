"""The judge of E1, with rules made by hand, and the trial that it reads, for real."""

import pytest

from guests.trials import load
from hypervisor.toolstack.claims.claim import Found, Verdict
from hypervisor.toolstack.claims.thread.subset import COSTS, SEEN, subset
from shm.errors import UsageProblem


def rule(number, same):
    return {"number": number, "text": "a rule", "same": same}


@pytest.mark.parametrize(("seen", "others", "verdict"), [
    (True, True, Verdict.SUPPORTED), (True, False, Verdict.DEPENDS), (False, False, Verdict.REFUTED),
    (False, True, Verdict.REFUTED)])
def test_every_rule_counts(seen, others, verdict):
    groups = {SEEN: [rule("T10", True), rule("T11", seen)], "what the operator has of it": [rule("T39", others)],
              COSTS: [rule("E2a", others)]}
    answer = subset({"mappings": Found("a trial", {"pool": {"groups": groups}})})
    assert answer.verdict is verdict
    assert answer.figure.startswith(f"{1 + seen + 2 * others} of 4 rules of a private ephemeral pool are kept;")
    assert answer.figure.endswith(f"{1 + seen} of 2")
    assert ("T39, E2a" in answer.why) != others


def test_an_unknown_trial_is_refused():
    with pytest.raises(UsageProblem, match="'nothing' is not a trial; allowed: mappings"):
        load("nothing")
