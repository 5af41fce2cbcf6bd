"""Bars on a terminal: what they show of a phase, and that they are gone after it."""

import io

import pytest
from rich.console import Console

from hypervisor.toolstack.plan import GuestOrder, PhasePlan
from hypervisor.toolstack.progress import BarProgress, Progress
from hypervisor.toolstack.results import MapSample

MIB = 1 << 20


def plan(operations, seconds):
    line = {"operations": operations, "seconds": seconds, "limit_seconds": 10.0}
    guests = tuple(GuestOrder(name, "scan", 8 * MIB, line, True) for name in ("a", "b"))
    return PhasePlan("swap", "demo", 16 * MIB, {}, guests, None)


@pytest.fixture
def bars():
    progress = BarProgress(Console(file=io.StringIO(), force_terminal=True, width=100))
    yield progress
    progress.phase_over()


def shares(progress):
    return {task.description: task.completed / task.total for task in progress._bars.tasks}


@pytest.mark.parametrize(("operations", "seconds", "expected"), [
    (100, None, {"a": 0.25, "b": 1.0, "memory": 0.5}),
    (None, 8.0, {"a": 0.5, "b": 0.5, "memory": 0.5})])
def test_bars_are_operations_or_time_and_memory(bars, operations, seconds, expected):
    bars.phase(plan(operations, seconds))
    bars.sample(MapSample(4.0, None, {}, 8 * MIB), {"a": 25, "b": 130})
    assert shares(bars) == expected
    assert "25 operations" in {task.fields["note"] for task in bars._bars.tasks}


def test_line_names_the_cluster_for_ctl(bars):
    bars.phase(plan(100, None))
    bars.phase_over()
    assert "swap: cluster demo, 2 guests, budget 16.0 MiB" in bars._console.file.getvalue()


def test_sample_after_the_end_is_harmless(bars):
    bars.sample(MapSample(4.0, None, {}, None), {})


def test_silence(capsys):
    silent = Progress()
    silent.phase(plan(1, None))
    silent.sample(MapSample(4.0, None, {}, None), {})
    silent.phase_over()
    assert capsys.readouterr() == ("", "")
