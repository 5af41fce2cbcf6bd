"""From whom reclaim takes pages."""

import random

import pytest

from guests.kernel.balance import Census, Source, Step, plan_reclaim

F, I, A = Source  # noqa: E741

PLANS = [
    # name,                                 file, idle, anon, wanted, plan
    ("nothing wanted",                      100,  10,   50,   0,      []),
    ("nothing there",                       0,    0,    0,    10,     []),
    ("file pages alone, in one batch",      100,  0,    0,    90,     [(F, 90)]),
    ("with others behind them",             100,  10,   50,   20,     [(F, 20), (I, 10), (A, 20), (F, 16)]),
    ("a small file cache is left in peace", 16,   10,   50,   20,     [(I, 10), (A, 20), (F, 16)]),
    ("down to the floor",                   20,   0,    50,   20,     [(F, 4), (A, 20), (F, 16)]),
    ("and beyond it at last",               8,    0,    0,    20,     [(F, 8)]),
]


@pytest.mark.parametrize(("file", "idle", "anonymous", "wanted", "plan"), [row[1:] for row in PLANS],
                         ids=[row[0] for row in PLANS])
def test_plan(file, idle, anonymous, wanted, plan):
    assert plan_reclaim(Census(file, idle, anonymous, total=256), wanted) == [Step(*step) for step in plan]


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_offers_all_there_is_and_no_more(seed):
    rng = random.Random(seed)
    census = Census(rng.randint(0, 99), rng.randint(0, 9), rng.randint(0, 99), 256)
    wanted = rng.randint(1, 300)
    plan = plan_reclaim(census, wanted)
    for source, there in ((F, census.file), (I, census.idle), (A, census.anonymous)):
        asked = sum(step.pages for step in plan if step.source == source)
        assert min(there, wanted) <= asked <= there
    assert all(0 < step.pages <= wanted for step in plan)
