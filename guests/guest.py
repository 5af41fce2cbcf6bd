"""The guest as an application holds it: attach to a cluster, use memory and tmem, leave.

    with Guest.connect("CLUSTER", name="mine", ram="64MiB") as guest:
        ...

The hypervisor makes all shared objects and hands them over by descriptor; the guest opens only its lock and queues by
name.  When the hypervisor goes, the connection's end closes: `gone` says so, and every call raises HypervisorGone.
"""

import select
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any, NoReturn, Self

import numpy as np
import posix_ipc

from guests.arrays import Array, Place, Rebuild, make_array
from guests.hardware import HardwareMemory
from guests.mapping import OwnMapping
from guests.memory import Memory
from guests.moving import Moving
from guests.pager_process import PagerProcess
from guests.pageranges import PageRanges
from guests.processor import Processor
from guests.tmem import TmemClient
from shm import door
from shm.abi import ABI_VERSION, PAGE_SIZE, Op
from shm.arena import SharedObject
from shm.channel import GuestEnd, open_queue
from shm.counters import Count, attach_counters
from shm.errors import HypervisorGone, UsageProblem
from shm.facilities import Facilities
from shm.names import QUEUES
from shm.pagestate import Essa
from shm.statemap import StateLock, StateMap
from shm.target import target_word
from shm.transfer import Transfer
from shm.units import parse_size
from shm.userfault import Userfault, open_userfault

SOFTWARE, HARDWARE = "software", "hardware"
MODES = ("auto", SOFTWARE, HARDWARE)


