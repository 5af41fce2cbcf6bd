"""A host that knows by itself which page is which block, against pages that the guest marks volatile (E28).

As VSwapper's mapper does (Amit et al., ASPLOS 2014): of a page that was filled from a block and not stored to since,
the host drops the frame, and reads the block when the page is touched.  The guest's kernel knows nothing of it.  It is
built from what is there: a page that equals a block is P by the host's own word, and restored from the block.  The
mapping is read off the guest's page cache: no tracker of block I/O could know more of it.

    tracked      the file lies on the disk whose I/O is tracked
    network      it comes by other ways: nothing is known of it
    mlocked      a program has locked the pages
    rewritten    another writer of the same disk changes the blocks, and tells nobody
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from guests.mappings.operator import Operator
from guests.trials.vm import Vm, blocks
from shm.abi import PAGE_SIZE
from shm.pagestate import Essa

CASES = ("tracked", "network", "mlocked", "rewritten")
ROOM = 4


class Mapper:
    """The host's knowledge of one guest: which pages equal which blocks."""

    def __init__(self, vm: Vm) -> None:
        self.reads = 0                               # blocks that the host read for the guest
        self._vm, self._block = vm, dict[int, int]()

    def track(self) -> None:
        """Take note of every clean page of the file."""
        self._block = {gfn: index for index, gfn in self._vm.file.inode.cached.items()}
        self._vm.guest.on_discard(self._restore)
        self._vm.guest.essa(Essa.SET_POT_VOLATILE, sorted(self._block))

    def _restore(self, gfn: int) -> bytes:
        self.reads += 1
        return np.fromfile(f"/proc/self/fd/{self._vm.disk.fileno()}", np.uint8, PAGE_SIZE,
                           offset=self._block[gfn] * PAGE_SIZE).tobytes()


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for each case: what crossed for `pages` pages, what was dropped, and what changed unnoticed.

    A page has changed unnoticed that reads otherwise than before, and was not read again by the guest.
    """
    mapped = bool(options["mapped"])
    with Operator(cluster) as operator:
        return {"pages": options["pages"],
                "rows": {case: _played(operator, case, options["pages"], mapped) for case in CASES}}


def _played(operator: Operator, case: str, pages: int, mapped: bool) -> dict[str, int]:
    with Vm(operator, ROOM * pages, pages, ROOM * pages) as vm:
        vm.file.map(0, pages)
        mapper = Mapper(vm)
        with vm.file.mmap(0, pages) as mapping:
            if case == "mlocked":
                mapping.lock()
            if mapped and case != "network":
                mapper.track()
            before, discards = vm.transfers(), vm.hosts()["discards"]
            vm.evict(vm.cached())
            dropped = vm.hosts()["discards"] - discards
            if case == "rewritten":
                _rewrite(vm, pages)
            found = np.stack([np.frombuffer(mapping.load(page), np.uint8) for page in range(pages)])
            crossed = vm.transfers().since(before)
        changed = int((found != blocks(range(pages))).any(axis=1).sum())
        return {"guest_reads": crossed.file_reads, "host_block_reads": mapper.reads,
                "host_swap_reads": crossed.host_reads, "host_swap_writes": crossed.host_writes,
                "total": crossed.total + mapper.reads, "dropped": dropped,
                "silently_changed": max(0, changed - crossed.file_reads)}


def _rewrite(vm: Vm, pages: int) -> None:
    """Write the blocks as another machine does that has the disk, too: past this guest and its counters."""
    with open(f"/proc/self/fd/{vm.disk.fileno()}", "r+b") as disk:
        disk.write(blocks(range(pages), 1).tobytes())
