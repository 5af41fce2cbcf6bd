"""Hardware faults: what a guest's processor found on a page, and what is done about it.

One read brings many faults.  The states of their pages say what each is:

    Sz Sp   a frame is granted: zero-filled, or read back from the swap disk
    Vz      a discard fault: a frame is reserved, and the guest's pager is told to restore the page
    Uz      addressing exception: the guest touched what it had given up, and is ended
    r       looked at too late: it was granted meanwhile.  Where there is no frame the guest took it away itself
    store   to a write-protected page: the change bits are set, the protection is lifted

Rule 1: a fault is never answered by closing, by zeros that nobody asked for, or not at all.  What cannot be served now
        (no room, a lock that is held) waits here and is tried again; after DEADLINE_S the guest is ended, with the why.
Rule 2: neighbours of a page are granted with it while a toucher goes on from page to page: 8, then 64; no more than
        eight when frames are short.
        A neighbour that finds no frame, or that cannot be restored, is left as it was: nobody has touched it.
Rule 3: a pager says only that it failed.  Whether a page was filled the kernel is asked: nobody can lie about it.  A
        pager's death, its silence and its lies end its own guest.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import POLLIN, poll
from time import monotonic

import numpy as np

from hypervisor.domains import COLLECT_FROM, TOUCH_GRACE_S, Domain, Hardware
from hypervisor.giving import Wanting
from hypervisor.granting import Answer, Granting
from hypervisor.handover import checked_base, taken_over
from hypervisor.mapping import Unmapped
from hypervisor.onepage import OnePage
from hypervisor.references import references_of
from shm import paging
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.counters import HostCount
from shm.errors import BadHypercall, MemcommonsError, UsageProblem
from shm.pagestate import CONTENT_MASK, RESIDENT, Sp, Sz, Uz, Vz
from shm.userfault import EVENT_BYTES

DEADLINE_S = 5.0             # of each fault: for its frame, and for its pager
WINDOW_GROWTH, WINDOW_MOST = 8, 64
PAGER_GONE = "its pager is gone, and discarded pages could not be restored"


class Misbehaved(MemcommonsError):
    """The guest or its pager did what cannot be: the line is why the guest is ended."""


class Faults:
    """Serves the faults of all guests in hardware mode.

    `end(domain, why)` ends a guest; descriptors are registered with `watch(fd, callback)` and `unwatch(fd)`.
    """

    def __init__(self, granting: Granting, end: Callable[[Domain, str], None],
                 watch: Callable[[int, Callable[[], None]], None], unwatch: Callable[[int], None],
                 deadline: float = DEADLINE_S, access_bits: bool = True) -> None:
        self.granting, self.cmm2, self.end, self.deadline = granting, granting.cmm2, end, deadline
        self.watch, self.unwatch, self.access_bits = watch, unwatch, access_bits
        self.one_page = OnePage(granting)
        self.late = False                        # something waits to be tried again

    def adopt(self, domain: Domain, base: object, pager_pid: object, fds: list[int]) -> None:
        """Take over a guest's userfaultfd and the connection to its pager, as `handover.taken_over` says."""
        domain.hardware = taken_over(domain, base, pager_pid, fds)
        if self.access_bits:
            domain.hardware.references = references_of(domain.pid, domain.pidfd, domain.hardware.mapping.base,
                                                       domain.pages)
        domain.grace.seconds = TOUCH_GRACE_S
        self.watch(fds[0], lambda: self.serve(domain))
        self.watch(fds[1], lambda: self.hear_pager(domain))

    def drop(self, domain: Domain) -> None:
        """Watch a guest no more that is being buried."""
        if domain.hardware is not None:
            self.unwatch(domain.hardware.mapping.uffd.fd)
            self.unwatch(domain.hardware.pager.fileno())

    def moved(self, domain: Domain, base: object) -> bool:
        """Note that a guest's memory is mapped and registered at another address now; False: not yet.

        What the pager was asked for, or will be when its turn comes, bears the old address.
        """
        if domain.hardware is None:
            raise UsageProblem("hardware: there is no mapping that could be moved")
        start = checked_base(base, domain)
        if domain.hardware.restoring or domain.hardware.waiting or domain.hardware.stores:
            return False
        domain.hardware.mapping.base = start
        if domain.hardware.references is not None:
            domain.hardware.references.base = start
        return True

    # what the kernel reports

    def serve(self, domain: Domain) -> None:
        """Serve the faults that are waiting."""
        hardware, self.cmm2.cost.client = domain.hardware, domain
        assert hardware is not None
        if os.get_blocking(hardware.mapping.uffd.fd):        # the flag is shared: the guest has changed it
            self.end(domain, "it made its userfaultfd block, which would have held up everybody")
            return
        events = hardware.mapping.uffd.events()
        if not events or (len(events) == EVENT_BYTES and self.one_page.touched(domain, hardware, events)):
            return
        found = hardware.mapping.faults(events)
        domain.counts[HostCount.HARDWARE_FAULTS] += len(found.missing)
        domain.counts[HostCount.WRITE_FAULTS] += len(found.protected)
        with self._ending(domain):
            if found.outside:
                raise Misbehaved("a page fault outside its memory came through its userfaultfd")
            self._stored(domain, hardware, found.protected)
            self._touched(domain, hardware, found.missing)

    @contextmanager
    def _ending(self, domain: Domain) -> Iterator[None]:
        """End the guest when it turns out to have misbehaved."""
        try:
            yield
        except (Misbehaved, Unmapped) as error:
            self.end(domain, str(error))
        except ProcessLookupError:               # it is dying this very moment: its pidfd will say so
            pass
        except OSError as error:                 # nothing of one guest's may end the loop that serves them all
            self.end(domain, f"its memory cannot be served: {error.strerror}")

    def _stored(self, domain: Domain, hardware: Hardware, gfns: np.ndarray) -> None:
        if len(gfns) and not self.cmm2.stored(domain, gfns):
            self._later(hardware.stores, gfns)

    def _touched(self, domain: Domain, hardware: Hardware, gfns: np.ndarray) -> None:
        """Serve touches of missing pages, by what their states say."""
        if not len(gfns):
            return
        states = self.cmm2.states(domain, gfns)
        if states is None:
            self._later(hardware.waiting, gfns)
            return
        first = int(states[0])
        if len(gfns) == 1 and first in (Sz, Sp):
            self._grant(domain, hardware, self._with_neighbours(domain, hardware, gfns, first), gfns)
            return
        if (states == Uz).any():
            raise Misbehaved(f"addressing exception: it touched page {gfns[states == Uz][0]}, which it had given up")
        self._resident(hardware, gfns[domain.map.content[gfns] & CONTENT_MASK == RESIDENT])
        wanted = (states == Sz) | (states == Sp)
        if wanted.any():
            self._grant(domain, hardware, Wanting(gfns[wanted], states[wanted]), gfns)
        discarded = gfns[states == Vz]
        if len(discarded):
            if len(gfns) == 1:
                discarded = self._with_neighbours(domain, hardware, gfns, first).gfns
            self._deliver(domain, hardware, discarded, gfns)

    def _grant(self, domain: Domain, hardware: Hardware, wanting: Wanting, touched: np.ndarray) -> None:
        """Grant frames; of pages that get none now, those that were touched wait (sorted)."""
        answer, granted = self.granting.grant(domain, wanting)
        if answer is Answer.GRANTED and granted == len(wanting.gfns):
            return
        missing = wanting.gfns[domain.map.content[wanting.gfns] & CONTENT_MASK != RESIDENT]
        self._later(hardware.waiting, np.intersect1d(missing, touched))

    def _with_neighbours(self, domain: Domain, hardware: Hardware, gfns: np.ndarray, state: int) -> Wanting:
        """Add to one touched page those behind it in the same state, as far as touches have been a sequence."""
        gfn = int(gfns[0])
        hardware.window = min(WINDOW_MOST, WINDOW_GROWTH * hardware.window) if gfn == hardware.ahead else 1
        hardware.ahead = gfn + 1
        ledger = self.cmm2.ledger
        most = min(hardware.window, max(WINDOW_GROWTH, ledger.free - self.granting.reclaim.low))
        if most <= 1:
            return Wanting(gfns, np.array([state], np.uint8))
        states = domain.map.states(slice(gfn, min(gfn + most, domain.pages)))
        other = np.flatnonzero(states != state)
        count = int(other[0]) if len(other) else len(states)
        hardware.ahead = gfn + max(1, count)
        domain.counts[HostCount.PREFETCHED] += max(1, count) - 1
        return Wanting(np.arange(gfn, hardware.ahead), np.full(max(1, count), state, np.uint8))

    def _resident(self, hardware: Hardware, gfns: np.ndarray) -> None:
        """Look at touches of pages that have a frame by our account: too late, being restored, or taken away."""
        for gfn in gfns.tolist():
            if gfn in hardware.restoring:
                continue                                     # filling it will let the toucher go on
            if not hardware.mapping.has_frame(gfn):
                raise Misbehaved(f"page {gfn} was granted and is gone: the guest took it away itself")
            hardware.mapping.wake(np.array([gfn]))

    # discard faults

    def restore(self, domain: Domain, gfns: np.ndarray) -> None:
        """Have those of `gfns` (sorted) restored that were discarded, before they are touched, as a hypercall asks.

        BadHypercall when that cannot be: who carries the hypercall out ends the guest, and goes on with it no more.
        """
        assert domain.hardware is not None
        try:
            states = self.cmm2.states(domain, gfns)
            if states is not None and (states == Vz).any():
                self._deliver(domain, domain.hardware, gfns[states == Vz], gfns[:0])
        except (Misbehaved, Unmapped) as error:
            raise BadHypercall(str(error)) from error
        except ProcessLookupError:               # it is dying this very moment: its pidfd will say so
            pass

    def _deliver(self, domain: Domain, hardware: Hardware, gfns: np.ndarray, touched: np.ndarray) -> None:
        """Deliver discard faults (R26): reserve frames, and ask the guest's pager to restore the pages.

        `touched`: those that somebody stands at.  The others come along while there are frames, and none is missed.
        """
        count = self.granting.room(domain, len(gfns))
        begun, clean = self.cmm2.begin_restore(domain, gfns[:count])
        if len(begun) < len(gfns):
            self._later(hardware.waiting, np.setdiff1d(np.intersect1d(gfns, touched), begun))
        if not len(begun):
            return
        along = ~np.isin(begun, touched)
        hardware.along.update(begun[along].tolist())
        domain.counts[HostCount.DISCARD_FAULTS] += len(begun)
        self._ask_pager(domain, hardware, begun, clean * np.uint64(paging.CLEAN) | along * np.uint64(paging.ALONG))

    def _ask_pager(self, domain: Domain, hardware: Hardware, gfns: np.ndarray, bits: np.ndarray) -> None:
        """Ask a guest's pager for pages (sorted), each with its bits (`shm.paging`)."""
        hardware.restoring.update(dict.fromkeys(gfns.tolist(), monotonic()))
        try:
            for words in _messages(hardware.mapping.base, gfns, bits):
                hardware.pager.send(paging.encode(paging.RESTORE, words), socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise Misbehaved("its pager does not read what it is asked") from None
        except OSError:
            self._alive(domain)
            raise Misbehaved(PAGER_GONE) from None
        if len(hardware.restoring) >= COLLECT_FROM:
            hardware.collect(domain)

    def hear_pager(self, domain: Domain) -> None:
        """Take what a pager says."""
        hardware = domain.hardware
        assert hardware is not None
        with self._ending(domain), suppress(BlockingIOError):
            try:
                data = hardware.pager.recv(paging.MESSAGE_LIMIT + paging.TEXT_LIMIT, socket.MSG_DONTWAIT)
            except BlockingIOError:
                raise
            except OSError:                                  # reset, or never connected
                data = b""
            if not data:
                self._alive(domain)
                raise Misbehaved(PAGER_GONE)
            try:
                message = paging.decode(data, (paging.FAILED,))
            except paging.Malformed as error:
                raise Misbehaved(f"its pager sent {error}") from error
            gfns = [(word - hardware.mapping.base) // PAGE_SIZE for word in message.words]
            if len(gfns) != 1 or gfns[0] not in hardware.restoring:
                raise Misbehaved(f"its pager spoke of pages {gfns[:4]}, for which it was not asked")
            if gfns[0] not in hardware.along:
                raise Misbehaved(f"page {gfns[0]} could not be restored: {message.text}")
            hardware.along.remove(gfns[0])
            self._without(domain, hardware, gfns[0])

    def _without(self, domain: Domain, hardware: Hardware, gfn: int) -> None:
        """Go on without a page that was asked for along with others.

        It is discarded as before, and whoever has touched it meanwhile does so again.  Race: make-stable may have found
        it resident meanwhile, so it must be restored after all: it is asked for once more, as if touched.
        """
        if self.cmm2.forsake(domain, gfn):
            del hardware.restoring[gfn]
            hardware.mapping.wake(np.array([gfn]))
        else:
            self._ask_pager(domain, hardware, np.array([gfn]), np.zeros(1, np.uint64))

    def _alive(self, domain: Domain) -> None:
        """Raise ProcessLookupError when the guest is dead: its pager goes after it, and its pidfd says so."""
        dead = poll()
        dead.register(domain.pidfd, POLLIN)
        if dead.poll(0):
            if domain.hardware is not None:
                self.unwatch(domain.hardware.pager.fileno())
            raise ProcessLookupError

    # what has to wait

    def _later(self, waiting: dict[int, float], gfns: np.ndarray) -> None:
        now = monotonic()
        for gfn in gfns.tolist():
            waiting.setdefault(gfn, now)
        self.late = self.late or bool(len(gfns))

    def retry(self, domains: list[Domain]) -> None:
        """Try again what had to wait, and end the guests whose faults have waited too long."""
        self.late = False
        for domain in domains:
            if domain.hardware is not None:
                with self._ending(domain):
                    self._retry(domain, domain.hardware)

    def _retry(self, domain: Domain, hardware: Hardware) -> None:
        self.cmm2.cost.client = domain
        if hardware.restoring:
            hardware.collect(domain)
        too_old = monotonic() - self.deadline
        for pages, why in ((hardware.restoring, "its pager did not restore page {} within {:g} s"),
                           (hardware.waiting, "no frame could be found for page {} within {:g} s"),
                           (hardware.stores, "its state lock was not free for a store to page {} within {:g} s")):
            late = next((gfn for gfn, since in pages.items() if since < too_old), None)
            if late is not None and not (pages is hardware.restoring and hardware.progress >= too_old):
                raise Misbehaved(why.format(late, self.deadline))
        self._again(hardware.stores, lambda gfns: self._stored(domain, hardware, gfns))
        self._again(hardware.waiting, lambda gfns: self._touched(domain, hardware, gfns))

    def _again(self, waiting: dict[int, float], serve: Callable[[np.ndarray], None]) -> None:
        """Serve what waits once more; what must still wait keeps its age."""
        if not waiting:
            return
        ages = dict(waiting)
        waiting.clear()
        serve(np.array(sorted(ages)))
        waiting.update({gfn: ages[gfn] for gfn in waiting if gfn in ages})
        self.late = self.late or bool(waiting)


def _messages(base: int, gfns: np.ndarray, bits: np.ndarray) -> Iterator[list[int]]:
    """Yield the words of RESTORE for pages (sorted): runs of neighbours with the same bits, touched ones first."""
    for bit in np.unique(bits).tolist():
        chosen = gfns[bits == bit]
        for at in range(0, len(chosen), paging.PAGES_AT_ONCE):
            part = runs(chosen[at:at + paging.PAGES_AT_ONCE])
            yield [word for first, count in part for word in (base + first * PAGE_SIZE | bit, count)]
