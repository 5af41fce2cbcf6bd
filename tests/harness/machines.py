"""Machines under test: the parts of the hypervisor, real, in the process of the test.

    Running   the event loop runs in a thread; `inside(work)` has something done there, between two events
    Still     no loop: what a guest asks is answered in the caller's own thread, so a test chooses every step

Both are held against their audit at the end, and must give back every frame, slot, name and descriptor.
"""

import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from time import monotonic
from types import SimpleNamespace
from typing import Any

import posix_ipc
import pytest
from conformance.identities import broken

from guests import Guest
from guests.memory import Memory
from guests.processor import Processor
from guests.tmem import TmemClient
from hypervisor.domains import Domain, make_domain
from hypervisor.ledger import HEAP
from hypervisor.machine import Machine, Settings
from shm.abi import PAGE_SIZE, Op, Reply, decode_reply, encode_request
from shm.counters import HostCount, attach_counters
from shm.statemap import StateLock, StateMap
from shm.transfer import Transfer

DEADLINE_S = 20.0            # of every wait; reached only by a test that fails


class SparingMachine(Machine):
    """A machine whose guests live in the test's process: it ends them like any, but does not kill the test."""

    def __init__(self, settings: Settings) -> None:
        self.events: list[dict[str, Any]] = []
        super().__init__(settings, self.events.append)

    def end(self, domain: Domain, why: str) -> None:
        if domain.pid == os.getpid():
            self.bury(domain, "ended", why)
        else:
            super().end(domain, why)


class Held:
    """A machine under test, and what is asked of it at the end."""

    def __init__(self, settings: Settings) -> None:
        self.cluster = settings.cluster
        self.machine = SparingMachine(settings)
        self.expects_drift = False                   # a test that causes drift says so here ...
        self.expects_ended: set[str] = set()         # ... and names the guests that shall be ended
        self.guests: list[Any] = []

    def prove_sound(self) -> None:
        """Hold the audit against the machine while its guests are there."""
        audit = self.machine.orders.audit({})
        assert audit["problems"] + broken(self.machine) == []
        assert self.expects_drift or audit["max_drift_frames"] == 0, audit["drifts"]
        ended = {event["name"]: event["why"] for event in self.machine.events if event["event"] == "guest-ended"}
        assert set(ended) == self.expects_ended, ended
        assert self.machine.counts()[HostCount.VOLATILE_SWAP_WRITES] == 0

    def bury_guests(self) -> None:
        for domain in list(self.machine.domains.values()):
            self.machine.bury(domain, "stopped")

    def bury_all(self) -> None:
        """Close the guests and the machine, and see that frames and slots have all come back."""
        machine = self.machine
        try:
            self.bury_guests()
            assert broken(machine) == []
            assert machine.store.ephemeral == 0
            assert machine.ledger.used == machine.ledger.held.get(HEAP, 0) == machine.heap.spare
            assert machine.swap is None or machine.swap.used == 0
        finally:
            machine.close()


class Running(Held):
    """A machine whose loop runs in a thread.  `inside(work)` has something done in that thread, between two events."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._bell = os.eventfd(0)
        self.machine.watch(self._bell, self._do_jobs)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=self.cluster)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.machine.run()
        except BaseException as error:               # told at the end of the test, and by `inside`
            self.failure = error

    def _do_jobs(self) -> None:
        os.eventfd_read(self._bell)
        while not self._jobs.empty():
            work, future = self._jobs.get()
            try:
                future.set_result(work())
            except BaseException as error:           # it is the test's, and goes there
                future.set_exception(error)

    def inside(self, work: Callable[[], Any]) -> Any:
        """Return `work()`, called in the loop's thread between two events."""
        future: Future[Any] = Future()
        self._jobs.put((work, future))
        os.eventfd_write(self._bell, 1)
        try:
            return future.result(DEADLINE_S)
        except TimeoutError:
            raise AssertionError(f"the event loop does not answer: {self.failure!r}") from self.failure

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the loop finds `condition()` true between two events; AssertionError when it never does."""
        deadline = monotonic() + DEADLINE_S
        while not self.inside(condition):
            assert monotonic() < deadline, "it never came true"

    def guest(self, name: str = "g", pages: int = 16, max_pages: int | None = None, weight: int = 1) -> Guest:
        """Attach a guest of this process; it is closed at the end."""
        most = None if max_pages is None else max_pages * PAGE_SIZE
        self.guests.append(Guest.connect(self.cluster, name, pages * PAGE_SIZE, most, weight))
        return self.guests[-1]

    def domain(self, name: str = "g") -> Domain:
        """Return the hypervisor's side of the guest `name`."""
        return next(domain for domain in self.inside(lambda: list(self.machine.domains.values()))
                    if domain.name == name)

    def stop(self) -> None:
        """Audit, stop the loop, close everything."""
        try:
            if self.thread.is_alive():
                self.inside(self.prove_sound)
                for guest in self.guests:
                    guest.close()
        finally:
            self.machine.stopping = True
            os.eventfd_write(self._bell, 1)
            self.thread.join(DEADLINE_S)
            self.machine.unwatch(self._bell)
            os.close(self._bell)
            self._close_all()
        if self.failure is not None:
            raise self.failure

    def _close_all(self) -> None:
        try:
            self.bury_all()
        finally:
            for guest in self.guests:                # those of a machine that failed: their connections are closed now
                guest.close()


