"""The table of schemes, said a second time from the design, and what a machine makes of each row."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.schemes import LEAST_PAGES, POOL_SHARE, SCHEMES, dealt

MIB = 1 << 20
U, VP, CLEAN, FRONT, CACHE = "hint-unused", "hint-volatile", "cleancache", "frontswap", "host-cache"
# scheme: (ram, hypervisor swap, features)
DESIGN = {
    "none": ("budget", False, set()),
    "more-ram": ("weight", False, set()),
    "swap": ("full", True, set()),
    "balloon": ("full", True, {"balloon"}),
    "light": ("full", True, {U}),
    "tmem": ("pool", False, {CLEAN, FRONT}),
    "swapcache": ("pool", False, {CACHE}),
    "cmm2": ("full", True, {U, VP}),
    "cmm2+balloon": ("full", True, {U, VP, "balloon"}),
    "cmm2+tmem": ("full", True, {U, VP, CLEAN, FRONT}),
    "baseline": ("full", False, set()),
}


def test_the_table_is_the_designs():
    assert {name: (row.ram, row.swap, set(row.features)) for name, row in SCHEMES.items()} == DESIGN


@pytest.mark.parametrize("name", DESIGN)
def test_tmem_is_on_where_one_of_its_users_is(name):
    assert SCHEMES[name].tmem == bool(DESIGN[name][2] & {CLEAN, FRONT, CACHE})


@pytest.mark.parametrize("name", DESIGN)
@pytest.mark.parametrize(("budget", "total", "share"), [(128, 256, 0.5), (256, 256, 1.0), (512, 256, 2.0)],
                         ids=["half", "just enough", "more than enough"])
def test_ram_of_a_guest(name, budget, total, share):
    """Of 64 MiB configured: all, a share of the budget, or that less the pool's part; never more than configured."""
    expected = {"full": 64.0, "budget": 64 * min(1.0, share), "pool": 64 * min(1.0, share * (1 - POOL_SHARE)),
                "weight": min(64.0, budget / 2)}
    ram, other = SCHEMES[name].rams([64 * MIB, (total - 64) * MIB], [1, 1], budget * MIB)
    assert ram % 4096 == other % 4096 == 0
    assert abs(ram - expected[SCHEMES[name].ram] * MIB) < 4096


@pytest.mark.parametrize("name", ["none", "tmem", "more-ram"])
def test_where_ram_is_cut_all_guests_fit_the_budget(name):
    sizes = [3 * MIB, 50 * MIB, 64 * MIB, 64 * MIB + 4096]
    assert sum(SCHEMES[name].rams(sizes, [1, 5, 2, 1], 90 * MIB)) <= 90 * MIB * (1 - POOL_SHARE * (name == "tmem"))


DEALS = {
    # pages, sizes, weights, least: what each gets
    "equal weights": (300, [200, 200, 200], [1, 1, 1], 10, [100, 100, 100]),
    "by weight, whatever the size": (300, [200, 900], [1, 2], 10, [100, 200]),
    "never more than the size, the rest to the others": (300, [50, 900, 900], [1, 1, 1], 10, [50, 125, 125]),
    "one after another": (300, [50, 110, 900], [1, 1, 1], 10, [50, 110, 140]),
    "all have enough": (900, [50, 110, 200], [1, 9, 1], 10, [50, 110, 200]),
    "never less than the least": (300, [200, 900], [1, 99], 10, [10, 290]),
    "the least first, then the size": (300, [900, 100, 900], [1, 100, 99], 30, [30, 100, 170]),
    "a guest smaller than the least": (300, [5, 400], [1, 1], 10, [5, 295]),
    "fractions go to nobody": (100, [90, 90, 90], [1, 1, 1], 10, [33, 33, 33]),
    "nobody": (100, [], [], 10, []),
}


@pytest.mark.parametrize(("pages", "sizes", "weights", "least", "expected"), DEALS.values(), ids=list(DEALS))
def test_what_is_dealt(pages, sizes, weights, least, expected):
    assert dealt(pages, sizes, weights, least) == expected


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 1 << 16)), min_size=1, max_size=8), st.integers(0, 9000))
def test_all_is_dealt_within_bounds_and_by_weight(guests, pages):
    """Every page but fractions; and of two guests that are at no bound, the heavier has no less."""
    sizes, weights = zip(*guests, strict=True)
    pages += LEAST_PAGES * len(guests)
    given_out = dealt(pages, sizes, weights)
    assert all(min(size, LEAST_PAGES) <= got <= size for got, size in zip(given_out, sizes, strict=True))
    assert 0 <= min(pages, sum(sizes)) - sum(given_out) < len(guests)
    free = sorted((weight, got) for size, weight, got in zip(sizes, weights, given_out, strict=True)
                  if LEAST_PAGES < got < size)
    for (light, less), (heavy, more) in pairwise(free):
        assert less <= more
        assert abs(less * heavy - more * light) <= heavy + light


@pytest.mark.parametrize("name", DESIGN)
def test_a_machine_offers_what_its_row_says(machine, name):
    running = machine(scheme=name)
    _, swap, features = DESIGN[name]
    assert running.guest().features == features
    assert (running.machine.swap is not None) == swap
