"""The trials of tenants, each for real and in small."""

import pytest

from guests.trials import TRIALS, load
from hypervisor.policy.balloon import Rules
from shm.errors import UsageProblem

NEVER = 3600.0


def needs(ram=600, file=0, anon=0, **more):
    return {"ram": ram, "file": file, "anon": anon, **more}


def swung(machine, first, second):
    """Play two phases on balloons, of these windows and deals: a guest grows while the other shrinks."""
    running = machine(budget=700, scheme="balloon", swap=4000, disk="ssd",
                      balloon=Rules("timed", interval=NEVER, step=100))
    small, large = [20, 20], [250, 250]
    return load("steps").run(running.cluster, {
        "tenants": [needs(file=250, anon=250)] * 2, "seed": 1, "window_ns": 50_000_000,
        "phases": [{"loads": loads, "renew": True} | phase
                   for loads, phase in (([small, large], first), ([large, small], second))]})


def test_steps_are_played_window_by_window(machine):
    """The controller decides after each window, and the balloons follow."""
    found = swung(machine, {"windows": 2}, {"windows": 3})
    windows = found["windows"]
    assert [row["phase"] for row in windows] == [0, 0, 1, 1, 1]
    assert all(0 < tenant["operations"] <= 250 for row in windows for tenant in row["tenants"])
    assert windows[0]["tenants"][0]["operations"] == 250, "it waits for nothing"
    assert windows[-1]["tenants"][1]["pages"] < 600, "its balloon has some"
    assert sum(found["stalls"][1][0]) == sum(row["tenants"][0]["operations"] for row in windows[2:])


def test_balloons_that_are_told_by_the_phases(machine):
    """Before the window that was named; the host's controller, which would take pages, decides nothing."""
    found = swung(machine, {"windows": 3, "deals": [[1, [320, 350]]]},
                  {"windows": 2, "deals": [[0, [340, 310]], [1, [150, 500]]]})
    assert [[tenant["pages"] for tenant in row["tenants"]] for row in found["windows"]] == [
        [600, 600], [320, 350], [320, 350], [340, 310], [150, 500]]
    aside = sum(tenant["aside_ns"] for row in found["windows"] for tenant in row["tenants"])
    assert aside > 0, "what the balloon's own thread waited is nobody's wait"


def test_steady_states_case_by_case(machine):
    running = machine(budget=2000, scheme="balloon", swap=4000, disk="ssd", balloon=Rules("self", interval=NEVER))
    case = {"budget": 540, "tenants": [needs(file=250), needs(anon=300)], "loads": [[250, 0], [0, 300]]}
    cases = [case | {"splits": [[120, 400], [370, 160]]}, case | {"splits": []}]
    found = load("steady").run(running.cluster, {"seed": 1, "warm": 50, "work": 120, "cases": cases})
    [[some, other], [free]] = found["cases"]
    assert some["operations"] == other["operations"] == free["operations"] == 240
    assert some["file_reads"] > 0 == some["guest_in"]
    assert other["file_reads"] < some["file_reads"] and other["guest_in"] > 0, "the other guest is short now"
    assert free["host_out"] > 0, "without balloons the hypervisor swaps"


@pytest.mark.parametrize(("scheme", "ram", "tight"), [("tmem", 400, 0), ("cmm2", 900, 400), ("balloon", 900, 400)])
def test_growth_beyond_what_was_given(machine, scheme, ram, tight):
    running = machine(budget=2000, scheme=scheme, swap=4000, disk="ssd", balloon=Rules(interval=NEVER, step=800))
    found = load("growth").run(running.cluster, {
        "tenant": needs(ram, anon=600, most=900), "before": 250, "after": 600, "tight": tight, "windows": 2,
        "work": 150, "seed": 1})
    moved = sum(row["frontswap_loads"] + row["host_in"] + row["guest_in"] for row in found["after"])
    assert (moved > 0) == (scheme == "tmem")
    assert all(row["operations"] == 150 and row["clock_ns"] > 0 for rows in found.values() for row in rows)


@pytest.mark.parametrize(("scheme", "shrinks"), [("cmm2", False), ("balloon", True)])
def test_slabs_shrink_by_their_own_kernel_alone(machine, scheme, shrinks):
    running = machine(budget=1000, scheme=scheme, swap=4000, disk="ssd",
                      balloon=Rules("timed", interval=NEVER, step=250))
    found = load("slabs").run(running.cluster, {
        "maker": needs(file=20), "eater": needs(1000, anon=700), "slab": 450, "file": 20, "work": 500, "seed": 1,
        "loads": [[0, 400], [0, 500], [0, 600], [0, 700]]})
    assert found["slab"][0] == 450 and (found["slab"][-1] < 450) == shrinks
    assert found["grown"]["host_out"] > 0 or shrinks
    assert found["walked"]["file_reads"] == 450 - found["slab"][-1], "what was dropped is read again"


def test_a_busy_guest_drops_its_slabs_by_itself(machine):
    found = load("slabs").run(machine(budget=1600, scheme="tmem", disk="ssd").cluster, {
        "maker": needs(file=200, anon=150), "eater": needs(100), "slab": 450, "file": 20, "work": 0, "seed": 1,
        "loads": [], "busy": [200, 150], "busy_work": 1500})
    before, after = found["busy"]["slab"]
    assert before == 450 > after
    assert found["busy"]["worked"]["cleancache_hits"] > 0 == found["busy"]["walked"]["cleancache_hits"]
    assert found["busy"]["walked"]["file_reads"] >= before - after, "slabs come from the disk"


def test_a_trial_that_is_none():
    with pytest.raises(UsageProblem, match=f"'leaps' is not a trial; allowed: {', '.join(TRIALS)}"):
        load("leaps")
