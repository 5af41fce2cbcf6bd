"""E6 on results made by hand."""

import pytest

from hypervisor.toolstack.claims.claim import FULL, Found, Verdict, judged
from hypervisor.toolstack.claims.stages import DISK
from hypervisor.toolstack.claims.thread.ballooning import CLAIMS, OVERCOMMITS, jobs, oracle

(E6,) = CLAIMS


def io(pages):
    return dict.fromkeys(DISK, 0) | {"file_reads": pages}


def steady(*hints, balloons=(300, 100, 200), seed=1):
    """Runs in which cmm2 needs so much I/O at each overcommit, and each split of the balloons so much at all."""
    return {f"cmm2/{seed}": Found("a run", {"cases": [[io(pages)] for pages in hints]}),
            f"balloon/{seed}": Found("a run", {"cases": [[io(pages) for pages in balloons] for _ in hints]})}


@pytest.mark.parametrize(("hints", "verdict"), [
    ((100, 95, 105), Verdict.SUPPORTED), ((100, 150, 150), Verdict.DEPENDS), ((50, 150, 150), Verdict.REFUTED)])
def test_about_equal_to_the_best_balloons(hints, verdict):
    answer = judged(E6, steady(*hints))
    assert answer.verdict is verdict and f"1.5: {hints[0] / 100:.2f}" in answer.figure


def test_an_interval_that_goes_over_the_edge_is_open():
    answer = judged(E6, steady(100, 100, 100) | steady(100, 118, 150, seed=2))
    assert answer.verdict is Verdict.DEPENDS
    assert answer.why == "on the overcommit; 1.5: about equal, 2: open, 2.5: open"


def test_the_oracle_has_not_seen_the_seed_that_it_is_held_against():
    splits = {"1": [100, 50, 70], "2": [60, 100, 70], "3": [55, 100, 90]}
    assert [oracle(splits, seed) for seed in splits] == [0, 1, 2], "the best of each two others, not its own"
    assert oracle({"1": [3, 1, 2]}, "1") == 1


def test_what_is_planned():
    planned = jobs(FULL)
    cases = planned["balloon/1"].options["cases"]
    assert len(planned) == 2 * 5 and len(cases) == len(OVERCOMMITS)
    assert all(sum(split) < case["budget"] for case in cases for split in case["splits"])
