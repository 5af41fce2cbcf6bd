"""Anonymous memory as a program of this guest uses it: an array of pages that read zero until they are stored to.

An access to a page in memory costs no hint: it is a load or a store through a mapping (R41).  A page of the swap cache
that was discarded meanwhile is a discard fault at its touch, and comes back from its slot.
"""

from collections.abc import Sequence

import numpy as np

from guests.kernel.core import Core
from guests.kernel.file import CHUNK
from guests.kernel.swapper import Places, Swapper
from guests.volatility import SWAP_CACHE
from shm.abi import PAGE_SIZE
from shm.errors import DiscardFault


class Anon:
    """One anonymous region, or one user's hold on a shared one.  After `free` it has no pages."""

    def __init__(self, core: Core, swapper: Swapper, places: Places) -> None:
        self.pages = len(places.gfn)
        self._places = places
        places.users += 1
        self._gfn = self._places.gfn.data            # the same array: an item of it costs a third of numpy's
        self._facts = core.pages.facts
        self._memory = core.memory
        self._discards = core.discards
        self._with_room = core.allocator.with_room
        self._swapper = swapper
        swapper.regions[places] = None

    @property
    def gfns(self) -> np.ndarray:
        """Where each page is in the guest's memory, a copy; -1: in swap, or nowhere."""
        return self._places.gfn.copy()

    def read(self, index: int) -> bytes:
        """Return one page; IndexError outside the region."""
        gfn = self._gfn[index] if 0 <= index < self.pages else -1
        if gfn < 0:
            return self.read_many([index])[0].tobytes()
        try:
            page = self._with_room((gfn,), self._memory.read, gfn)
        except DiscardFault as fault:
            self._discards.fault(fault.gfns.tolist())
            return self.read_many([index])[0].tobytes()
        self._swapper.lists.touch(gfn)
        return page

    def write(self, index: int, page: bytes | np.ndarray) -> None:
        """Store one whole page."""
        gfn = self._gfn[index] if 0 <= index < self.pages else -1
        if gfn < 0 or self._facts[gfn] & SWAP_CACHE:
            self.write_many([index], np.frombuffer(page, np.uint8).reshape(1, -1))
            return
        self._with_room((gfn,), self._memory.write, gfn, page)
        self._swapper.lists.touch(gfn)

    def read_many(self, indexes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return pages (n, 4096) uint8 in the order asked for; a page may be asked for twice."""
        numbers, order = np.unique(self._checked(indexes), return_inverse=True)
        parts = [self._swapper.read(self._places, numbers[at:at + CHUNK]) for at in range(0, len(numbers), CHUNK)]
        pages = np.concatenate(parts) if parts else np.empty((0, PAGE_SIZE), np.uint8)
        return pages if np.array_equal(order, np.arange(len(order))) else pages[order]

    def write_many(self, indexes: Sequence[int] | np.ndarray, pages: np.ndarray) -> None:
        """Store whole pages (n, 4096), each index once."""
        numbers = self._checked(indexes)
        if pages.shape != (len(numbers), PAGE_SIZE):
            raise ValueError(f"{len(numbers)} pages are an array of {(len(numbers), PAGE_SIZE)}, not {pages.shape}")
        if len(np.unique(numbers)) != len(numbers):
            raise ValueError("the same page stands twice in one batch; name each page once")
        for at in range(0, len(numbers), CHUNK):
            self._swapper.store(self._places, numbers[at:at + CHUNK], pages[at:at + CHUNK])

    @property
    def doubles(self) -> int:
        """How many of its pages are in memory and in frontswap at once."""
        slots = self._places.slot[(self._places.gfn >= 0) & (self._places.slot >= 0)]
        return int(np.count_nonzero(~self._swapper.swap.on_disk(slots)))

    def free(self) -> None:
        """Give all memory and swap of the region back; of a shared one when its last user does."""
        if self.pages:
            self._places.users -= 1
            if not self._places.users:
                self._swapper.free(self._places)
        self.pages = 0

    def _checked(self, indexes: Sequence[int] | np.ndarray) -> np.ndarray:
        numbers = np.asarray(indexes, np.int64).reshape(-1)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.pages:
            raise IndexError(f"pages {numbers.min()} to {numbers.max()} are not all in a region of {self.pages} pages")
        return numbers
