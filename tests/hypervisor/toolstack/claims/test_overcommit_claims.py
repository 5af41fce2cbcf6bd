"""E7 on results made by hand."""

import pytest
from made_up_results import played

from hypervisor.toolstack.claims.claim import FULL, QUICK, Found, Verdict, judged
from hypervisor.toolstack.claims.thread.overcommit import (
    CLAIMS,
    COMPARED,
    GUESTS,
    OVERCOMMITS,
    PACE,
    THINK_NS,
    WORKING,
    jobs,
)
from shm.abi import PAGE_SIZE

(E7,) = CLAIMS
SEEDS = ("1", "2")


def run(slow_down, pages):
    """A run whose operations take so many times their thinking, with so many pages of I/O for 1000 of them."""
    row = {"waited_ns": round((slow_down - 1) * 1000 * THINK_NS), "host_in": pages}
    return Found("a run", played([({}, {})], [(row, row)]))


def sweep(low, high, pages, seeds=SEEDS):
    """Runs at three overcommits; slow-downs and pages by scheme, in the order of COMPARED; a little noise by seed."""
    return {f"{scheme}/{at}/{seed}": run(slow_down * (1 + 0.001 * int(seed)), count)
            for at, row in (("1", (1.0, 1.0, 1.0)), ("1.25", low), ("3", high)) for seed in seeds
            for scheme, slow_down, count in zip(COMPARED, row, pages, strict=True)}


ALIKE = (1.05, 1.0, 1.02)


@pytest.mark.parametrize(("low", "high", "pages", "verdict"), [
    (ALIKE, (9.0, 4.0, 5.0), (300, 100, 200), Verdict.SUPPORTED),
    ((1.0, 2.0, 1.2), (9.0, 4.0, 5.0), (300, 100, 200), Verdict.DEPENDS),         # not alike at the lowest
    (ALIKE, (9.0, 4.0, 5.0), (100, 300, 200), Verdict.SUPPORTED),                 # whoever has the least I/O
    (ALIKE, (9.0, 4.0, 4.0), (300, 100, 200), Verdict.DEPENDS),                   # not faster than both
    (ALIKE, (4.0, 9.0, 5.0), (300, 100, 200), Verdict.REFUTED)])
def test_the_finding_of_ibm(low, high, pages, verdict):
    answer = judged(E7, sweep(low, high, pages))
    assert answer.verdict is verdict and "18 runs" in answer.figure
    assert [line["name"] for line in answer.curves[0]["lines"]] == list(COMPARED)


def test_what_is_shown_where():
    answer = judged(E7, sweep((1.0, 2.0, 1.2), (9.0, 4.0, 5.0), (300, 100, 200)))
    assert answer.why == (
        "on how low is low: they are not alike at 1.25; at 1.25 they are not shown to be alike; shown to be faster "
        "than both others: none at 1, balloon at 1.25, cmm2 at 3; least I/O at 3: cmm2; between 1.25 and 3 cmm2 passes "
        "balloon: it takes 2.00 (2.00 to 2.00) of its time at 1.25, 0.44 (0.44 to 0.44) at 3; both together are shown "
        "to be faster than each at none of them")


def test_where_one_seed_says_otherwise_nothing_is_shown():
    results = sweep(ALIKE, (9.0, 4.0, 5.0), (300, 100, 200)) | {"cmm2/3/2": run(20.0, 100)}
    answer = judged(E7, results)
    assert answer.verdict is Verdict.DEPENDS and "no crossing of cmm2 and the balloon is shown" in answer.why


def test_what_is_planned():
    planned = jobs(FULL)
    assert len(jobs(QUICK)) == 3 * 3 and len(planned) == 3 * len(OVERCOMMITS) * 5
    for label, job in planned.items():
        scheme, overcommit, _ = label.split("/")
        ram = sum(tenant["ram"] for tenant in job.options["tenants"])
        assert ram * PAGE_SIZE / job.order["budget"] == pytest.approx(float(overcommit), rel=0.001)
        assert job.order["disk"] == "hdd" and all(tenant["disk"] == "hdd" for tenant in job.options["tenants"])
        assert ("balloon" in job.order) == (scheme != "cmm2")
    assert planned["balloon/3/1"].order["balloon"] == {"controller": "timed", "step": PACE, "interval": 3600.0}
    assert len(planned["cmm2/1/1"].options["tenants"]) == GUESTS and sum(WORKING) < 1 / 1.25, "all fits there"
