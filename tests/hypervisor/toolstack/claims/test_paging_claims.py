"""Judges of the claims about paging and hints, with made-up results both ways; and what they want to be run."""

from typing import Any

import pytest

from hypervisor.toolstack.claims.claim import FULL, QUICK, Answer, Found, Verdict, judged
from hypervisor.toolstack.claims.jobs import Run, Trial
from hypervisor.toolstack.claims.thread import bias, hints, hostpolicy, ledger, pagein

SUPPORTED, REFUTED, DEPENDS, NOT_TESTED = Verdict.SUPPORTED, Verdict.REFUTED, Verdict.DEPENDS, Verdict.NOT_TESTED
MODULES = (ledger, hints, hostpolicy, bias, pagein)
CLAIMS = {claim.key: claim for module in MODULES for claim in module.CLAIMS}


def found(body: Any) -> Found:
    return Found("made up", body)


def answer(key: str, results: dict[str, Any]) -> Answer:
    """Judge; what depends says on what."""
    said = judged(CLAIMS[key], {label: found(body) for label, body in results.items()})
    assert said.verdict != DEPENDS or said.why.startswith("on "), said.why
    return said


@pytest.mark.parametrize("key", sorted(CLAIMS))
def test_a_missing_result_is_not_judged(key):
    claim = CLAIMS[key]
    results = {label: Found(job.said, None, "it was too slow") for label, job in claim.jobs(QUICK).items()}
    said = judged(claim, results)
    assert said.verdict == NOT_TESTED and "did not finish" in said.why


@pytest.mark.parametrize("key", sorted(CLAIMS))
def test_a_plan_is_the_same_each_time_and_can_be_started(key):
    claim = CLAIMS[key]
    for size in (QUICK, FULL):
        jobs = claim.jobs(size)
        assert jobs and {label: job.key for label, job in jobs.items()} == {
            label: job.key for label, job in claim.jobs(size).items()}
        assert len({job.key for job in jobs.values()}) == len(jobs)
        assert all(job.scenario for job in jobs.values() if isinstance(job, Run))
        assert all(job.order["budget"] % 4096 == 0 for job in jobs.values() if isinstance(job, Trial))


# E19: who pays for a page that both want out

def cell(key: str, column: str, transfers: float, same: bool | None = True) -> dict[str, Any]:
    return {"key": key, "row": f"row {key}", "column": column, "counted": [transfers, 0, 0, 0], "said": f"{transfers}",
            "same": same}


def ledger_results(stable: float, clean: float, same: bool = True) -> dict[str, Any]:
    none = [cell("4 S", "no hints", 3), cell("4 V+", "no hints", 3, None)]
    with_hints = [cell("4 S", "with hints", stable, same), cell("4 V+", "with hints", clean)]
    played = {"ledger/swap": {"rows": none}, "ledger/cmm2": {"rows": with_hints}, "ledger/balloon": {"rows": []},
              "ledger/tmem": {"rows": []}}
    return played | {f"{scheme}/1.5/1": {"counters": {"swap_out": 100, "double_paged": 7}} for scheme in ledger.LEVELS}


@pytest.mark.parametrize(("stable", "clean", "verdict"), [
    (1, 1, SUPPORTED), (3, 3, REFUTED), (3, 1, DEPENDS), (2, 2, REFUTED)])
def test_two_thirds(stable, clean, verdict):
    said = answer("E19", ledger_results(stable, clean))
    assert said.verdict == verdict
    assert f"{stable / 3:.2f} for stable" in said.figure and "swap 70" in said.figure
    assert "row 4 V+: no hints 3 (not in the table), with hints" in said.why


def test_a_ledger_does_not_hang_on_a_run_that_did_not_finish():
    results = {label: found(body) for label, body in ledger_results(3, 1).items()}
    results |= {"cmm2/1.5/2": found({"counters": {"swap_out": 100, "double_paged": 9}}),
                "cmm2/1.5/1": Found("made up", None, "it was too slow")}
    said = judged(CLAIMS["E19"], results)
    assert said.verdict == DEPENDS and "cmm2 90 (1 of 2 runs did not finish)" in said.figure