class Guest:
    """One guest of a cluster, in this process.  Make it with `Guest.connect`; it is a context manager."""

    def __init__(self, cluster: str, name: str, pages: int, max_pages: int, weight: int,
                 resume: str | None = None, faults: str = SOFTWARE) -> None:
        self.cluster, self.name = cluster, name
        self.why_software = ""                       # where `auto` fell back: why, in one line
        uffd = self._userfault(faults)
        self._link = door.connect(cluster)
        with ExitStack() as undo:                    # of an attach that fails half-way
            undo.callback(self._link.close)
            if uffd is not None:
                undo.callback(uffd.close)
            reply, fds = self._attach(pages, max_pages, weight, resume)
            objects = [undo.enter_context(closing(SharedObject(fd))) for fd in fds]
            self.pages: int = reply["pages"]
            self.features = frozenset(reply["features"])
            self.stem: str = reply["stem"]
            self._facilities = Facilities(**reply["processor"])
            self._open(self.stem, undo)
            self._assemble(uffd, undo, *objects)
            undo.pop_all()
        for held in objects:
            held.close()                             # the mappings keep their own

    @classmethod
    def connect(cls, cluster: str, name: str, ram: str | int, max_mem: str | int | None = None,
                weight: int = 0, resume: str | None = None, faults: str = SOFTWARE) -> Self:
        """Attach to a running cluster as guest `name` with `ram` ("64MiB", or bytes).

        `faults`: "software", every access goes through `memory`; "hardware", plain loads and stores, and restore
        functions are called in the pager; "auto", hardware where the kernel allows it (`faults` says which it is).
        `max_mem` bounds RAM and persistent tmem pages together (default: ram).  `resume` is the token of a guest that
        was restored there: its pools become this one's, under their numbers.  UsageProblem, with one clear line, when
        there is no such cluster, the name is taken, or there is no room.
        """
        try:
            size, most = parse_size(ram), parse_size(ram if max_mem is None else max_mem)
        except ValueError as error:
            raise UsageProblem(f"guest {name!r}: {error}") from None
        return cls(cluster, name, size // PAGE_SIZE, max(size, most) // PAGE_SIZE, weight, resume, faults)

    def _userfault(self, faults: str) -> Userfault | None:
        """Return a userfaultfd for hardware faults; None for software ones."""
        if faults not in MODES:
            raise UsageProblem(f"guest {self.name!r}: faults {faults!r}; allowed: {', '.join(MODES)}")
        try:
            return open_userfault() if faults != SOFTWARE else None
        except UsageProblem as problem:
            if faults == HARDWARE:
                raise
            self.why_software = str(problem)
            return None

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

    def _assemble(self, uffd: Userfault | None, undo: ExitStack, ram: SharedObject, usage: SharedObject,
                  content: SharedObject, transfer: SharedObject, count: SharedObject) -> None:
        self.counters = attach_counters(count.map().data)
        buffer = Transfer(transfer.map())
        self.channel = GuestEnd(*self._queues, self._link, buffer)
        said = content.map(writable=False)
        self._target = target_word(said).data
        self._map = StateMap(usage.map()[:self.pages], said[:self.pages],
                             StateLock(self._semaphore), self._facilities.kvm)
        self.faults = SOFTWARE if uffd is None else HARDWARE
        if uffd is None:
            self.memory = Memory(ram.map(), self._map, self.channel, buffer, self.counters)
        else:
            self.memory = self._hardware_memory(ram, uffd, count, buffer, undo)
        self.processor = Processor(self._map, self.memory, self.channel, buffer, self.counters, self._facilities)
        self.tmem = TmemClient(self.channel, buffer, self.counters)
        self._ranges = PageRanges(self.pages)                # free for `array`
        self._moving = Moving(self, lambda cluster, token: Guest(cluster, self.name, 1, 1, 0, token))
        self.tmem.moved = self._moving

    def _hardware_memory(self, ram: SharedObject, uffd: Userfault, count: SharedObject, buffer: Transfer,
                         undo: ExitStack) -> HardwareMemory:
        """Map and register the memory, start the pager, and hand the faults over to the hypervisor."""
        mapping, pager = OwnMapping(ram.fd, self.pages, uffd), PagerProcess(self.pages)
        undo.callback(pager.close)
        pager.start(uffd.fd, count.fd, mapping.base)
        self._hand_over({"base": mapping.base, "pager": pager.pid}, (uffd.fd, pager.host.fileno()))
        pager.host.close()
        return HardwareMemory(mapping, ram, pager, self._map, self.channel, buffer, self.counters,
                              lambda base: self._hand_over({"base": base}))

    def _hand_over(self, what: dict[str, Any], fds: tuple[int, ...] = ()) -> bool:
        """Tell the hypervisor of our mapping; False: not now, ask again."""
        try:
            door.send(self._link, {"call": "hardware", **what}, fds)
        except OSError as error:
            raise HypervisorGone(f"the hypervisor hung up: {error}") from error
        reply, _ = door.receive(self._link)
        if "error" in reply:
            raise UsageProblem(reply["error"])
        return reply["ok"] is True

    def essa(self, order: Essa, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Hint pages; return their old states (uint8, encoded as ESSA does: usage 0x0c, content 0x03).

        Carried out here, in the guest's own context, under its state lock, or by hypercall: see `hint_path`.
        SET_STABLE_RESIDENT also brings frames in.  Exceptions: see `Processor.essa`.
        """
        return self.processor.essa(order, gfns)

    def essa_one(self, order: Essa, gfn: int) -> int:
        """Hint one page; return its old state byte."""
        return self.processor.essa_one(order, gfn)

    @property
    def hint_path(self) -> str:
        """How hints reach the page states: "shared" (the arrays, under the lock) or "trap" (a hypercall)."""
        return self.processor.hint_path

    @hint_path.setter
    def hint_path(self, path: str) -> None:
        self.processor.hint_path = path

    def release(self, gfns: Sequence[int] | np.ndarray) -> int:
        """Give pages up, as CMM1 does by diag 10: they read as zeros, without any fault; return how many went (R48)."""
        return self.processor.release(gfns)

    def reset_states(self) -> None:
        """Make all pages stable, as a reset of the processor does (R22)."""
        self.processor.reset()

    def on_discard(self, restore: Callable[[int], bytes] | None) -> None:
        """Register what restores a discarded page when it is touched: restore(gfn) -> its 4096 bytes.

        Without one, a touch raises DiscardFault.
        """
        self.memory.restore_with(restore)

    def array(self, shape: int | tuple[int, ...], dtype: Any = "f8", rebuild: Rebuild | None = None,
              name: str = "") -> Array:
        """Return an array on this guest's memory, its pages the first free ones in a row; see `Array`.

        `rebuild(start, stop)` gives the elements of flat indexes `start` to `stop`; the array is volatile then, and
        starts as if all of it had been purged.  Without, it is stable and starts as zeros.  Not beside a guest kernel,
        which takes all pages.  UsageProblem when there is no room for it, or its shape, dtype or rebuild are none.
        """
        return make_array(Place(self.memory, self.processor, self._ranges), shape, dtype, rebuild, name)

    @property
    def target(self) -> int | None:
        """How many pages the hypervisor wants this guest to have; None where it has not said."""
        return self._target[0] or None

    def ping(self) -> None:
        """Make a hypercall that does nothing."""
        self.channel.call(Op.PING)
        self.counters[Count.HYPERCALLS] += 1

    def wait_gone(self, timeout: float | None = None) -> bool:
        """Wait until the hypervisor is gone; say whether it is.  Uses no processor meanwhile."""
        ends = select.poll()
        ends.register(self._link.fileno(), select.POLLRDHUP)  # its end: an answer to us is none, see `_hand_over`
        return bool(ends.poll(None if timeout is None else timeout * 1000))

    def close(self) -> None:
        """Leave the cluster; when this returns, all memory and pools have gone back.  Closing twice is harmless."""
        if self._link.fileno() < 0:
            return
        self._moving.close()
        self.memory.release()
        with suppress(OSError, HypervisorGone):
            door.send(self._link, {"call": "leave"})
            door.receive(self._link)                 # the answer is the end of the connection
        for queue in self._queues:
            queue.close()
        self._semaphore.close()
        self._link.close()
        self.memory.close()

    def __reduce__(self) -> NoReturn:
        raise UsageProblem(f"guest {self.name!r} cannot be copied to another process: a restore function must not "
                           f"refer to it")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

