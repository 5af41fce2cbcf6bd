"""What the hypervisor knows of each guest.

All that decides anything is private to the hypervisor: the guest's own arrays are looked at, under its lock, and never
trusted.  A domain costs 8 bytes a page: usage and content (shared, 1 each), swap slot (4), grace (1), holds (1).
"""

import os
import signal
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import posix_ipc

from hypervisor.mapping import Mapping
from hypervisor.references import References
from shm import names
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject
from shm.channel import HostEnd, make_queue
from shm.counters import HostCount, attach_counters
from shm.pagestate import CONTENT_MASK, REFERENCED, RESIDENT, ZERO
from shm.releaselist import ReleaseList
from shm.statemap import StateLock, StateMap
from shm.target import content_pages, target_word
from shm.transfer import TRANSFER_PAGES, Transfer

GRACE_S = 0.1                # a page just granted is no victim for so long, or until it was accessed
TOUCH_GRACE_S = 0.002        # ... in hardware mode, where nobody says that it was: the toucher goes on at once
LOCK_PATIENCE_S = 0.02       # a lock held longer is passed by ...
LOCK_LIMIT_S = 5.0           # ... and a guest that never gives it back in this time is ended
NO_SLOT = -1
RESTORING = 0x80             # of `holds`: the guest's pager is filling the page
COLLECT_FROM = 16            # pages that pagers were asked for: so many are worth a look at which are there
MOST_PINS = 0x7F             # ... the rest counts how often it is pinned


class Grace:
    """Pages granted a moment ago, so that the access that asked for them can happen before they are taken again."""

    def __init__(self, pages: int) -> None:
        self.mask = np.zeros(pages, bool)
        self.seconds = GRACE_S
        self._until: deque[tuple[float, np.ndarray | int]] = deque()

    def begin(self, gfns: np.ndarray) -> None:
        self.current()                                       # where nobody asks, what is over would pile up
        self.mask[gfns] = True
        self._until.append((monotonic() + self.seconds, gfns))

    def begin_one(self, gfn: int) -> None:
        self.mask[gfn] = True
        now = monotonic()
        while self._until and self._until[0][0] <= now:
            self.mask[self._until.popleft()[1]] = False
        self._until.append((now + self.seconds, gfn))

    def current(self) -> np.ndarray:
        """Return the mask of pages in their grace (bool, one a page)."""
        now = monotonic()
        while self._until and self._until[0][0] <= now:
            self.mask[self._until.popleft()[1]] = False
        return self.mask


@dataclass(eq=False)
class Hardware:
    """What a guest in hardware mode has beside the rest.  Written by `Faults`, references by the clock too."""

    mapping: Mapping
    pager: socket.socket
    waiting: dict[int, float] = field(default_factory=dict)      # touched pages not served yet, since when
    stores: dict[int, float] = field(default_factory=dict)       # stored to, the same
    restoring: dict[int, float] = field(default_factory=dict)    # pages that the pager was asked for, since when
    along: set[int] = field(default_factory=set)             # of these: nobody has touched them, for all we know
    progress: float = 0.0        # when the pager was last seen to have filled a page
    ahead: int = -1              # the page that a sequential toucher would touch next
    window: int = 1              # pages granted for the last touch
    references: References | None = None                         # its access bits, where they can be had
    pager_pidfd: int = -1        # of the pager, a child of the guest's

    def end_pager(self) -> None:
        """Kill the pager of a guest that is no more: it would go by itself, unless somebody has stopped it."""
        if self.pager_pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pager_pidfd, signal.SIGKILL)

    def unreference(self, pages: np.ndarray) -> None:
        """Clear access bits (sorted); do without them from now on where the guest's memory does not allow it."""
        if self.references is None:
            return
        try:
            self.references.forget(pages)
        except OSError:                                      # it is locked, or unmapped: the guest's own loss
            self.references.close()
            self.references = None

    def restore(self, gfn: int) -> None:
        """Note that the pager is asked for a touched page now."""
        self.restoring[gfn] = monotonic()

    def collect(self, domain: "Domain") -> None:
        """Ask the kernel which pages the pager has filled meanwhile: evictions may take them again."""
        done = [gfn for gfn in self.restoring if self.mapping.has_frame(gfn)]
        if not done:
            return
        for gfn in done:
            del self.restoring[gfn]
        self.along.difference_update(done)
        self.progress = monotonic()
        domain.grace.begin(np.array(done))                   # the page is there before it is mapped, by a moment
        domain.holds[done] &= 0xFF ^ RESTORING

    def close(self) -> None:
        if self.references is not None:
            self.references.close()
        self.mapping.close()
        self.pager.close()
        if self.pager_pidfd >= 0:
            os.close(self.pager_pidfd)


