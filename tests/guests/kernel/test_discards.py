"""Discard faults on several processors: one removal (R30), and no reuse before the grace period is over (R31)."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
from fakes import HINTS, FakeGuest, block_contents

from guests.kernel import Kernel
from guests.volatility import DIRTY, DISCARDED
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import BrokenInvariant
from shm.pagestate import UNUSED, Uz, Vz, usage_of

PAGES, DEADLINE_S = 40, 20.0


@pytest.fixture
def build(new_disk):
    """Makes (guest, kernel, file) of two processors, unless told otherwise."""
    def new(cpus: int = 2, pages: int = 96, **options):
        guest = FakeGuest(pages, HINTS, **options)
        kernel = Kernel(guest, new_disk(64, guest.counters), cpus=cpus)
        return guest, kernel, kernel.open(new_disk(PAGES, guest.counters, content=True))
    return new


def content(first: int, count: int) -> bytes:
    return block_contents(range(first, first + count)).tobytes()


@contextmanager
def parked(kernel, work):
    """Run `work` on processor 1 until its first discard fault was delivered; it goes on as the block ends."""
    arrived, go, result = threading.Event(), threading.Event(), []

    def wait(gfns):
        if threading.current_thread() is thread and not arrived.is_set():
            arrived.set()
            assert go.wait(DEADLINE_S)

    def run():
        with kernel.running(1):
            result.append(work())

    kernel.core.cpus.delivered = wait
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert arrived.wait(DEADLINE_S), "no fault came"
        yield result
    finally:
        go.set()
        thread.join(DEADLINE_S)


def test_two_processors_fault_on_one_page(build):
    """R30: one removal, both retries succeed, and the page was read again once."""
    guest, kernel, file = build()
    with kernel.running(0):
        file.map(0, 1)
    old = file.inode.cached[0]
    guest.discard([old])
    removals, drop = [], kernel._cache.drop
    kernel.core.discards.take_out = {kind: lambda gfns: (removals.extend(gfns), drop(gfns))
                                     for kind in kernel.core.discards.take_out}
    reads = int(guest.counters[Count.GUEST_DISK_READS])
    with parked(kernel, lambda: file.map(0, 1).tobytes()) as result, kernel.running(0):
        assert file.map(0, 1).tobytes() == content(0, 1)
    assert result == [content(0, 1)]
    assert removals == [old] and guest.counters[Count.DISCARD_FAULTS] == 2
    assert guest.counters[Count.GUEST_DISK_READS] == reads + 1
    kernel.check()


def test_a_discarded_page_waits_for_a_processor_with_a_fault_pending(build):
    """R31: it is not free, not used again, and still in its state; after the grace period it is free and unused."""
    guest, kernel, file = build()
    with kernel.running(0):
        file.map(0, 1)
    old = file.inode.cached[0]
    guest.discard([old])
    with parked(kernel, lambda: file.map(0, 1)), kernel.running(0):
        file.map(0, PAGES)
        kernel.quiescent(0)
        assert old in kernel.core.allocator.discard_list and old not in file.inode.cached.values()
        assert guest.states[old] == Vz and kernel.core.pages.facts[old] & DISCARDED
        kernel.check()
    with kernel.running(0):
        kernel.quiescent(0)
    assert not kernel.core.allocator.discard_list and guest.states[old] == Uz
    kernel.check()


@pytest.mark.parametrize("leave", [lambda kernel, file: file.truncate(0),
                                   lambda kernel, file: kernel.core.allocator.reclaim(90)])
def test_a_page_nobody_knows_to_be_discarded_waits_too(build, leave):
    guest, kernel, file = build()
    with kernel.running(0):
        file.map(0, 4)
        lost = guest.discard(file.inode.cached.values())
    with parked(kernel, lambda: file.mmap(0, 1)._present(0) and file._core.discards.fault([lost[0]])), \
            kernel.running(0):
        leave(kernel, file)
        assert set(lost) <= set(kernel.core.allocator.discard_list)
        kernel.check()


def test_one_processor_uses_a_discarded_page_again_at_once(build):
    guest, _, file = build(cpus=1)
    file.map(0, 1)
    (lost,) = guest.discard([file.inode.cached[0]])
    assert file.map(0, 1).tobytes() == content(0, 1)
    assert file.inode.cached[0] == lost


def stress(guest, kernel, file, anon, rounds: int) -> str | None:
    """Have faults delivered late, round after round, while others store; return what was lost, or None."""
    stored = block_contents(range(500, 500 + anon.pages))
    for _ in range(rounds):
        try:
            with kernel.running(0):
                file.map(0, 4)
                anon.free_and_fill(stored[:0])
            guest.discard(file.inode.cached.values())
            with parked(kernel, lambda: file.map(0, 4).tobytes()) as result, kernel.running(0):
                kernel.core.discards.fault(list(file.inode.cached.values()))
                anon.free_and_fill(stored)
            assert result == [content(0, 4)]
            with kernel.running(0):
                if not np.array_equal(anon.read(), stored):
                    return "innocent anonymous pages read zero"
        except BrokenInvariant as broken:
            return str(broken)
    return None


class Innocent:
    """Anonymous memory that takes all the pages it can get, again and again."""

    def __init__(self, kernel) -> None:
        self.kernel, self.region, self.pages = kernel, None, 60

    def free_and_fill(self, pages: np.ndarray) -> None:
        if self.region is not None:
            self.region.free()
            self.region = None
        if len(pages):
            self.region = self.kernel.anon(self.pages)
            self.region.write_many(range(len(pages)), pages)

    def read(self) -> np.ndarray:
        return self.region.read_many(range(self.pages))


@pytest.mark.parametrize("grace", [True, False])
def test_without_grace_innocent_data_is_discarded(build, grace):
    """R31, the mutation: a late fault names a page that somebody else has by then."""
    guest, kernel, file = build()
    if not grace:
        kernel.core.allocator._delay = lambda gfns: gfns
    lost = stress(guest, kernel, file, Innocent(kernel), rounds=5)
    assert (lost is None) == grace, lost
    if grace:
        kernel.check()


@pytest.mark.parametrize("grace", [True, False])
def test_without_grace_a_page_stored_to_is_discarded(build, grace):
    """The same with a dirty page of the same file: the handler finds that it is about to lose the only copy."""
    guest, kernel, file = build()
    if not grace:
        kernel.core.allocator._delay = lambda gfns: gfns
    with kernel.running(0):
        file.map(0, 1)
    old = file.inode.cached[0]
    guest.discard([old])
    failed = []

    def late():
        try:
            return file.map(0, 1).tobytes()
        except BrokenInvariant as broken:
            failed.append(str(broken))

    with parked(kernel, late), kernel.running(0):
        kernel.page_discard(old)                     # this processor's own fault
        for index in range(20, 24):
            file.overwrite(index, b"y" * PAGE_SIZE)
        assert bool(kernel.core.pages.facts[old] & DIRTY) == (not grace)
    assert (failed == []) == grace


def test_page_discard_removes_a_page_once(build):
    guest, kernel, file = build(cpus=1)
    file.map(0, 4)
    gfn = file.inode.cached[2]
    guest.discard([gfn])
    kernel.page_discard(gfn)
    assert 2 not in file.inode.cached and usage_of(guest.states[gfn]) == UNUSED
    kernel.page_discard(gfn)                         # free by now: nothing to do
    kernel.check()


def test_processors_are_numbered_and_run_once(build):
    _, kernel, _ = build()
    with pytest.raises(ValueError, match="processor 2 cannot run"), kernel.running(2):
        pass
    with kernel.running(0), pytest.raises(ValueError, match=r"\[0\] run"), kernel.running(0):
        pass
    with pytest.raises(ValueError, match="at least one"):
        build(cpus=0)


def test_two_threads_at_work_on_a_host_that_discards(build):
    """Every page read is right, and nothing waits for ever."""
    guest, kernel, file = build(pages=512, mischief=0.02)
    wrong = []

    def work(cpu):
        rng = np.random.default_rng(cpu)
        for _ in range(150):
            first = int(rng.integers(0, PAGES - 4))
            with kernel.running(cpu):
                if file.map(first, 4).tobytes() != content(first, 4):
                    wrong.append(first)

    threads = [threading.Thread(target=work, args=(cpu,)) for cpu in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert wrong == [] and guest.counters[Count.DISCARD_FAULTS] > 0
    with kernel.running(0):
        kernel.quiescent(0)
        kernel.check()
    assert not kernel.core.allocator.discard_list