def test_a_ledger_that_is_not_the_tables_shows_nothing():
    said = answer("E19", ledger_results(1, 1, same=False))
    assert said.verdict == NOT_TESTED and "row 4 S, with hints" in said.why
    assert "TABLE SAYS OTHERWISE" in said.figure


# E34: reclaim that looks

def sparing_results(**twice: int) -> dict[str, Any]:
    return {f"{arm}/{seed}": {"double_paged": twice.get(arm, 50), "evictions": 500, "total": 1000, "looks": 30,
                              "reclaimed_pages": 10, "essa_a_look": 4.0} for arm in ledger.ARMS for seed in (1, 2)}


@pytest.mark.parametrize(("left", "verdict"), [(0, SUPPORTED), (5, SUPPORTED), (20, DEPENDS), (26, REFUTED)])
def test_sparing(left, verdict):
    said = answer("E34", sparing_results(bitmap=left, both=0))
    assert said.verdict == verdict
    assert f"none 100, bitmap {2 * left}, cmm2 100, both 0" in said.figure and "3.0 looks" in said.why


# E22: who may write hints

def path_results(ratio: float = 10, calls: int = 0, **malice: int) -> dict[str, Any]:
    harm = dict.fromkeys(("neighbours_wrong_pages", "audit_problems", "drift_frames", "bad_contents",
                          "host_half_written"), 0)
    costs = [{"batch": batch, "ratio": ratio, "hypercalls": {"shared": calls, "trap": 1},
              "ns_a_page": {"shared": 500.0, "trap": 500.0 * ratio}} for batch in (1, 64)]
    return {"paths": {"costs": costs, "malice": {"scribbles": 99, "own_lost_pages": 5} | harm | malice}}


@pytest.mark.parametrize(("results", "verdict"), [
    (path_results(), SUPPORTED), (path_results(ratio=1.2), REFUTED), (path_results(calls=1), REFUTED),
    (path_results(neighbours_wrong_pages=1), REFUTED), (path_results(drift_frames=2), REFUTED)])
def test_writing_hints(results, verdict):
    said = answer("E22", results)
    assert said.verdict == verdict
    assert (said.why == "neighbours_wrong_pages 1") == (results["paths"]["malice"]["neighbours_wrong_pages"] == 1)


# E27: what decides

def cost_results(optimised: int, stable: int, gain: int = 0) -> dict[str, Any]:
    """`optimised`, `stable`: ESSA of 1000 operations; `gain`: transfers that hints save where memory is short."""
    return {f"{arm}/{k:g}": {"essa": essa, "total": 100 if k > 1 and arm == "none" else 100 - gain if k > 1 else 0,
                             "operations": 1000}
            for k in hints.OVERCOMMITS for arm, essa in (("none", 0), ("optimised", optimised), ("stable", stable))}


@pytest.mark.parametrize(("optimised", "stable", "verdict"), [
    (0, 2000, SUPPORTED), (0, 600, DEPENDS), (0, 0, REFUTED), (90_000, 90_000, REFUTED)])
def test_what_decides(optimised, stable, verdict):
    assert answer("E27", cost_results(optimised, stable)).verdict == verdict


def test_the_cost_that_an_essa_may_have():
    said = answer("E27", cost_results(0, 2000))
    assert "viable up to a cost of: optimised any, stable 25 ns" in said.figure, "5 % of 1 us, for two hints"


def test_hints_gain_from_where_they_save_more_than_they_cost():
    said = answer("E27", cost_results(0, 2000, gain=50))
    assert "gain from overcommit: optimised 1.25, stable 1.25" in said.why
    assert "gain from overcommit: optimised none, stable none" in answer("E27", cost_results(0, 2000)).why
    assert len(said.curves[0]["lines"]) == 8


# E28: what the host could infer

