"""R1, R13 to R23, R46 and R48 over real worlds: what the host does with pages, in both fault modes."""

import itertools
import threading
import time

import numpy as np
import pytest
from harness.children import DEADLINE_S
from harness.pages import page
from stress.store_races import BUDGET, PAGES, Counting

from shm.abi import PAGE_SIZE, Op
from shm.errors import DiscardFault
from shm.pagestate import Essa

STATES = ("Sr", "Sp", "Sz", "Ur", "Uz", "Vr", "Vz", "Pr")
BYTES = {0x00, 0x02, 0x03, 0x04, 0x07, 0x08, 0x0C, 0x0F}
ZEROS = bytes(PAGE_SIZE)
ORDERS = (Essa.SET_STABLE, Essa.SET_UNUSED, Essa.SET_VOLATILE, Essa.SET_POT_VOLATILE,
          Essa.SET_STABLE_IF_NOT_DISCARDED, Essa.SET_STABLE_NODAT)
STEPS = 150                  # of the stores that race discards
THIEF = """
import random, sys
from hypervisor.toolstack.connection import call
from shm.errors import MemcommonsError
name, pages, at_once = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
chance = random.Random(1)
try:
    while True:
        first = chance.randrange(pages - at_once)
        call(name, {"call": "discard", "name": "g", "first": first, "count": at_once})
except MemcommonsError:
    pass
"""


@pytest.fixture
def thief(python_process):
    """Start a process that has the hypervisor evict random ranges of the guest, until the test ends."""
    def start(world, pages, at_once):
        child = python_process(THIEF, world.hypervisor.cluster, str(pages), str(at_once))
        assert child.line() == "ready"
        return child
    return start


def rounds(world, least):
    """Yield at least so often, and until the thief has discarded a page: it may be slow to get a core."""
    until = time.monotonic() + DEADLINE_S
    for turn in itertools.count():
        if turn >= least and turn % 100 == 0 and world.counts()["discards"]:
            return
        assert time.monotonic() < until, "the thief has discarded nothing"
        yield turn


def test_r01_only_eight_states_under_orders_and_evictions_at_once(world, thief):
    """Sampled under the lock: the byte that ESSA returns, and the bytes that are stored."""
    world.memory.write_many(range(64), np.ones((64, PAGE_SIZE), np.uint8))
    seen: set[int] = set()
    child = thief(world, 64, 8)
    random = np.random.default_rng(1)
    for _ in rounds(world, 400):
        seen.update(world.guest.essa(ORDERS[random.integers(len(ORDERS))], random.permutation(64)[:24]).tolist())
        with world.map.lock:
            content, told = world.map.content.copy(), world.map.tables.essa.take(world.map.pairs(slice(None)))
        seen.update(told.tolist())
        assert set(content.tolist()) <= {0x00, 0x02, 0x03}
    child.kill()
    assert {byte & 0x0F for byte in seen} <= BYTES
    assert world.counts()["discards"] > 0


HOST = [
    # from, dirty, to,  frames, writes, discards, freed
    ("Ur", True, "Uz", 1, 0, 0, 1),
    ("Vr", True, "Vz", 1, 0, 1, 0),
    ("Pr", False, "Vz", 1, 0, 1, 0),
    ("Pr", True, "Sp", 1, 1, 0, 0),
    ("Sr", True, "Sp", 1, 1, 0, 0),
    ("Sr", False, "Sp", 1, 1, 0, 0),
]


def evicted(world, state, dirty, then, frames, writes, discards, freed):
    world.bring(5, state, dirty)
    before = world.counts()
    assert world.evict(5) == frames and world.states(5) == [then]
    after = world.counts()
    assert [after[key] - before[key] for key in ("swap_out", "discards", "freed_unused", "swap_in")] == \
        [writes, discards, freed, 0]
    assert world.discard_faults() == 0, "the guest is told nothing"


def test_r13_an_unused_page_is_taken_without_io(world):
    evicted(world, *HOST[0])


def test_r14_a_volatile_page_is_discarded_without_io(world):
    evicted(world, *HOST[1])


def test_r15_a_clean_p_page_is_discarded_without_io(world):
    evicted(world, *HOST[2])


def test_r16_a_dirty_p_page_is_preserved_by_one_write_and_is_stable_then(world):
    evicted(world, *HOST[3])
    assert world.touch(5) == page(5) and world.counts()["swap_in"] == 1 and world.states(5) == ["Sr"]


def test_r16_a_plain_store_makes_a_clean_p_page_dirty(world):
    world.bring(5, "Pr", dirty=False)
    world.store(5, b"precious")
    assert world.evict(5) == 1 and world.states(5) == ["Sp"]
    assert world.touch(5) == b"precious" + page(5)[8:]


