"""Pools come and go: made, joined, left, destroyed; and who may share what (T1-T11, T71-T83).

A shared pool is named by 128 bits.  They are a secret when `Rules.authorise` is on, as it should be: only a guest that
the operator has let in may join, any other gets a private pool of its own without a word, as in Xen (T76), or EACCES if
it asked with MUST_SHARE.
"""

import numpy as np

from hypervisor.tmem.clients import MAX_AUTHORISED
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.pools import MAX_SHARED, NO_UUID, PRIVATE, Pool, Uuid, flags_status
from hypervisor.tmem.shelf import Shelf
from shm.abi import MAX_POOLS, PoolFlag, Status


class Membership:
    """Who has which pools of a shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._leaked: dict[int, list[Pool]] = {}             # Xen's: destroyed while saved, and kept unreachable (T88)

    def create_pool(self, owner: int, flags: int, uuid: Uuid = PRIVATE) -> tuple[Status, int]:
        """Make a pool, or join a shared one; return OK and its number, or why not (T1-T6, T71-T76)."""
        status, number = flags_status(flags), self.shelf.pools.free_slot(owner)
        self.shelf.clients.get(owner)
        if status != Status.OK:
            return status, 0
        wanted = uuid if flags & PoolFlag.SHARED and uuid not in (NO_UUID, PRIVATE) else PRIVATE
        if wanted != PRIVATE and not self._may_share(owner, wanted):
            if flags & PoolFlag.MUST_SHARE:
                return Status.EACCES, 0
            wanted = PRIVATE
        if number is None or not self.enter(owner, number, bool(flags & PoolFlag.PERSIST), wanted):
            return Status.EPERM, 0
        return Status.OK, number

    def enter(self, owner: int, number: int, persistent: bool, uuid: Uuid) -> bool:
        """Make a pool in a free slot, or join the shared one of `uuid`; False: it is in it, or there are too many."""
        pools = self.shelf.pools
        there = pools.shared.get(uuid)
        if there is not None and owner not in there.members:
            pools.join(there, owner, number)                 # its type stays what it is (T82)
        elif there is not None or (uuid != PRIVATE and len(pools.shared) >= MAX_SHARED):
            return False
        else:
            pools.create(owner, number, persistent, uuid)
        return True

    def restore_pool(self, owner: int, number: int, flags: int) -> bool:
        """Make a private pool at a given number for a guest that is being restored; say whether it could be."""
        if not 0 <= number < MAX_POOLS or flags_status(flags) != Status.OK:
            return False
        if self.shelf.pools.get(owner, number) is not None:
            return False
        self.shelf.clients.get(owner)
        self.shelf.pools.create(owner, number, bool(flags & PoolFlag.PERSIST))
        return True

    def _may_share(self, owner: int, uuid: Uuid) -> bool:
        client = self.shelf.clients.get(owner)
        return not self.shelf.rules.authorise or client.authorised_all or uuid in client.authorised

    def authorise(self, owner: int, uuid: Uuid, allow: bool) -> Status:
        """Let a guest share a pool, or not any more; NO for a uuid that was not allowed, ENOMEM for the 17th (T77)."""
        allowed = self.shelf.clients.get(owner).authorised
        if not allow:
            status = Status.OK if uuid in allowed else Status.NO
            allowed.discard(uuid)
            return status
        if uuid not in allowed and len(allowed) >= MAX_AUTHORISED:
            return Status.ENOMEM
        allowed.add(uuid)
        return Status.OK

    def destroy_pool(self, owner: int, number: int) -> Status:
        """Flush and free a pool, or leave a shared one: OK, NO where there is none (T10), EBUSY during a save (T88)."""
        pool = self.shelf.pools.get(owner, number)
        if pool is None:
            return Status.NO
        client = self.shelf.clients.get(owner)
        if client.changed is not None and not self.shelf.rules.quirks:
            return Status.EBUSY
        if client.changed is not None and not pool.shared:
            self.shelf.pools.leave(pool, owner)
            self._leaked.setdefault(owner, []).append(pool)
        else:
            self.leave(pool, owner)
        return Status.OK

    def leave(self, pool: Pool, guest: int) -> None:
        """End a membership; the last one's end is the pool's."""
        shelf, pages = self.shelf, self.shelf.catalogue.of_pool(pool.serial)
        if len(pool.members) > 1:                            # what it touched last goes with it (T78)
            touched = shelf.catalogue.touched_by(pages, guest)
            shelf.drop_from(pool, touched)
            pool.withdrawn += len(touched)
            owned, pages = pool.owner == guest, shelf.catalogue.of_pool(pool.serial)
            shelf.pools.leave(pool, guest)
            if owned and not pool.persistent:                # the others' pages are counted to the next (T79)
                shelf.catalogue.ages.hand_over(pages, pool.owner)
                shelf.note_most_of(shelf.clients.get(pool.owner))
            return
        shelf.drop_from(pool, pages)
        shelf.pools.leave(pool, guest)
        shelf.pools.remove(pool)
        shelf.counts[StoreCount.FP] += 1

    def forget(self, guest: int) -> None:
        """Drop all of a guest that left or died: pools, memberships, client (T83); a save under way hears no more."""
        client = self.shelf.clients.known(guest)
        if client is not None:
            client.changed = None
        for pool in self.shelf.pools.of(guest):
            self.leave(pool, guest)
        for pool in self._leaked.pop(guest, []):
            self.shelf.drop_from(pool, self.shelf.catalogue.of_pool(pool.serial))
            self.shelf.pools.remove(pool)
        self.shelf.clients.forget(guest, self.shelf.rules.quirks)
        self.shelf.catalogue.ages.forget(guest)
        self.shelf.catalogue.forget_empty()
        self.shelf.storage.forget(guest)
        self.shelf.pressure.forget(guest)

    def empty(self, guest: int) -> None:
        """Destroy all pools of a guest that lives on (control: destroy)."""
        for pool in self.shelf.pools.of(guest):
            self.leave(pool, guest)


def uuid_of(number: int) -> Uuid:
    """Return 128 bits as the two words of the ABI, the low one first."""
    words = np.frombuffer(number.to_bytes(16, "little"), np.uint64)
    return int(words[0]), int(words[1])