def mapper_results(saves: int = 64, stale: int = 64, others: int = 0) -> dict[str, Any]:
    def rows(total: int, changed: int) -> dict[str, Any]:
        row = {"total": total, "dropped": 0, "host_swap_writes": 0, "silently_changed": 0}
        return {"rows": {case: row | {"silently_changed": changed if case == "rewritten" else 0}
                         for case in ("tracked", "network", "mlocked", "rewritten")}}
    return {"mapper": rows(saves, stale), "volatile": rows(64, others), "neither": rows(128, 0)}


@pytest.mark.parametrize(("results", "verdict"), [
    (mapper_results(), SUPPORTED), (mapper_results(saves=128), REFUTED), (mapper_results(stale=0), REFUTED),
    (mapper_results(others=1), REFUTED)])
def test_inferring(results, verdict):
    assert answer("E28", results).verdict == verdict


# E23: a clock over all guests

def rate_results(*frames: tuple[float, float]) -> dict[str, Any]:
    rows = [{"rate": rate, "frames": list(pair), "reads": [10, 10], "touches": 1000}
            for rate, pair in zip(hostpolicy.RATES, frames, strict=True)]
    return {"rates/1": {"rows": rows, "working_set": hostpolicy.WORKING_SET}}


EVEN, BUSY = (250.0, 250.0), (310.0, 190.0)


@pytest.mark.parametrize(("frames", "verdict"), [
    ((EVEN, EVEN, EVEN, BUSY), SUPPORTED), ((EVEN,) * 4, REFUTED), ((BUSY,) * 4, DEPENDS),
    ((EVEN, EVEN, EVEN, (267.0, 233.0)), DEPENDS)])
def test_sizing_by_nobody(frames, verdict):
    assert answer("E23", rate_results(*frames)).verdict == verdict


def test_the_best_division_gives_the_busy_guest_its_working_set_first():
    row = {"rate": 4, "frames": [250, 250], "touches": 1000}
    assert hostpolicy.best_share([row]) == pytest.approx(320 / 180)
    assert hostpolicy.best_reads(row) == pytest.approx(200 * (1 - 180 / 320))


# E25: a little bias

def bias_results(rows: dict[float, list[int]], at_two: dict[float, list[int]] | None = None) -> dict[str, Any]:
    """Runs at 1.5 and 2, and trials of the guest alone, of so many transfers for each bias and seed."""
    settings = (("1.5", rows), ("2", at_two or rows), ("alone", rows))
    return {f"{one:g}/{setting}/{seed}": {"total": count} if setting == "alone" else {"counters": {"swap_out": count}}
            for setting, row in settings for one, counts in row.items() for seed, count in enumerate(counts, 1)}


BETWEEN = {0.0: [1000, 1010], 0.1: [900, 910], 0.5: [800, 808], 1.0: [900, 909]}
WORSE = {0.0: [1000, 1010], 0.1: [1100, 1111], 0.5: [1200, 1212], 1.0: [1300, 1313]}
MORE_IS_BETTER = {0.0: [1000, 1010], 0.1: [900, 910], 0.5: [800, 808], 1.0: [600, 606]}
UNCLEAR = {0.0: [1000, 1000], 0.1: [700, 1300], 0.5: [600, 1400], 1.0: [900, 1100]}
A_LITTLE_IS_ALL = {0.0: [1000, 1010], 0.1: [800, 804], 0.5: [790, 812], 1.0: [805, 800]}
LAST_MISLEADS = {one: counts[::-1] for one, counts in UNCLEAR.items()}


@pytest.mark.parametrize(("results", "verdict", "says"), [
    (bias_results(BETWEEN), SUPPORTED, bias.INTERIOR), (bias_results(WORSE), REFUTED, bias.NO_GAIN),
    (bias_results(UNCLEAR), DEPENDS, bias.OPEN), (bias_results(LAST_MISLEADS), DEPENDS, bias.OPEN),
    (bias_results(MORE_IS_BETTER), DEPENDS, bias.ALL_THE_WAY), (bias_results(A_LITTLE_IS_ALL), DEPENDS, bias.ANY),
    (bias_results(BETWEEN, WORSE), DEPENDS, bias.NO_GAIN)])
