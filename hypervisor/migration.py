"""Migration: a guest's tmem leaves for a file or another cluster, or comes from there; the orders at the door for that.

    tmem-save-begin, -next, -end                  the source: bytes of a stream (`tmem.stream`), and how it ended
    tmem-restore-begin, -next, -commit, -drop     the target
    moved                                         a guest asks where its tmem is now

What moves is a guest's tmem, not its memory.  The toolstack carries the bytes from one hypervisor to the other; between
two orders the loop serves guests, so the guest runs on until it is *paused*: its requests stay unread in its queue.

Rule 1: a session belongs to the connection that began it.  When that closes before the end, everything is undone.
Rule 2: the source decides.  Until it is told `moved` it keeps every page, and a pause of more than PAUSE_LIMIT_S, the
        guest's death or the operator's interference end the session here.  So what was committed there and not moved
        here is the copy that nobody wants: the toolstack drops it, or the operator does.  Were it the other way round,
        a toolstack that dies between the two words would leave the pages nowhere.
Rule 3: a *waiting* guest has a number, a client and pages, and no process.  It is billed like any, and the guest that
        attaches with its token takes its number over.
Rule 4: a guest that goes before it has followed its tmem will never come for it: its old hypervisor says so there.

One writer, the event loop.
"""

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from hypervisor.domains import Domain
from hypervisor.tmem.restoring import Restoring
from hypervisor.tmem.saving import Mode, Saving, saveable
from hypervisor.tmem.stream import TOKEN_DIGITS, ClientFacts, Reader
from shm import door
from shm.door import MESSAGE_LIMIT
from shm.errors import UsageProblem
from shm.names import checked_cluster

if TYPE_CHECKING:
    from hypervisor.machine import Machine

PAUSE_LIMIT_S = 10.0         # below the time after which a guest gives its hypervisor up (shm.channel)
CHANGES_LIMIT = 1 << 20      # handles noted for a toolstack that does not ask for them: some 250 bytes each
ROOM = MESSAGE_LIMIT - 1024  # bytes of a stream in one message
Message = dict[str, Any]
Dialogue = Callable[[socket.socket, Message], Message]


@dataclass
class Waiting:
    """A guest whose tmem is here, or on its way here, and which has not attached yet."""

    number: int
    name: str
    max_pages: int
    token: str
    committed: bool = False


@dataclass
class Leaving:
    """One save under way."""

    domain: Domain
    token: str
    saving: Saving
    began: float
    paused: float | None = None


@dataclass
class Coming:
    """One restore under way."""

    reader: Reader
    restoring: Restoring


