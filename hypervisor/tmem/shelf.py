"""The shelf: all that is stored, and the steps of which every tmem operation is made.

    room      how many new pages the limits allow, and why not more; may evict
    publish   a page that has a place gets its handle
    drop      a page loses its handle and its place

What goes when frames are wanted is for `pressure`.

Rule 1: find room, copy, publish, in this order: a put that fails has nothing to undo, and finding room may evict.
Rule 2: ephemeral pages may vanish whenever room is looked for; persistent ones never.
Rule 3: a page's handle and its pool's count are changed here alone, together; where it lies, in `pressure` too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hypervisor.tmem.catalogue import Catalogue, Oid
from hypervisor.tmem.clients import Client, ClientCount, Clients
from hypervisor.tmem.counts import Most, StoreCount
from hypervisor.tmem.forms import RAW_LIMIT, Form
from hypervisor.tmem.pools import Pool, PoolCount, Pools
from hypervisor.tmem.pressure import Pressure
from hypervisor.tmem.storage import Storage
from shm.abi import Refusal, Status

NO_CAP = 0
PAGES_A_FRAME = 16           # ephemeral pages to a frame of the budget, at most: some 1.2 KiB of metadata


@dataclass(frozen=True, slots=True)
class Rules:
    """How a store behaves.  Sizes in pages."""

    ephemeral_cap: int = NO_CAP  # of all guests' ephemeral pages (NO_CAP: the budget alone)
    form: Form = Form.RAW        # of a new guest's pages
    quirks: bool = False         # behave as Xen 4.2 did where it did not as it said
    authorise: bool = True       # shared pools are for guests that were let in (Xen: tmem_shared_auth)
    write_back: bool = False     # persistent pages may go to the swap disk (T70)


Allowance = Callable[[int], tuple[int, Refusal]]


class Shelf:
    """All stored pages of all guests.

    `allowance(owner)` says how many more persistent pages a guest may hold now, and what keeps it from more (T67).
    """

    def __init__(self, storage: Storage, rules: Rules, allowance: Allowance) -> None:
        self.storage, self.rules, self.allowance = storage, rules, allowance
        self.catalogue = Catalogue(lasting=rules.write_back)
        self.pools, self.clients = Pools(), Clients(rules.form)
        self.counts = np.zeros(len(StoreCount), np.int64)
        self.refusals = np.zeros(len(Refusal), np.int64)     # of all guests that ever were
        self.most = Most()
        self.lasting_raw = 0                                 # persistent pages in frames of their own
        self.refusal = Refusal.NONE                          # why the last put that was refused was
        self.pressure = Pressure(self)

    # limits

    def room(self, pool: Pool, client: Client, count: int) -> tuple[int, Refusal]:
        """Return how many of `count` new pages a pool may take, and what forbids the others.  May evict."""
        if self.clients.frozen or client.frozen:
            return 0, Refusal.FROZEN
        self.pressure.requester, reason = client.number, Refusal.NONE
        self.pressure.took(client.number if client.weight else None, count)
        if client.cap and not self.rules.quirks:
            count, reason = self._below_cap(client, pool.persistent, count)
        if not pool.persistent:
            return self._below_ephemeral_cap(count), reason
        allowed, why = self.allowance(pool.owner)
        return (count, reason) if allowed >= count else (max(0, allowed), why)

    def _below_cap(self, client: Client, persistent: bool, count: int) -> tuple[int, Refusal]:
        """Make room below a client's cap: its own oldest ephemeral pages go for what is new."""
        lasting = self.pages_of(client.number, persistent=True)
        allowed = min(count, max(0, client.cap - lasting))
        over = lasting + self.pages_of(client.number, persistent=False) + allowed - client.cap
        if over > 0:
            self.pressure.evict_own(client.number, over)
        return allowed, Refusal.NONE if allowed == count and not persistent else Refusal.CAP

    def _below_ephemeral_cap(self, count: int) -> int:
        """Make room below the cap on all ephemeral pages: all-zero ones cost no frame, but memory to know them by."""
        cap = self.rules.ephemeral_cap or PAGES_A_FRAME * self.storage.heap.ledger.budget
        count = min(count, cap)
        self.pressure.evict(self.catalogue.ages.count + count - cap)
        return count

    def pages_of(self, owner: int, persistent: bool) -> int:
        """Return how many pages are counted to a guest."""
        return sum(pool.pages for pool in self.pools.owned(owner) if pool.persistent == persistent)

    # in and out

    def publish(self, pool: Pool, client: Client, oid: Oid, index: int, place: int) -> int:
        """Enter one page that lies at `place` under a new handle."""
        before = len(self.catalogue.objects)
        page = self.catalogue.add(pool.serial, oid, index, place, not pool.persistent, pool.owner)
        if pool.persistent:
            self.lasting_raw += place < RAW_LIMIT
        self._count_stored(pool, client, 1, before)
        return page

    def publish_many(self, pool: Pool, client: Client, oids: np.ndarray, indexes: np.ndarray,
                     places: np.ndarray) -> np.ndarray:
        """Enter pages under new handles, all different."""
        before = len(self.catalogue.objects)
        pages = self.catalogue.add_many(pool.serial, oids, indexes, places, not pool.persistent, pool.owner)
        if pool.persistent:
            self.lasting_raw += int(np.count_nonzero(places < RAW_LIMIT))
        self._count_stored(pool, client, len(pages), before)
        return pages

    def _count_stored(self, pool: Pool, client: Client, count: int, objects: int) -> None:
        """Count new pages; there were `objects` before they came."""
        catalogue, storage = self.catalogue, self.storage
        now = len(catalogue.objects)
        pool.pages += count
        pool.most_pages = max(pool.most_pages, pool.pages)
        if now > objects:
            pool.objects += now - objects
            pool.most_objects = max(pool.most_objects, pool.objects)
        pool.counts[PoolCount.PS] += count
        self.most.note(len(catalogue.pages), catalogue.ages.count, now, storage.heap.in_use, len(storage.shared))
        if pool.persistent:
            client.counts[ClientCount.PP] += count
            return
        self.counts[StoreCount.EP] += count
        self.note_most_of(client)

    def note_most_of(self, client: Client) -> None:
        """Note how many ephemeral pages a client has, which were put or handed over."""
        held = self.pages_of(client.number, persistent=False)
        client.counts[ClientCount.EM] = max(client.counts[ClientCount.EM], held)

    def drop(self, pool: Pool, page: int) -> None:
        """Take one page out."""
        if self._is_watched(pool):
            self.note(pool, np.array([page]))
        before = len(self.catalogue.objects)
        place = self.catalogue.drop(page)
        if pool.persistent:
            self.lasting_raw -= place < RAW_LIMIT
        self.storage.free(place)
        pool.pages -= 1
        pool.objects -= before - len(self.catalogue.objects)

    def drop_from(self, pool: Pool, pages: np.ndarray) -> None:
        """Take pages of one pool out."""
        if len(pages):
            if self._is_watched(pool):
                self.note(pool, pages)
            before = len(self.catalogue.objects)
            places = self.catalogue.drop_many(pages)
            if pool.persistent:
                self.lasting_raw -= int(np.count_nonzero(places < RAW_LIMIT))
            self.storage.free_many(places)
            pool.pages -= len(pages)
            pool.objects -= before - len(self.catalogue.objects)

    def drop_evicted(self, pages: np.ndarray) -> None:
        """Take ephemeral pages of whatever pools out."""
        serials = self.catalogue.serials_of(pages)
        for serial in np.unique(serials).tolist():
            pool, own = self.pools.by_serial(serial), pages[serials == serial]
            self.drop_from(pool, own)
            pool.evicted += len(own)

    def is_watched(self, pool: Pool, client: Client) -> bool:
        """Say whether a save is under way that must hear of changes to this pool."""
        return client.changed is not None and pool.persistent and not pool.shared

    def _is_watched(self, pool: Pool) -> bool:
        client = self.clients.known(pool.owner) if pool.persistent else None
        return client is not None and self.is_watched(pool, client)

    def note(self, pool: Pool, pages: np.ndarray) -> None:
        """Note for the save under way that pages were put, replaced or dropped."""
        client = self.clients.get(pool.owner)
        number = next(number for number, other in self.pools.numbered(pool.owner) if other is pool)
        oids, indexes = self.catalogue.handles_of(pages)
        assert client.changed is not None
        for oid, index in zip(oids.tolist(), indexes.tolist(), strict=True):
            client.changed[(number, *oid, index)] = None

    def status_of(self, reason: Refusal) -> Status:
        """Return what a guest is told whose new page is refused for `reason`."""
        if reason == Refusal.FROZEN:
            return Status.EFROZEN
        return Status.EFAULT if reason == Refusal.BAD_FRAME else Status.ENOMEM

    def audit(self) -> list[str]:
        """Recount everything; return what does not add up (T99)."""
        pages = self.catalogue.stored()
        places = self.catalogue.places[pages]
        problems = self.catalogue.audit() + self.storage.audit(places)
        raw = int(np.count_nonzero((places < RAW_LIMIT) & (self.catalogue.ages.stamps[pages] == 0)))
        if raw != self.lasting_raw:
            problems.append(f"store: {self.lasting_raw} persistent pages in own frames counted, there are {raw}")
        for pool in self.pools.all():
            stored = len(self.catalogue.of_pool(pool.serial))
            if stored != pool.pages:
                problems.append(f"store: pool {pool.serial} counts {pool.pages} pages, has {stored}")
            objects = self.catalogue.objects_of(pool.serial)
            if objects != pool.objects:
                problems.append(f"store: pool {pool.serial} counts {pool.objects} objects, has {objects}")
        return problems
