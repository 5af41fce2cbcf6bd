"""The list of differences: each is there, each is shown by the shortest steps, and there is no other."""

from pathlib import Path

import pytest

from guests.mappings.__main__ import main
from guests.mappings.differences import MARKS, POOLS, answers, differences, parting, shortest
from guests.mappings.differences import row as row_of
from guests.mappings.mark_rules import PROMISES
from guests.mappings.operator import NotTaken, Operator
from guests.mappings.pool_bed import RAM
from guests.mappings.rules import BEHAVIOUR
from guests.mappings.steps import Rule, name_of, page

DOCS = Path(__file__).parents[3] / "docs/mappings.md"
# Rule -> the step at which the two sides part, and their answers.
POOLS_DIFFER = {
    "T6": ("pools 16", "15 more", "16 more"),
    "T39": ("put a D1", "refused", "stored"),
    "T47": ("fill 1", "0 stored", "1 stored"),
    "T51": ("get a", "no such pool", "D1"),
    "T56a": ("get n0", "D1", "miss"),
    "T52": ("get a", "miss", "D1"),
    "T93": ("cost", "0 frames", "1 frames"),
    "T94": ("cost", "1 frames", "2 frames"),
    "E2a": (f"hits {RAM + 1}", f"{RAM + 1} hits", f"{RAM} hits"),
    "E2b": ("frames", "0 frames", "1 frames"),
    "E2c": ("allowance", f"{RAM} pages", f"{RAM - 1} pages"),
    "E2d": ("get a", "D1", "D9"),
    "E2e": ("touch", "0 discard faults", "1 discard faults"),
    "E2g": ("calls-made", "1 hypercalls", "0 hypercalls"),
    "E2i": ("calls-made", "1 hypercalls", "0 hypercalls"),
}
MARKS_DIFFER = {
    "R3a": ("state p", "Vr", "Vz"),
    "R4b": ("keep p", "discarded", "kept"),
    "R6": ("swap-in", "0 pages", "1 pages"),
    "R14b": ("keep p", "kept", "discarded"),
    "R24a": ("read p", "D1", "zeros"),
    "E2k": ("frames", "1 frames", "0 frames"),
    "E2l": ("plain p", "D1", "addressing exception"),
    "E2m": ("calls-made", "0 hypercalls", "2 hypercalls"),
    "E2n": ("calls-made", "0 hypercalls", "2 hypercalls"),
}


@pytest.fixture
def cluster(machine) -> str:
    return machine(2048, "cmm2+tmem").cluster


@pytest.mark.parametrize(("mapping", "known"), [(POOLS, POOLS_DIFFER), (MARKS, MARKS_DIFFER)], ids=["pools", "marks"])
def test_the_sides_differ_where_the_list_says_so_and_nowhere_else(cluster, mapping, known):
    rows = list(differences(cluster, mapping))
    assert {row.rule.number: parting(row.steps, row.original, row.imitation) for row in rows if not row.same} == known
    assert [row.broken[0] for row in rows if row.broken[0]] == [], "the original breaks its own rule"
    for row in rows:
        assert row.same == (not known.get(row.rule.number))
        if row.rule in BEHAVIOUR:
            assert row.broken[1] == (), f"{row.rule.number}: what a guest sees of a pool is kept (E1)"


def test_no_step_of_a_difference_can_be_left_out(cluster):
    """Asked again, of a few: without any one step the two sides do not part there in that way."""
    with Operator(cluster) as operator:
        for steps in (("freeze", "put a D1"), ("put a D1", "scribble", "get a"), ("put a D1", "take", "touch")):
            rule = Rule.of("X", "", "; ".join(steps))
            sides = [[answers(operator, side, rule, without) for side in (POOLS.original, POOLS.imitation)]
                     for without in (steps, *(steps[:at] + steps[at + 1:] for at in range(len(steps) - 1)))]
            assert [found != also for found, also in sides] == [True] + [False] * (len(steps) - 1)


def test_a_host_that_cannot_take_a_page_makes_no_sides_alike(machine):
    """R6 again and again: nothing is read back on either side where nothing was written."""
    running = machine(2048, "cmm2+tmem")
    swap, [rule] = running.machine.swap, [rule for rule in PROMISES if rule.number == "R6"]
    with Operator(running.cluster) as operator:
        assert not row_of(operator, MARKS, rule).same
        slots = running.inside(lambda: swap.allocate(swap.free))
        with pytest.raises(NotTaken, match="swap_full 1, lock_passed_by 0"):
            row_of(operator, MARKS, rule)
        running.inside(lambda: swap.release(slots))
        assert not row_of(operator, MARKS, rule).same


def test_shortest_keeps_the_difference_it_began_with():
    """`z` would differ too, alone, and in another way."""
    def parts(steps):
        answers_ = [("1", "2") if step == "z" else ("old", "new") if step == "x" and "a" in steps else ("", "")
                    for step in steps]
        return parting(steps, tuple(a for a, _ in answers_), tuple(b for _, b in answers_))

    assert shortest(("b", "a", "c", "x", "z"), parts) == ("a", "x")


def test_shortest_makes_numbers_as_small_as_the_difference_allows():
    def parts(steps):
        number = int(steps[0].split()[1]) if steps else 0
        return parting(steps, (f"{number} hits",) * len(steps), (f"{min(number, 37)} hits",) * len(steps))

    assert shortest(("fill 96",), parts) == ("fill 38",)


def test_a_rule_says_which_answers_are_wrong():
    rule = Rule.of("T0", "text", "put a D1 -> stored; get a -> D1|miss; cost")
    assert rule.steps == ("put a D1", "get a", "cost")
    assert rule.broken(("stored", "miss", "9 frames")) == []
    assert rule.broken(("refused", "D2", "")) == ["put a D1: refused, not stored", "get a: D2, not D1|miss"]


def test_pages_go_by_their_names():
    names = ["D1", "zeros", "D3+D9", "zeros+D9"]
    assert [name_of(page(name)) for name in names] == names
    assert name_of(None) == "miss"
    assert name_of(b"\1" * 4096) == "other bytes"
    assert name_of(page("D2")[100:200]) == "part of D2"


def test_the_command_prints_both_lists_as_the_documentation_has_them(cluster, capsys):
    assert main([cluster]) == 0
    printed = capsys.readouterr().out
    assert "what a guest sees of a pool: 23 of 23 alike" in printed
    text = DOCS.read_text()
    for line in printed.splitlines():
        assert line.rstrip() in text, line


@pytest.mark.parametrize(("words", "settings"), [
    ("scheme 'cmm2'", (2048, "cmm2")), ("budget of 1 MiB", (256, "cmm2+tmem")),
    ("no swap disk", (1024, "cmm2+tmem", 0)), ("no cluster", None)])
def test_a_cluster_that_is_not_fit_is_told_in_one_line(machine, capsys, words, settings):
    assert main([machine(*settings).cluster if settings else "there-is-none-of-this-name"]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.count("\n") == 1
    assert not told.out
