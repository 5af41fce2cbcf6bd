"""Fixtures of the toolstack's tests: a cluster of stand-ins, and results made by hand."""

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hypervisor.toolstack import cli
from hypervisor.toolstack.interruption import Interruption
from hypervisor.toolstack.journal import Journal
from hypervisor.toolstack.means import Means, Patience
from hypervisor.toolstack.phase import Phase
from hypervisor.toolstack.plan import GuestOrder, PhasePlan
from hypervisor.toolstack.results import GuestResult, MapSample, Memory, PhaseResult, SharedSample

MIB = 1 << 20
FAKE = (sys.executable, "-S", "-E", str(Path(__file__).with_name("fake_children.py")))
SCENARIO = """
name = "two"
budget = "8MiB"
operations = 100
faults = "software"
[hypervisor]
swap = "1MiB"
[[guest]]
name = "a"
ram = "8MiB"
workload = "stress"
[guest.options]
behave = "well"
[[guest]]
name = "b"
ram = "8MiB"
workload = "stress"
"""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Type a command; return (status, standard output, standard error)."""
    def type_(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["memcommons", *words])
        status = cli.main()
        return status, *capsys.readouterr()
    return type_


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let `run` start stand-ins, and answer in the hypervisor's place; return the path of a scenario."""
    path = tmp_path / "x.toml"
    path.write_text(SCENARIO)
    defaults = Means.__init__

    def init(self: Means, *args: Any, **keywords: Any) -> None:
        defaults(self, *args, **{
            "hypervisor": [*FAKE, "hypervisor", "well"], "guest": [*FAKE, "guest"],
            "guest_check": [sys.executable, "-S", "-c", ""], "call": lambda cluster, question: {"kernel_bytes": 4096},
        } | keywords)
    monkeypatch.setattr(Means, "__init__", init)
    return path


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    with Interruption() as noted:
        yield noted


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Whatever a test does to children, none is left, dead or alive."""
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


class FakeCluster:
    """Runs a phase of stand-ins; `answers` replace what the hypervisor would answer."""

    def __init__(self, interruption: Interruption, folder: Path) -> None:
        self._interruption = interruption
        self._folder = folder
        self.asked: list[str] = []
        self.journal = Journal()
        self.patience = Patience(start=20, prepare=20, grace=20, orphans=20, leave=20, stop=20, kill=20)
        self.answers: dict[str, Callable[[], dict[str, Any]]] = {}

    def phase(self, *behaviours: str, hypervisor: str = "well", operations: int | None = 100, limit: float = 60.0,
              note: str = "", exact: bool = True, faults: str = "software") -> Phase:
        """Return a phase with a guest for each behaviour, named a, b, c ..."""
        cluster = f"fake-{os.getpid()}-{secrets.token_hex(4)}"
        orders = tuple(self._order(cluster, chr(ord("a") + n), behaviour, operations, limit, note, exact, faults)
                       for n, behaviour in enumerate(behaviours))
        plan = PhasePlan("swap", cluster, 64 * MIB, {"cluster": cluster}, orders, self._folder)
        means = Means(self._interruption, journal=self.journal, hypervisor=[*FAKE, "hypervisor", hypervisor],
                      guest=[*FAKE, "guest"], call=self._call, patience=self.patience)
        return Phase(plan, means)

    def _order(self, cluster: str, name: str, behaviour: str, operations: int | None, limit: float,
               note: str, exact: bool, faults: str) -> GuestOrder:
        line = {"cluster": cluster, "name": name, "ram": 16 * MIB, "options": {"behave": behaviour, "note": note},
                "operations": operations, "seconds": None, "limit_seconds": limit, "faults": faults}
        return GuestOrder(name, "stress", 16 * MIB, line, exact)

    def _call(self, _cluster: str, question: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(question["call"])
        if question["call"] in self.answers:
            return self.answers[question["call"]]()
        if question["call"] == "audit":
            return {"checks": 4, "max_drift_frames": 0, "drifts": [], "problems": []}
        return {"kernel_bytes": 4096, "counters": {"discards": 3}, "audit": {"checks": 1, "max_drift_frames": 0},
                "guests": [{"name": "a", "counters": {"operations": 42}}]}


@pytest.fixture
def cluster(interruption: Interruption, tmp_path: Path) -> FakeCluster:
    return FakeCluster(interruption, tmp_path)


def memory(mib: float) -> Memory:
    """A process whose arena has so many MiB, and which has 10 MiB beside it."""
    arena = int(mib * MIB)
    return Memory(arena + 10 * MIB, arena + 10 * MIB, arena, arena)


def guest_result(name: str = "bank-1", **changed: Any) -> GuestResult:
    facts: dict[str, Any] = {
        "name": name, "workload": "sqlite", "ram": 64 * MIB, "ram_given": 64 * MIB, "pid": 4711, "operations": 1000,
        "seconds": 4.0, "pages_verified": 500, "mismatches": 0, "exit_status": 0,
        "counters": {"guest_disk_reads": 10, "hypercalls": 5, "wait_fault_ns": 2_000_000_000, "essa": 4}}
    return GuestResult(**facts | changed)


def phase_result(label: str, arena: list[float], kernel: list[float | None], **changed: Any) -> PhaseResult:
    """A phase of two guests; `arena` and `kernel`: MiB at each sample, half of the arena in each guest."""
    samples = tuple(
        MapSample(float(n), memory(0), {"bank-1": memory(seen / 2), "bank-2": memory(seen / 2)},
                  None if counted is None else int(counted * MIB))
        for n, (seen, counted) in enumerate(zip(arena, kernel, strict=True)))
    facts: dict[str, Any] = {
        "label": label, "cluster": "c", "budget": 64 * MIB, "seconds": 4.0,
        "guests": (guest_result("bank-1"), guest_result("bank-2")), "samples": samples,
        "shared": (SharedSample(0.0, 8 * MIB), SharedSample(1.0, 16 * MIB)),
        "counters": {"discards": 7, "hypercalls": 9, "swap_out": 2}, "audit_checks": 3, "max_drift_frames": 0,
        "peak_frames": 16000, "kernel_peak_bytes": 63 * MIB, "problems": ()}
    return PhaseResult(**facts | changed)


@pytest.fixture
def results() -> Callable[..., PhaseResult]:
    return phase_result


@pytest.fixture
def guest() -> Callable[..., GuestResult]:
    return guest_result


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The (label, guests) of the phases that were really run, in their order."""
    labels = []
    run = Phase.run

    def noted(self):
        labels.append((self._plan.label, len(self._plan.guests)))
        return run(self)
    monkeypatch.setattr(Phase, "run", noted)
    return labels
