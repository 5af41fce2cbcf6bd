"""The host half of CMM2 on real pages: each row of table 1.6, what it costs, and each race with it in each order.

The machine stands still, so nothing moves but what a test moves; the guest's side is the real one, with its own
mappings, and the swap disk is a real file that can be stopped in the middle of a write.
"""

import errno
import os

import numpy as np
import posix_ipc
import pytest

from hypervisor import domains
from hypervisor import machine as machines
from hypervisor.domains import NO_SLOT
from hypervisor.swap import SwapDisk
from shm.abi import PAGE_SIZE
from shm.errors import AddressingException, DiscardFault, OutOfMemory
from shm.pagestate import Essa, State, was_discarded

LIMIT = 32                   # slots of the swap disk
SET = {"S": Essa.SET_STABLE, "U": Essa.SET_UNUSED, "V": Essa.SET_VOLATILE, "P": Essa.SET_POT_VOLATILE}


class WatchedDisk(SwapDisk):
    """A swap disk that notes what crosses it; `during_write` is called when a batch has been copied out."""

    def __init__(self, slots, folder=None):
        super().__init__(slots, folder)
        self.written, self.read_back = [], 0
        self.during_write = lambda: None

    def write(self, slots, pages):
        self.during_write()
        super().write(slots, pages)
        self.written += [bytes(page) for page in pages]

    def read(self, slots):
        self.read_back += len(slots)
        return super().read(slots)


@pytest.fixture
def still(still_machine, monkeypatch):
    monkeypatch.setattr(machines, "SwapDisk", WatchedDisk)
    return still_machine(budget=128, swap=LIMIT)


@pytest.fixture
def disk(still):
    return still.machine.swap


@pytest.fixture
def guest(still):
    return still.guest(pages=96)


def page(number):
    return bytes([number % 251 + 1]) * PAGE_SIZE


def evict(guest, *gfns):
    return guest.machine.cmm2.evict(guest.domain, np.array(gfns, np.int64))


def states(guest, *gfns):
    return [State(state).name for state in guest.map.states(np.array(gfns))]


def bring(guest, gfn, state):
    """Bring a page into a state, by what guest and host really do; a resident one holds `page(gfn)`."""
    word, deed, dirty = state[0], state[1], "clean" not in state
    if deed in "rp" or word in "VP":
        guest.memory.write(gfn, page(gfn), clean=not dirty)
    if word != "S":
        guest.essa(SET[word], [gfn])
    if deed == "p" or (deed == "z" and word == "V"):
        assert evict(guest, gfn) == 1
    assert states(guest, gfn) == [state[:2]]


def assert_sound(guest):
    """Slots belong to preserved pages, frames to resident ones, and the kernel says the same."""
    content, machine = guest.map.content & 0x03, guest.machine
    assert ((guest.domain.slots != NO_SLOT) == (content == 0x02)).all()
    assert machine.swap.used == sum(int(np.count_nonzero(d.slots != NO_SLOT)) for d in machine.domains.values())
    resident = guest.domain.ram.resident()
    assert machine.ledger.held.get(guest.domain.number, 0) == np.count_nonzero(content == 0) == resident


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
    disk.allocate(LIMIT - 2)
    for gfn in range(5):
        bring(guest, gfn, "Sr")
    assert evict(guest, *range(5)) == 2
    assert states(guest, *range(5)) == ["Sp", "Sp", "Sr", "Sr", "Sr"]
    assert (guest.counts.swap_full, guest.counts.swap_out, disk.free) == (3, 2, 0)
    assert evict(guest, 2, 3, 4) == 0
    assert [guest.memory.read(gfn) for gfn in range(5)] == [page(gfn) for gfn in range(5)]
    disk.release(np.flatnonzero(disk.taken)[:LIMIT - 2])


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


# races: a discard against make-stable, in each order


class StagedLock:
    """The hypervisor's hold on a state lock; the guest's turn comes before it is taken, or after it was given back.

    While it is held the guest tries too, and must not get in.
    """

    def __init__(self, guest, turns):
        self.guest, self.real, self.turns = guest, guest.domain.map.lock, turns

    def _turn(self, when):
        self.turns.pop(when, lambda: None)()

    def acquire(self, timeout):
        self._turn("before")
        assert self.real.acquire(timeout)
        assert not self.guest.map.lock.acquire(0), "nobody gets in beside the hypervisor"
        return True

    def release(self):
        self.real.release()
        self._turn("after")

    def __enter__(self):
        raise AssertionError("the hypervisor never waits for a guest's lock without a deadline")


