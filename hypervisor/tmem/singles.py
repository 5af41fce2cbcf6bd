"""Operations on one page: what put, get and flush mean (Xen 4.2; T12 and on).

    put      copies; a new handle needs room, a known one is replaced, and a replacement that fails leaves nothing
    get      copies; on an ephemeral private pool it removes the page (exclusive), on others it does not
    flush    removes; there is no failure
    read, write      of a part of a page: a write keeps the rest of a known page and zeroes that of a new one

Answers are statuses of the ABI; `Shelf.refusal` says why a put was refused.  Nothing here trusts a caller's numbers:
pools are looked up under the caller, widths were checked before.
"""

from typing import NamedTuple

import numpy as np

from hypervisor.tmem.catalogue import Oid
from hypervisor.tmem.clients import Client, ClientCount
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.forms import RAW_LIMIT
from hypervisor.tmem.index import NONE
from hypervisor.tmem.pools import Pool, PoolCount
from hypervisor.tmem.shelf import Shelf
from shm.abi import PAGE_SIZE, Refusal, Status

ZEROS = np.zeros(PAGE_SIZE, np.uint8)
ZEROS.flags.writeable = False
# An attribute of an enum costs half a microsecond.
_OK = Status.OK
_PT, _GT, _GS = int(PoolCount.PT), int(PoolCount.GT), int(PoolCount.GS)
_GE, _GP = int(ClientCount.GE), int(ClientCount.GP)


class Window(NamedTuple):
    """A part of a stored page, and where it lies in the guest's."""

    offset: int
    slot_offset: int
    length: int

    @property
    def fits(self) -> bool:
        return max(self.offset, self.slot_offset) + self.length <= PAGE_SIZE


