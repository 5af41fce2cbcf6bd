"""R26 to R45, the guest's part: its kernel on a real machine, whose host evicts what a test names."""

from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import pytest
from kernel_guests import BLOCKS, block

from guests.kernel.writeback import Writeback
from guests.volatility import REFUSALS, SWAP_CACHE
from shm.abi import PAGE_SIZE
from shm.counters import Count, HostCount
from shm.errors import MemcommonsError
from shm.pagestate import UNUSED, Essa, Pr, Sp, Sr, State, Sz, Ur, Uz, Vr, Vz, usage_of

OF_FREE_PAGES = {State.Ur, State.Uz}
ALL_GFNS = 128
SOFTWARE = pytest.mark.parametrize("mode", ["software"], indirect=True)   # `test_cmm2_both_access` has the other mode


@pytest.fixture
def vm(kernel_guest):
    """A guest under scheme cmm2, its whole file cached and volatile, no fault or failure so far."""
    vm = kernel_guest()
    vm.file.map(0, BLOCKS)
    assert vm.states(vm.file.inode.cached.values()) == {Vr}
    yield vm
    vm.kernel.check()


def contents(first: int, count: int) -> bytes:
    return b"".join(block(number) for number in range(first, first + count))


# access and fault

def test_r27_a_page_that_is_discarded_and_never_touched_is_no_event(vm):
    assert vm.evict(vm.file.inode.cached.values()) == BLOCKS
    vm.kernel.anon(4).write(0, bytes(PAGE_SIZE))
    assert vm.discard_faults() == vm.count(Count.STABLE_FAILURES) == 0


def test_r28_after_the_fault_the_page_is_gone_everywhere_and_the_retry_reads_it_once(vm):
    """Or, restored by the pager, it is where it was, and was read just as often."""
    gfn, reads = vm.gfn(5), vm.reads()
    dropped, drop = [], vm.kernel._cache.drop
    vm.kernel.core.discards.take_out = {kind: lambda gfns: (drop(gfns), dropped.append(5 in vm.file.inode.cached))
                                        for kind in vm.kernel.core.discards.take_out}
    vm.evict([gfn])
    with vm.file.mmap(4, 4) as one, vm.file.mmap(5, 1) as other:
        assert one.load(1) == block(5) == other.load(0)
    assert dropped == ([] if vm.hardware else [False]) and vm.discard_faults() == 1
    assert vm.reads() == reads + 1 and vm.states([vm.gfn(5)]) == {Vr}
    assert not vm.hardware or vm.gfn(5) == gfn


def test_r29_a_user_copy_stops_short_and_its_retry_completes(vm, monkeypatch):
    """In hardware mode it is served whole."""
    vm.evict([vm.gfn(3)])
    with vm.file.mmap(0, 8) as mapping:
        lengths, copy = [], mapping._copy
        monkeypatch.setattr(mapping, "_copy", lambda offset, length: note(lengths, copy(offset, length)))
        assert mapping.read(10, 8 * PAGE_SIZE - 10) == contents(0, 8)[10:]
    assert lengths == ([8 * PAGE_SIZE - 10] if vm.hardware else [3 * PAGE_SIZE - 10, 5 * PAGE_SIZE])
    assert vm.discard_faults() == 1


def note(lengths: list[int], parts: list[bytes]) -> list[bytes]:
    lengths.append(sum(map(len, parts)))
    return parts


class Late:
    """Two processors: while the fault of processor 1 is delivered and not handled, processor 0 does `meanwhile`."""

    def __init__(self, kernel, meanwhile) -> None:
        self.kernel, self.meanwhile = kernel, meanwhile
        kernel.core.cpus.delivered = self.delivered

    def delivered(self, _) -> None:
        if self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            with self.kernel.running(0):
                work()


@SOFTWARE
def test_r30_two_processors_on_one_page_remove_it_once_and_both_go_on(kernel_guest):
    vm = kernel_guest(cpus=2)
    vm.file.map(0, 8)
    gfn, reads, seen = vm.gfn(3), vm.count(Count.GUEST_DISK_READS), []
    vm.evict([gfn])
    Late(vm.kernel, lambda: seen.append(vm.file.map(3, 1).tobytes()))
    with vm.kernel.running(1):
        seen.append(vm.file.map(3, 1).tobytes())
    assert seen == [block(3), block(3)] and vm.discard_faults() == 2
    assert vm.count(Count.GUEST_DISK_READS) == reads + 1
    vm.kernel.check()


