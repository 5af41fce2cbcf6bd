"""The gate: the hypervisor's side of the door.  Guests attach and leave here, and people give orders.

    attach        a guest: its objects are made and handed over by descriptor, `content` read-only
    hardware      a guest's own mapping is registered: it hands over its userfaultfd and a connection to its pager
    leave         a guest that goes in peace
    list, set-budget, audit, stop        orders; see `Orders`
    tmem-save-begin, moved, ...          orders that belong to their connection; see `Migration`

Whoever connects is of our own user (the door's name and its credentials say so), yet every word is checked: a message
that does not parse, or asks for what cannot be, is answered with one clear line in `error`.
"""

import os
import socket
from collections.abc import Callable
from reprlib import repr as brief  # of what others sent: neither long nor deep
from typing import Any

import posix_ipc

from hypervisor.domains import Domain, make_domain
from hypervisor.faults import Faults
from hypervisor.migration import Migration, Waiting
from hypervisor.tmem.control import EVERYBODY
from shm import door
from shm.abi import ABI_VERSION, MAX_GUEST_PAGES, MAX_GUESTS
from shm.errors import HypervisorGone, UsageProblem
from shm.facilities import Facilities

Order = Callable[[dict[str, Any]], dict[str, Any]]
GUEST_NAME_LIMIT = 64
# The descriptors of the attach reply, in this order.
HANDED_OVER = ("ram", "usage", "content_read_only", "transfer", "count")


