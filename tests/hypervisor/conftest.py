"""A machine that stands still, one guest, and a swap disk that can be stopped in the middle of a write."""

import pytest
from harness.pages import WatchedDisk

from hypervisor import machine

LIMIT = 32                   # slots of the swap disk


@pytest.fixture
def still(still_machine, monkeypatch):
    monkeypatch.setattr(machine, "SwapDisk", WatchedDisk)
    return still_machine(budget=128, swap=LIMIT)


@pytest.fixture
def disk(still):
    return still.machine.swap


@pytest.fixture
def guest(still):
    return still.guest(pages=96)
