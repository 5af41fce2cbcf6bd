"""Operations on many pages of one pool at once, their handles all different: each means what the single ones mean,
one after the other, and costs one lookup and one copy for all.

`reasons` are Refusals, one a page, of the last `put_many`.
"""

import numpy as np

from hypervisor.tmem.clients import Client, ClientCount
from hypervisor.tmem.forms import Form
from hypervisor.tmem.index import NONE
from hypervisor.tmem.pools import Pool, PoolCount
from hypervisor.tmem.shelf import Shelf
from hypervisor.tmem.singles import Singles
from shm.abi import Refusal, Status

_OK = int(Status.OK)
_PT, _GT, _GS = int(PoolCount.PT), int(PoolCount.GT), int(PoolCount.GS)
_GE, _GP = int(ClientCount.GE), int(ClientCount.GP)


class Batches:
    """Operations on many pages of a shelf."""

    def __init__(self, shelf: Shelf, singles: Singles) -> None:
        self.shelf, self.singles = shelf, singles
        self.reasons = np.zeros(0, np.uint32)

    def put_many(self, owner: int, number: int, oids: np.ndarray, indexes: np.ndarray,
                 pages: np.ndarray) -> np.ndarray:
        """Store copies of `pages` (n, 4096); return statuses (int32), as `put` would have given one after the other."""
        shelf = self.shelf
        pool = shelf.pools.get(owner, number)
        self.reasons = np.zeros(len(oids), np.uint32)
        if pool is None:
            return np.full(len(oids), Status.ENODEV, np.int32)
        client = shelf.clients.get(pool.owner)
        statuses = np.ones(len(oids), np.int32)              # OK
        found = shelf.catalogue.find_many(pool.serial, oids, indexes)
        if np.count_nonzero(found == NONE) == len(found):
            return self._put_new(owner, number, pool, client, oids, indexes, pages, statuses)
        known = np.flatnonzero(found != NONE)
        if len(known) < len(found) or not self._replace_all(client, found, pages):
            return self._put_each(owner, number, oids, indexes, pages, slice(None), statuses)
        pool.counts[[PoolCount.PT, PoolCount.PR, PoolCount.PS]] += len(oids)
        self._touch(owner, pool, client, found)
        return statuses

    def _replace_all(self, client: Client, found: np.ndarray, pages: np.ndarray) -> bool:
        """Write new data over that of known pages in place, if that can be done for all; say whether it was."""
        if client.replacing_flushes or client.form != Form.RAW:
            return False
        return self.shelf.storage.rewrite_many(self.shelf.catalogue.places[found], client.form, pages)

    def _put_new(self, owner: int, number: int, pool: Pool, client: Client, oids: np.ndarray, indexes: np.ndarray,
                 pages: np.ndarray, statuses: np.ndarray) -> np.ndarray:
        """Put under handles that are all new; what finds no room now may evict the first of this batch."""
        allowed, _ = self.shelf.room(pool, client, len(oids))
        places = self.shelf.storage.write_many(client.form, pool.owner, pages[:allowed], pool.persistent)
        stored = len(places)
        pool.counts.data[_PT] += stored
        if stored:
            published = self.shelf.publish_many(pool, client, oids[:stored], indexes[:stored], places)
            self._touch(owner, pool, client, published)
        if stored < len(oids):
            self._put_each(owner, number, oids, indexes, pages, slice(stored, None), statuses)
        return statuses

    def _touch(self, owner: int, pool: Pool, client: Client, pages: np.ndarray) -> None:
        """Note who put pages, and for a save under way that they were put."""
        if pool.shared:
            self.shelf.catalogue.touch_many(pages, pool.owner if self.shelf.rules.quirks else owner)
        elif self.shelf.is_watched(pool, client):
            self.shelf.note(pool, pages)

    def _put_each(self, owner: int, number: int, oids: np.ndarray, indexes: np.ndarray, pages: np.ndarray,
                  rows: slice, statuses: np.ndarray) -> np.ndarray:
        """Put rows one after the other; after one that was refused nobody looks for room for a new one again."""
        shelf = self.shelf
        pool = shelf.pools.get(owner, number)
        assert pool is not None
        client, hopeless = shelf.clients.get(pool.owner), Refusal.NONE
        handles = zip(oids[rows].tolist(), indexes[rows].tolist(), strict=True)
        for row, (oid, index) in enumerate(handles, start=rows.start or 0):
            if hopeless and shelf.catalogue.find(pool.serial, oid, index) == NONE:
                pool.counts[PoolCount.PT] += 1
                statuses[row] = self.singles.refuse(pool, client, hopeless)
            else:
                statuses[row] = self.singles.put(owner, number, oid, index, pages[row])
            if statuses[row] < 0:
                self.reasons[row] = shelf.refusal
                hopeless = shelf.refusal if statuses[row] in (Status.ENOMEM, Status.EFROZEN) else hopeless
        return statuses

    def get_many(self, owner: int, number: int, oids: np.ndarray, indexes: np.ndarray, out: np.ndarray,
                 slots: np.ndarray) -> np.ndarray:
        """Copy pages to rows `slots` of `out`; return statuses (int32), as `get` would have given."""
        shelf = self.shelf
        pool = shelf.pools.get(owner, number)
        if pool is None or not pool.pages:
            return np.full(len(oids), Status.ENODEV if pool is None else Status.EEMPTY, np.int32)
        found = shelf.catalogue.find_many(pool.serial, oids, indexes)
        hits = (found != NONE).nonzero()[0]
        pages = found if len(hits) == len(oids) else found[hits]
        statuses = np.zeros(len(oids), np.int32)             # NO
        if len(hits):
            shelf.storage.read_many(shelf.catalogue.places[pages], out, slots if pages is found else slots[hits])
            statuses[hits] = _OK
        counts = pool.counts.data
        counts[_GT] += self._take(owner, pool, pages, hits, statuses)
        counts[_GS] += len(hits)
        return statuses

    def _take(self, owner: int, pool: Pool, pages: np.ndarray, hits: np.ndarray, statuses: np.ndarray) -> int:
        """Do what a hit does to a page; return how many of the gets count as asked."""
        if not len(hits):
            return len(statuses)
        shelf = self.shelf
        shelf.clients.get(pool.owner).counts.data[_GP if pool.persistent else _GE] += len(hits)
        if pool.shared:
            shelf.catalogue.touch_many(pages, owner)
            if not pool.persistent:
                shelf.catalogue.ages.refresh(pages)
        if not pool.exclusive:
            return len(statuses)
        emptied = len(hits) == pool.pages
        shelf.drop_from(pool, pages)
        if not emptied:
            return len(statuses)
        statuses[hits[-1] + 1:] = Status.EEMPTY              # what follows the last hit finds the pool empty (T18)
        return int(hits[-1]) + 1

    def flush_many(self, owner: int, number: int, oids: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        """Drop pages where they are there; return statuses (int32)."""
        pool = self.shelf.pools.get(owner, number)
        if pool is None:
            return np.full(len(oids), Status.ENODEV, np.int32)
        found = self.shelf.catalogue.find_many(pool.serial, oids, indexes)
        pages = found[found != NONE]
        self.shelf.drop_from(pool, pages)
        pool.counts[PoolCount.FT] += len(oids)
        pool.counts[PoolCount.FS] += len(pages)
        return np.full(len(oids), self.singles.flushed(pool), np.int32)
