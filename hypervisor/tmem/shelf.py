"""The shelf: all that is stored, and the steps of which every tmem operation is made.

    room      how many new pages the limits allow, and why not more; may evict
    publish   a page that has a place gets its handle
    drop      a page loses its handle and its place
    evict     the oldest ephemeral pages go

Rule 1: find room, copy, publish, in this order: a put that fails has nothing to undo, and finding room may evict.
Rule 2: ephemeral pages may vanish whenever room is looked for; persistent ones never.
Rule 3: a page's handle, its place and its pool's count are changed here alone, together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hypervisor.tmem.catalogue import Catalogue, Oid
from hypervisor.tmem.clients import Client, ClientCount, Clients
from hypervisor.tmem.forms import Form
from hypervisor.tmem.pools import Pool, PoolCount, Pools
from hypervisor.tmem.shares import Standing, own_victims
from hypervisor.tmem.storage import Storage
from shm.abi import Refusal, Status

NO_CAP = 0
PAGES_A_FRAME = 16           # ephemeral pages to a frame of the budget, at most: some 1.2 KiB of metadata
_EVICTION_ROUNDS = 8         # frames are not freed by every eviction: how often to evict as many pages more
_COMPACTED = 1024            # stored pages moved together, to empty slabs, by whoever must have frames


class StoreCount(IntEnum):
    """Counters of the whole store, under the letters of Xen's list format."""

    TT = 0                   # operations
    TE = 1                   # of these, answered with a negative status
    CF = 2                   # copies that failed: a bad frame of the guest's
    AF = 3                   # allocations of metadata that failed
    PF = 4                   # puts that found no frame
    ET = 5                   # pages evicted
    EA = 6                   # times that eviction was asked for
    RT = 7                   # frames given back on request
    RA = 8                   # such requests
    RX = 9                   # the most evictions for one
    FP = 10                  # pools flushed whole
    EP = 11                  # ephemeral puts stored under a new handle


@dataclass(frozen=True, slots=True)
class Rules:
    """How a store behaves.  Sizes in pages."""

    ephemeral_cap: int = NO_CAP  # of all guests' ephemeral pages (NO_CAP: the budget alone)
    form: Form = Form.RAW        # of a new guest's pages
    quirks: bool = False         # behave as Xen 4.2 did where it did not as it said
    authorise: bool = True       # shared pools are for guests that were let in (Xen: tmem_shared_auth)
    write_back: bool = False     # persistent pages may go to the swap disk (T70)


Allowance = Callable[[int], tuple[int, Refusal]]


