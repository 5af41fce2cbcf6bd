"""The tmem store, as the rest of the hypervisor sees it: the operations, and what holds them together.

    shelf        what is stored, and the steps of every operation; `pressure` what goes when frames are wanted
    membership   pools: made, joined, left
    singles      one page; `batches` many of one pool
    control      what the operator may ask

One writer, the event loop.  Answers are statuses of the ABI.
"""

import numpy as np

from hypervisor.tmem.batches import Batches
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.membership import Membership
from hypervisor.tmem.shelf import Allowance, Rules, Shelf
from hypervisor.tmem.singles import Singles
from hypervisor.tmem.storage import Storage
from shm.abi import Refusal


class Store:
    """All stored pages of all guests."""

    def __init__(self, storage: Storage, rules: Rules, allowance: Allowance) -> None:
        self.shelf = shelf = Shelf(storage, rules, allowance)
        self.storage, self.heap, self.rules = storage, storage.heap, rules
        self.catalogue, self.pools, self.clients = shelf.catalogue, shelf.pools, shelf.clients
        self.counts = shelf.counts
        self.membership = Membership(shelf)
        self.create_pool, self.destroy_pool = self.membership.create_pool, self.membership.destroy_pool
        self.forget = self.membership.forget
        self.singles = Singles(shelf)
        self.put, self.get, self.new_page = self.singles.put, self.singles.get, self.singles.new_page
        self.read, self.write = self.singles.read, self.singles.write
        self.flush_page, self.flush_object = self.singles.flush_page, self.singles.flush_object
        self.batches = Batches(shelf, self.singles)
        self.put_many, self.get_many = self.batches.put_many, self.batches.get_many
        self.flush_many = self.batches.flush_many
        self.pages_of, pressure = shelf.pages_of, shelf.pressure
        self.evict, self.evict_frames, self.compact = pressure.evict, pressure.evict_frames, pressure.compact
        self.write_back, self.write_pages_back = pressure.write_back, pressure.write_pages_back

    @property
    def ephemeral(self) -> int:
        return self.catalogue.ages.count

    @property
    def persistent(self) -> int:
        return len(self.catalogue) - self.ephemeral

    @property
    def lasting_frames(self) -> int:
        """Frames that persistent pages hold: one each, or fewer where they lie in slabs; those written back hold none.

        Slabs count whole, whoever else is in them.
        """
        queue = self.catalogue.lasting
        pages = self.persistent if queue is None else queue.count
        return min(pages, self.shelf.lasting_raw + self.storage.slabs.frames)

    @property
    def lasting(self) -> int:
        """Persistent pages that may be written back to the swap disk now."""
        return self.shelf.pressure.lasting

    @property
    def evictions(self) -> int:
        return int(self.counts[StoreCount.ET])

    @property
    def refusal(self) -> Refusal:
        """Why the last single put that was refused was."""
        return self.shelf.refusal

    @property
    def reasons(self) -> np.ndarray:
        """Why the pages of the last `put_many` were refused (uint32, a Refusal each)."""
        return self.batches.reasons

    @property
    def nbytes(self) -> int:
        """Metadata of all that is stored."""
        return self.catalogue.nbytes + self.storage.nbytes

    def ephemeral_frames(self, pages: int) -> int:
        """Return about how many frames `pages` ephemeral pages hold: equal for raw pages, fewer for others."""
        stored = len(self.catalogue)
        return min(pages, -(-pages * self.heap.in_use // stored)) if stored else 0

    def pass_hand(self) -> None:
        """Note that the clock's hand has passed over the store."""
        self.catalogue.ages.pass_hand()

    def audit(self) -> list[str]:
        """Recount everything; return what does not add up (T99)."""
        return self.shelf.audit()
