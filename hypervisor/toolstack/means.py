"""What a phase works with, so that a test can put other programs, answers and deadlines in their place."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypervisor.toolstack.interruption import Interruption
from hypervisor.toolstack.journal import Journal
from hypervisor.toolstack.progress import Progress

# -P: a folder named `guests` where the person stands must not be taken for ours.
HYPERVISOR = (sys.executable, "-P", "-m", "hypervisor")
GUEST = (sys.executable, "-P", "-m", "guests", "run")
GUEST_CHECK = (sys.executable, "-P", "-m", "guests", "check")
TRIAL = (sys.executable, "-P", "-m", "guests.trials")

Call = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each step may take, in seconds."""

    start: float = 60.0         # the hypervisor, until it is ready
    prepare: float = 300.0      # the guests, until they are ready
    grace: float = 15.0         # beyond a guest's own limit
    orphans: float = 10.0       # guests whose hypervisor died, until they have left by themselves
    leave: float = 15.0         # guests, after quit or SIGTERM
    stop: float = 30.0          # the hypervisor, after SIGTERM
    kill: float = 10.0          # anybody, after SIGKILL


def _call(cluster: str, question: dict[str, Any]) -> dict[str, Any]:
    from hypervisor.toolstack.connection import call
    return call(cluster, question)


@dataclass(frozen=True, slots=True)
class Means:
    interruption: Interruption
    journal: Journal = field(default_factory=Journal)
    progress: Progress = field(default_factory=Progress)
    hypervisor: Sequence[str] = HYPERVISOR
    guest: Sequence[str] = GUEST
    guest_check: Sequence[str] = GUEST_CHECK
    trial: Sequence[str] = TRIAL
    call: Call = _call
    patience: Patience = Patience()
