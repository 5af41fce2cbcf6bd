"""A touch that finds no frame waits: served when there is one, or its guest is ended when there is none in time."""

import signal

import numpy as np
import pytest
from harness.hardware_guests import CONNECT, IMPORTS, ended, needs_hardware

from guests import Guest
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE

pytestmark = needs_hardware
BUDGET = 64

TOUCH = """
view[0] = 1
say("ready")
sys.stdin.readline()
view[1] = 2
say("found", view[1, 9])
sys.stdin.read()
"""


@pytest.fixture
def full(hypervisor_process, python_process):
    """A child that has one frame and will touch another page, and a guest of ours that has all the others."""
    guests = []

    def make(deadline: float):
        hypervisor = hypervisor_process(budget=BUDGET, scheme="cmm2", swap=0, fault_deadline=deadline)
        child = python_process(IMPORTS + CONNECT + TOUCH, hypervisor.cluster)
        assert child.line() == "ready"
        guests.append(Guest.connect(hypervisor.cluster, "greedy", BUDGET * PAGE_SIZE))
        guests[0].memory.write_many(np.arange(BUDGET - 1), np.ones((BUDGET - 1, PAGE_SIZE), np.uint8))
        assert call(hypervisor.cluster, {"call": "list"})["frames_free"] == 0
        return hypervisor, child, guests[0]
    yield make
    for guest in guests:
        guest.close()


def test_it_goes_on_when_another_guest_leaves(full):
    _, child, greedy = full(20.0)
    child.say("go on")
    greedy.close()
    assert child.line() == "found 2"


def test_its_guest_is_ended_when_nobody_does(full):
    hypervisor, child, greedy = full(0.3)
    child.say("go on")
    assert ended(hypervisor) == "no frame could be found for page 1 within 0.3 s"
    assert child.process.wait(20.0) == -signal.SIGKILL
    assert greedy.memory.read(5) == b"\x01" * PAGE_SIZE
