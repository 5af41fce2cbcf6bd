"""Machines for programs that nobody wrote: each program has one of its own, which stands still as its clock does."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.machines import Still
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from hypervisor import domains
from hypervisor.machine import Settings

sys.path.append(str(Path(__file__).parent))          # for what these tests share, in whatever way pytest imports
BUDGET, SLOTS, STEPS = 64, 16, 30


@pytest.fixture
def try_programs(new_cluster_name, cluster_names, stems, monkeypatch) -> Callable[..., None]:
    """Run a state machine, which finds its `Still` by `make()`; `the_same`: with the same programs every time."""
    monkeypatch.setattr(domains, "monotonic", lambda: 1000.0)

    def make() -> Still:
        cluster_names.clear()
        stems.clear()
        still = Still(Settings(new_cluster_name(), BUDGET, "cmm2+tmem", swap=SLOTS))
        stems.append(still.machine.stem)
        return still

    def run(programs: type[RuleBasedStateMachine], examples: int, the_same: bool = False) -> None:
        made = type(programs.__name__, (programs,), {"make": staticmethod(make)})
        only = {"derandomize": True, "database": None, "phases": [Phase.generate]} if the_same else {}
        run_state_machine_as_test(made, settings=settings(max_examples=examples, stateful_step_count=STEPS,
                                                          deadline=None, **only))
    return run
