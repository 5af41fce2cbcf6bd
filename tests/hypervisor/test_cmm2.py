"""The host half of CMM2 on real pages: each row of table 1.6, what it costs, and what is refused.

The machine stands still, so nothing moves but what a test moves; the guest's side is the real one, with its own
mappings, and the swap disk is a real file.
"""

import errno
import os

import numpy as np
import pytest
from harness.pages import SET, assert_sound, bring, evict, page, states

from shm.abi import PAGE_SIZE
from shm.errors import AddressingException, DiscardFault
from shm.pagestate import Essa, was_discarded

# table 1.6

EVICTIONS = {
    # state        then  frames  pages written to the disk
    "R13 Ur":       ("Uz", 1, 0),
    "R14 Vr":       ("Vz", 1, 0),
    "R14 Vr clean": ("Vz", 1, 0),
    "R15 Pr clean": ("Vz", 1, 0),
    "R16 Pr dirty": ("Sp", 1, 1),
    "R17 Sr":       ("Sp", 1, 1),
    "R17 Sr clean": ("Sp", 1, 1),
    "Sz":           ("Sz", 0, 0),
    "Sp":           ("Sp", 0, 0),
    "Uz":           ("Uz", 0, 0),
    "Vz":           ("Vz", 0, 0),
}


@pytest.mark.parametrize(("name", "then", "frames", "writes"), [(name, *row) for name, row in EVICTIONS.items()],
                         ids=list(EVICTIONS))
def test_eviction(guest, disk, name, then, frames, writes):
    bring(guest, 7, name.removeprefix(name.split()[0] + " ") if name[0] == "R" else name)
    bring(guest, 8, "Sr")
    before, io, counters = guest.domain.ram.resident(), len(disk.written), guest.counters.copy()
    assert evict(guest, 7) == frames
    assert states(guest, 7, 8) == [then, "Sr"]
    assert before - guest.domain.ram.resident() == frames, "the kernel has it back"
    assert len(disk.written) - io == writes
    assert (guest.counters == counters).all() and guest.domain.queues.replies.current_messages == 0, "R14: no event"
    assert_sound(guest)


def test_counters_say_which_kind_was_evicted(guest):
    for gfn, state in enumerate(["Ur", "Ur", "Vr", "Pr clean", "Pr", "Sr", "Sz"]):
        bring(guest, gfn, state)
    assert evict(guest, *range(7)) == 6
    counts = guest.counts
    assert (counts.freed_unused, counts.discards, counts.swap_out, counts.volatile_swap_writes) == (2, 2, 2, 0)
    assert states(guest, *range(7)) == ["Uz", "Uz", "Vz", "Vz", "Sp", "Sp", "Sz"]


@pytest.mark.parametrize("state", ["Sr", "Sr clean", "Pr"])
def test_what_was_preserved_comes_back_bit_for_bit_by_one_read(guest, disk, state):
    """R16, R17, R25."""
    content = np.random.default_rng(5).integers(0, 256, PAGE_SIZE, np.uint8).tobytes()
    guest.memory.write(5, content, clean="clean" in state)
    guest.essa(SET[state[0]], [5])
    assert evict(guest, 5) == 1
    assert disk.written == [content]
    assert guest.memory.read(5) == content
    assert (disk.read_back, disk.used, states(guest, 5)) == (1, 0, ["Sr"])
    assert guest.memory.read(5) == content
    assert disk.read_back == 1, "the second read finds it"
    assert guest.counts.swap_in == 1
    assert_sound(guest)


def test_a_dirty_p_is_stable_once_it_was_preserved(guest):
    """R16, R18: the one usage change that is the host's; the guest's dirty bit is the guest's."""
    bring(guest, 3, "Pr")
    evict(guest, 3)
    assert guest.map.essa_one(Essa.GET_STATE, 3) == 0x02
    assert guest.map.usage[3] & 0x0C == 0
    assert guest.memory.dirty([3]).all()


def test_what_the_guest_may_see_after_each_eviction(guest):
    for gfn, state in enumerate(["Ur", "Vr", "Pr clean", "Pr", "Sr"]):
        bring(guest, gfn, state)
    evict(guest, *range(5))
    with pytest.raises(AddressingException):
        guest.memory.read(0)
    for gfn in (1, 2):
        with pytest.raises(DiscardFault) as caught:
            guest.memory.read(gfn)
        assert caught.value.gfns.tolist() == [gfn]
        assert states(guest, gfn) == ["Vz"], "R26: the fault changes nothing"
    assert [guest.memory.read(gfn) for gfn in (3, 4)] == [page(3), page(4)]


def test_many_pages_are_evicted_in_batches_each_by_its_own_state(guest, disk):
    """Also E10, R44: among 96 pages no volatile one is written, and every other comes back."""
    kinds = ["Sr", "Vr", "Pr clean", "Ur", "Vr", "Pr", "Uz", "Sz", "Vr"]
    names = [kinds[gfn % len(kinds)] for gfn in range(96)]
    for gfn, state in enumerate(names):
        bring(guest, gfn, state)
    assert evict(guest, *range(96)) == sum(name[1] == "r" for name in names)
    assert guest.domain.ram.resident() == 0
    kept = [gfn for gfn, name in enumerate(names) if name in ("Sr", "Pr")]
    assert sorted(disk.written) == sorted(page(gfn) for gfn in kept)
    assert [bytes(row) for row in guest.memory.read_many(kept)] == [page(gfn) for gfn in kept]
    lost = [gfn for gfn, name in enumerate(names) if name in ("Vr", "Pr clean")]
    assert was_discarded(guest.essa(Essa.GET_STATE, lost)).all()
    assert_sound(guest)


