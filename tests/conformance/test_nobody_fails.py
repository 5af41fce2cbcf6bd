"""No guest fails, and no hypervisor does, for what other guests have stored: frames are found while some can be had."""

import numpy as np
import pytest
from caller import EP, ES, OID, PP, Caller, noise, page

from guests import OutOfMemory
from hypervisor.tmem.control import EVERYBODY
from hypervisor.tmem.saving import Mode, Saving
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, Op, Status

RAM = 64
TOKEN = "0" * 32


def refused_faults(caller: Caller, pages: int = RAM) -> int:
    """Return how many pages of a guest's memory found no frame."""
    failed = 0
    for gfn in range(pages):
        try:
            caller.guest.memory.write(gfn, bytes([gfn % 255 + 1]) * PAGE_SIZE)
        except OutOfMemory:
            failed += 1
    return failed


def many(caller: Caller, op: Op, pool: int, indexes) -> None:
    caller.transfer.pages[:len(indexes)] = page(3)           # a slot of a slab, where the form has any
    for row, index in enumerate(indexes):
        caller.enter(row, op, pool, OID, index, row)
    caller.call(Op.MULTICALL, len(indexes))


def batches(indexes):
    return [indexes[at:at + MULTICALL_LIMIT] for at in range(0, len(indexes), MULTICALL_LIMIT)]


def fill_scattered(caller: Caller, pool: int, pages: int) -> None:
    """Fill the host with pages whose neighbours in age lie in different slabs: half go, others take their slots."""
    for batch in batches(range(pages)):
        many(caller, Op.PUT_PAGE, pool, batch)
    for batch in batches(np.random.default_rng(1).permutation(pages)[:pages // 2].tolist()):
        many(caller, Op.FLUSH_PAGE, pool, batch)
    for batch in batches(range(pages, 2 * pages)):
        many(caller, Op.PUT_PAGE, pool, batch)


@pytest.mark.parametrize(("kind", "swap"), [(EP, 0), (PP, 8192)])
def test_slots_scattered_over_slabs_make_way_for_a_guests_memory(still_machine, kind, swap):
    still = still_machine(512, "cmm2+tmem" if swap else "tmem", swap, form="lz4", write_back=bool(swap))
    storer = Caller(still, pages=4, max_pages=8192)
    fill_scattered(storer, storer.new_pool(kind), 2048)
    other = Caller(still, pages=400, max_pages=400)
    assert still.machine.ledger.free < other.guest.pages
    assert refused_faults(other, 400) == 0


@pytest.mark.parametrize("form", ["raw", "dedup"])
def test_pages_that_hold_no_frame_do_not_stand_before_those_that_do(still_machine, form):
    still = still_machine(256, "tmem", 0, form=form)
    storer, other = Caller(still), Caller(still, pages=RAM, max_pages=RAM)
    pool = storer.new_pool(EP)
    for index in range(2000):
        assert storer.call(Op.NEW_PAGE, pool, *OID, index).status == Status.OK
    while still.machine.ledger.free + still.machine.heap.spare:
        index += 1
        storer.put(pool, noise(index), OID, index)
    assert refused_faults(other) == 0
    assert still.machine.control.flush(EVERYBODY, 400) == 400


def test_t66_what_is_asked_beyond_all_there_is_ends(still_machine):
    still = still_machine(256, "tmem", 0)
    storer = Caller(still)
    pool = storer.new_pool(EP)
    for index in range(20):
        storer.put(pool, noise(index), OID, index)
    assert still.machine.store.evict_frames(1 << 40, insist=True) == 20
    assert still.machine.store.write_back(1 << 40, insist=True) == 0


@pytest.mark.parametrize("swap", [128, 1024])
def test_persistent_pages_that_are_written_back_leave_what_memory_must_find(still_machine, swap):
    """Neither frames nor slots may all be theirs: the guest that stores, and one that comes, find their memory."""
    still = still_machine(512, "cmm2+tmem", swap, write_back=True)
    storer, stored = Caller(still, pages=RAM, max_pages=8192), 0
    pool = storer.new_pool(PP)
    while storer.put(pool, noise(0), OID, stored) == Status.OK:
        stored += 1
    assert stored > 512 - RAM
    assert still.machine.store.storage.swapped >= swap // 2
    assert refused_faults(storer) == 0
    assert refused_faults(Caller(still, pages=RAM, max_pages=RAM)) == 0
    assert [storer.get(pool, OID, index) for index in range(stored)] == [noise(0)] * stored


def test_a_disk_that_takes_no_more_is_a_refusal_and_no_page_is_lost(still_machine, monkeypatch):
    still = still_machine(256, "cmm2+tmem", 1024, write_back=True)
    storer, stored = Caller(still, pages=RAM, max_pages=8192), 0

    def full(slots, pages):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(still.machine.swap, "write", full)
    pool = storer.new_pool(PP)
    while storer.put(pool, noise(stored), OID, stored) == Status.OK:
        stored += 1
    assert 0 < stored < 256 - RAM
    assert still.machine.swap.used == 0
    assert [storer.get(pool, OID, index) for index in range(stored)] == [noise(index) for index in range(stored)]


@pytest.mark.parametrize("number", [16, 99, 1 << 31, (1 << 32) - 1])
def test_a_pool_number_beyond_all_is_refused_with_the_quirks_too(xen, number):
    guest = Caller(xen)
    assert guest.call(Op.RESTORE_NEW, guest.number, number, EP, 0, 0).status == Status.EPERM
    assert guest.call(Op.RESTORE_NEW, guest.number, 15, EP, 0, 0).status == Status.OK


def begin_save(caller: Caller) -> None:
    Saving(caller.store, caller.number, "a", 16, TOKEN, Mode.TRACK)


def test_t88_a_guest_dies_that_destroyed_a_pool_while_it_was_saved(xen, new_caller):
    guest = new_caller(xen)
    pool = guest.new_pool(PP)
    guest.put(pool, 1)
    begin_save(guest)
    assert guest.destroy(pool) == Status.OK
    xen.machine.bury(guest.guest.domain, "died")
    assert len(xen.machine.store.catalogue) == 0


def test_t88_a_shared_pool_destroyed_during_a_save_stays_the_other_members(xen, new_caller):
    guest, other = new_caller(xen), new_caller(xen)
    pool, others = guest.new_pool(ES), other.new_pool(ES)
    begin_save(guest)
    assert guest.destroy(pool) == Status.OK
    xen.machine.bury(guest.guest.domain, "died")
    assert other.put(others, 7) == Status.OK
    assert xen.machine.store.evict(1) == 1


def test_no_guest_is_given_the_number_that_means_everybody(still_machine):
    gate = still_machine(64).machine.gate
    gate._guests = EVERYBODY - 1
    assert [gate.new_number() for _ in range(2)] == [EVERYBODY - 1, EVERYBODY + 1]
