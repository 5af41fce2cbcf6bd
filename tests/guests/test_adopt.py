"""A mapping that somebody else made of the guest's memory becomes the guest's memory."""

import mmap
import os

import numpy as np
import pytest
from harness.hardware_guests import needs_hardware

from guests import Essa, Guest
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem
from shm.pagestate import BYTE, Vr

pytestmark = needs_hardware
PAGES = 64


class Foreign:
    """The memory as a library would map it."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR)
        self.map = mmap.mmap(fd, PAGES * PAGE_SIZE)
        os.close(fd)
        self.bytes = np.frombuffer(self.map, np.uint8)
        self.address = int(self.bytes.ctypes.data)


@pytest.fixture
def guest(hypervisor_process):
    hypervisor = hypervisor_process(budget=40, scheme="cmm2")
    with Guest.connect(hypervisor.cluster, "g", PAGES * PAGE_SIZE, faults="hardware") as attached:
        yield attached


@pytest.fixture
def foreign(guest):
    return Foreign(guest.memory.path)


def discard(guest: Guest) -> int:
    return call(guest.cluster, {"call": "discard", "name": "g"})["frames"]


def test_its_bytes_survive_and_its_faults_are_served(guest, foreign):
    guest.memory.view[:, 0] = np.arange(PAGES)               # more than the budget: some are on the swap disk
    assert guest.memory.mapped_by_others() == [foreign.address]
    guest.memory.adopt(foreign.address)
    assert guest.memory.base == foreign.address
    for _ in range(2):
        assert foreign.bytes[::PAGE_SIZE].tolist() == list(range(PAGES))
        assert discard(guest) > 0
    guest.memory.map_own()
    assert guest.memory.base != foreign.address
    assert guest.memory.view[:, 0].tolist() == list(range(PAGES))


def test_discarded_pages_are_restored_through_it(guest, foreign):
    guest.on_discard(lambda gfn: bytes([gfn]) * PAGE_SIZE)
    guest.essa(Essa.SET_VOLATILE, np.arange(PAGES))
    guest.memory.adopt(foreign.address)
    assert foreign.bytes[::PAGE_SIZE].tolist() == list(range(PAGES))
    assert guest.essa_one(Essa.GET_STATE, PAGES - 1) & 0x0F == BYTE[Vr]
    guest.memory.map_own()


def test_what_was_clean_counts_as_changed_until_it_is_cleaned_again(guest, foreign):
    pages = np.arange(8)
    guest.memory.write_many(pages, np.ones((8, PAGE_SIZE), np.uint8), clean=True)
    assert not guest.memory.dirty(pages).any()
    guest.memory.adopt(foreign.address)
    assert guest.memory.dirty(pages).all()
    guest.memory.clear_dirty(pages)
    foreign.bytes[3 * PAGE_SIZE] = 9                         # through the adopted mapping: a write-protect fault
    assert np.flatnonzero(guest.memory.dirty(pages)).tolist() == [3]
    guest.memory.map_own()


@pytest.mark.parametrize("offset", [PAGE_SIZE, 8, -(1 << 40)])
def test_another_address_is_refused_and_changes_nothing(guest, foreign, offset):
    before = guest.memory.base
    with pytest.raises(UsageProblem):
        guest.memory.adopt(foreign.address + offset)
    assert guest.memory.base == before
    guest.memory.view[5] = 5
    assert discard(guest) == 1 and guest.memory.view[5, 9] == 5