@SOFTWARE
@pytest.mark.parametrize("grace", [True, False])
def test_r31_a_discarded_page_is_not_used_again_before_everybody_was_quiescent(kernel_guest, grace):
    vm = kernel_guest(cpus=2)
    if not grace:
        vm.kernel.core.allocator._delay = lambda gfns: gfns
    vm.file.map(0, 1)
    gfn, anon, reused = vm.gfn(0), vm.kernel.anon(40), []
    vm.evict([gfn])

    def handle_it_first_and_store():
        vm.kernel.page_discard(gfn)
        anon.write_many(range(40), np.full((40, PAGE_SIZE), 7, np.uint8))
        reused.append(gfn in anon._places.gfn)

    Late(vm.kernel, handle_it_first_and_store)
    with vm.kernel.running(1):
        assert vm.file.map(0, 1).tobytes() == block(0)
    with vm.kernel.running(0):
        whole = bool((anon.read_many(range(40)) == 7).all())
    assert (reused, whole) == ([False], True) if grace else (reused, whole) == ([True], False)


# the guest

def reserved(vm, stack):
    vm.kernel.balloon.set_target(ALL_GFNS - 8)
    return vm.kernel.balloon.gfns


def dirty(vm, stack):
    vm.file.write(0, b"x")
    return [vm.gfn(0)]


def under_write_back(vm, stack):
    vm.file.write(0, b"x")
    stack.enter_context(vm.kernel._writeback._under_way([vm.gfn(0)]))
    return [vm.gfn(0)]


def locked(vm, stack):
    gfns = vm.kernel.core.allocator.alloc(2)
    stack.callback(vm.kernel.core.allocator.free, gfns)
    return gfns


def anonymous(vm, stack):
    anon = vm.kernel.anon(4)
    anon.write_many(range(4), np.ones((4, PAGE_SIZE), np.uint8))
    return anon._places.gfn.tolist()


def truncated(vm, stack):
    gfn = vm.gfn(BLOCKS - 1)
    vm.file.truncate((BLOCKS - 1) * PAGE_SIZE)
    return [gfn]


def with_buffers(vm, stack):
    vm.file.write(10, b"x")
    vm.file.sync()
    return [vm.gfn(0)]


def discarded(vm, stack):
    gfn = vm.gfn(0)
    vm.evict([gfn])
    vm.kernel.core.hints.make_stable([gfn])
    assert vm.kernel.core.pages.discarded([gfn]) == [gfn]
    stack.callback(vm.kernel._cache.drop, [gfn])
    return [gfn]


def isolated(vm, stack):
    gfns = vm.kernel._cache.lists.take(4)
    stack.callback(vm.kernel._cache.lists.add, gfns)
    vm.kernel.core.hints.make_stable(gfns)
    return gfns


def referenced(vm, stack):
    gfns = [vm.gfn(0)]
    stack.enter_context(vm.kernel.core.pages.held(gfns))
    vm.kernel.core.hints.make_stable(gfns)
    return gfns


def mlocked(vm, stack):
    stack.enter_context(vm.file.mmap(0, 4)).lock()
    return list(vm.file.inode.cached.values())


def shared_in_swap_cache(vm, stack):
    shared = vm.kernel.shared_anon("board", 4)
    shared.write_many(range(4), np.ones((4, PAGE_SIZE), np.uint8))
    vm.kernel.core.allocator.reclaim(ALL_GFNS)
    shared.read_many(range(4))
    return shared._places.gfn.tolist()


CONDITIONS = {1: reserved, 2: dirty, 3: under_write_back, 4: locked, 5: anonymous, 6: truncated, 7: locked,
              8: with_buffers, 9: discarded, 10: isolated, 11: referenced, 12: mlocked, 13: shared_in_swap_cache}


