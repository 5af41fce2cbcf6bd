"""Saving: the source's side of a guest's tmem on its way to a file or another cluster (Xen's SAVE_*; T85-T88).

    stop      the guest's client is frozen meanwhile
    live      ... and a put over a known handle flushes it: nothing stored changes, it only goes (Xen's live migration)
    track     nothing is frozen: pre-copy

In each the client notes what changes (`changed`).  A first pass sends every persistent page; a round sends what has
changed since: the page as it is now, or that it is gone.  When little is left, or after MOST_ROUNDS, `wants_pause` asks
for the guest to be held still; after `finish` the rest is sent, and the end.

Rule 1: sending a handle strikes it from `changed`.  One thread carries out guests' calls and this, one after the other,
        so what is sent is the outcome of every change noted before, and a later one is noted anew.
Rule 2: pages of ephemeral pools are never sent, and pools are announced before their pages.
Rule 3: `end` leaves client and pages as if nothing had been.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hypervisor.tmem.clients import Client, Handle
from hypervisor.tmem.index import NONE
from hypervisor.tmem.pools import Pool, flags_of
from hypervisor.tmem.store import Store
from hypervisor.tmem.stream import HANDLE, HEADER, ClientFacts, PoolFacts, Writer, pages_within
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

LEAST_ROOM = 2 * PAGE_SIZE   # bytes: the opening, or a page with all that goes with it
FEW = 32                     # handles left over that are worth no further round
MOST_ROUNDS = 8


class Mode(StrEnum):
    STOP = "stop"
    LIVE = "live"
    TRACK = "track"


@dataclass
class Progress:
    """What was sent."""

    pages: int = 0
    resent: int = 0          # of these, after the first pass: changed, or new, since it began
    gone: int = 0
    rounds: int = 0          # after the first pass
    bytes: int = 0


def saveable(store: Store, guest: int) -> bool:
    """Say whether there is anything to save (T85); UsageProblem where it cannot be."""
    client = store.clients.known(guest)
    if client is None or not store.pools.of(guest):
        return False
    if client.changed is not None:
        raise UsageProblem("this guest is being saved already")
    if any(pool.shared and pool.persistent for pool in store.pools.of(guest)):
        raise UsageProblem("this guest is in a shared pool that is persistent: its pages are others' too, and cannot "
                           "be moved with it")
    return True


class Saving:
    """One save under way of a guest that is `saveable`.  Writes its client's `changed`, `frozen` and the like."""

    def __init__(self, store: Store, guest: int, name: str, max_pages: int, token: str, mode: Mode) -> None:
        self.store, self.guest, self.mode = store, guest, mode
        self.progress = Progress()
        self.done = self.wants_pause = False
        self._name, self._max_pages, self._token = name, max_pages, token
        self._client: Client = store.clients.get(guest)
        self._was_frozen = self._client.frozen
        self._writer, self._opened, self._still = Writer(), False, False
        self._announced: set[int] = set()
        self._pending = deque((number, _handles_of(store, pool)) for number, pool in self._movable())
        self._client.changed = {}
        self._client.frozen |= mode != Mode.TRACK
        self._client.replacing_flushes = mode == Mode.LIVE

    def _movable(self) -> list[tuple[int, Pool]]:
        return [(number, pool) for number, pool in self.store.pools.numbered(self.guest)
                if pool.persistent and not pool.shared]

    @property
    def left(self) -> int:
        """Handles that are still to be sent, as far as is known."""
        return sum(len(handles) for _, handles in self._pending) + self.changes

    @property
    def changes(self) -> int:
        """Handles changed that are in no round yet: of pages that are there, and of as many as were and are not."""
        return len(self._changed)

    @property
    def _changed(self) -> dict[Handle, None]:
        return self._client.changed if self._client.changed is not None else {}

    @property
    def holds(self) -> bool:
        """Whether what was sent, to its end, is what the guest has: the operator may have emptied it since."""
        return self.done and not self._changed and self.store.clients.known(self.guest) is self._client

    def finish(self) -> None:
        """Note that the guest is held still: what is sent from now on is the rest."""
        self._still = True

    def next(self, room: int) -> bytes:
        """Return the next whole records, at most `room` bytes; nothing when the guest must be held still first.

        OSError when the swap disk cannot give a page back.
        """
        if room < LEAST_ROOM:
            raise UsageProblem(f"ENOMEM: {room} bytes are too few; give at least {LEAST_ROOM}")
        parts: list[bytes] = []
        while not self.done and (part := self._part(room)) is not None:
            parts.append(part)
            room -= len(part)
        data = b"".join(parts)
        self.progress.bytes += len(data)
        return data

    def _part(self, room: int) -> bytes | None:
        """Return the next records, or None when there is no room for any or the guest must be held still first."""
        if room < LEAST_ROOM:
            return None
        if not self._opened:
            self._opened = True
            return HEADER + self._writer.client(self._facts())
        if news := self._announcement():
            return news
        if not self._pending and self._changed and (self._still or self._worth_a_round()):
            self._begin_round()
        if self._pending:
            return self._batch(pages_within(room))
        self.wants_pause, self.done = not self._still, self._still
        return self._end() if self._still else None

    def _worth_a_round(self) -> bool:
        return len(self._changed) > FEW and self.progress.rounds < MOST_ROUNDS

    def _begin_round(self) -> None:
        self._pending.extend(_grouped(self._changed))
        self._changed.clear()
        self.progress.rounds += 1

    def _end(self) -> bytes:
        return self._writer.client(self._facts()) + self._writer.end(tuple(pools_of(self.store, self.guest)))

    def _facts(self) -> ClientFacts:
        client = self._client
        frozen = client.frozen if self.mode == Mode.TRACK else self._was_frozen
        return ClientFacts(self._name, client.weight, client.cap, int(client.form), frozen, self._max_pages,
                           self._token)

    def _announcement(self) -> bytes:
        """Return records of the pools that are new: a guest may make some while it is saved."""
        fresh = [facts for facts in pools_of(self.store, self.guest) if facts.number not in self._announced]
        self._announced |= {facts.number for facts in fresh}
        return b"".join(self._writer.pool(facts) for facts in fresh)

    def _batch(self, most: int) -> bytes:
        """Return records of up to `most` pending handles of one pool."""
        number, handles = self._pending.popleft()
        if len(handles) > most:
            self._pending.appendleft((number, handles[most:]))
        handles = handles[:most]
        if self._changed:
            for oid, index in zip(handles["oid"].tolist(), handles["index"].tolist(), strict=True):
                self._changed.pop((number, *oid, index), None)
        present, content = self._read(number, handles)
        return self._sent(number, handles[present], content, handles[~present])

    def _read(self, number: int, handles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which handles hold a page (bool), and these pages (n, 4096)."""
        pool = self.store.pools.get(self.guest, number)
        if pool is None or not len(handles):
            return np.zeros(len(handles), bool), np.zeros((0, PAGE_SIZE), np.uint8)
        oids, indexes = np.ascontiguousarray(handles["oid"]), handles["index"].astype(np.uint64)
        found = self.store.catalogue.find_many(pool.serial, oids, indexes)
        pages = found[found != NONE]
        content = np.empty((len(pages), PAGE_SIZE), np.uint8)
        self.store.storage.read_many(self.store.catalogue.places[pages], content, np.arange(len(pages)))
        return found != NONE, content

    def _sent(self, number: int, here: np.ndarray, content: np.ndarray, gone: np.ndarray) -> bytes:
        if not self.progress.rounds:
            gone = gone[:0]                                  # never sent, so nobody has it
        self.progress.pages += len(here)
        self.progress.resent += len(here) if self.progress.rounds else 0
        self.progress.gone += len(gone)
        records = self._writer.pages(number, here, content) if len(here) else b""
        return records + (self._writer.gone(number, gone) if len(gone) else b"")

    def end(self) -> None:
        """Stop noting changes, and give the client back what it was."""
        client = self._client
        client.changed, client.replacing_flushes = None, False
        if self.mode != Mode.TRACK:
            client.frozen = self._was_frozen


def pools_of(store: Store, guest: int) -> list[PoolFacts]:
    """Return what a stream says of a guest's pools."""
    return [PoolFacts(number, int(flags_of(pool)), pool.uuid, pool.pages if pool.persistent else 0)
            for number, pool in store.pools.numbered(guest)]


def _handles_of(store: Store, pool: Pool) -> np.ndarray:
    oids, indexes = store.catalogue.handles_of(store.catalogue.of_pool(pool.serial))
    return _handles(oids, indexes)


def _handles(oids: np.ndarray, indexes: np.ndarray) -> np.ndarray:
    handles = np.zeros(len(indexes), HANDLE)
    handles["oid"], handles["index"] = oids, indexes
    return handles


def _grouped(changed: Iterable[Handle]) -> list[tuple[int, np.ndarray]]:
    """Return changed handles by pool."""
    rows = np.array(list(changed), np.uint64).reshape(-1, 5)
    return [(int(number), _handles(rows[rows[:, 0] == number, 1:4], rows[rows[:, 0] == number, 4]))
            for number in np.unique(rows[:, 0])]
