"""Restoring: the target's side of a guest's tmem that comes from a file or another cluster (Xen's RESTORE_*; T86-T90).

The records of a stream become a client of a number of its own, through the store's ordinary ways: what has no room is
refused, as any put is.  Weight, cap and freeze are given to the client at the commit, so that they do not stand in the
way of the pages (Xen 4.2 forgot weight and cap: a quirk, T89).

A shared pool is joined, not brought: its pages stay where they are.  That takes the word of whoever restores
(`may_share`), since the guest that could be allowed is not here yet; without it the guest is refused before any page.

Rule: until the commit nothing is for good, and `undo` takes everything back.
"""

from collections.abc import Callable

from hypervisor.tmem.forms import Form
from hypervisor.tmem.pools import MAX_SHARED, PRIVATE, Pool
from hypervisor.tmem.saving import pools_of
from hypervisor.tmem.store import Store
from hypervisor.tmem.stream import BadStream, ClientFacts, Kind, Pages, PoolFacts, Record
from shm.abi import PoolFlag, Refusal
from shm.errors import UsageProblem


class Restoring:
    """One restore under way.  `admit(facts)` returns the number of the guest, or raises UsageProblem (T90)."""

    def __init__(self, store: Store, admit: Callable[[ClientFacts], int], may_share: bool = False) -> None:
        self.store, self.admit, self.may_share = store, admit, may_share
        self.number: int | None = None                       # None: nothing of it is here yet
        self.facts: ClientFacts | None = None
        self.complete = False
        self.pages = 0

    def take(self, record: Record) -> None:
        """Carry out one record; UsageProblem (BadStream, where it is the record's fault) when that cannot be."""
        if record.kind == Kind.CLIENT:
            self._client(record.offset, record.value)
            return
        if self.number is None:
            raise BadStream(record.offset, "it does not begin with a guest")
        if record.kind == Kind.POOL:
            self._pool(self.number, record.offset, record.value)
        elif record.kind == Kind.PAGES:
            self._put(self.number, record.offset, record.value)
        elif record.kind == Kind.GONE:
            self._flush(self.number, record.offset, record.value)
        else:
            self._end(self.number, record.offset, record.value)

    def _client(self, offset: int, facts: ClientFacts) -> None:
        if self.facts is not None and (facts.name, facts.token, facts.max_pages) != (
                self.facts.name, self.facts.token, self.facts.max_pages):
            raise BadStream(offset, "it goes on as another guest")
        if self.number is None:
            self.number = self.admit(facts)
            self.store.clients.get(self.number).form = Form(facts.form)
        self.facts = facts

    def _pool(self, guest: int, offset: int, facts: PoolFacts) -> None:
        if facts.uuid != PRIVATE:
            self._join(guest, offset, facts)
        elif facts.flags & PoolFlag.SHARED or not self.store.membership.restore_pool(guest, facts.number, facts.flags):
            raise BadStream(offset, f"pool {facts.number} of flags {facts.flags:#x} cannot be made")

    def _join(self, guest: int, offset: int, facts: PoolFacts) -> None:
        """Put the shared pool of a uuid into the slot where it was."""
        pools = self.store.pools
        there = pools.shared.get(facts.uuid)
        if facts.flags & PoolFlag.PERSIST or pools.get(guest, facts.number) is not None:
            raise BadStream(offset, f"shared pool {facts.number} of flags {facts.flags:#x} cannot be joined")
        if self.store.rules.authorise and not self.may_share:
            raise UsageProblem(f"pool {facts.number} is shared, and this guest is not allowed to share here: say "
                               f"--share to allow it")
        if there is not None and guest in there.members:
            raise BadStream(offset, f"shared pool {facts.number} is another of its pools too")
        if not self.store.membership.enter(guest, facts.number, persistent=False, uuid=facts.uuid):
            raise UsageProblem(f"pool {facts.number} is shared, and {MAX_SHARED} shared pools are here already")
        self.store.clients.get(guest).authorised.add(facts.uuid)

    def _persistent(self, guest: int, offset: int, number: int) -> Pool:
        pool = self.store.pools.get(guest, number)
        if pool is None or not pool.persistent or pool.shared:
            raise BadStream(offset, f"pool {number} is none that has pages here")
        return pool

    def _put(self, guest: int, offset: int, record: Pages) -> None:
        self._persistent(guest, offset, record.pool)
        statuses = self.store.put_many(guest, record.pool, record.oids, record.indexes, record.content)
        self.store.shelf.pressure.requester = None           # from here on nobody asks for room, as after a call (T62)
        if (statuses < 0).any():
            reason = Refusal(int(self.store.reasons[statuses < 0][0]))
            if reason == Refusal.FROZEN:
                raise UsageProblem("all guests are frozen here; thaw them first: tmem-thaw --all")
            raise UsageProblem(f"its pages have no room here: {reason.name} after {self.pages} pages")
        self.pages += len(statuses)

    def _flush(self, guest: int, offset: int, record: Pages) -> None:
        self._persistent(guest, offset, record.pool)
        self.store.flush_many(guest, record.pool, record.oids, record.indexes)

    def _end(self, guest: int, offset: int, pools: tuple[PoolFacts, ...]) -> None:
        """Hold what is here against what its hypervisor said there is."""
        here, said = ([pool for pool in some if pool.uuid == PRIVATE] for some in (pools_of(self.store, guest), pools))
        if here != said:
            raise BadStream(offset, "the pools at its end are not those that came")
        self.complete = True

    def commit(self) -> int:
        """Make it for good; return the guest's number.  UsageProblem before the end has come."""
        if self.number is None or self.facts is None or not self.complete:
            raise UsageProblem("the end of the stream has not come yet")
        client = self.store.clients.get(self.number)
        client.frozen = self.facts.frozen
        if not self.store.rules.quirks:
            client.weight, client.cap = self.facts.weight, self.facts.cap
        return self.number

    def undo(self) -> None:
        """Take everything back; what is here is as it was, but for ephemeral pages that went for room."""
        if self.number is not None:
            self.store.forget(self.number)
            self.number = None