@pytest.mark.parametrize("number", sorted(CONDITIONS))
def test_r32_a_wish_that_a_condition_refuses_costs_no_essa(kernel_guest, number):
    """Each of the eleven and two, as it really arises."""
    vm = kernel_guest(buffers=True)
    vm.file.map(0, BLOCKS)
    (row,) = [row for row in REFUSALS if row.number == number]
    with ExitStack() as stack:
        gfns = CONDITIONS[number](vm, stack)
        before = [vm.state(gfn) for gfn in gfns]
        assert gfns and all(vm.facts[gfn] & row.mask == row.value for gfn in gfns)
        assert vm.essa_of(lambda: vm.kernel.core.hints.make_volatile(gfns)) == 0
        assert vm.essa_of(lambda: [vm.kernel.core.hints.make_volatile_one(gfn) for gfn in gfns]) == 0
        assert [vm.state(gfn) for gfn in gfns] == before and not set(before) & {Vr, Pr}
    vm.kernel.check()


def test_r33_no_counted_reference_is_used_on_a_page_that_is_not_stable(vm, monkeypatch):
    """Copies, writes, write-back, pins and swap on a host that takes what it can; no mapped touch is among them."""
    seen = set()

    def watched(access, gfns, *rest, **options):
        seen.update(vm.states([gfns] if isinstance(gfns, int) else gfns))
        return access(gfns, *rest, **options)

    for name in ("read_part", "write_part", "write", "read_many", "write_many"):
        monkeypatch.setattr(vm.memory, name, partial(watched, getattr(vm.memory, name)))
    monkeypatch.setattr(vm.file, "_read_part", vm.memory.read_part)
    region = vm.kernel.rebuildable(8, lambda indexes: np.ones((len(indexes), PAGE_SIZE), np.uint8))
    for index in range(0, BLOCKS, 3):
        vm.evict(range(index, ALL_GFNS, 5))
        assert vm.file.page(index) == block(index)
        assert vm.file.read(index * PAGE_SIZE + 1, 9000) == contents(index, BLOCKS - index)[1:9001]
        vm.file.write(index * PAGE_SIZE, block(index))
        with region.pinned():
            region.read_many(range(8))
        if index % 9 == 0:
            vm.file.sync()
    assert seen and {usage_of(state) for state in seen} == {0}
    assert vm.count(Count.STABLE_FAILURES) > 0 == vm.discard_faults()


def test_r34_a_failed_make_stable_is_a_miss_and_no_fault(vm):
    vm.evict([vm.gfn(5)])
    reads, misses = vm.count(Count.GUEST_DISK_READS), vm.count(Count.PAGE_CACHE_MISSES)
    assert vm.file.page(5) == block(5)
    assert (vm.count(Count.STABLE_FAILURES), vm.discard_faults()) == (1, 0)
    assert vm.count(Count.GUEST_DISK_READS) == reads + 1 and vm.count(Count.PAGE_CACHE_MISSES) == misses + 1


def test_r35_stable_wins_while_a_reference_lives(vm):
    gfn, hints = vm.gfn(5), vm.kernel.core.hints
    for _ in range(20):
        with vm.kernel.core.pages.held([gfn]):
            hints.make_volatile([gfn])
            hints.make_stable([gfn])
            hints.make_volatile([gfn])
            vm.evict([gfn])
            assert vm.state(gfn) in (Sr, Sp)
        assert vm.memory.read(gfn) == block(5)
        hints.make_volatile([gfn])


def reversed_hand_over(writeback: Writeback, inode, gfns) -> None:
    core = writeback._core
    core.memory.clear_dirty(gfns)
    lost = core.hints.make_stable(gfns)
    core.discards.page_discard(list(lost))
    writeback.mark(inode, [gfn for gfn in gfns if gfn not in lost])


@pytest.mark.parametrize(("order", "kept"), [(Writeback._hand_over, True), (reversed_hand_over, False)])
def test_r36_the_reversed_order_of_handing_dirt_over_loses_data(vm, monkeypatch, order, kept):
    """The host evicts in the moment after the bit was cleared."""
    clear = vm.memory.clear_dirty

    def clear_and_evict(gfns):
        clear(gfns)
        vm.evict(gfns)

    monkeypatch.setattr(vm.memory, "clear_dirty", clear_and_evict)
    monkeypatch.setattr(Writeback, "_hand_over", order)
    with vm.file.mmap(0, 4, writable=True) as mapping:
        mapping.store(1, 0, b"precious")
        mapping.sync()
        assert (mapping.load(1, 0, 8) == b"precious") == kept
    assert (vm.disk.read(1).tobytes()[:8] == b"precious") == kept