def test_bias(results, verdict, says):
    said = answer("E25", results)
    assert said.verdict == verdict and says in said.why
    assert ("no bias at all is worse in every setting" in said.why) == (says in (
        bias.INTERIOR, bias.ALL_THE_WAY, bias.ANY))


def test_guests_that_differ_are_named():
    said = answer("E25", bias_results(BETWEEN, WORSE))
    assert said.why == (f"on the guests; common guests at 1.5: {bias.INTERIOR}; common guests at 2: {bias.NO_GAIN}; "
                        f"one guest, anonymous and file pages: {bias.INTERIOR}")


def test_a_seed_that_did_not_finish_is_left_out_and_said():
    results = {label: found(body) for label, body in bias_results(BETWEEN | {0.1: [900, 5000]}).items()}
    results |= dict.fromkeys(["0.1/1.5/2", "0.1/2/2", "0.1/alone/2"], Found("made up", None, "it was too slow"))
    said = judged(CLAIMS["E25"], results)
    assert said.verdict == SUPPORTED and "seeds: 1; 3 of 24 runs did not finish" in said.figure


def test_bias_of_one_seed_is_judged_on_the_mean():
    said = answer("E25", bias_results({one: counts[:1] for one, counts in BETWEEN.items()}))
    assert said.verdict == SUPPORTED and "seeds: 1" in said.figure and "0.1: -10%, 0.5: -20%" in said.figure


# E26: what PFAULT could do

def waits(cpu: float, waited: float, busy: float = 0.0) -> dict[str, Any]:
    return {"guests": [{"cpu_s": cpu, "virtual_seconds": waited}], "tmem": {"hypervisor_cpu_s": 0.0},
            "counters": {"swap_in": round(100 * waited)}, "disk": {"swap_busy_s": busy}}


def page_in_results(host: tuple[float, ...], guest: tuple[float, ...],
                    at_two: tuple[float, ...] | None = None) -> dict[str, Any]:
    return {f"{scheme}/{k:g}/1": waits(*(at_two if at_two and k == pagein.TIGHT[1] and scheme == "swap" else parts))
            for k in pagein.TIGHT for scheme, parts in (("swap", host), ("tmem", guest))}


@pytest.mark.parametrize(("results", "verdict"), [
    (page_in_results((1, 1), (3, 1)), SUPPORTED), (page_in_results((1, 3), (1, 1)), REFUTED),
    (page_in_results((1, 1), (3, 1), at_two=(1, 9)), DEPENDS),
    (page_in_results((1, 1, 5), (3, 1)), DEPENDS)])                               # what its disk does in the background
def test_pfault(results, verdict):
    assert answer("E26", results).verdict == verdict


def test_tasks_hide_waits_up_to_what_they_compute_and_what_the_disk_can_do():
    assert [pagein.with_tasks(2, 6, tasks, channels=8) for tasks in (1, 2, 4, 8)] == [8, 4, 2, 2]
    assert [pagein.with_tasks(2, 6, tasks, channels=1) for tasks in (1, 2, 4)] == [8, 6, 6]


def test_a_guest_that_did_not_say_what_it_took_is_not_judged():
    results = page_in_results((1, 3), (1, 1))
    results["swap/1.25/1"]["guests"][0]["cpu_s"] = None
    assert answer("E26", results).verdict == NOT_TESTED


# E31: the policy alone

def policy_results(best: int, codes: int = 1) -> dict[str, Any]:
    return {f"{policy}/1": {"total": best if policy == "bias 0.5" else 1000, "guest_code": f"c{number % codes}"}
            for number, policy in enumerate(hostpolicy.POLICIES)}


@pytest.mark.parametrize(("results", "verdict"), [
    (policy_results(900), SUPPORTED), (policy_results(990), REFUTED), (policy_results(900, codes=2), REFUTED)])
def test_evolving(results, verdict):
    assert answer("E31", results).verdict == verdict