class Singles:
    """Operations on single pages of a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._scratch = np.zeros(PAGE_SIZE, np.uint8)

    # put

    def put(self, owner: int, number: int, oid: Oid, index: int, page: np.ndarray | None) -> Status:
        """Store a copy of `page` (4096,); None is a bad source: EFAULT, and an old copy is gone (T37)."""
        shelf = self.shelf
        pool = shelf.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        client = shelf.clients.get(pool.owner)
        pool.counts.data[_PT] += 1
        found = shelf.catalogue.find(pool.serial, oid, index)
        if found != NONE:
            stored = self._replace(pool, client, found, oid, index, page)
        else:
            stored = self._add(pool, client, oid, index, page)
        if stored < 0:
            return Status(stored)
        if pool.shared:
            shelf.catalogue.touch(stored, pool.owner if shelf.rules.quirks else owner)
        if shelf.is_watched(pool, client):
            shelf.note(pool, np.array([stored]))
        return _OK

    def new_page(self, owner: int, number: int, oid: Oid, index: int) -> Status:
        """Store a page of zeros, which costs no data (T29)."""
        return self.put(owner, number, oid, index, ZEROS)

    def _add(self, pool: Pool, client: Client, oid: Oid, index: int, page: np.ndarray | None) -> int:
        """Put under a new handle; return the page, or a status."""
        allowed, reason = self.shelf.room(pool, client, 1)
        if allowed and page is None:
            self.shelf.counts[StoreCount.CF] += 1
            reason = Refusal.BAD_FRAME
        elif allowed and page is not None:
            place = self._write(pool, client, page)
            if place is not None:
                return self.shelf.publish(pool, client, oid, index, place)
            reason = Refusal.NO_FRAME
        return self.refuse(pool, client, reason)

    def refuse(self, pool: Pool, client: Client, reason: Refusal) -> Status:
        """Note a refused put under a new handle, and why."""
        pool.counts[PoolCount.PX] += 1
        self._note_refusal(client, reason)
        return self.shelf.status_of(reason)

    def _note_refusal(self, client: Client, reason: Refusal) -> None:
        client.refusals[reason] += 1
        self.shelf.refusals[reason] += 1
        self.shelf.refusal = reason
        self.shelf.counts[StoreCount.PF] += reason == Refusal.NO_FRAME

    def _write(self, pool: Pool, client: Client, page: np.ndarray) -> int | None:
        storage = self.shelf.storage
        if page is ZEROS:
            return storage.zero
        return storage.write(client.form, pool.owner, page, pool.persistent)

    def _replace(self, pool: Pool, client: Client, found: int, oid: Oid, index: int, page: np.ndarray | None) -> int:
        """Put over a known handle: replaced, its age unchanged (T35, T36), or failed and flushed (T33, T34)."""
        if page is None or client.replacing_flushes:
            self.shelf.counts[StoreCount.CF] += page is None
            self._fail_replacing(pool, client, found, Refusal.BAD_FRAME if page is None else Refusal.MIGRATING)
            return Status.EFAULT if page is None else Status.ENOSPC
        shelf = self.shelf
        place = int(shelf.catalogue.places[found])
        shelf.catalogue.places[found] = shelf.storage.zero   # whoever evicts it meanwhile frees no data of ours
        shelf.lasting_raw -= pool.persistent and place < RAW_LIMIT
        shelf.pressure.requester = client.number
        if page is ZEROS:
            shelf.storage.free(place)
            fresh: int | None = shelf.storage.zero
        else:
            fresh = shelf.storage.rewrite(place, client.form, pool.owner, page, pool.persistent)
        return self._settle(pool, client, oid, index, fresh)

    def _settle(self, pool: Pool, client: Client, oid: Oid, index: int, place: int | None) -> int:
        """End a replacement whose new data lies at `place`.  The page may have been evicted for room meanwhile."""
        shelf = self.shelf
        found = shelf.catalogue.find(pool.serial, oid, index)
        if found == NONE:
            if place is None:
                return self.refuse(pool, client, Refusal.NO_FRAME)
            return shelf.publish(pool, client, oid, index, place)
        if place is None:
            self._fail_replacing(pool, client, found, Refusal.NO_FRAME)
            return Status.ENOSPC
        shelf.catalogue.move(found, place, pool.owner)
        shelf.lasting_raw += pool.persistent and place < RAW_LIMIT
        pool.counts[PoolCount.PR] += 1
        pool.counts[PoolCount.PS] += 1
        return found

    def _fail_replacing(self, pool: Pool, client: Client, found: int, reason: Refusal) -> None:
        self.shelf.drop(pool, found)
        pool.counts[PoolCount.PD] += 1
        self._note_refusal(client, reason)

    # get

    def get(self, owner: int, number: int, oid: Oid, index: int, out: np.ndarray) -> Status:
        """Copy a page to `out`: OK, NO (a miss; `out` untouched, T20), EEMPTY (nothing in the pool, T18), ENODEV."""
        shelf = self.shelf
        pool = shelf.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        if not pool.pages:
            return Status.EEMPTY
        counts = pool.counts.data
        counts[_GT] += 1
        found = shelf.catalogue.find(pool.serial, oid, index)
        if found == NONE:
            return Status.NO
        shelf.storage.read(shelf.catalogue.place_of(found), out)
        counts[_GS] += 1
        shelf.clients.get(pool.owner).counts.data[_GP if pool.persistent else _GE] += 1
        if pool.exclusive:
            shelf.drop(pool, found)
        elif pool.shared:
            shelf.catalogue.touch(found, owner)
            if not pool.persistent:
                shelf.catalogue.ages.refresh(np.array([found]))
        return _OK

    # parts of pages

    def read(self, owner: int, number: int, oid: Oid, index: int, window: Window, out: np.ndarray) -> Status:
        """Get, and copy a part of the page to a part of `out` (T30); EINVAL where either lies beyond the page."""
        if not window.fits and not self.shelf.rules.quirks:
            return Status.EINVAL if self.shelf.pools.get(owner, number) else Status.ENODEV
        status = self.get(owner, number, oid, index, self._scratch)
        if status == Status.OK and window.fits:
            offset, slot_offset, length = window
            out[slot_offset:slot_offset + length] = self._scratch[offset:offset + length]
        return status

    def write(self, owner: int, number: int, oid: Oid, index: int, window: Window, page: np.ndarray) -> Status:
        """Put with a part of `page` over what is stored, or over zeros (T31); EINVAL as `read`."""
        pool = self.shelf.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        if not window.fits and not self.shelf.rules.quirks:
            return Status.EINVAL
        found = self.shelf.catalogue.find(pool.serial, oid, index)
        merged = np.zeros(PAGE_SIZE, np.uint8)
        if found != NONE:
            self.shelf.storage.read(int(self.shelf.catalogue.places[found]), merged)
        if window.fits:
            offset, slot_offset, length = window
            merged[offset:offset + length] = page[slot_offset:slot_offset + length]
        return self.put(owner, number, oid, index, merged)

    # flush

    def flush_page(self, owner: int, number: int, oid: Oid, index: int) -> Status:
        """Drop one page if it is there: OK either way (T22), ENODEV, or EFROZEN although it was done (T42)."""
        pool = self.shelf.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        pool.counts[PoolCount.FT] += 1
        found = self.shelf.catalogue.find(pool.serial, oid, index)
        if found != NONE:
            self.shelf.drop(pool, found)
            pool.counts[PoolCount.FS] += 1
        return self.flushed(pool)

    def flush_object(self, owner: int, number: int, oid: Oid) -> Status:
        """Drop all pages of one object: OK, there or not (T23), ENODEV or EFROZEN."""
        pool = self.shelf.pools.get(owner, number)
        if pool is None:
            return Status.ENODEV
        pool.counts[PoolCount.OT] += 1
        pages = self.shelf.catalogue.of_object(pool.serial, oid)
        self.shelf.drop_from(pool, pages)
        pool.flushed += len(pages)
        pool.counts[PoolCount.OS] += bool(len(pages))
        return self.flushed(pool)

    def flushed(self, pool: Pool) -> Status:
        """Return what a flush of a pool answers."""
        clients = self.shelf.clients
        return Status.EFROZEN if clients.is_frozen(clients.get(pool.owner)) else Status.OK
