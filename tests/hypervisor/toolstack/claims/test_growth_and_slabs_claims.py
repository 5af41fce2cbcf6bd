"""E11, E12, E13 and E21 on results made by hand."""

import pytest
from made_up_results import counted

from hypervisor.toolstack.claims.claim import FULL, QUICK, Found, Verdict, judged
from hypervisor.toolstack.claims.stages import DISK
from hypervisor.toolstack.claims.thread import growth, slabs

E11, E12 = growth.CLAIMS
E13, E21 = slabs.CLAIMS


def shares(hints, swap=100):
    """Runs in which swap needs 100 pages of I/O whatever the share, and cmm2 so many."""
    def figures(pages):
        return Found("a run", {"cases": [[dict.fromkeys(DISK, 0) | {"host_in": pages}]]})
    pages = {scheme: dict(zip(growth.SHARES, values, strict=True)) for scheme, values in (("swap", [swap] * 5),
                                                                                           ("cmm2", hints))}
    return {f"{scheme}/{share:g}/1": figures(count) for scheme, row in pages.items() for share, count in row.items()}


@pytest.mark.parametrize(("hints", "verdict"), [
    ((50, 62, 75, 88, 100), Verdict.SUPPORTED), ((50, 52, 54, 90, 100), Verdict.DEPENDS),
    ((50, 60, 70, 75, 80), Verdict.REFUTED), ((80, 90, 50, 90, 100), Verdict.REFUTED),
    ((100, 100, 100, 100, 100), Verdict.REFUTED)])
def test_only_what_can_be_fetched_again(hints, verdict):
    answer = judged(E11, shares(hints))
    assert answer.verdict is verdict and f"0: {1 - hints[0] / 100:+.0%}" in answer.figure
    assert answer.curves[0]["lines"][1]["points"][1] == [1.0, 0.0, None]


def grown(moved, times):
    """Runs that move so many pages in 1000 operations after the growth, and take so much longer."""
    return {f"{arm}/1": Found("a run", {"before": [counted()], "growing": [], "after": [
        counted(frontswap_loads=moved.get(arm, 0), clock_ns=round(1000 * times.get(arm, 1.0)))]})
        for arm in growth.ARMS}


@pytest.mark.parametrize(("moved", "times", "verdict"), [
    ({"preswap": 300}, {"preswap": 2.0}, Verdict.SUPPORTED), ({"preswap": 300}, {}, Verdict.DEPENDS),
    ({"preswap": 5}, {"preswap": 2.0}, Verdict.REFUTED), ({"preswap": 300, "cmm2": 400}, {}, Verdict.REFUTED)])
def test_growth_of_anonymous_memory(moved, times, verdict):
    assert judged(E12, grown(moved, times)).verdict is verdict


def test_a_balloon_that_had_not_settled_is_told():
    assert judged(E12, grown({"preswap": 300, "balloon": 50}, {"preswap": 2.0})).why.endswith("had not settled")


def pressed(cmm2, balloon, dropped=90, slabs_back=0, files_back=40):
    """Runs: by arm the slab pages at the end, of 600, and the pages that the hypervisor swapped; and a busy guest's."""
    found = {f"{scheme}/1": Found("a run", {
        "slab": [600, left], "frames": [700, 500], "grown": counted(host_out=swapped), "walked": counted()})
        for scheme, (left, swapped) in (("cmm2", cmm2), ("balloon", balloon))}
    busy = {"slab": [600, 600 - dropped], "worked": counted(cleancache_hits=files_back),
            "walked": counted(cleancache_hits=slabs_back)}
    return found | {f"{slabs.BUSY}/1": Found("a run", {"slab": [600], "frames": [700], "busy": busy})}


@pytest.mark.parametrize(("results", "first", "second"), [
    (pressed((600, 300), (450, 0)), Verdict.SUPPORTED, Verdict.SUPPORTED),
    (pressed((600, 300), (590, 50)), Verdict.SUPPORTED, Verdict.DEPENDS),
    (pressed((600, 300), (600, 300)), Verdict.REFUTED, Verdict.DEPENDS),
    (pressed((500, 0), (450, 0)), Verdict.REFUTED, Verdict.REFUTED),
    (pressed((600, 300), (450, 0), slabs_back=1), Verdict.REFUTED, Verdict.SUPPORTED),
    (pressed((600, 300), (450, 0), dropped=0), Verdict.DEPENDS, Verdict.SUPPORTED),
    (pressed((600, 300), (450, 0), files_back=0), Verdict.DEPENDS, Verdict.SUPPORTED)])
def test_slabs(results, first, second):
    assert (judged(E13, results).verdict, judged(E21, results).verdict) == (first, second)
    assert len(judged(E21, results).curves[0]["lines"]) == 4


def test_what_is_planned():
    """Both claims about slabs share their trials; the shares of E11 are of one working set."""
    assert E13.jobs(QUICK) == E21.jobs(QUICK) and len(slabs.jobs(FULL)) == 9
    assert sum(label.startswith(slabs.BUSY) for label in slabs.jobs(FULL)) == 3
    jobs = growth.anonymous_jobs(FULL)
    loads = [jobs[f"cmm2/{share:g}/1"].options["cases"][0]["loads"][0] for share in growth.SHARES]
    assert len({sum(load) for load in loads}) == 1 and [load[1] for load in loads] == sorted(load[1] for load in loads)
    assert {label.split("/")[1] for label in growth.anonymous_jobs(QUICK)} == {"0", "0.5", "1"}
    assert len(growth.growth_jobs(QUICK)) == len(growth.ARMS)