class Migration:
    """Sessions by their connections, and guests that wait."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.waiting: dict[int, Waiting] = {}
        self._leaving: dict[socket.socket, Leaving] = {}
        self._coming: dict[socket.socket, Coming] = {}
        self.table: dict[str, Dialogue] = {
            "tmem-save-begin": self.save_begin, "tmem-save-next": self.save_next, "tmem-save-end": self.save_end,
            "tmem-restore-begin": self.restore_begin, "tmem-restore-next": self.restore_next,
            "tmem-restore-commit": self.restore_commit, "tmem-restore-drop": self.restore_drop, "moved": self.moved,
        }

    def _begin(self, link: socket.socket) -> None:
        if link in self._leaving or link in self._coming:
            raise UsageProblem("a save or a restore is under way on this connection; use another for the next")
        if any(domain.link is link for domain in self.machine.domains.values()):
            raise UsageProblem("this connection is a guest's: use another to save or restore")
        if not self.machine.dispatch.tmem.on:
            raise UsageProblem(f"the scheme {self.machine.settings.scheme!r} of this cluster has no tmem")

    def hang_up(self, link: socket.socket) -> None:
        """End what a connection has begun, as if it had never been (Rule 1)."""
        leaving, coming = self._leaving.pop(link, None), self._coming.pop(link, None)
        if leaving is not None:
            leaving.saving.end()
            self.machine.resume(leaving.domain)
        if coming is not None:
            self._take_back(coming.restoring)

    def tick(self) -> None:
        """End the saves of guests that were paused for too long, or changed more than can be remembered."""
        for link, leaving in list(self._leaving.items()):
            paused_s = monotonic() - leaving.paused if leaving.paused is not None else 0.0
            if paused_s > PAUSE_LIMIT_S or leaving.saving.changes > CHANGES_LIMIT:
                self.hang_up(link)

    def close(self) -> None:
        """End every session, and drop those that wait."""
        for link in [*self._leaving, *self._coming]:
            self.hang_up(link)
        for waiting in list(self.waiting.values()):
            self._drop(waiting)

    # the source

    def save_begin(self, link: socket.socket, message: Message) -> Message:
        """Begin to save `guest` in a `mode`; `begun` is 0 where there is nothing to save (T85)."""
        self._begin(link)
        domain, modes = self._named(message.get("guest")), [mode.value for mode in Mode]
        if message.get("mode", Mode.TRACK.value) not in modes:
            raise UsageProblem(f"{message['mode']!r:.40} is no way to save; allowed: {', '.join(modes)}")
        if not saveable(self.machine.store, domain.number):
            return {"begun": 0}
        token = secrets.token_hex(TOKEN_DIGITS // 2)
        mode = Mode(message.get("mode", Mode.TRACK.value))
        saving = Saving(self.machine.store, domain.number, domain.name, domain.max_pages, token, mode)
        self._leaving[link] = Leaving(domain, token, saving, monotonic())
        return {"begun": 1, "token": token, "left": saving.left}

    def _named(self, name: Any) -> Domain:
        domains = self.machine.domains.values()
        domain = next((domain for domain in domains if domain.name == name), None)
        if domain is None:
            there = ", ".join(sorted(domain.name for domain in domains)) or "none"
            raise UsageProblem(f"no guest {name!r:.80} is attached; there are: {there:.400}")
        if domain.moved is not None:
            raise UsageProblem(f"the tmem of guest {name!r} is in cluster {domain.moved['cluster']!r} already")
        return domain

    def _under_way(self, link: socket.socket) -> Leaving:
        leaving = self._leaving.get(link)
        if leaving is None:
            raise UsageProblem(f"no save is under way on this connection; one ends by itself when its guest is held "
                               f"still for more than {PAUSE_LIMIT_S:g} s, or changes more than {CHANGES_LIMIT} pages "
                               f"before it goes on")
        if self.machine.domains.get(leaving.domain.number) is not leaving.domain:
            self.hang_up(link)
            raise UsageProblem(f"guest {leaving.domain.name!r} is gone")
        return leaving

    def save_next(self, link: socket.socket, message: Message) -> Message:
        """Return the next `data` of the stream, at most `room` bytes; `done` with the last.

        Race: an event of the guest's queue may have been collected in the same round as the order that pauses it.  The
        loop calls nothing that is not watched any more, so no request is taken once the guest is paused; and as each is
        answered before the next event, none is half served.
        """
        leaving, room = self._under_way(link), message.get("room", ROOM)
        if type(room) is not int or room > ROOM:
            raise UsageProblem(f"{room!r:.40} is no room for a stream: {ROOM} bytes are the most")
        saving = leaving.saving
        if saving.wants_pause and leaving.paused is None:
            leaving.paused = monotonic()
            self.machine.pause(leaving.domain)
            saving.finish()
        try:
            data = saving.next(room)
        except OSError as error:
            self.hang_up(link)
            raise UsageProblem(f"a page of guest {leaving.domain.name!r} cannot be read back from the swap disk: "
                               f"{error}") from error
        return {"data": data, "done": saving.done, "paused": leaving.paused is not None, "left": saving.left}

    def save_end(self, link: socket.socket, message: Message) -> Message:
        """End a save: the guest's tmem is in cluster `moved` now, or, without, it stays here."""
        leaving, cluster = self._under_way(link), message.get("moved")
        if cluster is not None:
            self._let_go(link, leaving, checked_cluster(str(cluster)))
        self.hang_up(link)
        now = monotonic()
        return asdict(leaving.saving.progress) | {
            "guest": leaving.domain.name, "seconds": now - leaving.began,
            "downtime_s": now - leaving.paused if leaving.paused is not None else 0.0,
        }

    def _let_go(self, link: socket.socket, leaving: Leaving, cluster: str) -> None:
        """Forget a guest's pools here, which from now on are there."""
        if not leaving.saving.holds:
            self.hang_up(link)
            raise UsageProblem(f"what was sent of guest {leaving.domain.name!r} is not all that it has: it stays here")
        leaving.domain.moved = {"cluster": cluster, "token": leaving.token}
        leaving.saving.end()                                 # nobody notes how all of it goes
        self.machine.store.forget(leaving.domain.number)

    def bereave(self, domain: Domain) -> None:
        """Have what a guest that is gone left unclaimed in another cluster dropped there (Rule 4).

        Nothing is waited for: who cannot be told now, keeps it until its operator destroys it.  Where the guest has
        come, its token opens nothing any more.
        """
        if domain.moved is None:
            return
        with suppress(UsageProblem, OSError), door.connect(domain.moved["cluster"], timeout=0) as link:
            door.send(link, {"call": "tmem-restore-drop", "token": domain.moved["token"]})

    def moved(self, _: socket.socket, message: Message) -> Message:
        """Tell the guest with the objects named `stem` where its tmem is."""
        domain = next((domain for domain in self.machine.domains.values() if domain.stem == message.get("stem")), None)
        if domain is None or domain.moved is None:
            raise UsageProblem("no guest of that stem has moved away")
        return dict(domain.moved)

    # the target

    def restore_begin(self, link: socket.socket, message: Message) -> Message:
        """Begin to restore a guest; `share`: it may join the shared pools that it was in."""
        self._begin(link)
        restoring = Restoring(self.machine.store, self._admit, bool(message.get("share")))
        self._coming[link] = Coming(Reader(), restoring)
        return {"begun": 1, "room": ROOM}

    def _admit(self, facts: ClientFacts) -> int:
        if self.knows(facts.name):
            waits = any(waiting.committed and waiting.name == facts.name for waiting in self.waiting.values())
            raise UsageProblem(f"a guest named {facts.name!r} is here already"
                               + (", and waits to be taken up; tmem-destroy drops it" if waits else ""))
        number = self.machine.gate.new_number()
        self.waiting[number] = Waiting(number, facts.name, facts.max_pages, facts.token)
        return number

    def knows(self, name: str) -> bool:
        """Say whether a guest of this name is attached, or waits."""
        here = {domain.name for domain in self.machine.domains.values()}
        return name in here | {waiting.name for waiting in self.waiting.values()}

    def _arriving(self, link: socket.socket) -> Coming:
        coming = self._coming.get(link)
        if coming is None:
            raise UsageProblem("no restore is under way on this connection")
        return coming

    def restore_next(self, link: socket.socket, message: Message) -> Message:
        """Take the next `data` of the stream; whatever is wrong with it ends the restore and undoes it."""
        coming, data = self._arriving(link), message.get("data")
        if not isinstance(data, bytes):
            raise UsageProblem("tmem-restore-next: data is bytes of a stream")
        try:
            for record in coming.reader.feed(data):
                coming.restoring.take(record)
        except (UsageProblem, OSError) as error:
            self.hang_up(link)
            raise UsageProblem(str(error)) from error
        return {"pages": coming.restoring.pages}

    def restore_commit(self, link: socket.socket, _: Message) -> Message:
        """Make the restored guest one that waits: from here on it stays, whether or not this connection does."""
        coming = self._arriving(link)
        try:
            coming.reader.finish()
            number = coming.restoring.commit()
        except UsageProblem:
            self.hang_up(link)
            raise
        waiting = self.waiting[number]
        waiting.committed = True
        del self._coming[link]
        return {"guest": waiting.name, "token": waiting.token, "pages": coming.restoring.pages,
                "persistent": self.machine.store.pages_of(number, persistent=True)}

    def restore_drop(self, _: socket.socket, message: Message) -> Message:
        """Drop the guest that waits under `token`, since its source has kept it after all."""
        waiting = self.expected(message.get("token"))
        if waiting is None:
            raise UsageProblem("tmem-restore-drop: under which token?")
        self._drop(waiting)
        return {"guest": waiting.name}

    def _take_back(self, restoring: Restoring) -> None:
        if restoring.number is not None:
            del self.waiting[restoring.number]
        restoring.undo()

    # those that wait

    def expected(self, token: Any) -> Waiting | None:
        """Return the guest that waits under a token (None: no token); UsageProblem when there is none."""
        if token is None:
            return None
        found = next((waiting for waiting in self.waiting.values()
                      if waiting.committed and waiting.token == token), None)
        if found is None:
            raise UsageProblem("no guest waits here under that token")
        return found

    def adopted(self, waiting: Waiting) -> None:
        """Note that a guest has attached in place of one that waited."""
        del self.waiting[waiting.number]

    def max_pages(self, number: int) -> int:
        """Return what a guest that waits may hold: nothing when there is no such guest."""
        waiting = self.waiting.get(number)
        return waiting.max_pages if waiting is not None else 0

    def drop(self, name: str) -> bool:
        """Drop the guest that waits under a name; say whether there was one."""
        found = next((waiting for waiting in self.waiting.values() if waiting.committed and waiting.name == name), None)
        if found is not None:
            self._drop(found)
        return found is not None

    def _drop(self, waiting: Waiting) -> None:
        del self.waiting[waiting.number]
        self.machine.store.forget(waiting.number)
