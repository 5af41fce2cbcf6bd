"""The guest as an application holds it: attach to a cluster, use memory and tmem, leave.

    with Guest.connect("CLUSTER", name="mine", ram="64MiB") as guest:
        ...

The hypervisor makes all shared objects and hands them over by descriptor; the guest opens only its lock and queues by
name.  When the hypervisor goes, the connection's end closes: `gone` says so, and every call raises HypervisorGone.
"""

import select
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any, Self

import numpy as np
import posix_ipc

from guests.memory import Memory
from guests.moving import Moving
from guests.tmem import TmemClient
from shm import door
from shm.abi import ABI_VERSION, PAGE_SIZE, Op
from shm.arena import SharedObject
from shm.channel import GuestEnd, open_queue
from shm.counters import Count, attach_counters
from shm.errors import HypervisorGone, UsageProblem
from shm.names import QUEUES
from shm.pagestate import Essa
from shm.statemap import StateLock, StateMap
from shm.transfer import Transfer
from shm.units import parse_size


class Guest:
    """One guest of a cluster, in this process.  Make it with `Guest.connect`; it is a context manager."""

    def __init__(self, cluster: str, name: str, pages: int, max_pages: int, weight: int,
                 resume: str | None = None) -> None:
        self.cluster, self.name = cluster, name
        self._link = door.connect(cluster)
        with ExitStack() as undo:                    # of an attach that fails half-way
            undo.callback(self._link.close)
            reply, fds = self._attach(pages, max_pages, weight, resume)
            objects = [undo.enter_context(closing(SharedObject(fd))) for fd in fds]
            self.pages: int = reply["pages"]
            self.features = frozenset(reply["features"])
            self.stem: str = reply["stem"]
            self._open(self.stem, undo)
            self._assemble(*objects)
            undo.pop_all()
        for held in objects:
            held.close()                             # the mappings keep their own

    @classmethod
    def connect(cls, cluster: str, name: str, ram: str | int, max_mem: str | int | None = None,
                weight: int = 0, resume: str | None = None) -> Self:
        """Attach to a running cluster as guest `name` with `ram` ("64MiB", or bytes).

        `max_mem` bounds RAM and persistent tmem pages together (default: ram).  `resume` is the token of a guest that
        was restored there: its pools become this one's, under their numbers.  UsageProblem, with one clear line, when
        there is no such cluster, the name is taken, or there is no room.
        """
        try:
            size, most = parse_size(ram), parse_size(ram if max_mem is None else max_mem)
        except ValueError as error:
            raise UsageProblem(f"guest {name!r}: {error}") from None
        return cls(cluster, name, size // PAGE_SIZE, max(size, most) // PAGE_SIZE, weight, resume)

    def _attach(self, pages: int, max_pages: int, weight: int,
                resume: str | None) -> tuple[dict[str, Any], list[int]]:
        try:
            door.send(self._link, {"call": "attach", "abi": ABI_VERSION, "name": self.name, "pages": pages,
                                   "max_pages": max_pages, "weight": weight, "resume": resume})
        except OSError as error:
            raise HypervisorGone(f"the hypervisor hung up: {error}") from error
        reply, fds = door.receive(self._link)
        if "error" in reply:
            raise UsageProblem(reply["error"])
        return reply, fds

    def _open(self, stem: str, undo: ExitStack) -> None:
        """Open what is handed over by name; HypervisorGone when it is gone again."""
        requests, replies = (undo.enter_context(closing(open_queue(f"{stem}.{end}"))) for end in QUEUES)
        self._queues = requests, replies
        try:
            self._semaphore = undo.enter_context(closing(posix_ipc.Semaphore(f"/{stem}.lock")))
        except posix_ipc.Error as error:
            raise HypervisorGone(f"the state lock cannot be opened: {error}") from error

    def _assemble(self, ram: SharedObject, usage: SharedObject, content: SharedObject, transfer: SharedObject,
                  count: SharedObject) -> None:
        self.counters = attach_counters(count.map().data)
        buffer = Transfer(transfer.map())
        self.channel = GuestEnd(*self._queues, self._link, buffer)
        self._map = StateMap(usage.map()[:self.pages], content.map(writable=False)[:self.pages],
                             StateLock(self._semaphore))
        self.memory = Memory(ram.map(), self._map, self.channel, buffer, self.counters)
        self.tmem = TmemClient(self.channel, buffer, self.counters)
        self._moving = Moving(self, lambda cluster, token: Guest(cluster, self.name, 1, 1, 0, token))
        self.tmem.moved = self._moving

    def essa(self, order: Essa, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Hint pages; return their old states (uint8, encoded as ESSA does: usage 0x0c, content 0x03).

        Carried out here, in the guest's own context, under its state lock.  SET_STABLE_RESIDENT also brings frames in.
        """
        old = self._map.essa(order, gfns)
        self.counters[Count.ESSA] += len(old)
        if order == Essa.SET_STABLE_RESIDENT:
            self.memory.make_resident(gfns)
        return old

    def essa_one(self, order: Essa, gfn: int) -> int:
        """Hint one page; return its old state byte."""
        old = self._map.essa_one(order, gfn)
        self.counters[Count.ESSA] += 1
        if order == Essa.SET_STABLE_RESIDENT:
            self.memory.make_resident([gfn])
        return old

    def on_discard(self, restore: Callable[[int], bytes] | None) -> None:
        """Register what restores a discarded page when it is touched: restore(gfn) -> its 4096 bytes.

        Without one, a touch raises DiscardFault.
        """
        self.memory.restore = restore

    def ping(self) -> None:
        """Make a hypercall that does nothing."""
        self.channel.call(Op.PING)
        self.counters[Count.HYPERCALLS] += 1

    def wait_gone(self, timeout: float | None = None) -> bool:
        """Wait until the hypervisor is gone; say whether it is.  Uses no processor meanwhile."""
        ends = select.poll()
        ends.register(self._link.fileno(), select.POLLIN)
        return bool(ends.poll(None if timeout is None else timeout * 1000))

    def close(self) -> None:
        """Leave the cluster; when this returns, all memory and pools have gone back.  Closing twice is harmless."""
        if self._link.fileno() < 0:
            return
        self._moving.close()
        with suppress(OSError, HypervisorGone):
            door.send(self._link, {"call": "leave"})
            door.receive(self._link)                 # the answer is the end of the connection
        for queue in self._queues:
            queue.close()
        self._semaphore.close()
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

