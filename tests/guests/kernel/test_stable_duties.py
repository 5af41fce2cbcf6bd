"""Make_stable where it is mandatory (reference 2.4), by a checker at the memory itself.

The rule: whoever reads or writes a page by a counted reference finds it stable (R33).  A touch of a page as it lies, as
a program's load or store through a mapping is, may find it volatile or discarded: that is what discard faults are for.
"""

import inspect

import numpy as np
import pytest
from fakes import ALL, HINTS, block_contents
from hosts import PreservingGuest

from guests.kernel import Kernel
from guests.kernel.anon import Anon
from guests.kernel.cache import PageCache
from guests.kernel.mapping import Mapping
from guests.kernel.swapper import Swapper
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import MemcommonsError
from shm.pagestate import STABLE, Essa, Vz, usage_of

# The functions that touch pages as they lie; every other access of the kernel is by a counted reference.
TOUCHES = {function.__code__ for function in (PageCache._touch, Anon.read, Swapper._read_memory, Mapping.load,
                                              Mapping.store, Mapping._copy)}
BUSY = 40                    # steps


class NotStable(AssertionError):
    pass


def by_touch() -> bool:
    frame = inspect.currentframe()
    while frame is not None and frame.f_code not in TOUCHES:
        frame = frame.f_back
    return frame is not None


class CheckedGuest(PreservingGuest):
    """Raises NotStable where a counted reference is used on a page that is not; one transition may be left out."""

    def __init__(self, *args, skip: int | None = None, **options) -> None:
        super().__init__(*args, **options)
        self.skip, self.stables, self.skipped = skip, 0, None
        access = self.memory._access

        def check(name, gfns):
            if not by_touch():
                loose = [gfn for gfn in map(int, gfns) if usage_of(self.states[gfn]) != STABLE]
                if loose:
                    raise NotStable(f"{name} of pages {loose[:4]}, which are {self.states[loose[0]].name}")
            access(name, gfns)

        self.memory._access = check

    def _hint(self, order, gfn):
        if order in (Essa.SET_STABLE, Essa.SET_STABLE_IF_NOT_DISCARDED) and usage_of(self.states[gfn]) != STABLE \
                and self.states[gfn] != Vz:
            self.stables += 1
            if self.stables == self.skip:
                self.skipped, self.since = (Essa(order).name, gfn), len(self.orders)
                return super()._hint(Essa.GET_STATE, gfn)
        return super()._hint(order, gfn)

    def only_passed_through(self) -> bool:
        """Say whether the stable state that was left out was given up in the same breath: V -> S -> P is V -> P."""
        following = next(order for order, gfns in self.orders[self.since:] if self.skipped[1] in gfns)
        return following == Essa.SET_POT_VOLATILE


def busy(guest, new_disk, steps: int = BUSY) -> None:
    """Use all of a kernel; raise where a byte is wrong or the kernel contradicts itself."""
    kernel = Kernel(guest, new_disk(300, guest.counters), buffers=True)
    disk = new_disk(70, guest.counters, content=True)
    file, anon = kernel.open(disk), kernel.anon(60)
    region = kernel.rebuildable(8, lambda indexes: block_contents((indexes + 900).tolist()))
    shared, model = kernel.shared_anon("board", 4), [bytearray(page.tobytes()) for page in block_contents(range(70))]
    stored, rng = np.zeros((60, PAGE_SIZE), np.uint8), np.random.default_rng(5)
    mapping = file.mmap(0, 16, writable=True)
    for step in range(steps):
        index, mark = int(rng.integers(0, 60)), b"%06d" % step
        assert file.page(index) == bytes(model[index])
        assert file.map(index, 8).tobytes() == b"".join(model[index:index + 8])
        assert file.read(index * PAGE_SIZE + 9, 9000) == b"".join(model[index:index + 4])[9:9009]
        file.write(index * PAGE_SIZE + step, mark)
        model[index][step:step + 6] = mark
        mapping.store(step % 16, 2000 + step, mark)
        model[step % 16][2000 + step:2006 + step] = mark
        wanted = np.sort(rng.permutation(60)[:12])
        stored[wanted] = block_contents((1000 * step + wanted).tolist())
        anon.write_many(wanted, stored[wanted])
        assert np.array_equal(anon.read_many(range(60)), stored)
        shared.write(step % 4, stored[step % 60])
        with region.pinned():
            assert np.array_equal(region.read_many(range(8)), block_contents(range(900, 908)))
        if step % 8 == 5:
            mapping.sync()
        if step == 20:
            with file.mmap(30, 4) as locked:
                locked.lock()
        guest.evict(rng.integers(0, guest.pages, 12))
        kernel.check()
    mapping.unmap()
    kernel.sync()
    assert disk.read(0, 70).tobytes() == b"".join(model)
    anon.free()
    kernel.check()


@pytest.mark.parametrize("features", [HINTS, ALL])
def test_no_counted_reference_is_used_on_a_page_that_is_not_stable(new_disk, features):
    """R33, in all that the kernel does."""
    guest = CheckedGuest(112, features)
    busy(guest, new_disk)
    assert guest.counters[Count.DISCARD_FAULTS] > 0 and guest.counters[Count.STABLE_FAILURES] > 0
    assert guest.stables > 500


def transitions(new_disk) -> int:
    guest = CheckedGuest(112)
    busy(guest, new_disk, 12)
    return guest.stables


@pytest.mark.parametrize("part", range(4))
def test_any_transition_to_stable_that_is_left_out_is_caught(new_disk, part):
    """R42, the second half: each alone, by the checker, the kernel's audit or a wrong byte."""
    total, missed = transitions(new_disk), []
    assert total > 300
    for skip in range(1 + part, total + 1, 4):
        guest = CheckedGuest(112, skip=skip)
        try:
            busy(guest, new_disk, 12)
        except (MemcommonsError, AssertionError):
            continue
        if not guest.only_passed_through():
            missed.append(guest.skipped)
    assert missed == []