# refusals: nothing is lost


def test_without_a_swap_disk_stable_pages_stay_and_volatile_ones_go(still_machine):
    guest = still_machine(swap=0).guest()
    for gfn, state in enumerate(["Sr", "Pr", "Vr", "Pr clean", "Ur"]):
        bring(guest, gfn, state)
    assert evict(guest, *range(5)) == 3
    assert states(guest, *range(5)) == ["Sr", "Pr", "Vz", "Vz", "Uz"]
    assert guest.memory.read(0) == page(0)


def test_a_nearly_full_disk_takes_what_it_can_hold(guest, disk):
    disk.allocate(disk.slots - 2)
    for gfn in range(5):
        bring(guest, gfn, "Sr")
    assert evict(guest, *range(5)) == 2
    assert states(guest, *range(5)) == ["Sp", "Sp", "Sr", "Sr", "Sr"]
    assert (guest.counts.swap_full, guest.counts.swap_out, disk.free) == (3, 2, 0)
    assert evict(guest, 2, 3, 4) == 0
    assert [guest.memory.read(gfn) for gfn in range(5)] == [page(gfn) for gfn in range(5)]
    disk.release(np.flatnonzero(disk.taken)[:disk.slots - 2])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_refuses_the_eviction_and_loses_nothing(guest, disk, number):
    def fail():
        raise OSError(number, os.strerror(number))

    for gfn, state in enumerate(["Sr", "Pr", "Vr"]):
        bring(guest, gfn, state)
    disk.during_write = fail
    assert evict(guest, 0, 1, 2) == 1
    assert states(guest, 0, 1, 2) == ["Sr", "Pr", "Vz"]
    assert (disk.used, guest.counts.swap_out, guest.counts.swap_full) == (0, 0, 2)
    disk.during_write = lambda: None
    assert evict(guest, 0, 1) == 2
    assert [guest.memory.read(gfn) for gfn in (0, 1)] == [page(0), page(1)]
    assert_sound(guest)


# released copies


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("order", [Essa.SET_UNUSED, Essa.SET_VOLATILE])
def test_a_preserved_page_given_up_and_taken_again_reads_zeros(guest, disk, order, settled):
    """R6: the slot is freed, by no read; the dead copy never comes back, settled in between or not."""
    bring(guest, 4, "Sp")
    assert guest.map.essa_one(order, 4) == 0x02
    assert states(guest, 4)[0][1] == "z"
    if settled:
        assert guest.machine.cmm2.settle(guest.domain) == 1
        assert disk.used == 0
    assert guest.map.essa_one(Essa.SET_STABLE, 4) == {Essa.SET_UNUSED: 0x07, Essa.SET_VOLATILE: 0x0F}[order]
    assert states(guest, 4) == ["Sz"]
    assert guest.memory.read(4) == bytes(PAGE_SIZE)
    assert (disk.used, disk.read_back, guest.counts.released) == (0, 0, 1)
    assert_sound(guest)


@pytest.mark.parametrize(("dirty", "then", "used"), [(True, "Sp", 1), (False, "Vz", 0)])
def test_pot_volatile_on_a_preserved_page(guest, disk, dirty, then, used):
    """R7: clean is dropped, dirty stays and is readable."""
    bring(guest, 4, "Sr" if dirty else "Sr clean")
    evict(guest, 4)
    guest.essa(Essa.SET_POT_VOLATILE, [4])
    guest.machine.cmm2.settle(guest.domain)
    assert (states(guest, 4), disk.used) == ([then], used)
    if dirty:
        assert guest.memory.read(4) == page(4)


def test_settling_frees_the_void_copies_and_no_other(guest, disk):
    for gfn in range(6):
        bring(guest, gfn, "Sp")
    guest.essa(Essa.SET_UNUSED, [1, 3, 5])
    assert guest.machine.cmm2.settle(guest.domain) == 3
    assert disk.used == 3 and guest.machine.cmm2.settle(guest.domain) == 0
    assert [guest.memory.read(gfn) for gfn in (0, 2, 4)] == [page(0), page(2), page(4)]
    assert not (guest.map.usage & 0x40).any()
    assert_sound(guest)


def test_a_void_copy_is_no_frame_to_evict(guest):
    bring(guest, 4, "Sp")
    guest.essa(Essa.SET_UNUSED, [4])
    guest.essa(Essa.SET_STABLE, [4])
    assert evict(guest, 4) == 0
    assert guest.memory.read(4) == bytes(PAGE_SIZE)


def test_a_bit_scribbled_over_a_resident_page_is_ignored(guest):
    """RELEASED means something over a preserved copy alone (R21)."""
    bring(guest, 4, "Sr")
    guest.map.usage[4] |= 0x40
    assert guest.memory.read(4) == page(4)
    assert evict(guest, 4) == 1
    assert guest.memory.read(4) == page(4)


def test_forgetting_a_guest_frees_its_slots_and_frames(still, guest, disk):
    for gfn, state in enumerate(["Sp", "Sp", "Sr", "Vr"]):
        bring(guest, gfn, state)
    guest.essa(Essa.SET_UNUSED, [0])
    assert (disk.used, still.machine.ledger.used) == (2, 2)
    still.machine.bury(guest.domain, "left")
    assert (disk.used, still.machine.ledger.used) == (0, 0)
