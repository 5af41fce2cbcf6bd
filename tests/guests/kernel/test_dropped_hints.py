"""Hints are optional, duties are not (R42).

The machine is made to drop some orders.  A dropped wish must change cost only; a dropped transition to stable must be
caught, by an exception or by the content.
"""

import numpy as np
import pytest
from fakes import HINTS, FakeGuest, block_contents

from guests.kernel import Kernel
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import AddressingException, BrokenInvariant, DiscardFault
from shm.pagestate import Essa

PAGES = 120


def work(new_disk, drop: dict[Essa, float], seed: int) -> FakeGuest:
    """Read and write a file with discards in between; raise AssertionError where a byte is wrong."""
    guest = FakeGuest(128, HINTS, seed=seed, drop=drop, mischief=0.1)
    kernel = Kernel(guest)
    disk = new_disk(PAGES, guest.counters, content=True)
    file, rng, model = kernel.open(disk), np.random.default_rng(seed), block_contents(range(PAGES))
    for step in range(150):
        index = int(rng.integers(0, PAGES - 10))
        if step % 4 == 0:
            model[index] = block_contents([1000 + step])[0]
            file.overwrite(index, model[index].tobytes())
        elif step % 4 == 1:
            assert file.page(index) == model[index].tobytes()
        elif step % 4 == 2:
            assert file.read(index * PAGE_SIZE, 9 * PAGE_SIZE) == model[index:index + 9].tobytes()
        else:
            assert np.array_equal(file.map(index, 10), model[index:index + 10])
        guest.discard(range(0, 128, 3))
    kernel.sync()
    assert np.array_equal(disk.read(0, PAGES), model)
    kernel.check()
    return guest


WISHES = [{}, {Essa.SET_VOLATILE: 0.5}, {Essa.SET_VOLATILE: 1.0}, {Essa.SET_UNUSED: 0.5}, {Essa.SET_UNUSED: 1.0},
          {Essa.SET_VOLATILE: 0.5, Essa.SET_UNUSED: 0.5}, {Essa.SET_VOLATILE: 1.0, Essa.SET_UNUSED: 1.0}]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("drop", WISHES)
def test_a_dropped_wish_changes_cost_only(new_disk, drop, seed):
    guest = work(new_disk, drop, seed)
    nothing_volatile = drop.get(Essa.SET_VOLATILE) == 1.0
    lost = guest.counters[Count.DISCARD_FAULTS] + guest.counters[Count.STABLE_FAILURES]
    assert (lost == 0) == nothing_volatile


def test_fewer_wishes_mean_fewer_reads_again(new_disk):
    reads = [int(work(new_disk, {Essa.SET_VOLATILE: chance}, 1).counters[Count.GUEST_DISK_READS])
             for chance in (0.0, 0.5, 1.0)]
    assert reads[0] > reads[1] > reads[2]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("duty", [Essa.SET_STABLE, Essa.SET_STABLE_IF_NOT_DISCARDED])
def test_a_dropped_duty_is_caught(new_disk, duty, seed):
    with pytest.raises((AddressingException, DiscardFault, BrokenInvariant, AssertionError)):
        work(new_disk, {duty: 0.3}, seed)
