"""Pinned pages stay; neighbours come along; what was void is freed; changes are noticed.  Hardware mode."""

import numpy as np
import pytest
from harness.hardware_guests import needs_hardware

from guests import Essa, Guest
from hypervisor.granting import LEAST_PINS
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.errors import OutOfMemory

pytestmark = needs_hardware
PAGES = 256


@pytest.fixture
def guest(hypervisor_process):
    hypervisor = hypervisor_process(budget=2 * PAGES, scheme="cmm2", swap=4 * PAGES)
    with Guest.connect(hypervisor.cluster, "g", PAGES * PAGE_SIZE, faults="hardware") as attached:
        yield attached


def row(guest: Guest) -> dict:
    return call(guest.cluster, {"call": "list"})["guests"][0]


def counts(guest: Guest) -> dict[str, int]:
    return row(guest)["host_counters"]


def evict(guest: Guest) -> int:
    return call(guest.cluster, {"call": "discard", "name": "g"})["frames"]


def fill(guest: Guest, pages: int, byte: int) -> None:
    """Store to pages that are asked for at once: no neighbours come along."""
    guest.memory.write_many(np.arange(pages), np.full((pages, PAGE_SIZE), byte, np.uint8))


def test_a_pinned_page_is_not_taken_and_an_unpinned_one_is(guest):
    fill(guest, 16, 7)
    with guest.memory.pin(0, 8), guest.memory.pin(4, 4):
        assert evict(guest) == 8
        assert row(guest)["frames"] == 8 == counts(guest)["swap_out"]
        guest.essa(Essa.SET_VOLATILE, np.arange(8))          # whatever it says of them meanwhile
        assert evict(guest) == 0
        guest.essa(Essa.SET_STABLE, np.arange(8))
    assert evict(guest) == 8
    assert (guest.memory.view[:16] == 7).all()


def test_a_discarded_page_is_restored_before_it_is_pinned(guest):
    guest.on_discard(lambda gfn: bytes([gfn]) * PAGE_SIZE)
    guest.essa(Essa.SET_VOLATILE, np.arange(PAGES))
    with guest.memory.pin(3, 2) as held:
        assert held[0] == 3 and held[PAGE_SIZE] == 4


def test_no_more_can_be_pinned_than_is_allowed(guest):
    with guest.memory.pin(0, LEAST_PINS):
        with pytest.raises(OutOfMemory, match="pin less at once"):
            with guest.memory.pin(LEAST_PINS, 1):
                pass
    with guest.memory.pin(LEAST_PINS, 1):
        pass


def test_neighbours_come_along_8_and_then_64(guest):
    view = guest.memory.view
    for page in range(1 + 8 + 64):
        view[page, 0] = 1
    assert row(guest)["frames"] == 1 + 8 + 64
    assert counts(guest)["hardware_faults"] == 3 and counts(guest)["prefetched"] == 7 + 63


@pytest.mark.parametrize("step", [1, 2])
def test_void_copies_leave_no_slot_behind(guest, step):
    """V over a preserved page: its copy is void, whether the touch comes alone (2) or in a sequence (1)."""
    fill(guest, 64, 5)
    evict(guest)
    assert call(guest.cluster, {"call": "list"})["swap_pages"] == 64
    guest.on_discard(lambda gfn: bytes([gfn]) * PAGE_SIZE)
    guest.essa(Essa.SET_VOLATILE, np.arange(64))
    assert guest.memory.view[0:64:step, 9].tolist() == list(range(0, 64, step))
    if step == 1:
        assert call(guest.cluster, {"call": "list"})["swap_pages"] == 0
    guest.essa(Essa.SET_UNUSED, np.arange(64))
    evict(guest)
    call(guest.cluster, {"call": "audit"})                   # settles what is still void
    assert call(guest.cluster, {"call": "list"})["swap_pages"] == 0


def test_a_plain_store_to_a_clean_page_is_noticed(guest):
    pages = np.arange(8)
    guest.memory.write_many(pages, np.ones((8, PAGE_SIZE), np.uint8), clean=True)
    guest.essa(Essa.SET_POT_VOLATILE, pages)
    guest.memory.view[5, 0] = 9
    assert np.flatnonzero(guest.memory.dirty(pages)).tolist() == [5]
    guest.on_discard(lambda gfn: bytes(PAGE_SIZE))
    assert evict(guest) == 8
    assert counts(guest)["discards"] == 7 and counts(guest)["swap_out"] == 1
    assert guest.memory.view[:8, 0].tolist() == [0, 0, 0, 0, 0, 9, 0, 0]