class Gate:
    """Connections and what they may ask.  Registers descriptors with `watch(fd, callback)` and `unwatch(fd)`."""

    def __init__(self, listener: socket.socket, stem: str, features: frozenset[str], orders: dict[str, Order],
                 domains: dict[int, Domain], watch: Callable[[int, Callable[[], None]], None],
                 unwatch: Callable[[int], None], admitted: Callable[[Domain], None],
                 left: Callable[[Domain, str], None], migration: Migration,
                 facilities: Facilities, faults: Faults) -> None:
        self.listener, self.stem, self.features, self.orders = listener, stem, features, orders
        self.domains, self.watch, self.unwatch = domains, watch, unwatch
        self.admitted, self.left, self.migration, self.faults = admitted, left, migration, faults
        self.facilities = facilities                         # of every guest's processor
        self._guests = 0                                     # the number that the next guest gets
        self._links: dict[int, socket.socket] = {}           # connections that are no guest's yet
        watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            link, _ = self.listener.accept()
        except OSError:                                      # gone again, or no descriptors left: it may come back
            return
        if door.peer(link)[1] not in (os.geteuid(), 0):
            link.close()
            return
        link.setblocking(False)
        self._links[link.fileno()] = link
        self.watch(link.fileno(), lambda: self._hear(link))

    def _hear(self, link: socket.socket) -> None:
        try:
            message, fds = door.receive(link)
        except BlockingIOError:
            return
        except HypervisorGone:                               # here: the other side hung up, or sent junk
            self._hang_up(link)
            return
        try:
            answer = self._answer(link, message, fds)
        except HypervisorGone:
            return
        finally:
            for fd in fds:                                   # nobody took them
                os.close(fd)
        self._reply(link, *answer)

    def _answer(self, link: socket.socket, message: dict[str, Any],
                fds: list[int]) -> tuple[dict[str, Any], tuple[int, ...]]:
        call = message.get("call")
        try:
            if call == "hardware":
                return self._hardware(link, message, fds)
            if call == "attach":
                return self._attach(link, message)
            if call == "leave":
                return self._leave(link)
            if isinstance(call, str) and call in self.orders:
                return self.orders[call](message), ()
            if isinstance(call, str) and call in self.migration.table:
                return self.migration.table[call](link, message), ()
            raise UsageProblem(f"unknown call {brief(call)}; this hypervisor knows attach, {', '.join(self.orders)}")
        except UsageProblem as error:
            return {"error": str(error)}, ()

    def _reply(self, link: socket.socket, reply: dict[str, Any], fds: tuple[int, ...]) -> None:
        try:
            door.send(link, reply, fds)
        except OSError:                                      # it does not listen, or is gone
            self._hang_up(link)

    def _hang_up(self, link: socket.socket) -> None:
        guest = self._guest_of(link)
        if guest:
            self.left(guest, "died")                         # it hung up without a word
            return
        self.migration.hang_up(link)
        self.unwatch(link.fileno())
        self._links.pop(link.fileno(), None)
        link.close()

    def _attach(self, link: socket.socket, message: dict[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
        waiting = self.migration.expected(message.get("resume"))
        name, pages, max_pages, weight = self._checked(message, waiting)
        if link.fileno() not in self._links:
            raise UsageProblem("this connection is a guest's already")
        try:
            number = self._guests if waiting is None else waiting.number
            domain = make_domain(number, name, door.peer(link)[0], link, pages, max_pages, weight, self.stem,
                                 self.facilities.kvm)
        except (OSError, posix_ipc.Error) as error:          # it died while it asked, no descriptors left, ...
            raise UsageProblem(f"guest {name!r} cannot be attached: {error}") from error
        if waiting is None:
            self.new_number()
        else:
            self.migration.adopted(waiting)
        self.migration.hang_up(link)                         # what it had begun before it became a guest's
        del self._links[link.fileno()]
        self.admitted(domain)
        fds = tuple(domain.objects[kind].fd for kind in HANDED_OVER)
        return {"ok": True, "stem": domain.stem, "pages": pages, "features": sorted(self.features),
                "processor": self.facilities._asdict()}, fds

    def _hardware(self, link: socket.socket, message: dict[str, Any],
                  fds: list[int]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Serve a guest's faults from now on, by the descriptors it hands over; without any: its mapping has moved."""
        guest = self._guest_of(link)
        if guest is None:
            raise UsageProblem("hardware: this connection is no guest's")
        if fds:
            self.faults.adopt(guest, message.get("base"), message.get("pager"), fds)
            fds.clear()
        else:
            return {"ok": self.faults.moved(guest, message.get("base"))}, ()
        return {"ok": True}, ()

    def _leave(self, link: socket.socket) -> tuple[dict[str, Any], tuple[int, ...]]:
        guest = self._guest_of(link)
        if guest is None:
            raise UsageProblem("leave: this connection is no guest's")
        self.left(guest, "left")                             # the answer is the end of the connection
        raise HypervisorGone("the guest has left")

    def _guest_of(self, link: socket.socket) -> Domain | None:
        return next((domain for domain in self.domains.values() if domain.link is link), None)

    def new_number(self) -> int:
        """Return the number of a guest that comes; it is nobody else's ever, nor EVERYBODY."""
        number, self._guests = self._guests, self._guests + 1
        self._guests += self._guests == EVERYBODY
        return number

    def _checked(self, message: dict[str, Any], waiting: Waiting | None) -> tuple[str, int, int, int]:
        if message.get("abi") != ABI_VERSION:
            raise UsageProblem(f"ABI version {brief(message.get('abi'))} of the guest, {ABI_VERSION} of the "
                               f"hypervisor: both must be of one release")
        asked: tuple[Any, ...] = tuple(message.get(what) for what in ("name", "pages", "max_pages", "weight"))
        name, pages, max_pages, weight = asked
        if not isinstance(name, str) or not 0 < len(name) <= GUEST_NAME_LIMIT or not name.isprintable():
            raise UsageProblem(f"guest name {brief(name)}: use 1 to {GUEST_NAME_LIMIT} printable characters")
        if self.migration.knows(name) and (waiting is None or waiting.name != name):
            raise UsageProblem(f"a guest named {name!r} is attached already; choose another name")
        bounds = (("pages", pages, 1, MAX_GUEST_PAGES), ("max_pages", max_pages, 1, MAX_GUEST_PAGES),
                  ("weight", weight, 0, 1 << 16))
        for what, value, least, most in bounds:
            if type(value) is not int or not least <= value <= most:
                raise UsageProblem(f"guest {name!r}: {what} {brief(value)} is not a number from {least} to {most}")
        if len(self.domains) >= MAX_GUESTS:
            raise UsageProblem(f"{MAX_GUESTS} guests are attached, and no more are possible")
        most = max(pages, max_pages, 0 if waiting is None else waiting.max_pages)
        return name, pages, most, weight

    def close(self) -> None:
        """Close the door and every connection that is no guest's."""
        for link in (self.listener, *self._links.values()):
            self.unwatch(link.fileno())
            link.close()
