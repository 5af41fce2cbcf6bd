"""The discard list as a state machine: grace is kept, and ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.kernel.discardlist import DiscardList


def test_one_processor_waits_for_nobody():
    pages = DiscardList(1)
    pages.add(0, [3, 4])
    assert pages.quiescent(0, {0}) == [3, 4] and not pages


def test_idle_processors_are_quiescent():
    pages = DiscardList(3)
    pages.add(1, [7])
    assert pages.quiescent(0, {0}) == [7]


def test_a_page_waits_for_every_active_processor():
    pages = DiscardList(3)
    pages.add(0, [5])
    assert pages.quiescent(0, {0, 1, 2}) == [] and list(pages) == [5]
    assert pages.quiescent(1, {0, 1, 2}) == []
    assert pages.quiescent(2, {0, 1, 2}) == [5]


def test_a_page_that_comes_later_is_signed_off_later():
    """From the gather list: who passed for the first page has not passed for the second."""
    pages = DiscardList(2)
    pages.add(0, [1])
    pages.quiescent(0, {0, 1})
    pages.add(0, [2])
    pages.quiescent(0, {0, 1})
    assert pages.signing == [1] and pages.gathered == [2]
    assert pages.quiescent(1, {0, 1}) == [1]
    assert list(pages) == [2]
    assert pages.quiescent(0, {0, 1}) == [2]


def test_a_processor_that_went_idle_is_not_waited_for():
    pages = DiscardList(2)
    pages.add(0, [1])
    assert pages.quiescent(0, {0, 1}) == []
    assert pages.quiescent(0, {0}) == [1]


@pytest.mark.parametrize("cpus", [1, 2, 4])
@given(data=st.data())
def test_grace_against_its_definition(cpus, data):
    """Each page comes back once, after every processor that was active when it was freed was quiescent since."""
    pages, waiting, active, number = DiscardList(cpus), {}, set(range(cpus)), 0
    for _ in range(data.draw(st.integers(1, 40))):
        cpu = data.draw(st.integers(0, cpus - 1))
        act = data.draw(st.sampled_from(["free", "quiescent", "idle", "wake"]))
        if act == "free" and cpu in active:
            pages.add(cpu, [number])
            waiting[number] = set(active)
            number += 1
        elif act == "wake":
            active.add(cpu)
        elif act in ("quiescent", "idle"):
            active -= {cpu} if act == "idle" else set()
            for owed in waiting.values():
                owed.discard(cpu)
            for gfn in pages.quiescent(cpu, active):
                assert not waiting.pop(gfn)
    assert sorted(pages) == sorted(waiting)
    for cpu in (*range(cpus), *range(cpus), *range(cpus)):
        for gfn in pages.quiescent(cpu, active):
            waiting.pop(gfn)
    assert not waiting, "two rounds free everything"