@pytest.mark.parametrize("row", HOST[4:])
def test_r17_a_stable_page_is_written_once_and_read_once(world, row):
    evicted(world, *row)
    assert world.touch(5) == page(5) and world.counts()["swap_in"] == 1 and world.states(5) == ["Sr"]
    if not row[1]:
        assert not world.memory.dirty([5]).any(), "it comes back as clean as it went"
        world.store(5, b"new")
        assert world.memory.dirty([5]).all()


def test_r18_the_host_changes_usage_of_a_dirty_p_page_alone(world):
    for gfn, state in enumerate(STATES):
        for at, dirty in ((gfn, True), (8 + gfn, False)):
            world.bring(at, state, dirty)
    world.evict(0, 16)
    word = {state: state[0] for state in STATES}
    dirty = [{**word, "Pr": "S"}[state] for state in STATES]
    clean = [{**word, "Pr": "V"}[state] for state in STATES]     # Vz: what a clean P page is, discarded
    assert [state[0] for state in world.states(*range(16))] == dirty + clean
    world.audit()
    assert [state[0] for state in world.states(*range(16))] == dirty + clean


def test_r19_no_store_that_completed_is_lost_to_a_discard(new_world, thief, tmp_path):
    """Counts in pages that are P or stable, in frames for four in ten, and a thief that evicts at all times."""
    world = new_world(PAGES, BUDGET, swap=2 * PAGES)
    with (tmp_path / "disk").open("w+b") as disk:
        counting = Counting(world.guest, disk.fileno(), seed=1)
        counting.start()
        child = thief(world, PAGES, 24)
        for _ in range(STEPS):
            counting.step()
        child.kill()
        counting.finish()
    counts = world.counts()
    assert counts["discards"] > 0 < counts["swap_out"] and counting.stores > 0 < counting.written


def victims(world, word):
    """Return which frames go, one budget after the other, of pages that were all touched in the same order."""
    if word != Essa.SET_STABLE:
        world.guest.essa(word, range(200))
    gone = []
    for budget in (180, 150, 120, 90):
        world.order("set-budget", bytes=budget * PAGE_SIZE)
        world.until(lambda: world.order("list")["frames_free"] >= 8)         # what goes on in the background
        gone.append(np.flatnonzero(world.map.content & 0x03))
    return gone


def test_r20_the_victims_are_the_same_whether_pages_are_s_v_or_p(new_world):
    sequences = []
    for word in (Essa.SET_STABLE, Essa.SET_VOLATILE, Essa.SET_POT_VOLATILE):
        world = new_world(200, 256, alone=True)
        world.memory.write_many(range(200), np.ones((200, PAGE_SIZE), np.uint8))
        world.memory.read_many(range(40, 80))
        sequences.append([gone.tolist() for gone in victims(world, word)])
        assert all(sequences[-1])
    assert sequences[0] == sequences[1] == sequences[2]


def test_r20_unused_pages_go_first(new_world):
    world = new_world(200, 256, alone=True)
    world.memory.write_many(range(200), np.ones((200, PAGE_SIZE), np.uint8))
    world.guest.essa(Essa.SET_VOLATILE, range(50))
    world.guest.essa(Essa.SET_UNUSED, range(100, 180))
    world.order("set-budget", bytes=150 * PAGE_SIZE)
    assert set(np.flatnonzero(world.map.content & 0x03).tolist()) <= set(range(100, 180))
    assert world.counts()["discards"] == world.counts()["swap_out"] == 0 < world.counts()["freed_unused"]


def test_r21_scribbling_reaches_neither_the_hosts_half_nor_another_guest(world):
    other = world.another("other", 64)
    other.memory.write_many(range(8), np.stack([np.frombuffer(page(gfn), np.uint8) for gfn in range(8)]))
    theirs = other.memory.map
    stored = theirs.usage.copy(), theirs.content.copy()
    for gfn, state in enumerate(STATES):
        world.bring(gfn, state)
    random = np.random.default_rng(2)
    for _ in range(30):
        content = world.map.content.copy()
        world.map.usage[:] = random.integers(0, 256, 64)
        assert (world.map.content == content).all() and not world.map.content.flags.writeable
        assert set(world.guest.essa(Essa.GET_STATE, range(64)) & 0xDF) <= BYTES
        world.order("discard", name="g", first=0, count=64)
        world.audit()
    assert (theirs.usage == stored[0]).all() and (theirs.content == stored[1]).all()
    assert bytes(other.memory.read(3)) == page(3)


