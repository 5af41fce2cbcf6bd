"""What is planned for all claims, and how verdicts are read: pure."""

import importlib
import inspect
from dataclasses import replace

import pytest

from guests.trials import TRIALS
from hypervisor.schemes import BASELINE
from hypervisor.toolstack.claims.book import CLAIMS, chosen
from hypervisor.toolstack.claims.claim import FULL, QUICK, Answer, Found, Missing, Verdict, judged, ruled
from hypervisor.toolstack.claims.jobs import MODEL_CLOCKS, Run, Trial, kinds, planned
from hypervisor.toolstack.claims.setups import COMMON, grid, run
from hypervisor.toolstack.claims.verdicts import asked
from shm.errors import BrokenInvariant

SIZES = pytest.mark.parametrize("size", [QUICK, FULL], ids=lambda size: size.name)


def plan(size):
    return planned({one.claim.key: one.jobs for one in asked(list(CLAIMS.values()), size)})


@SIZES
def test_each_scenario_is_one_and_each_job_comes_once(size):
    jobs = plan(size)
    keys = [job.key for job in jobs]
    assert len(keys) == len(set(keys))
    assert all(job.scenario.guests for job in jobs if isinstance(job, Run))


@SIZES
def test_a_baseline_comes_before_what_is_compared_with_it(size):
    seen = set()
    for job in plan(size):
        seen.add(job.key)
        assert not isinstance(job, Run) or job.baseline.key in seen


@SIZES
def test_planning_is_pure(size):
    assert [job.key for job in plan(size)] == [job.key for job in plan(size)]


def test_the_budget_and_the_policies_are_no_part_of_a_baseline():
    one = run("x", "cmm2", 1.5, 1)
    other = run("y", "tmem", 3.0, 1, tmem={"form": "lz4"}, hypervisor={"bias": 0.5})
    assert one.baseline.key == other.baseline.key and one.key != other.key
    for changed in (run("x", "cmm2", 1.5, 2), run("x", "cmm2", 1.5, 1, COMMON[:2]),
                    run("x", "cmm2", 1.5, 1, disk={"latency": "ssd"})):
        assert changed.baseline.key != one.baseline.key


def test_the_name_is_no_part_of_a_run():
    assert run("x", "cmm2", 1.5, 1).key == run("y", "cmm2", 1.5, 1).key
    assert run("x", "cmm2", 1.5, 1).key != run("x", "swap", 1.5, 1).key
    assert run("x", BASELINE, 1.5, 1).key == run("x", "cmm2", 1.5, 1).baseline.key


def test_trials_differ_by_order_and_options():
    one = Trial("mappings", {"scheme": "cmm2", "budget": 1 << 20})
    assert one.key == Trial("mappings", {"budget": 1 << 20, "scheme": "cmm2"}).key
    assert one.key != Trial("mappings", {"scheme": "cmm2", "budget": 2 << 20}).key
    assert one.key != Trial("mappings", {"scheme": "cmm2", "budget": 1 << 20}, {"n": 1}).key


def test_a_grid_has_every_combination_under_its_label():
    found = grid("x", ("swap", "cmm2"), (1.0, 1.5), (1, 2), QUICK)
    assert set(found) == {f"{scheme}/{factor}/{seed}" for scheme in ("swap", "cmm2") for factor in ("1", "1.5")
                          for seed in (1, 2)}
    assert found["cmm2/1.5/2"].scenario.table.operations == QUICK.operations(8000)


@pytest.mark.parametrize(("supported", "refuted", "verdict"), [
    (True, False, Verdict.SUPPORTED), (False, True, Verdict.REFUTED), (False, False, Verdict.DEPENDS),
    (True, True, Verdict.DEPENDS)])
def test_a_verdict_is_ruled_by_both_criteria(supported, refuted, verdict):
    assert ruled(supported, refuted) is verdict


def test_a_result_that_is_missing_is_no_verdict():
    [claim] = chosen(["E10"])
    results = {label: Found("a run", None, "too slow") for label in claim.jobs(QUICK)}
    assert judged(claim, results) == Answer(Verdict.NOT_TESTED, "-", "a run did not finish: a run: too slow")
    with pytest.raises(Missing, match="it was not run"):
        _ = Found("a run", None).value


def test_what_depends_says_on_what_and_nothing_else_does():
    [claim] = chosen(["E10"])
    def said(verdict, **more):
        return judged(replace(claim, judge=lambda _: Answer(verdict, "7 pages", **more)), {})
    assert said(Verdict.DEPENDS, on="the guests").why == "on the guests"
    assert said(Verdict.DEPENDS, on="the guests", why="all swap").why == "on the guests; all swap"
    assert said(Verdict.SUPPORTED, on="the guests", why="all swap").why == "all swap"
    with pytest.raises(BrokenInvariant, match="claim E10 depends, and does not say on what"):
        said(Verdict.DEPENDS)


@pytest.mark.parametrize(("jobs", "said"), [
    ([run("x", "cmm2", 1.5, 1)], "1 run of guests that are processes"),
    ([Trial("steps", {}), Trial("steady", {}), Trial("calls", {})],
     "2 trials on clocks of the model, on which calls, copies and traps take no time; 1 trial of single guests, or of "
     "the calls alone")])
def test_what_kind_of_jobs_there_are_is_said(jobs, said):
    assert kinds(jobs) == said


def test_trials_on_clocks_of_the_model_are_those_of_tenants():
    """Each trial of a tenant says in its code that it is one."""
    tenants = {name for name in TRIALS if "guests.trials.tenant import" in inspect.getsource(
        importlib.import_module(f"guests.trials.{name}"))}
    assert tenants == MODEL_CLOCKS


def test_claims_are_in_the_order_of_their_numbers():
    assert list(CLAIMS) == [f"E{n}" for n in range(1, 35)]
    assert [claim.key for claim in chosen(["e10", "E1"])] == ["E1", "E10"]


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.key)
def test_a_claim_says_everything(claim):
    for text in (claim.who, claim.mail, claim.says, claim.setup, claim.criterion):
        assert text and text == " ".join(text.split()) and not text.endswith(".")
