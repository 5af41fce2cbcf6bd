"""The machine: builds the parts, runs the event loop, takes guests in and buries them.

One thread does everything.  A round of the loop: events (requests, the door, deaths), then background reclaim, then
what the clock says is due.  Between two events the ledger equals what the kernel says is resident.
"""

import fcntl
import os
import select
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import Any

import numpy as np
import psutil

from hypervisor.allowance import Allowance
from hypervisor.audit import Audit, probe
from hypervisor.ballooning import Ballooning
from hypervisor.cmm2 import Cmm2
from hypervisor.dispatch import Dispatch
from hypervisor.domains import Domain, close_domain
from hypervisor.faults import DEADLINE_S as FAULT_DEADLINE_S
from hypervisor.faults import Faults
from hypervisor.gate import Gate
from hypervisor.granting import Granting
from hypervisor.ledger import HEAP, Ledger
from hypervisor.migration import Migration
from hypervisor.orders import Orders
from hypervisor.policy import policy_of
from hypervisor.policy.balloon import DEFAULT as BALLOON
from hypervisor.policy.balloon import Rules as BalloonRules
from hypervisor.processor import ProcessorCalls
from hypervisor.reclaim import Reclaim
from hypervisor.schemes import SCHEMES, Scheme
from hypervisor.swap import SwapDisk
from hypervisor.swapcost import SwapCost
from hypervisor.tmem.calls import TmemCalls
from hypervisor.tmem.control import Control
from hypervisor.tmem.forms import Form
from hypervisor.tmem.heap import Heap
from hypervisor.tmem.shelf import Rules
from hypervisor.tmem.storage import Storage
from hypervisor.tmem.store import Store
from hypervisor.tmem.targets import Targets
from shm import door, names
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject
from shm.channel import HaltPoll
from shm.counters import HostCount
from shm.diskcost import VIRTUAL, WAITED, model_named
from shm.errors import BadHypercall
from shm.facilities import CMMA