@pytest.mark.parametrize("by", ["guest", "operator"])
def test_r22_after_a_reset_all_is_stable_and_nothing_can_be_had_without_io(world, by):
    for gfn, state in enumerate(STATES):
        world.bring(gfn, state)
    world.guest.essa(Essa.SET_STABLE_NODAT, [9])
    world.guest.reset_states() if by == "guest" else world.order("reset-states", name="g")
    assert world.states(*range(8)) == ["Sr", "Sp", "Sz", "Sr", "Sz", "Sr", "Sz", "Sr"]
    assert not (world.guest.essa(Essa.GET_STATE, range(64)) & 0x2C).any(), "usage S and no-DAT off, everywhere"
    frames, writes = world.row()["frames"], world.counts()["swap_out"]
    assert world.evict(0, 64) == frames == world.counts()["swap_out"] - writes, "every frame costs a write"
    assert [world.touch(gfn) for gfn in range(8)] == [page(gfn) if state[1] in "rp" else ZEROS
                                                      for gfn, state in enumerate(STATES)]


def test_r23_states_move_with_their_guest_and_a_discarded_page_arrives_as_discarded(new_world):
    source, target = new_world(), new_world(alone=True)
    for gfn, state in enumerate(STATES):
        source.bring(gfn, state)
    source.guest.essa(Essa.SET_STABLE_NODAT, [8])
    told = source.order("states-get", name="g")
    for gfn, state in reversed(list(enumerate(STATES))):     # memory first: what the source has a content of
        if state[1] in "rp":                                 # backwards, so that no neighbour is granted along
            target.memory.write(gfn, page(gfn))
    target.order("states-set", **{"name": "g", "from": 0, "states": told["states"]})
    assert target.states(*range(8)) == [state.replace("p", "r") for state in STATES]
    assert target.byte(8) == 0x23 and target.order("states-get", name="g")["states"] == told["states"]
    gone = STATES.index("Vz")
    if target.hardware:
        assert target.touch(gone) == page(gone), "the pager's, not zeros"
    else:
        with pytest.raises(DiscardFault):
            target.touch(gone)
    assert target.discard_faults() == 1


@pytest.mark.parametrize("release", [Essa.SET_UNUSED, Essa.SET_VOLATILE])
@pytest.mark.parametrize("exits", [False, True])
def test_r46_a_page_made_stable_before_the_release_list_is_processed_has_its_copy_again(new_world, release, exits):
    kvm = new_world(cmma="kvm")
    kvm.bring(3, "Sp")
    kvm.guest.essa_one(release, 3)
    assert (kvm.states(3)[0][1], len(kvm.guest.processor.releases)) == ("z", 1)
    if exits:
        kvm.guest.channel.call(Op.PING)
    kvm.guest.essa_one(Essa.SET_STABLE, 3)
    kvm.audit()
    assert kvm.used_slots() == (not exits)
    assert kvm.touch(3) == (ZEROS if exits else page(3))


def test_r46_the_list_takes_511_pages_and_the_next_release_is_intercepted(new_world):
    kvm = new_world(600, cmma="kvm")
    kvm.bring(599, "Sp")
    calls = kvm.counts()["hypercalls"]
    kvm.guest.essa(Essa.SET_UNUSED, range(510))
    kvm.guest.essa(Essa.SET_VOLATILE, [599])
    assert (kvm.counts()["hypercalls"], len(kvm.guest.processor.releases), kvm.used_slots()) == (calls, 511, 1)
    kvm.guest.essa(Essa.SET_UNUSED, [511])
    assert (kvm.counts()["hypercalls"], len(kvm.guest.processor.releases), kvm.used_slots()) == (calls + 1, 0, 0)


def test_r48_a_page_given_up_by_diag_10_is_a_zero_page_without_any_fault(world):
    for gfn, state in enumerate(STATES):
        world.bring(gfn, state)
    slots, writes = world.used_slots(), world.counts()["swap_out"]
    assert world.guest.release(range(8)) == 3                # Sr, Sp, Ur
    assert world.states(*range(8)) == ["Sz", "Sz", "Sz", "Uz", "Uz", "Vr", "Vz", "Pr"]
    assert world.used_slots() == slots - 1 and world.counts()["swap_out"] == writes
    assert [world.touch(gfn) for gfn in range(3)] == [ZEROS] * 3
    assert world.discard_faults() == 0 == world.counts()["swap_in"]


def test_r48_the_thread_that_touches_it_is_not_held_up(world):
    """In hardware mode the touch is served by the hypervisor; the pager hears nothing."""
    world.bring(0, "Sr")
    world.guest.release([0])
    restored, done = world.restored(), threading.Event()
    world.store(0, b"again")
    done.set()
    assert world.touch(0) == b"again" + ZEROS[5:] and world.restored() == restored