@pytest.fixture
def staged():
    """Let the guest act before or after the hypervisor's first hold of its lock; all turns must have come."""
    locks = []

    def stage(guest, **turns):
        locks.append(StagedLock(guest, turns))
        guest.domain.map.lock = locks[-1]
    yield stage
    for lock in locks:
        lock.guest.domain.map.lock = lock.real
        assert lock.turns == {}, "the eviction takes the lock"


@pytest.mark.parametrize("state", ["Vr", "Pr clean"])
def test_make_stable_before_the_discard_keeps_the_page(guest, disk, staged, state):
    bring(guest, 4, state)
    old = []
    staged(guest, before=lambda: old.append(guest.map.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 4)))
    evict(guest, 4)
    assert not was_discarded(old[0])
    assert guest.memory.read(4) == page(4)
    assert disk.written == [page(4)], "stable when the hypervisor looked: preserved, as a stable page is"


@pytest.mark.parametrize("state", ["Vr", "Pr clean"])
def test_make_stable_after_the_discard_knows_that_the_page_is_gone(guest, staged, state):
    """Between the lock given back and the punch: z was written before, and nobody is told anything else."""
    bring(guest, 4, state)
    old, frames = [], []

    def make_stable():
        frames.append(guest.domain.ram.resident())
        old.append(guest.map.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 4))

    staged(guest, after=make_stable)
    assert evict(guest, 4) == 1
    assert frames == [1], "the frame is there still, and yet"
    assert was_discarded(old[0])
    with pytest.raises(DiscardFault):
        guest.memory.read(4)
    assert_sound(guest)


def test_a_touch_between_the_discard_and_the_punch_is_a_discard_fault(guest, staged):
    bring(guest, 4, "Vr")
    faults = []

    def touch():
        with pytest.raises(DiscardFault) as caught:
            guest.memory.read(4)
        faults.append(caught.value.gfns.tolist())

    staged(guest, after=touch)
    evict(guest, 4)
    assert faults == [[4]]


@pytest.mark.parametrize(("word", "then"), [(Essa.SET_STABLE, "Sp"), (Essa.SET_VOLATILE, "Vz")])
def test_reuse_of_an_unused_page_before_it_is_taken(guest, staged, word, then):
    bring(guest, 4, "Ur")
    staged(guest, before=lambda: guest.essa(word, [4]))
    assert evict(guest, 4) == 1
    assert states(guest, 4) == [then]


def test_reuse_of_an_unused_page_after_it_was_taken_finds_a_fresh_one(guest, staged):
    bring(guest, 4, "Ur")
    staged(guest, after=lambda: guest.essa(Essa.SET_STABLE, [4]))
    assert evict(guest, 4) == 1
    assert guest.memory.read(4) == bytes(PAGE_SIZE)
    assert_sound(guest)


def test_a_store_to_a_clean_p_before_the_host_looks_is_kept(guest, staged):
    """R19: the dirty check and the discard are one step against a store."""
    bring(guest, 4, "Pr clean")
    staged(guest, before=lambda: guest.memory.write(4, page(9)))
    evict(guest, 4)
    assert states(guest, 4) == ["Sp"]
    assert guest.memory.read(4) == page(9)


# races: a preservation against what the guest does while the copy is written


DURING_THE_WRITE = {
    # what the guest does         -> state, frames taken
    "nothing":                       (lambda guest: None, "Sp", 1),
    "it stores a whole page":        (lambda guest: guest.memory.write(4, page(9)), "Sr", 0),
    "it stores one byte":            (lambda guest: guest.memory.write_part(4, 100, b"x"), "Sr", 0),
    "it reads input into it":        (lambda guest: guest.memory.write(4, page(9), clean=True), "Sr", 0),
    "it stores many":                (lambda guest: guest.memory.write_many(
                                        [3, 4], np.full((2, PAGE_SIZE), 7, np.uint8)), "Sr", 0),
    "it reads":                      (lambda guest: guest.memory.read(4), "Sp", 1),
    "it makes it volatile":          (lambda guest: guest.essa(Essa.SET_VOLATILE, [4]), "Vr", 0),
    "it makes it unused":            (lambda guest: guest.essa(Essa.SET_UNUSED, [4]), "Ur", 0),
    "it makes it a dirty P":         (lambda guest: guest.essa(Essa.SET_POT_VOLATILE, [4]), "Sp", 1),
    "it makes it a clean P":         (lambda guest: (guest.memory.clear_dirty([4]),
                                                     guest.essa(Essa.SET_POT_VOLATILE, [4])), "Pr", 0),
}