@pytest.mark.parametrize(("bits", "state"), [("page", Pr), ("pte", Sr)])
def test_r37_a_writable_mapping_makes_a_page_p_or_s_and_never_v(kernel_guest, bits, state):
    vm = kernel_guest(dirty_bits=bits)
    vm.file.map(0, 8)
    writable, other = vm.file.mmap(0, 4, writable=True), vm.file.mmap(1, 1)
    writable.store(1, 0, b"x")
    assert vm.state(vm.gfn(1)) == state and vm.state(vm.gfn(2)) == Vr
    writable.unmap()
    vm.file.sync()
    assert vm.state(vm.gfn(1)) == state
    other.unmap()
    assert vm.state(vm.gfn(1)) == Vr
    vm.kernel.check()


def test_r37_the_host_drops_a_clean_p_page_and_preserves_a_dirty_one(vm):
    with vm.file.mmap(0, 4, writable=True) as mapping:
        mapping.store(0, 0, b"one")
        mapping.store(1, 0, b"one")
        mapping.sync()
        mapping.store(1, 0, b"two")
        clean, dirty = vm.gfn(0), vm.gfn(1)
        vm.evict([clean, dirty])
        assert (vm.state(clean), vm.state(dirty)) == (Vz, Sp)
        assert mapping.load(0, 0, 3) == b"one" and mapping.load(1, 0, 3) == b"two"


@pytest.fixture
def swapped(kernel_guest):
    """A guest with eight anonymous pages, written to their slots and read back: the swap cache."""
    vm = kernel_guest()
    vm.anon, vm.words = vm.kernel.anon(8), np.arange(8 * PAGE_SIZE, dtype=np.uint16).view(np.uint8)[:8 * PAGE_SIZE]
    vm.words = vm.words.reshape(8, PAGE_SIZE)
    vm.anon.write_many(range(8), vm.words)
    vm.kernel.core.allocator.reclaim(ALL_GFNS)
    vm.anon.read_many(range(8))
    yield vm
    vm.kernel.check()


def test_r38_a_page_of_the_swap_cache_is_volatile_once_its_write_has_ended(swapped):
    vm, gfns = swapped, swapped.anon._places.gfn.tolist()
    assert vm.states(gfns) == {Vr} and all(vm.facts[gfn] & SWAP_CACHE for gfn in gfns)
    vm.evict(gfns)
    assert np.array_equal(vm.anon.read_many(range(8)), vm.words)
    assert vm.discard_faults() == 8 and vm.reads() == 16


@pytest.mark.parametrize("free", [lambda vm: vm.anon.write(3, bytes(PAGE_SIZE)), lambda vm: vm.anon.free()])
def test_r38_a_slot_is_freed_after_its_page_was_made_stable(swapped, monkeypatch, free):
    vm, seen, release = swapped, [], swapped.kernel._swapper.swap.release

    def watched(slots):
        there = vm.anon._places.gfn[np.isin(vm.anon._places.slot, slots) & (vm.anon._places.gfn >= 0)]
        seen.extend(vm.state(gfn) for gfn in there)
        release(slots)

    monkeypatch.setattr(vm.kernel._swapper.swap, "release", watched)
    free(vm)
    assert seen and set(seen) == {Sr}


def test_r38_a_page_lost_before_its_slot_was_to_be_freed_is_read_from_it_first(kernel_guest):
    """Partial swapoff: the slots leave frontswap, and memory shall have the only copy."""
    vm = kernel_guest(scheme="cmm2+tmem")
    anon, pages = vm.kernel.anon(8), np.full((8, PAGE_SIZE), 9, np.uint8)
    anon.write_many(range(8), pages)
    vm.kernel.core.allocator.reclaim(ALL_GFNS)
    anon.read_many(range(8))
    vm.evict(anon._places.gfn.tolist())
    vm.kernel.shrink_frontswap(8)
    assert np.array_equal(anon.read_many(range(8)), pages) and vm.discard_faults() == 0
    vm.kernel.check()


