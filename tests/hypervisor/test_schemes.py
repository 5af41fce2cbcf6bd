"""The table of schemes, said a second time from the design, and what a machine makes of each row."""

import pytest

from hypervisor.schemes import POOL_SHARE, SCHEMES

MIB = 1 << 20
U, VP, CLEAN, FRONT, CACHE = "hint-unused", "hint-volatile", "cleancache", "frontswap", "host-cache"
# scheme: (ram, hypervisor swap, features)
DESIGN = {
    "none": ("budget", False, set()),
    "swap": ("full", True, set()),
    "tmem": ("pool", False, {CLEAN, FRONT}),
    "swapcache": ("pool", False, {CACHE}),
    "cmm2": ("full", True, {U, VP}),
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
    expected = {"full": 64.0, "budget": 64 * min(1.0, share), "pool": 64 * min(1.0, share * (1 - POOL_SHARE))}
    ram = SCHEMES[name].guest_ram(64 * MIB, budget * MIB, total * MIB)
    assert ram % 4096 == 0
    assert abs(ram - expected[SCHEMES[name].ram] * MIB) < 4096


@pytest.mark.parametrize("name", ["none", "tmem"])
def test_where_ram_is_cut_all_guests_fit_the_budget(name):
    sizes = [3 * MIB, 50 * MIB, 64 * MIB, 64 * MIB + 4096]
    given = [SCHEMES[name].guest_ram(size, 90 * MIB, sum(sizes)) for size in sizes]
    assert sum(given) <= 90 * MIB * (1 if name == "none" else 1 - POOL_SHARE)


@pytest.mark.parametrize("name", DESIGN)
def test_a_machine_offers_what_its_row_says(machine, name):
    running = machine(scheme=name)
    _, swap, features = DESIGN[name]
    assert running.guest().features == features
    assert (running.machine.swap is not None) == swap
