"""Each race between the hypervisor and a guest over a page, in each order: one side is stopped, the other moves.

The machine stands still, so nothing moves but what a test moves.  The guest's turn comes before or after the hypervisor
holds the lock, while a copy is written to the swap disk, or between the look at a fault and its grant.
"""

import errno
import os

import numpy as np
import pytest
from harness.pages import assert_sound, bring, evict, page, states, while_wanting

from shm.abi import PAGE_SIZE
from shm.errors import DiscardFault, OutOfMemory
from shm.pagestate import Essa, State, was_discarded

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
    """Right after the lock was given back: z was written, and the frame is gone, so that no store can go there."""
    bring(guest, 4, state)
    old, frames = [], []

    def make_stable():
        frames.append(guest.domain.ram.resident())
        old.append(guest.map.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 4))

    staged(guest, after=make_stable)
    assert evict(guest, 4) == 1
    assert frames == [0], "punched before anybody can make the page stable and store to it"
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


# races: a grant against the guest's word


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
