"""E9 and E32 on results made by hand: what supports them, what refutes them, what depends."""

import pytest
from made_up_results import played

from hypervisor.toolstack.claims.claim import FULL, QUICK, Found, Verdict, judged
from hypervisor.toolstack.claims.stages import THINK_NS
from hypervisor.toolstack.claims.thread.valve import (
    CELLS,
    CLAIMS,
    FAR,
    HOSTS,
    SEEDS,
    TAKEN,
    factorial_jobs,
    valve_jobs,
)
from shm.abi import PAGE_SIZE

E9, E32 = CLAIMS
SECOND = 1000 * THINK_NS                             # what a window's operations think


def slow(share, hits=0, reads=0):
    """A run in which operations take 1 + share times their thinking, in the second phase too."""
    row = {"waited_ns": round(share * SECOND), "cleancache_hits": hits, "file_reads": reads}
    return played([(row, row)], [(row, row)])


def factorial(neither, tmem, balloon, both, cut=0.5, seeds=("1",)):
    shares = {"neither": neither, "tmem": tmem, "balloon": balloon, "both": both, "tmem, RAM cut": cut}
    return {f"{name}/{seed}": Found("a run", slow(share)) for name, share in shares.items() for seed in seeds}


@pytest.mark.parametrize(("shares", "verdict"), [
    ((0.20, 0.10, 0.30, 0.05), Verdict.SUPPORTED),   # more than the sum, and better than either
    ((0.20, 0.10, 0.30, 0.15), Verdict.DEPENDS),     # more than the sum, but worse than tmem alone
    ((0.20, 0.10, 0.30, 0.05, 0.02), Verdict.DEPENDS),   # or than tmem with RAM cut
    ((0.30, 0.10, 0.10, 0.09), Verdict.REFUTED)])    # each takes the other's gain
def test_the_interaction(shares, verdict):
    answer = judged(E32, factorial(*shares))
    assert answer.verdict is verdict and "interaction" in answer.figure and "one seed" in answer.figure


def test_seeds_that_disagree_show_nothing():
    results = factorial(0.2, 0.1, 0.3, 0.05, seeds=("1", "2"))
    results["both/2"] = Found("a run", slow(0.5))
    assert judged(E32, results).verdict is Verdict.DEPENDS


def test_a_cell_that_is_missing():
    results = factorial(0.2, 0.1, 0.3, 0.05) | {"both/1": Found("trial steps", None, "it was killed")}
    answer = judged(E32, results)
    assert answer.verdict is Verdict.NOT_TESTED and "it was killed" in answer.why


def far(without, with_tmem, hits=900, reads=100, taken=None):
    """Runs at both ends; at the near one nobody waits.  `taken`: the two, where a third guest wants the memory."""
    found = {}
    for host in HOSTS:
        none, tmem = taken if taken and host == TAKEN else (without, with_tmem)
        found |= {f"none/{host}/0/1": slow(0.0), f"tmem/{host}/0/1": slow(0.0), f"none/{host}/1/1": slow(none),
                  f"tmem/{host}/1/1": slow(tmem, hits, reads)}
    return {label: Found("a run", body) for label, body in found.items()}


@pytest.mark.parametrize(("results", "verdict"), [
    (far(0.4, 0.04), Verdict.SUPPORTED), (far(0.4, 0.3), Verdict.DEPENDS), (far(0.4, 0.39), Verdict.REFUTED),
    (far(0.4, 0.04, 100, 900), Verdict.DEPENDS), (far(0.0, 0.0), Verdict.REFUTED),
    (far(0.4, 0.04, taken=(0.4, 0.3)), Verdict.DEPENDS), (far(0.4, 0.04, taken=(0.4, 0.6)), Verdict.DEPENDS)])
def test_the_valve(results, verdict):
    answer = judged(E9, results)
    assert answer.verdict is verdict
    assert [point[0] for point in answer.curves[0]["lines"][0]["points"]] == [0.0, 1.0]


def test_a_valve_that_another_seed_does_not_show():
    results = {label.replace("/1/1", f"/1/{seed}").replace("/0/1", f"/0/{seed}"): body
               for seed, some in (("1", far(0.4, 0.04)), ("2", far(0.4, 0.39))) for label, body in some.items()}
    assert judged(E9, results).verdict is Verdict.DEPENDS


def test_what_is_planned():
    """Every cell with every seed; both ends of the scale in a quick run too; equal work in all arms."""
    jobs = factorial_jobs(FULL)
    assert len(jobs) == (len(CELLS) + 1) * len(FULL.seeds) and len({job.key for job in jobs.values()}) == len(jobs)
    assert len({str(job.options["phases"]) for job in jobs.values()}) == 1
    quick = valve_jobs(QUICK)
    assert {label.split("/")[2] for label in quick} == {"0", "1"}
    assert len(valve_jobs(FULL)) == 2 * len(HOSTS) * len(FAR) * SEEDS
    begun = [(sum(tenant.get("start", tenant["ram"]) for tenant in job.options["tenants"]), job.order["budget"])
             for job in quick.values()]
    assert all(pages * PAGE_SIZE <= budget for pages, budget in begun)