@dataclass(slots=True)
class Most:
    """The most that a shelf ever held, looked at after each put under a new handle."""

    pages: int = 0
    ephemeral: int = 0
    objects: int = 0
    frames: int = 0
    shared: int = 0          # frames that several pages share

    def note(self, pages: int, ephemeral: int, objects: int, frames: int, shared: int) -> None:
        if (pages > self.pages or ephemeral > self.ephemeral or objects > self.objects or frames > self.frames
                or shared > self.shared):                    # seldom, once a store is full: every put asks
            self.pages, self.ephemeral = max(self.pages, pages), max(self.ephemeral, ephemeral)
            self.objects, self.frames = max(self.objects, objects), max(self.frames, frames)
            self.shared = max(self.shared, shared)


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
        self.refusal = Refusal.NONE                          # why the last put that was refused was
        self.requester: int | None = None                    # whose put looked for room last

    # limits

    def room(self, pool: Pool, client: Client, count: int) -> tuple[int, Refusal]:
        """Return how many of `count` new pages a pool may take, and what forbids the others.  May evict."""
        if self.clients.frozen or client.frozen:
            return 0, Refusal.FROZEN
        self.requester, reason = client.number, Refusal.NONE
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
            self.evict_own(client.number, over)
        return allowed, Refusal.NONE if allowed == count and not persistent else Refusal.CAP

    def _below_ephemeral_cap(self, count: int) -> int:
        """Make room below the cap on all ephemeral pages: all-zero ones cost no frame, but memory to know them by."""
        cap = self.rules.ephemeral_cap or PAGES_A_FRAME * self.storage.heap.ledger.budget
        count = min(count, cap)
        self.evict(self.catalogue.ages.count + count - cap)
        return count

    def pages_of(self, owner: int, persistent: bool) -> int:
        """Return how many pages are counted to a guest."""
        return sum(pool.pages for pool in self.pools.owned(owner) if pool.persistent == persistent)

    # in and out

    def publish(self, pool: Pool, client: Client, oid: Oid, index: int, place: int) -> int:
        """Enter one page that lies at `place` under a new handle."""
        before = len(self.catalogue.objects)
        page = self.catalogue.add(pool.serial, oid, index, place, not pool.persistent, pool.owner)
        self._count_stored(pool, client, 1, before)
        return page

    def publish_many(self, pool: Pool, client: Client, oids: np.ndarray, indexes: np.ndarray,
                     places: np.ndarray) -> np.ndarray:
        """Enter pages under new handles, all different."""
        before = len(self.catalogue.objects)
        pages = self.catalogue.add_many(pool.serial, oids, indexes, places, not pool.persistent, pool.owner)
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
        self.storage.free(self.catalogue.drop(page))
        pool.pages -= 1
        pool.objects -= before - len(self.catalogue.objects)

    def drop_from(self, pool: Pool, pages: np.ndarray) -> None:
        """Take pages of one pool out."""
        if len(pages):
            if self._is_watched(pool):
                self.note(pool, pages)
            before = len(self.catalogue.objects)
            self.storage.free_many(self.catalogue.drop_many(pages))
            pool.pages -= len(pages)
            pool.objects -= before - len(self.catalogue.objects)

    def _drop_evicted(self, pages: np.ndarray) -> None:
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

    # pressure

    def evict(self, count: int) -> int:
        """Evict `count` ephemeral pages, or as many as there are; return how many went.

        The guest that asks pays while it is over its share, with more than asked; then the oldest go (`shares`).
        """
        if count <= 0 or not self.catalogue.ages.count:
            return 0
        self.counts[StoreCount.EA] += 1
        asking = self.clients.known(self.requester) if self.requester is not None else None
        went = self._evict_by_weight(asking, count) if asking is not None and asking.weight else 0
        return went + self._evict(self.catalogue.ages.oldest(max(0, count - went)))

    def _evict_by_weight(self, asking: Client, count: int) -> int:
        """Evict the asking guest's own pages while it is over its share, then the oldest of the others' (T58, T59)."""
        standing, quirks = self._standing(asking), self.rules.quirks
        went = self.evict_own(asking.number, own_victims(standing, count, quirks))
        if quirks or not standing.own:
            return went
        return went + self._evict(self.catalogue.ages.oldest_of_others(asking.number, max(0, count - went)))

    def _standing(self, client: Client) -> Standing:
        return Standing(self.pages_of(client.number, persistent=False), self.catalogue.ages.count, client.weight,
                        self.clients.total_weight)

    def evict_own(self, owner: int, count: int) -> int:
        """Evict up to `count` of one guest's oldest ephemeral pages; return how many went."""
        return self._evict(self.catalogue.ages.oldest_of(owner, count)) if count > 0 else 0

    def _evict(self, pages: np.ndarray) -> int:
        if len(pages):
            self._drop_evicted(pages)
            self.counts[StoreCount.ET] += len(pages)
        return len(pages)

    def evict_frames(self, frames: int, insist: bool = False) -> int:
        """Evict until about `frames` frames more are spare in the heap; return how many pages went.

        A page in a slot of a slab frees a frame only with its neighbours, so it may take more pages than frames.
        """
        return self._free(frames, self.evict, insist)

    def _free(self, frames: int, give_up: Callable[[int], int], insist: bool) -> int:
        """Have `give_up(count)` take pages out of memory until `frames` frames more are to be had; return how many.

        All-zero pages, those that share a frame, and slots scattered over slabs free none.  `insist`: after a round
        without a frame slabs are emptied into others, and twice as many go, until it is enough or nothing is left.
        Never insist while a page is being stored: its slot may be in nobody's list yet, and must not be moved.
        """
        had = self._to_be_had()
        aim, went, batch, rounds = had + frames, 0, 0, 0
        while (missing := aim - had) > 0 and (insist or rounds < _EVICTION_ROUNDS):
            batch, rounds = max(missing, batch), rounds + 1
            gone = give_up(batch)
            went += gone
            if insist and self._to_be_had() == had:
                self.compact(_COMPACTED, thorough=True)
            batch, had = (2 * batch if insist and self._to_be_had() == had else 0), self._to_be_had()
            if not gone:
                break
        return went

    def _to_be_had(self) -> int:
        """Return the heap's free frames, and those that it has given back already."""
        return self.storage.heap.spare + self.storage.heap.ledger.free

    @property
    def lasting(self) -> int:
        """Persistent pages that may be written back to the swap disk now."""
        queue, swap = self.catalogue.lasting, self.storage.swap
        return 0 if queue is None or swap is None else min(queue.count, swap.free)

    def write_back(self, frames: int, insist: bool = False) -> int:
        """Write the oldest persistent pages to the swap disk (T70); return how many frames that made spare.

        A page that was written leaves the queue of those in memory; a get reads it from the disk and leaves it there.
        """
        before = self._to_be_had()
        self._free(frames, self.write_pages_back, insist)
        return self._to_be_had() - before

    def write_pages_back(self, count: int) -> int:
        """Write up to `count` persistent pages back; return how many went: none where the disk takes no more."""
        queue = self.catalogue.lasting
        pages = queue.oldest(count) if queue is not None else np.zeros(0, np.int64)
        if queue is None or not len(pages):
            return 0
        places = self.catalogue.places[pages]
        self.catalogue.places[pages] = moved = self.storage.write_back(places)
        gone = (moved != places) | (places == self.storage.zero)
        queue.leave(pages[gone])
        return int(np.count_nonzero(gone))

    def compact(self, limit: int, thorough: bool = False) -> int:
        """Move up to `limit` pages out of sparse slabs, so that slabs get empty; return how many were moved."""
        moves = self.storage.compact(limit, thorough)
        if len(moves):
            stored = self.catalogue.stored()
            pages = stored[np.isin(self.catalogue.places[stored], moves[:, 0])]
            moves = moves[np.argsort(moves[:, 0])]
            at = np.searchsorted(moves[:, 0], self.catalogue.places[pages])
            self.catalogue.places[pages] = moves[at, 1]
        return len(moves)

    def status_of(self, reason: Refusal) -> Status:
        """Return what a guest is told whose new page is refused for `reason`."""
        if reason == Refusal.FROZEN:
            return Status.EFROZEN
        return Status.EFAULT if reason == Refusal.BAD_FRAME else Status.ENOMEM

    def audit(self) -> list[str]:
        """Recount everything; return what does not add up (T99)."""
        places = self.catalogue.places[self.catalogue.stored()]
        problems = self.catalogue.audit() + self.storage.audit(places)
        for pool in self.pools.all():
            stored = len(self.catalogue.of_pool(pool.serial))
            if stored != pool.pages:
                problems.append(f"store: pool {pool.serial} counts {pool.pages} pages, has {stored}")
            objects = self.catalogue.objects_of(pool.serial)
            if objects != pool.objects:
                problems.append(f"store: pool {pool.serial} counts {pool.objects} objects, has {objects}")
        return problems