@pytest.mark.parametrize(("deed", "then", "taken"), DURING_THE_WRITE.values(), ids=list(DURING_THE_WRITE))
def test_what_the_guest_does_while_the_copy_is_written(guest, disk, deed, then, taken):
    """R19: a store that completed is never lost; E10: what became volatile is not preserved."""
    bring(guest, 3, "Sr")
    bring(guest, 4, "Sr")
    disk.during_write = lambda: deed(guest)
    assert evict(guest, 4) == taken
    disk.during_write = lambda: None
    assert states(guest, 4) == [then]
    assert (guest.counts.swap_retries, disk.used) == (1 - taken, taken)
    assert_sound(guest)


def test_a_store_while_the_copy_is_written_is_kept_and_the_eviction_given_up(guest, disk):
    """R19: the stale copy is dropped; the next eviction writes the new content."""
    for gfn in (3, 4, 5):
        bring(guest, gfn, "Sr")
    disk.during_write = lambda: guest.memory.write(4, page(99))
    assert evict(guest, 3, 4, 5) == 2
    disk.during_write = lambda: None
    assert states(guest, 3, 4, 5) == ["Sp", "Sr", "Sp"]
    assert evict(guest, 4) == 1
    assert [guest.memory.read(gfn) for gfn in (3, 4, 5)] == [page(3), page(99), page(5)]
    assert_sound(guest)


def test_a_store_before_the_copy_does_not_hinder_the_eviction(guest):
    """Host-change is cleared with the copy: only what comes after it counts."""
    bring(guest, 4, "Sr")
    guest.memory.write(4, page(9))
    assert evict(guest, 4) == 1
    assert guest.memory.read(4) == page(9)


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


# races: a grant against the guest's word


def while_wanting(guest, gfns, deed):
    """Serve a fault for `gfns`, the guest acting between the look and the grant; return the frames granted."""
    cmm2, domain = guest.machine.cmm2, guest.domain
    wanting = cmm2.wanting(domain, np.array(gfns))
    deed()
    assert guest.machine.ledger.reserve(domain.number, len(wanting.gfns))
    return cmm2.grant(domain, wanting)


GRANTS = {
    # state, what the guest says meanwhile                -> granted, state then
    "zero page, nothing said": ("Sz", [], 1, "Sr"),
    "zero page, given up": ("Sz", [Essa.SET_UNUSED], 0, "Uz"),
    "zero page, volatile": ("Sz", [Essa.SET_VOLATILE], 0, "Vz"),
    "zero page, given up and taken again": ("Sz", [Essa.SET_UNUSED, Essa.SET_STABLE], 1, "Sr"),
    "preserved, nothing said": ("Sp", [], 1, "Sr"),
    "preserved, given up": ("Sp", [Essa.SET_UNUSED], 0, "Uz"),
    "preserved, given up and taken again: the copy is void": ("Sp", [Essa.SET_UNUSED, Essa.SET_STABLE], 0, "Sz"),
    "preserved, volatile": ("Sp", [Essa.SET_VOLATILE], 0, "Vz"),
    "preserved, dirty P": ("Sp", [Essa.SET_POT_VOLATILE], 1, "Sr"),
}


@pytest.mark.parametrize(("state", "words", "granted", "then"), GRANTS.values(), ids=list(GRANTS))
def test_the_guest_changes_its_word_while_its_fault_is_served(guest, disk, state, words, granted, then):
    bring(guest, 4, state)
    bring(guest, 5, "Sr")

    def speak():
        for word in words:
            guest.essa(word, [4])

    assert while_wanting(guest, [4], speak) == granted
    assert states(guest, 4) == [then]
    assert guest.domain.ram.resident() == 1 + granted == guest.machine.ledger.used
    if then[0] == "S":
        assert guest.memory.read(4) == (page(4) if granted and state == "Sp" else bytes(PAGE_SIZE))
    guest.machine.cmm2.settle(guest.domain)
    assert disk.used == 0
    assert_sound(guest)