def test_r39_a_file_that_was_mlocked_has_no_volatile_page_again(vm):
    vm.evict([vm.gfn(1), vm.gfn(20)])
    mapping = vm.file.mmap(0, 4)
    mapping.lock()
    assert vm.states(vm.gfn(index) for index in range(4)) == {Sr}, "what was discarded is read again at once"
    vm.file.map(0, BLOCKS)
    assert vm.states(vm.file.inode.cached.values()) == {Sr}
    mapping.unmap()
    vm.file.page(30)
    vm.file.map(0, BLOCKS)
    assert vm.states(vm.file.inode.cached.values()) == {Sr} and vm.discard_faults() == 0


def test_r40_free_pages_are_unused_and_others_are_not(vm):
    allocator = vm.kernel.core.allocator
    for act in (lambda: None, lambda: allocator.reclaim(30), lambda: vm.file.truncate(PAGE_SIZE),
                lambda: vm.kernel.anon(20).write_many(range(20), np.ones((20, PAGE_SIZE), np.uint8))):
        act()
        free = set(allocator.free_list())
        assert vm.states(free) <= OF_FREE_PAGES
        assert UNUSED not in {usage_of(state) for state in vm.states(set(range(ALL_GFNS)) - free)}


@pytest.mark.parametrize(("minor_faults", "cost"), [("optimised", 0), ("stable", 2)])
def test_r41_a_minor_fault_and_its_unmap_cost_no_essa_or_two(kernel_guest, minor_faults, cost):
    vm = kernel_guest(minor_faults=minor_faults)
    vm.file.map(0, 8)

    def map_touch_unmap():
        with vm.file.mmap(0, 8) as mapping:
            mapping.load(3)

    assert vm.essa_of(map_touch_unmap) == cost
    assert vm.essa_of(lambda: vm.file.map(0, 8)) == 8 * cost


@contextmanager
def dropping(vm, orders, chance: float):
    """Let some hints never reach the machine."""
    rng, hints = np.random.default_rng(1), vm.kernel.core.hints
    many, one = hints._essa, hints._essa_one
    hints._essa = lambda order, gfns: many(_kept(rng, order, orders, chance), gfns)
    hints._essa_one = lambda order, gfn: one(_kept(rng, order, orders, chance), gfn)
    yield
    hints._essa, hints._essa_one = many, one


def _kept(rng, order: Essa, orders, chance: float) -> Essa:
    return Essa.GET_STATE if order in orders and rng.random() < chance else order


def use(vm) -> None:
    for step in range(40):
        index = step * 7 % (BLOCKS - 8)
        assert vm.file.page(index) == block(index)
        assert vm.file.map(index, 8).tobytes() == contents(index, 8)
        vm.file.write((index + 3) * PAGE_SIZE, block(index + 3))
        vm.evict(range(step % 3, ALL_GFNS, 3))
        vm.kernel.check()
        if step % 10 == 9:
            vm.file.sync()
            vm.kernel.core.allocator.reclaim(20)


@pytest.mark.parametrize("chance", [0.3, 1.0])
def test_r42_dropped_wishes_change_cost_only(vm, chance):
    with dropping(vm, {Essa.SET_VOLATILE, Essa.SET_POT_VOLATILE, Essa.SET_UNUSED}, chance):
        use(vm)


@SOFTWARE
@pytest.mark.parametrize("duty", [Essa.SET_STABLE, Essa.SET_STABLE_IF_NOT_DISCARDED])
def test_r42_a_dropped_duty_is_caught(kernel_guest, duty):
    vm = kernel_guest()
    with dropping(vm, {duty}, 0.3), pytest.raises((MemcommonsError, AssertionError)):
        use(vm)


# the ledger of transfers (2.7)

def clean_file_page(vm, used: bool):
    vm.file.map(0, 8)
    before = vm.transfers()
    vm.evict([vm.gfn(3)])
    if used:
        assert vm.file.page(3) == block(3)
    return vm.transfers() - before


