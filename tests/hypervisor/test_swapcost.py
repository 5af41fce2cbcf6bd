"""What the hypervisor's swap disk costs by a model, and which guest is charged."""

import numpy as np
import pytest
from harness.pages import bring, evict, page, states

from hypervisor import swapcost
from hypervisor.swapcost import SwapCost
from shm.counters import Count, HostCount
from shm.diskcost import MODELS

HDD = MODELS["hdd"]


def waited_by(guest) -> int:
    return int(guest.domain.counts[HostCount.SWAP_WAIT_NS])


@pytest.fixture
def costly(guest):
    """The guest of a machine whose swap disk is slow."""
    guest.machine.cost.model, guest.machine.cost._idle = HDD, swapcost.idle(HDD)
    return guest


def test_a_guest_is_charged_for_what_is_read_back_for_it(costly):
    bring(costly, 7, "Sp")
    before = waited_by(costly)
    assert costly.memory.read(7) == page(7)
    assert waited_by(costly) - before == HDD.alone_ns(1, 1)
    assert costly.counters[Count.VIRTUAL_SWAP_NS] == waited_by(costly), "it is told how far its clock is ahead"


def test_what_is_written_in_the_background_is_nobodys_wait_but_the_disks_time(costly):
    bring(costly, 7, "Sr")
    costly.machine.cost.client = None
    busy = costly.machine.cost.busy_ns
    evict(costly, 7)
    assert states(costly, 7) == ["Sp"] and waited_by(costly) == 0
    assert costly.machine.cost.busy_ns - busy == HDD.alone_ns(1, 1)
    assert costly.machine.counts()[HostCount.SWAP_BUSY_NS] == costly.machine.cost.busy_ns


def test_who_is_being_served_waits_for_what_is_written_to_find_it_room(costly):
    bring(costly, 7, "Sr")
    costly.machine.cost.client = costly.domain
    evict(costly, 7)
    assert waited_by(costly) == HDD.alone_ns(1, 1)


def test_the_word_on_the_guests_page_is_ours_whatever_it_scribbles_there(costly):
    bring(costly, 7, "Sp")
    costly.counters[Count.VIRTUAL_SWAP_NS] = (1 << 64) - 1
    costly.memory.read(7)
    assert costly.counters[Count.VIRTUAL_SWAP_NS] == waited_by(costly)


def test_without_a_model_nobody_is_charged(guest):
    bring(guest, 7, "Sp")
    guest.memory.read(7)
    assert waited_by(guest) == guest.machine.cost.busy_ns == 0


def test_in_waited_time_requests_queue_and_are_slept(monkeypatch):
    slept = []
    monkeypatch.setattr(swapcost, "sleep", slept.append)
    monkeypatch.setattr(swapcost, "monotonic_ns", lambda: 5)
    cost = SwapCost(HDD, waited=True)
    cost.serve([1])
    cost.serve([1])
    assert slept == [HDD.alone_ns(1, 1) / 1e9, HDD.alone_ns(2, 2) / 1e9]
    assert cost.busy_ns == HDD.alone_ns(3, 3)


def test_in_waited_time_the_guests_clock_is_the_real_one(costly, monkeypatch):
    monkeypatch.setattr(swapcost, "sleep", lambda seconds: None)
    costly.machine.cost.waited = True
    bring(costly, 7, "Sp")
    costly.memory.read(7)
    assert waited_by(costly) > 0 and costly.counters[Count.VIRTUAL_SWAP_NS] == 0


def test_a_batch_costs_its_runs_at_once(still):
    disk = still.machine.swap
    cost = SwapCost(MODELS["ssd"])
    disk.cost = cost
    slots = disk.allocate(6)
    disk.write(slots[[0, 1, 4]], np.zeros((3, 4096), np.uint8))
    disk.release(slots)
    ssd = MODELS["ssd"]
    assert cost.busy_ns == ssd.latency_ns + ssd.transfer_ns(2) + ssd.transfer_ns(1)