def test_of_a_batch_only_the_pages_whose_word_changed_get_nothing(guest):
    for gfn in (2, 3):
        bring(guest, gfn, "Sp")
    assert while_wanting(guest, [0, 1, 2, 3], lambda: guest.essa(Essa.SET_UNUSED, [1, 3])) == 2
    assert states(guest, 0, 1, 2, 3) == ["Sr", "Uz", "Sr", "Uz"]
    assert [guest.memory.read(gfn) for gfn in (0, 2)] == [bytes(PAGE_SIZE), page(2)]
    guest.machine.cmm2.settle(guest.domain)
    assert_sound(guest)


def test_a_grant_clears_the_bits_of_the_life_before(guest):
    bring(guest, 4, "Sp")
    guest.map.usage[4] |= 0x12
    assert while_wanting(guest, [4], lambda: None) == 1
    assert guest.map.usage[4] & 0x12 == 0
    assert guest.domain.grace.current()[4]


def test_when_there_is_no_memory_a_grant_leaves_everything_as_it_was(guest, disk, monkeypatch):
    """A full /dev/shm is a refusal, not a SIGBUS; a preserved copy stays."""
    bring(guest, 4, "Sp")
    used = guest.machine.ledger.used

    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        for gfn in (4, 5):
            with pytest.raises(OutOfMemory):
                guest.memory.read(gfn)
    assert (guest.machine.ledger.used, guest.domain.ram.resident(), disk.used) == (used, used, 1)
    assert states(guest, 4, 5) == ["Sp", "Sz"]
    assert guest.memory.read(4) == page(4)


def test_only_stable_pages_without_a_frame_are_wanting(guest):
    for gfn, state in enumerate(["Sr", "Sp", "Sz", "Ur", "Uz", "Vr", "Vz", "Pr"]):
        bring(guest, gfn, state)
    wanting = guest.machine.cmm2.wanting(guest.domain, np.arange(8))
    assert wanting.gfns.tolist() == [1, 2]
    assert wanting.states.tolist() == [State.Sp, State.Sz]


# the lock and who holds it


def test_a_guest_that_holds_its_lock_keeps_its_pages_and_is_passed_by(guest, disk):
    for gfn, state in enumerate(["Ur", "Vr", "Sr", "Sp"]):
        bring(guest, gfn, state)
    guest.essa(Essa.SET_UNUSED, [3])
    io = len(disk.written)
    with guest.map.lock:
        assert evict(guest, 0, 1, 2) == 0
        assert guest.machine.cmm2.settle(guest.domain) == 0
        assert guest.machine.cmm2.wanting(guest.domain, np.array([4])) is None
        assert guest.counts.lock_passed_by == 3
    assert states(guest, 0, 1, 2, 3) == ["Ur", "Vr", "Sr", "Uz"]
    assert (len(disk.written), guest.domain.ram.resident()) == (io, 3)
    assert evict(guest, 0, 1, 2) == 3
    assert guest.domain.lock_missed_since is None


def test_a_held_lock_is_waited_for_once_however_many_pages_were_planned(guest):
    """Each wait is everybody's: the event loop stands still meanwhile."""
    for gfn in range(96):
        bring(guest, gfn, "Vr")
    with guest.map.lock:
        assert evict(guest, *range(96)) == 0
    assert guest.counts.lock_passed_by == 1
    assert evict(guest, *range(96)) == 96


def test_a_fault_while_the_lock_is_held_says_look_again(guest):
    guest.transfer.gfns[0] = 5
    with guest.map.lock:
        reply = guest.channel.call(201, 1)
    assert (reply.status, reply.value) == (1, 0)
    assert guest.machine.ledger.used == 0


def test_a_lock_that_is_taken_while_the_copy_is_written_gives_the_eviction_up(guest, disk):
    bring(guest, 4, "Sr")
    disk.during_write = lambda: guest.map.lock.acquire(0)
    assert evict(guest, 4) == 0
    guest.map.lock.release()
    assert (states(guest, 4), disk.used) == (["Sr"], 0)
    assert_sound(guest)