def free_page(vm, used: bool):
    anon = vm.kernel.anon(4)
    anon.write_many(range(4), np.ones((4, PAGE_SIZE), np.uint8))
    (gfn,) = anon._places.gfn[:1].tolist()
    anon.free()
    before = vm.transfers()
    vm.evict([gfn])
    vm.kernel.anon(4).write_many(range(4), np.ones((4, PAGE_SIZE), np.uint8))
    return vm.transfers() - before


def stable_anonymous_page(vm, used: bool):
    anon = vm.kernel.anon(1)
    anon.write(0, bytes(PAGE_SIZE))
    before = vm.transfers()
    vm.evict(anon._places.gfn)
    vm.kernel.core.allocator.reclaim(ALL_GFNS)
    return vm.transfers() - before


def clean_swap_cache_page(vm, used: bool):
    anon = vm.kernel.anon(1)
    anon.write(0, b"x" * PAGE_SIZE)
    vm.kernel.core.allocator.reclaim(ALL_GFNS)
    anon.read(0)
    before = vm.transfers()
    vm.evict(anon._places.gfn)
    vm.kernel.core.allocator.reclaim(ALL_GFNS)
    if used:
        assert anon.read(0) == b"x" * PAGE_SIZE
    return vm.transfers() - before


def dirty_p_page(vm, used: bool):
    with vm.file.mmap(0, 1, writable=True) as mapping:
        mapping.store(0, 0, b"x")
        before = vm.transfers()
        vm.evict([vm.gfn(0)])
        assert mapping.load(0, 0, 1) == b"x"
        return vm.transfers() - before


LEDGER = [
    # row of 2.7,             scheme,  used,   F reads, F writes, H reads, H writes
    (clean_file_page,         "swap",  True,   (0, 0, 1, 1)),
    (clean_file_page,         "cmm2",  True,   (1, 0, 0, 0)),
    (clean_file_page,         "swap",  False,  (0, 0, 0, 1)),
    (clean_file_page,         "cmm2",  False,  (0, 0, 0, 0)),
    (free_page,               "swap",  True,   (0, 0, 1, 1)),
    (free_page,               "cmm2",  True,   (0, 0, 0, 0)),
    (stable_anonymous_page,   "swap",  True,   (0, 1, 1, 1)),
    (stable_anonymous_page,   "cmm2",  True,   (0, 1, 1, 1)),
    (clean_swap_cache_page,   "cmm2",  False,  (0, 0, 0, 0)),
    (clean_swap_cache_page,   "cmm2",  True,   (1, 0, 0, 0)),
    (dirty_p_page,            "cmm2",  True,   (0, 0, 1, 1)),
]


@pytest.mark.parametrize(("scenario", "scheme", "used", "transfers"), LEDGER)
def test_r43_what_is_transferred_is_what_the_table_says(kernel_guest, scenario, scheme, used, transfers):
    vm = kernel_guest(scheme=scheme)
    assert tuple(scenario(vm, used)) == transfers
    vm.kernel.check()


def test_r44_volatile_pages_are_never_written_to_the_hosts_swap(vm):
    before = vm.hosts(HostCount.SWAP_OUT)
    for _ in range(5):
        assert vm.evict(vm.file.inode.cached.values()) == BLOCKS
        assert vm.file.map(0, BLOCKS).tobytes() == contents(0, BLOCKS)
    assert vm.hosts(HostCount.VOLATILE_SWAP_WRITES) == 0 and vm.hosts(HostCount.SWAP_OUT) == before
    assert vm.hosts(HostCount.DISCARDS) == 5 * BLOCKS


def test_r45_resident_pages_and_free_frames_are_the_budget_at_every_sample(vm):
    anon = vm.kernel.anon(30)

    def sample() -> tuple[int, int]:
        host = vm.world.order("list")
        return host["frames_free"], host["frames_used"]

    for act in (lambda: vm.evict(range(0, ALL_GFNS, 2)), lambda: vm.file.map(0, BLOCKS),
                lambda: anon.write_many(range(30), np.ones((30, PAGE_SIZE), np.uint8)), anon.free, vm.evict_all):
        act()
        free, used = sample()
        resident = sum(vm.state(gfn) in (Sr, Ur, Vr, Pr) for gfn in range(ALL_GFNS))
        assert resident == used and free + used == 1024
    assert vm.states(range(ALL_GFNS)) <= {Sp, Sz, Uz, Vz}
