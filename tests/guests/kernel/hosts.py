"""A fake guest whose host also takes pages that are potentially volatile, or that must be preserved."""

from collections.abc import Iterable

from fakes import HINTS, FakeGuest

from shm.pagestate import HOST, Event, Vz


class PreservingGuest(FakeGuest):
    """As `FakeGuest`; `evict` takes whatever it is given, by the table: P by its change bit, S preserved.

    An access brings preserved pages back.  Its mischief is of that kind too.
    """

    def __init__(self, pages: int = 256, features: Iterable[str] = HINTS, **options) -> None:
        super().__init__(pages, features, **options)
        access = self.memory._access

        def page_in_first(name, gfns):
            access(name, gfns)
            for gfn in map(int, gfns):
                self.states[gfn] = HOST[Event.PAGE_IN].clean[self.states[gfn]]

        self.memory._access = page_in_first

    def be_mischievous(self) -> None:
        if self.mischief and self.rng.random() < self.mischief:
            self.evict(self.rng.sample(range(self.pages), self.pages // 4))

    def evict(self, gfns: Iterable[int]) -> list[int]:
        """Return those that were discarded."""
        lost, row = [], HOST[Event.EVICT]
        for gfn in map(int, gfns):
            new = (row.dirty if self.memory.changed[gfn] else row.clean)[self.states[gfn]]
            if new == Vz and self.states[gfn] != Vz:
                self.memory.rows[gfn] = 0xDD
                lost.append(gfn)
            self.states[gfn] = new
        return lost