@dataclass(eq=False)
class Domain:
    """One guest.  Written by the event loop alone."""

    number: int
    name: str
    pid: int
    pidfd: int
    weight: int
    max_pages: int               # RAM and persistent pages together (max_mem)
    stem: str                    # of all its objects' names
    link: socket.socket          # its connection to the door
    ram: SharedObject
    objects: dict[str, SharedObject]
    map: StateMap
    queues: HostEnd
    transfer: Transfer
    counters: np.ndarray         # the guest's own, in shared memory
    target: np.ndarray           # uint64, one: pages that it shall have; 0: not said.  `Ballooning` writes it
    slots: np.ndarray            # int32: swap slot of each preserved page, else NO_SLOT
    grace: Grace
    holds: np.ndarray            # uint8: no eviction takes a page that is pinned, or RESTORING
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(HostCount), np.int64))
    lock_missed_since: float | None = None
    hand: int = 0                # where the search among its own pages alone goes on
    hardware: Hardware | None = None                         # its mapping and its pager, in hardware mode
    releases: ReleaseList | None = None                      # of the guest's processor, as KVM has it
    moved: dict[str, str] | None = None                      # where its tmem is now, if not here: see `migration`

    @property
    def pages(self) -> int:
        return self.ram.pages

    @property
    def mapping(self) -> Mapping | None:
        """The registered mapping of its memory; None in software mode."""
        return self.hardware.mapping if self.hardware is not None else None

    def collect(self) -> None:
        """Hold the pages no more that the guest's pager has filled meanwhile."""
        if self.hardware is not None and self.hardware.restoring:
            self.hardware.collect(self)

    def off_list(self, gfns: np.ndarray) -> np.ndarray:
        """Return those of `gfns` that do not wait on the release list (sorted).  The lock is held."""
        return gfns if self.releases is None else np.setdiff1d(gfns, self.releases.listed(self.pages))

    def resident_mask(self) -> np.ndarray:
        """Return which pages have a frame (bool): `content` is ours alone, so this needs no lock."""
        return (self.map.content & CONTENT_MASK) == RESIDENT

    def referenced(self) -> np.ndarray:
        """Return which pages were accessed since the clock's hand came by (bool)."""
        marked = self.map.usage & REFERENCED != 0
        if self.hardware is None or self.hardware.references is None:
            return marked
        return marked | self.hardware.references.touched()

    def unreference(self, pages: np.ndarray) -> None:
        """Clear referenced bits (sorted), under the lock: the accessor sets bits of the same bytes."""
        if self.lock():
            self.map.usage[pages] &= 0xFF ^ REFERENCED
            self.unlock()
        if self.hardware is not None:
            self.hardware.unreference(pages)

    def lock(self) -> bool:
        """Take the state lock, waiting briefly; say whether it was had (if not: who holds it too long?)."""
        if self.map.lock.acquire(LOCK_PATIENCE_S):
            self.lock_missed_since = None
            return True
        self.counts[HostCount.LOCK_PASSED_BY] += 1
        self.lock_missed_since = self.lock_missed_since or monotonic()
        return False

    def unlock(self) -> None:
        """Release the state lock; one that the guest has set to its maximum (EOVERFLOW) is as free as can be."""
        with suppress(OSError):
            self.map.lock.release()

    @property
    def keeps_lock_too_long(self) -> bool:
        return self.lock_missed_since is not None and monotonic() - self.lock_missed_since > LOCK_LIMIT_S


def make_domain(number: int, name: str, pid: int, link: socket.socket, pages: int, max_pages: int, weight: int,
                cluster_stem: str, kvm: bool = False) -> Domain:
    """Make a guest's objects and its domain; UsageProblem, with nothing left behind, when there is no room.

    `kvm`: its processor executes ESSA as KVM has it (`shm.facilities`).
    """
    stem = f"{cluster_stem}.g{number}"
    pidfd, objects, queues = os.pidfd_open(pid), dict[str, SharedObject](), list[posix_ipc.MessageQueue]()
    try:
        _make_objects(stem, pages, objects)
        for end in names.QUEUES:
            queues.append(make_queue(f"{stem}.{end}"))
        lock = StateLock(posix_ipc.Semaphore(f"/{stem}.lock", posix_ipc.O_CREX, mode=0o600, initial_value=1))
    except BaseException:
        for fd in (pidfd, *(made.fd for made in objects.values())):
            os.close(fd)
        for queue in queues:
            queue.close()
        names.forget_guest(stem)
        raise
    usage, content = objects["usage"].map()[:pages], objects["content"].map()
    target, content = target_word(content), content[:pages]
    content[:] = ZERO
    transfer = Transfer(objects["transfer"].map())
    return Domain(
        number=number, name=name, pid=pid, pidfd=pidfd, weight=weight, max_pages=max_pages, stem=stem, link=link,
        ram=objects["ram"], objects=objects, map=StateMap(usage, content, lock, kvm), queues=HostEnd(*queues),
        transfer=transfer, releases=ReleaseList(transfer.releases) if kvm else None,
        counters=attach_counters(objects["count"].map().data), target=target,
        slots=np.full(pages, NO_SLOT, np.int32), grace=Grace(pages),
        holds=np.zeros(pages, np.uint8),
    )


def _make_objects(stem: str, pages: int, objects: dict[str, SharedObject]) -> None:
    """Fill `objects`: the guest's memory, sparse, and control objects with all their frames, so no touch can fail."""
    sizes = {"usage": -(-pages // PAGE_SIZE), "content": content_pages(pages), "transfer": TRANSFER_PAGES, "count": 1}
    objects["ram"] = SharedObject.create(f"{stem}.ram", pages)
    for kind, size in sizes.items():
        objects[kind] = SharedObject.sealed(f"{stem}.{kind}", size)
    objects["content_read_only"] = SharedObject(objects["content"].read_only_fd())


def close_domain(domain: Domain) -> None:
    """Drop a dead guest's frames, whoever still maps them, close all and unlink all names."""
    for held in domain.objects.values():
        held.drop() if held is domain.ram else None
        held.close()
    if domain.hardware is not None:
        domain.hardware.close()
    domain.queues.close()
    domain.map.lock.semaphore.close()
    domain.link.close()
    os.close(domain.pidfd)
    names.forget_guest(domain.stem)
