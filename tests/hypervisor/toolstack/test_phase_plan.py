"""Plans: what the orders of both runs say, and that they ask for the same work."""

import pytest

from hypervisor.schemes import SCHEMES
from hypervisor.toolstack.plan import baseline_budget, baseline_plan, measured_plan
from hypervisor.toolstack.reading import load

TEXT = """
budget = "60MiB"
seconds = 4
seed = 3
[hypervisor]
swap = "8MiB"
reclaim = "u-e-v-p-s"
[tmem]
ephemeral_pages = 5
quirks = "none"
[[guest]]
name = "bank"
count = 2
ram = "64MiB"
workload = "sqlite"
weight = 2
[guest.options]
rows = 7
"""


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(TEXT)
    return load(path)


def test_baseline_has_a_budget_that_does_not_bind(scenario):
    plan = baseline_plan(scenario, "c")
    assert plan.hypervisor == {
        "cluster": "c", "budget": plan.budget, "scheme": "baseline", "reclaim": "u-e-v-p-s", "bias": 0.0,
        "swap": 8 << 20, "ephemeral_pages": 5, "quirks": "none", "form": "raw", "write_back": False,
        "dedup_across": False, "cmma": "architected", "folder": "/var/tmp",
        "targets": "greedy", "balloon": {"controller": "shares", "interval": 0.2, "step": 2048, "tax": 0.75},
        "disk": "none", "disk_time": "virtual", "direct": False}
    assert plan.budget == baseline_budget(scenario) == (128 << 20) + (1 << 20) + 2 * 64 * 4096
    assert plan.guests[0].line == {
        "cluster": "c", "name": "bank-1", "workload": "sqlite", "ram": 64 << 20, "max_mem": 64 << 20, "weight": 2,
        "selfballoon": False, "options": {"rows": 7}, "seed": 3000, "seconds": 4.0, "operations": None,
        "limit_seconds": 40.0, "faults": "software",
        "disk": {"latency": "none", "time": "virtual", "direct": False, "trim": False}}
    assert plan.guests[1].line["seed"] != plan.guests[0].line["seed"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_measured_run_is_ordered_the_same_work(scenario, scheme):
    plan = measured_plan(scenario, scheme, "c", {"bank-1": (100, 4.1), "bank-2": (70, 4.0)})
    assert plan.hypervisor["scheme"] == plan.label == scheme
    assert plan.budget == plan.hypervisor["budget"] == 60 << 20
    assert [(g.operations, g.line["seconds"], g.limit_seconds) for g in plan.guests] == [
        (100, None, 40.0), (70, None, 40.0)]
    before = baseline_plan(scenario, "c")
    assert [g.line["seed"] for g in plan.guests] == [g.line["seed"] for g in before.guests]
    assert [g.line["max_mem"] for g in plan.guests] == [64 << 20] * 2


@pytest.mark.parametrize(("scheme", "cut"), [("none", True), ("tmem", True), ("more-ram", True), ("swap", False),
                                            ("light", False), ("cmm2+tmem", False)])
def test_some_schemes_cut_the_guests_ram(scenario, scheme, cut):
    plan = measured_plan(scenario, scheme, "c", {"bank-1": (1, 1.0), "bank-2": (1, 1.0)})
    given = sum(guest.line["ram"] for guest in plan.guests)
    assert (given <= 60 << 20) if cut else (given == 128 << 20)
    assert all(guest.ram == 64 << 20 for guest in plan.guests)


def test_with_operations_the_limit_follows_what_the_baseline_took(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(TEXT.replace("seconds = 4", "operations = 50"))
    scenario = load(path)
    assert {(g.operations, g.line["seconds"]) for g in baseline_plan(scenario, "c").guests} == {(50, None)}
    plan = measured_plan(scenario, "swap", "c", {"bank-1": (50, 30.0), "bank-2": (50, 0.2)})
    assert [guest.limit_seconds for guest in plan.guests] == [300.0, 30.0]


def test_more_ram_is_dealt_by_the_weights_that_are_written(tmp_path):
    """60 MiB by weight 2 and, not written, 1: 40 and 20; the configured sizes have no say but as bounds."""
    path = tmp_path / "x.toml"
    path.write_text(TEXT.replace("count = 2", "") + '[[guest]]\nname = "scan"\nram = "32MiB"\nworkload = "scan"\n')
    plan = measured_plan(load(path), "more-ram", "c", {"bank": (1, 1.0), "scan": (1, 1.0)})
    assert [guest.line["ram"] for guest in plan.guests] == [40 << 20, 20 << 20]


@pytest.mark.parametrize("controller", ["timed", "shares", "self"])
def test_guests_balloon_themselves_under_one_controller_alone(tmp_path, controller):
    path = tmp_path / "x.toml"
    path.write_text(TEXT + f'[balloon]\ncontroller = "{controller}"\nstep = "1MiB"\ntax = 0.5\n')
    plans = [measured_plan(load(path), scheme, "c", {"bank-1": (1, 1.0), "bank-2": (1, 1.0)})
             for scheme in ("balloon", "swap")] + [baseline_plan(load(path), "c")]
    assert [{guest.line["selfballoon"] for guest in plan.guests} for plan in plans] == [
        {controller == "self"}, {False}, {False}]
    assert plans[0].hypervisor["balloon"] == {"controller": controller, "interval": 0.2, "step": 256, "tax": 0.5}
