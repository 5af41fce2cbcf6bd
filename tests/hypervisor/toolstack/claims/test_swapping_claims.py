"""The judges of who swaps (E8, E10), with results made by hand."""

import pytest

from hypervisor.toolstack.claims.claim import Found, Verdict
from hypervisor.toolstack.claims.thread.swapping import never_swapped, wrong_guess


def result(**counters):
    return Found("a run", {"counters": counters})


@pytest.mark.parametrize(("swapped", "discards", "verdict"), [
    (0, 10, Verdict.SUPPORTED), (1, 10, Verdict.REFUTED), (0, 0, Verdict.DEPENDS)])
def test_volatile_pages(swapped, discards, verdict):
    answer = never_swapped({"cmm2/2/1": result(volatile_swap_writes=swapped, swap_out=20, discards=discards),
                            "cmm2+tmem/2/1": result(swap_out=5)})
    assert answer.verdict is verdict
    assert answer.figure.startswith(f"{swapped} volatile pages among 25 ")


@pytest.mark.parametrize(("cmm2", "tmem", "guests", "verdict"), [
    (9, 0, 7, Verdict.SUPPORTED), (0, 0, 7, Verdict.REFUTED), (9, 1, 7, Verdict.REFUTED), (9, 0, 0, Verdict.DEPENDS)])
def test_wrong_guesses(cmm2, tmem, guests, verdict):
    answer = wrong_guess({"cmm2/2/1": result(swap_out=cmm2),
                          "tmem/2/1": result(swap_out=tmem, guest_swap_writes=guests)})
    assert answer.verdict is verdict
