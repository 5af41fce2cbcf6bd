"""Machines for programs that nobody wrote: each program has one of its own, which stands still as its clock does."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.machines import Still
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from hypervisor import domains
from hypervisor.machine import Settings

sys.path.append(str(Path(__file__).parent))          # for what these tests share, in whatever way pytest imports
BUDGET, SLOTS, STEPS = 64, 16, 30


@pytest.fixture
def on_a_machine(new_cluster_name, cluster_names, stems, monkeypatch) -> Callable[..., type[RuleBasedStateMachine]]:
    """Give a state machine class what it finds its `Still` by: `make()`."""
    monkeypatch.setattr(domains, "monotonic", lambda: 1000.0)

    def make() -> Still:
        cluster_names.clear()
        stems.clear()
        still = Still(Settings(new_cluster_name(), BUDGET, "cmm2+tmem", swap=SLOTS))
        stems.append(still.machine.stem)
        return still

    return lambda programs: type(programs.__name__, (programs,), {"make": staticmethod(make)})


@pytest.fixture
def try_programs(on_a_machine) -> Callable[..., None]:
    """Run a state machine."""
    def run(programs: type[RuleBasedStateMachine], examples: int) -> None:
        run_state_machine_as_test(on_a_machine(programs), settings=settings(
            max_examples=examples, stateful_step_count=STEPS, deadline=None))
    return run
