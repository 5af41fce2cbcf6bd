"""What many discard faults at once cost the guest's disk: a request a run of blocks, not one a page.

The pages lie where frames were free when the file was read, so their order in memory says nothing.
"""

import numpy as np
import pytest
from kernel_guests import BLOCKS, block

from shm.counters import Count


def requests(vm) -> np.ndarray:
    """Return the requests of the guest's pager so far, and the blocks that it read by them."""
    return np.array([vm.count(Count.PAGER_DISK_REQUESTS), vm.count(Count.PAGER_DISK_READS)])


@pytest.mark.parametrize("mode", ["hardware"], indirect=True)
def test_a_run_of_a_file_is_restored_by_one_request_wherever_its_pages_lie(kernel_guest):
    vm = kernel_guest()
    for index in np.random.default_rng(3).permutation(BLOCKS).tolist():
        vm.file.map(index, 1)
    gfns = [vm.gfn(index) for index in range(BLOCKS)]
    assert np.count_nonzero(np.diff(gfns) == 1) < BLOCKS / 8
    vm.evict(gfns[:1])
    vm.file.map(0, 1)                            # a pager asks for one page first: how long does that take?
    before = requests(vm)
    assert vm.evict(gfns) == BLOCKS
    found = vm.file.map(0, BLOCKS)
    assert found.tobytes() == b"".join(map(block, range(BLOCKS))), "each page its own block"
    assert [vm.gfn(index) for index in range(BLOCKS)] == gfns, "restored where they lay"
    assert (requests(vm) - before).tolist() == [1, BLOCKS]
    vm.kernel.check()