def test_a_lock_that_is_taken_while_frames_are_filled_gives_the_grant_up(guest):
    bring(guest, 4, "Sp")
    assert while_wanting(guest, [4, 5], lambda: guest.map.lock.acquire(0)) == 0
    guest.map.lock.release()
    assert states(guest, 4, 5) == ["Sp", "Sz"]
    assert guest.domain.ram.resident() == 0 == guest.machine.ledger.used
    assert guest.memory.read(4) == page(4)


def test_a_guest_that_keeps_its_lock_too_long_is_ended(still, guest, monkeypatch):
    other = still.guest("other")
    other.memory.write(0, page(1))
    bring(guest, 4, "Sp")
    with guest.map.lock:
        still.machine.check()
        assert guest.machine.domains[guest.domain.number] is guest.domain, "it may have its reasons, for a while"
        late = domains.monotonic() + domains.LOCK_LIMIT_S + 1
        monkeypatch.setattr(domains, "monotonic", lambda: late)
        evict(guest, 0)
        still.machine.check()
    still.expects_ended = {"g"}
    assert still.machine.events[-1]["why"] == "it kept its state lock too long"
    assert list(still.machine.domains.values()) == [other.domain]
    assert (still.machine.ledger.used, still.machine.swap.used) == (1, 0)
    assert other.memory.read(0) == page(1)


def test_a_guest_whose_lock_was_missed_once_and_given_back_is_not_ended(still, guest, monkeypatch):
    """However long ago that was, and though nobody has asked for the lock since."""
    bring(guest, 4, "Vr")
    with guest.map.lock:
        assert evict(guest, 4) == 0
    late = domains.monotonic() + domains.LOCK_LIMIT_S + 1
    monkeypatch.setattr(domains, "monotonic", lambda: late)
    still.machine.check()
    assert still.machine.domains[guest.domain.number] is guest.domain
    assert guest.domain.lock_missed_since is None


def test_a_lock_posted_twice_confuses_its_own_guest_alone(still, guest):
    """The lock orders well-meaning parties; the ledger never relies on it."""
    other = still.guest("other")
    other.memory.write(0, page(1))
    guest.map.lock.release()
    for gfn in range(4):
        bring(guest, gfn, "Sr")
    with guest.map.lock:
        assert evict(guest, 0, 1) == 2
    assert guest.memory.read(0) == page(0)
    assert other.memory.read(0) == page(1)
    assert_sound(guest)
    assert posix_ipc.Semaphore(f"/{guest.domain.stem}.lock").value == 2


DIES_HOLDING = """
import sys
from guests import Guest, Essa
guest = Guest.connect(sys.argv[1], "dies", "64KiB")
for gfn in range(8):
    guest.memory.write(gfn, bytes([gfn + 1]) * 4096)
guest.essa(Essa.SET_VOLATILE, [0, 1])
guest._semaphore.acquire(5)
print("holds", flush=True)
sys.stdin.read()
"""


def test_a_guest_that_dies_holding_its_lock_takes_nothing_with_it(machine, python_process):
    running = machine(budget=16, swap=64)
    other = running.guest("other")
    other.memory.write(0, page(1))
    dying = python_process(DIES_HOLDING, running.cluster)
    assert dying.line() == "holds"
    domain = running.domain("dies")
    assert running.inside(lambda: running.machine.cmm2.evict(domain, np.arange(8))) == 0
    dying.kill()
    for gfn in range(16):                            # needs the frames that the dead one had
        other.memory.write(gfn, page(gfn))
    running.until(lambda: len(running.machine.domains) == 1)
    assert running.inside(lambda: running.machine.ledger.held.get(domain.number)) is None
    assert [other.memory.read(gfn) for gfn in range(16)] == [page(gfn) for gfn in range(16)]


def test_forgetting_a_guest_frees_its_slots_and_frames(still, guest, disk):
    for gfn, state in enumerate(["Sp", "Sp", "Sr", "Vr"]):
        bring(guest, gfn, state)
    guest.essa(Essa.SET_UNUSED, [0])
    assert (disk.used, still.machine.ledger.used) == (2, 2)
    still.machine.bury(guest.domain, "left")
    assert (disk.used, still.machine.ledger.used) == (0, 0)
