"""RAM and persistent pages together stay within max_mem, at puts and at faults (T67)."""

import numpy as np
import pytest

from guests import OutOfMemory
from shm.abi import PAGE_SIZE


def resident_and_persistent(guest):
    machine = guest.machine
    return guest.domain.ram.resident() + machine.store.pages_of(guest.domain.number, persistent=True)


def test_a_fault_beyond_max_mem_is_refused_where_nothing_can_make_way(still_machine):
    guest = still_machine(budget=256, scheme="tmem", swap=0).guest(pages=32)
    for gfn in range(12):
        guest.memory.write(gfn, bytes([gfn]) * PAGE_SIZE)
    pool = guest.tmem.new_pool(persistent=True)
    assert pool.put_many(1, range(32), np.zeros((32, PAGE_SIZE), np.uint8)).sum() == 20
    with pytest.raises(OutOfMemory):
        guest.memory.write(12, bytes(PAGE_SIZE))
    pool.flush(1, 0)
    guest.memory.write(12, bytes(PAGE_SIZE))
    assert resident_and_persistent(guest) == 32


def test_a_fault_beyond_max_mem_takes_the_guests_own_pages_where_there_is_a_swap_disk(still_machine):
    still = still_machine(budget=256)
    guest, other = still.guest(pages=32), still.guest("other", pages=32)
    for gfn in range(12):
        guest.memory.write(gfn, bytes([gfn]) * PAGE_SIZE)
        other.memory.write(gfn, bytes([gfn]) * PAGE_SIZE)
    stored = guest.tmem.new_pool(persistent=True).put_many(1, range(20), np.zeros((20, PAGE_SIZE), np.uint8))
    assert stored.all()
    for gfn in range(12, 32):
        guest.memory.write(gfn, bytes([gfn]) * PAGE_SIZE)
        assert resident_and_persistent(guest) <= 32
    assert [guest.memory.read(gfn)[0] for gfn in range(32)] == list(range(32))
    assert other.domain.ram.resident() == 12, "nobody else pays"


@pytest.mark.parametrize(("form", "least"), [("raw", 0), ("lz4", 2), ("tze", 2)])
def test_persistent_pages_take_the_frames_that_their_form_takes(still_machine, form, least):
    """What is left for guests' memory is counted in frames: compressed pages leave more of it (max_mem is in pages)."""
    still = still_machine(budget=256, scheme="tmem", swap=0, form=form)
    guest = still.guest(pages=64, max_pages=2000)
    pages = np.zeros((1500, PAGE_SIZE), np.uint8)
    pages[:, :1000] = np.arange(1500 * 1000).reshape(1500, 1000) // 7
    stored = int(guest.tmem.new_pool(persistent=True).put_many(1, range(1500), pages).sum())
    assert stored > least * 256 or (form == "raw" and stored <= 256 - 64)
    for gfn in range(64):
        guest.memory.write(gfn, bytes([gfn]) * PAGE_SIZE)