@pytest.fixture
def machine(new_cluster_name: Callable[[], str], stems: list[str]) -> Iterator[Callable[..., Running]]:
    """Start a machine: `machine(budget=64, scheme="cmm2+tmem", swap=1024, ...)`, sizes in pages, as `Settings`."""
    with ExitStack() as stack:
        def start(budget: int = 64, scheme: str = "cmm2+tmem", swap: int = 1024, **more: Any) -> Running:
            running = Running(Settings(new_cluster_name(), budget, scheme, swap=swap, **more))
            stems.append(running.machine.stem)
            stack.callback(running.stop)
            return running
        yield start


class DirectChannel:
    """Carries a call to the machine in the caller's own thread, as bytes both ways."""

    def __init__(self, machine: Machine, domain: Domain) -> None:
        self.machine, self.domain, self.seq = machine, domain, 0

    def call(self, op: Op, *arguments: int) -> Reply:
        self.seq += 1
        reply = decode_reply(self.machine.dispatch.answer(self.domain, encode_request(self.seq, op, *arguments)))
        assert reply.seq == self.seq
        return reply


class DirectGuest:
    """A guest of a machine that stands still: its domain, and its own views of the same objects."""

    def __init__(self, machine: Machine, name: str, pages: int, max_pages: int) -> None:
        self.machine, self.name, self.pages = machine, name, pages
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.domain = make_domain(machine.gate._guests, name, os.getpid(), theirs, pages, max_pages, 1, machine.stem,
                                  machine.facilities.kvm)
        machine.gate._guests += 1
        machine.admit(self.domain)
        objects = self.domain.objects
        self.semaphore = posix_ipc.Semaphore(f"/{self.domain.stem}.lock")
        self.map = StateMap(objects["usage"].map()[:pages], objects["content_read_only"].map(writable=False)[:pages],
                            StateLock(self.semaphore, patience=1.0), machine.facilities.kvm)
        self.counters = attach_counters(objects["count"].map().data)
        self.transfer = Transfer(objects["transfer"].map())
        self.channel = DirectChannel(machine, self.domain)
        self.memory = Memory(objects["ram"].map(), self.map, self.channel, self.transfer, self.counters)
        self.tmem = TmemClient(self.channel, self.transfer, self.counters)
        self.processor = Processor(self.map, self.memory, self.channel, self.transfer, self.counters,
                                   machine.facilities)
        self.essa, self.essa_one = self.map.essa, self.map.essa_one

    @property
    def counts(self) -> SimpleNamespace:
        """The hypervisor's counters of this guest, by name in lower case."""
        return SimpleNamespace(**{name.name.lower(): int(self.domain.counts[name]) for name in HostCount})

    def close(self) -> None:
        self.semaphore.close()
        self.link.close()


class Still(Held):
    """A machine whose loop does not run."""

    def guest(self, name: str = "g", pages: int = 16, max_pages: int | None = None) -> DirectGuest:
        self.guests.append(DirectGuest(self.machine, name, pages, max_pages or pages))
        return self.guests[-1]

    def stop(self) -> None:
        try:
            self.prove_sound()
        finally:
            for guest in self.guests:
                guest.close()
            self.bury_all()


@pytest.fixture
def still_machine(new_cluster_name: Callable[[], str], stems: list[str]) -> Iterator[Callable[..., Still]]:
    """Make a machine that stands still, of the same settings as `machine`."""
    with ExitStack() as stack:
        def make(budget: int = 64, scheme: str = "cmm2+tmem", swap: int = 1024, **more: Any) -> Still:
            still = Still(Settings(new_cluster_name(), budget, scheme, swap=swap, **more))
            stems.append(still.machine.stem)
            stack.callback(still.stop)
            return still
        yield make
