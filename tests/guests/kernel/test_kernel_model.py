"""The whole kernel against plain byte arrays, on a host that discards and a tmem that forgets and refuses.

After every step: contents are right, every page is somewhere, once, and no page is in the cache and in the pool.
"""

import shutil
import tempfile

import numpy as np
import pytest
from fakes import ALL, HINTS, TMEM, block_contents
from hosts import PreservingGuest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from guests.disk import Disk
from guests.frontswap import Mode
from guests.kernel import Kernel
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.pagestate import Essa

BLOCKS, START, LIMIT = 60, 8, 40         # the file is a window in the middle of its disk
ANON, REBUILT, GUEST, SLOTS = 40, 12, 96, 128
OFFSETS = st.one_of(st.integers(0, LIMIT * PAGE_SIZE), st.integers(0, LIMIT).map(lambda page: page * PAGE_SIZE))
LENGTHS = st.sampled_from([0, 1, 100, 512, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 3 * PAGE_SIZE, 16 * PAGE_SIZE])
PAGES = st.integers(0, LIMIT - 1)
CHANCES = st.sampled_from([0.0, 0.1, 0.5, 1.0])


class KernelModel(RuleBasedStateMachine):
    """Two files of one disk, an anonymous and a rebuildable region."""

    @initialize(seed=st.integers(0, 99), features=st.sampled_from([ALL, HINTS, TMEM, frozenset({"hint-volatile"})]),
                mischief=st.sampled_from([0.0, 0.05, 0.4]), refuse=CHANCES, forget=CHANCES, drop=CHANCES,
                size=OFFSETS, cache_pages=st.sampled_from([None, None, 1, 10]),
                mode=st.builds(Mode, st.booleans(), st.booleans()), buffers=st.booleans(),
                dirty_bits=st.sampled_from(["page", "pte"]), minor_faults=st.sampled_from(["optimised", "stable"]))
    def build(self, seed, features, mischief, refuse, forget, drop, size, cache_pages, mode, **more):
        self.folder = tempfile.mkdtemp()
        self.guest = PreservingGuest(GUEST, features, seed=seed, mischief=mischief, refuse=refuse, forget=forget,
                                     ephemeral=30, drop={Essa.SET_VOLATILE: drop / 2, Essa.SET_UNUSED: drop / 2})
        counters = self.guest.counters
        self.disk = Disk.create(BLOCKS, counters, folder=self.folder)
        self.disk.write(0, block_contents(range(BLOCKS)))
        self.swap = Disk.create(SLOTS, counters, folder=self.folder, reads=Count.GUEST_SWAP_READS,
                                writes=Count.GUEST_SWAP_WRITES)
        self.kernel = Kernel(self.guest, self.swap, cache_pages, mode, **more)
        self.mapping, self.mapped = None, range(0)
        self.file = self.kernel.open(self.disk, START, LIMIT, size)
        self.other = self.kernel.open(self.disk, START + LIMIT)
        self.model = bytearray(block_contents(range(START, START + LIMIT)).tobytes()[:size])
        self.anon, self.stored = self.kernel.anon(ANON), np.zeros((ANON, PAGE_SIZE), np.uint8)
        self.region = self.kernel.rebuildable(REBUILT, lambda indexes: block_contents((indexes + 500).tolist()))
        self.stamp = 0

    def fresh(self, count: int) -> np.ndarray:
        """Return pages that were never written before."""
        self.stamp += count
        return block_contents(range(10_000 + self.stamp, 10_000 + self.stamp + count))

    # the file

    @rule(offset=OFFSETS, length=LENGTHS)
    def read(self, offset, length):
        assert self.file.read(offset, length) == bytes(self.model[offset:offset + length])

    @rule(offset=OFFSETS, length=LENGTHS)
    def write(self, offset, length):
        length = min(length, LIMIT * PAGE_SIZE - offset)
        data = self.fresh(17).tobytes()[:length]
        self.file.write(offset, data)
        if length:
            self.model.extend(bytes(max(0, offset - len(self.model))))
            self.model[offset:offset + length] = data

    @rule(index=PAGES)
    def page(self, index):
        if index * PAGE_SIZE < len(self.model):
            expected = bytes(self.model[index * PAGE_SIZE:(index + 1) * PAGE_SIZE])
            assert self.file.page(index) == expected.ljust(PAGE_SIZE, b"\0")

    @rule(first=PAGES, count=st.integers(1, 20))
    def map(self, first, count):
        count = min(count, -(-len(self.model) // PAGE_SIZE) - first)
        if count > 0:
            expected = bytes(self.model[first * PAGE_SIZE:(first + count) * PAGE_SIZE])
            assert self.file.map(first, count).tobytes() == expected.ljust(count * PAGE_SIZE, b"\0")

    @rule(size=OFFSETS)
    def truncate(self, size):
        if any(area.kept and area.end * PAGE_SIZE >= size + PAGE_SIZE for area in self.file.inode.areas):
            with pytest.raises(OSError, match="unmap them first"):
                self.file.truncate(size)
            return
        self.file.truncate(size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))
        assert self.file.size == size

    @rule()
    def sync(self):
        self.file.sync()
        on_disk = self.disk.read(START, LIMIT).tobytes()
        assert on_disk[:len(self.model)] == bytes(self.model)

    @rule()
    def read_the_other_file(self):
        first = START + LIMIT
        assert np.array_equal(self.other.map(0, BLOCKS - first), block_contents(range(first, BLOCKS)))

    # a mapping of it

    @rule(first=PAGES, count=st.integers(1, 20), writable=st.booleans())
    def mmap(self, first, count, writable):
        count = min(count, -(-len(self.model) // PAGE_SIZE) - first)
        if count > 0:
            self.munmap()
            self.mapping, self.mapped = self.file.mmap(first, count, writable), range(first, first + count)

    @rule()
    def munmap(self):
        if self.mapping is not None:
            self.mapping.unmap()
        self.mapping = None

    @rule(page=st.integers(0, 19), offset=st.integers(0, PAGE_SIZE - 8))
    def touch_mapped(self, page, offset):
        if self.mapping is None or page >= len(self.mapped):
            return
        at = self.mapped[page] * PAGE_SIZE + offset
        if at + 8 > len(self.model):
            return
        assert self.mapping.load(page, offset, 8) == bytes(self.model[at:at + 8])
        if self.mapping._area.writable:
            self.model[at:at + 8] = self.fresh(1).tobytes()[:8]
            self.mapping.store(page, offset, bytes(self.model[at:at + 8]))

    @rule(lock=st.booleans())
    def mlock(self, lock):
        if self.mapping is not None and self.mapped.stop * PAGE_SIZE <= len(self.model):
            (self.mapping.lock if lock else self.mapping.unlock)()

    @rule()
    def msync(self):
        if self.mapping is not None:
            self.mapping.sync()

    # memory

    @rule(indexes=st.sets(st.integers(0, ANON - 1), min_size=1), single=st.booleans())
    def store(self, indexes, single):
        wanted = sorted(indexes)[:1] if single else sorted(indexes)
        self.stored[wanted] = self.fresh(len(wanted))
        if single:
            self.anon.write(wanted[0], self.stored[wanted[0]].tobytes())
        else:
            self.anon.write_many(wanted, self.stored[wanted])

    @rule(indexes=st.lists(st.integers(0, ANON - 1), min_size=1, max_size=30))
    def load(self, indexes):
        assert self.anon.read(indexes[0]) == self.stored[indexes[0]].tobytes()
        assert np.array_equal(self.anon.read_many(indexes), self.stored[indexes])

    @rule(indexes=st.lists(st.integers(0, REBUILT - 1), min_size=1))
    def pin(self, indexes):
        with self.region.pinned():
            assert np.array_equal(self.region.read_many(indexes), block_contents([500 + index for index in indexes]))

    # the host, and the guest's own pressure

    @rule(gfns=st.sets(st.integers(0, GUEST - 1)))
    def discard(self, gfns):
        self.guest.discard(gfns)

    @rule()
    def discard_everything(self):
        self.guest.discard(range(GUEST))

    @rule(gfns=st.sets(st.integers(0, GUEST - 1)))
    def evict_by_the_host(self, gfns):
        self.guest.evict(gfns)

    @rule(wanted=st.integers(1, GUEST))
    def evict(self, wanted):
        self.kernel.core.allocator.reclaim(wanted)

    @rule(wanted=st.integers(1, SLOTS))
    def shrink_frontswap(self, wanted):
        before = len(self.guest.tmem.handles(persistent=True))
        gone = self.kernel.shrink_frontswap(wanted)
        assert gone >= min(wanted, before)
        assert len(self.guest.tmem.handles(persistent=True)) == before - gone

    @rule(pages=st.integers(GUEST // 2, GUEST))
    def balloon(self, pages):
        assert self.kernel.balloon.set_target(pages) >= pages

    @rule(refuse=CHANCES, forget=CHANCES)
    def change_the_pools_mood(self, refuse, forget):
        self.guest.tmem.refuse, self.guest.tmem.forget = refuse, forget

    @invariant()
    def everything_is_in_its_place(self):
        self.kernel.check()
        assert self.kernel._swapper.swap.near == len(self.guest.tmem.handles(persistent=True))
        handles = self.guest.tmem.handles()
        for inode in (self.file.inode, self.other.inode):
            assert not handles & {(inode.number, index) for index in inode.cached}

    def teardown(self):
        if not hasattr(self, "kernel"):
            return
        try:
            self.kernel.close()
            assert self.disk.read(START, LIMIT).tobytes()[:len(self.model)] == bytes(self.model)
            assert np.array_equal(self.disk.read(0, START), block_contents(range(START)))
        finally:
            self.disk.close()
            self.swap.close()
            shutil.rmtree(self.folder)


TestKernel = KernelModel.TestCase
TestKernel.settings = settings(max_examples=60, stateful_step_count=30)