RETRY_S = 0.002              # a fault that had to wait is tried again so soon
TICK_S = 0.1                 # the kernel's count is sampled so often
COMPACT_PAGES = 64           # stored pages moved together each time
AUDIT_S = 1.0                # ... and held against the ledger so often
XEN_QUIRKS = "xen-4.2"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a hypervisor is started with.  Sizes in pages."""

    cluster: str
    budget: int
    scheme: str = "cmm2+tmem"
    reclaim: str = "hint-after-choice"
    bias: float = 0.0            # of its choice towards what need not be preserved: 0 to 1
    swap: int = 0
    ephemeral_pages: int = 0
    folder: str | None = None    # of the swap disk
    form: str = "raw"            # in which a new guest's tmem pages are stored
    quirks: str = "none"         # or "xen-4.2"
    targets: str = "greedy"      # of persistent tmem: a row of `hypervisor.policy.targets`
    write_back: bool = False     # persistent tmem pages may go to the swap disk
    access_bits: bool = True     # look for them in hardware mode; without, its clock knows the order of places alone
    fault_deadline: float = FAULT_DEADLINE_S     # seconds in which a hardware fault must be resolved
    dedup_across: bool = False   # equal pages of different guests share a frame: a timing channel between them
    cmma: str = "architected"    # how guests' processors execute ESSA: a row of `shm.facilities.CMMA`
    balloon: BalloonRules = BALLOON     # how balloons are steered, where the scheme has them
    disk: str = "none"           # what the swap disk costs: a row of `shm.diskcost.MODELS`
    disk_time: str = VIRTUAL     # or WAITED
    direct: bool = False         # the swap disk is read and written past the machine's page cache


class Machine:
    """A running hypervisor.  `report(event)` is told what happens to guests."""

    def __init__(self, settings: Settings, report: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        scheme = SCHEMES[settings.scheme]
        self.settings, self.report = settings, report
        self.domains: dict[int, Domain] = {}
        self.departed = np.zeros(len(HostCount), np.int64)   # counts of guests that are gone
        self.stopping = False
        self._watched: dict[int, Callable[[], None]] = {}
        self._poller = select.epoll()
        self._halt = HaltPoll()
        self._cores = len(os.sched_getaffinity(0))
        self._next_tick = self._next_audit = monotonic()
        self._undo = ExitStack()                             # what was made, to be unmade in turn
        try:
            self._build(settings, scheme)
        except BaseException:
            self._undo.close()
            raise

    def _build(self, settings: Settings, scheme: Scheme) -> None:
        self._undo.callback(self._poller.close)
        listener = self._undo.enter_context(door.listen(settings.cluster))
        self.stem = names.stem(settings.cluster, names.new_run())
        holder = self._make("cluster", 1)
        fcntl.flock(holder.fd, fcntl.LOCK_EX)
        self.ledger = Ledger(settings.budget)
        has_disk = settings.swap and (scheme.swap or (scheme.tmem and settings.write_back))
        self.cost = SwapCost(model_named(settings.disk), settings.disk_time == WAITED)
        self.swap = SwapDisk(settings.swap, settings.folder, self.cost, settings.direct) if has_disk else None
        if self.swap is not None:
            self._undo.callback(self.swap.close)
        self.cmm2 = Cmm2(self.ledger, self.swap if scheme.swap else None, self.cost)
        self.reclaim = Reclaim(self.ledger, self.domains, self.cmm2,
                               policy_of(settings.reclaim, settings.bias))
        most = psutil.virtual_memory().total // PAGE_SIZE    # sparse: a budget may be raised to all there is
        self.heap = Heap(self._make("heap", most), self.ledger, lambda frames: self.reclaim.room(HEAP, frames))
        self.allowance = Allowance(self)
        self.store = Store(Storage(self.heap, self.swap, settings.dedup_across), self._rules(settings, scheme),
                           self.allowance)
        self.targets = Targets(self.store, settings.targets)
        self.control = Control(self.store)
        self.reclaim.heap, self.reclaim.store = self.heap, self.store
        self.audit = Audit(self.ledger, self.domains, self.heap)
        self.ballooning = Ballooning(self.ledger, self.domains, settings.balloon) if scheme.balloon else None
        self.facilities = CMMA[settings.cmma]
        granting = Granting(self.cmm2, self.reclaim, self.store)
        self.faults = Faults(granting, self.end, self.watch, self.unwatch, settings.fault_deadline,
                             settings.access_bits)
        self.dispatch = Dispatch(granting, self.faults, TmemCalls(self.store, self.control, scheme.tmem),
                                 ProcessorCalls(self.cmm2, self.facilities))
        self.orders = Orders(self)
        self.migration = Migration(self)
        self.gate = Gate(listener, self.stem, self.facilities.offered(scheme.features), self.orders.table, self.domains,
                         self.watch, self.unwatch, self.admit, self.bury, self.migration, self.facilities,
                         self.faults)
        self._undo.callback(self.gate.close)
        probe(self.heap)

    def _make(self, kind: str, pages: int) -> SharedObject:
        """Make an object of the cluster; closing unlinks it, and gives its frames back whoever maps it."""
        made = SharedObject.create(f"{self.stem}.{kind}", pages)
        for step in (made.close, made.drop, made.unlink):
            self._undo.callback(step)
        return made

    @staticmethod
    def _rules(settings: Settings, scheme: Scheme) -> Rules:
        """A guest of a host that caches its disks makes a shared pool of its own, under a secret that it draws."""
        return Rules(ephemeral_cap=settings.ephemeral_pages, form=Form[settings.form.upper()],
                     quirks=settings.quirks == XEN_QUIRKS, write_back=settings.write_back,
                     authorise=not scheme.host_cache)

    # guests come and go

    def admit(self, domain: Domain) -> None:
        self.domains[domain.number] = domain
        self.store.clients.expect(domain.number, domain.weight)
        self.targets.decide(self.domains, self.allowance.pool)
        self.resume(domain)
        self.watch(domain.pidfd, lambda: self.bury(domain, "died"))
        self._allow_polling()

    def pause(self, domain: Domain) -> None:
        """Leave a guest's requests unread in its queue, until `resume`."""
        self.unwatch(domain.queues.requests.mqd)

    def resume(self, domain: Domain) -> None:
        """Read a guest's requests, if it is still there and they are not read already."""
        if self.domains.get(domain.number) is domain and domain.queues.requests.mqd not in self._watched:
            self.watch(domain.queues.requests.mqd, lambda: self._serve(domain))

    def end(self, domain: Domain, why: str) -> None:
        """End a guest that broke the rules: kill it, take back what it had, and say why."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(domain.pidfd, signal.SIGKILL)
        self.bury(domain, "ended", why)

    def bury(self, domain: Domain, how: str, why: str = "") -> None:
        """Take back all that a guest had.

        Race: a process of its that still dies, or a child of its that lives, may touch its memory.  The object is cut
        to length 0 before anything is released, so a touch is that process's SIGBUS and no frame.  A lock that it
        held dies with it: nothing of a guest outlives the guest, so nothing needs mending.
        """
        for fd in (domain.queues.requests.mqd, domain.pidfd, domain.link.fileno()):
            self.unwatch(fd)
        self.faults.drop(domain)
        if domain.hardware is not None and how in ("ended", "died"):
            domain.hardware.end_pager()
        del self.domains[domain.number]
        close_domain(domain)
        self.store.forget(domain.number)
        self.cmm2.forget(domain)
        self.migration.bereave(domain)
        self.departed += domain.counts
        self._allow_polling()
        event = {"event": f"guest-{how}", "name": domain.name, "pid": domain.pid}
        self.report(event | {"why": why} if why else event)

    def _allow_polling(self) -> None:
        """Let the parties poll only while each has a core of its own: pollers that share cores starve each other.

        A pager is a party: it sleeps, but what it is woken for is what the others wait for.
        """
        pagers = sum(domain.hardware is not None for domain in self.domains.values())
        self._may_poll = 1 + len(self.domains) + pagers <= self._cores
        for domain in self.domains.values():
            domain.transfer.may_poll = self._may_poll

    # the loop

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._watched[fd] = callback
        self._poller.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None):
            self._poller.unregister(fd)

    def run(self) -> None:
        """Serve until told to stop."""
        while not self.stopping:
            # Race: an event before may have closed a later one's descriptor, and its number may be another's by now.
            for fd, callback in [(fd, self._watched[fd]) for fd, _ in self._wait()]:
                if self._watched.get(fd) is callback:
                    self.cost.client = None
                    callback()
            self.cost.client = None
            self.reclaim.background()
            if self.cmm2.doomed or self.faults.late:
                self._settle_accounts()
            if monotonic() >= self._next_tick:
                self._tick()

    def _wait(self) -> list[tuple[int, int]]:
        """Return the next events: poll for a while if a core is free for that, then sleep until the next tick."""
        start = monotonic_ns()
        stop = start + (self._halt.window if self._may_poll and self.domains else 0)
        events = self._poller.poll(0)
        while not events and monotonic_ns() < stop:
            os.sched_yield()                                 # a guest may be waiting for this very core
            events = self._poller.poll(0)
        if not events:
            longest = RETRY_S if self.faults.late else max(0.0, self._next_tick - monotonic())
            events = self._poller.poll(longest)
        if events:
            self._halt.settle(monotonic_ns() - start)
        return events

    def _settle_accounts(self) -> None:
        """End the guests whose memory is not what they said, and try again the faults that had to wait."""
        while self.cmm2.doomed:
            domain, why = self.cmm2.doomed.popitem()
            if self.domains.get(domain.number) is domain:
                self.end(domain, why)
        if self.faults.late:
            self.faults.retry(list(self.domains.values()))

    _may_poll = True

    def _serve(self, domain: Domain) -> None:
        """Answer one request of one guest: one a round, so that a flood of one is nobody else's wait."""
        message = domain.queues.receive()
        if message is None:
            return
        try:
            domain.queues.reply(self.dispatch.answer(domain, message))
        except BadHypercall as error:
            self.end(domain, str(error))

    def _tick(self) -> None:
        now = monotonic()
        self._next_tick = now + TICK_S
        self.migration.tick()
        self._allow_polling()
        self.faults.retry(list(self.domains.values()))       # for the deadlines of what pagers were asked
        self.cost.client = None
        self.audit.kernel_frames()
        self.store.compact(COMPACT_PAGES)
        self.targets.tick(now, self.domains, self.allowance.pool)
        if self.ballooning is not None:
            self.ballooning.tick(now)
        if now >= self._next_audit:
            self._next_audit = now + AUDIT_S
            self.check()

    def check(self) -> None:
        """Audit, settle void copies, and end the guests that took frames or keep their lock."""
        for domain in self.audit.check():
            self.end(domain, "it took frames that were not granted")
        for domain in list(self.domains.values()):
            self.cmm2.settle(domain)
            if domain.lock_missed_since is not None and domain.lock():   # given back since, maybe long ago
                domain.unlock()
            if domain.keeps_lock_too_long:
                self.end(domain, "it kept its state lock too long")

    def counts(self) -> np.ndarray:
        """Return the counters of all guests that ever were, in sum."""
        total = self.departed + sum((domain.counts for domain in self.domains.values()), np.zeros_like(self.departed))
        total[HostCount.TMEM_EVICTIONS] = self.store.evictions
        total[HostCount.BACKGROUND_RECLAIMS] = self.reclaim.background_runs
        total[HostCount.SWAP_BUSY_NS] = self.cost.busy_ns
        return total

    def close(self) -> None:
        """Stop: guests find their connections closed, and nothing keeps a name or a frame."""
        self.migration.close()
        for domain in list(self.domains.values()):
            self.bury(domain, "stopped")
        self.heap.release()
        self._undo.close()
