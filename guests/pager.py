"""The pager: a small process beside a guest that restores discarded pages in hardware mode.

The thread that touched a discarded page stands in the kernel, perhaps with Python's lock in its hands: so whoever
restores the page is another process.  The hypervisor reserves the frame and names the page; the pager finds the bytes,
fills the page through the guest's userfaultfd, which lets the thread go on.

Where the bytes come from says `guests.pager_sources`.

Rule 1: fill only what the hypervisor has named: a frame taken otherwise is found by its audit, and ends the guest.
Rule 2: what cannot be restored is said, with one line; the hypervisor then ends the guest, if anybody has touched the
        page.  Nothing is made up.
Rule 3: the userfaultfd is held here as well as there, so that the hypervisor's death never completes a fault with
        zeros.  When the hypervisor is gone, the guest has LEAVE_S to leave by itself; then it is killed.
Rule 4: whoever dies is noticed at once, though a restore function hang: a second thread waits for nothing else, and is
        the one that ends this process.  All other work is the first one's.

Small: no numpy, no msgpack, no package of ours that imports them.  What a restore function imports is its own affair.
"""

import _thread
import ctypes
import mmap
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from guests.pager_sources import Part, Restore, Sources, Unrestorable
from shm import paging
from shm.paging import PAGE, Malformed, Message
from shm.userfault import Userfault

LEAVE_S = 2.0
AT_ONCE_S = 0.5              # a source is asked for as many pages at once as it last gave in this time
_RESTORED_WORD = 35          # Count.PAGER_RESTORED: written by the pager alone


class Pager:
    """Serves one guest.  `leaving` is written by the thread that serves and read by the other (rule 4)."""

    def __init__(self, host: socket.socket, guest: socket.socket, uffd: Userfault, sources: Sources,
                 counters: memoryview, guest_pid: int) -> None:
        self.host, self.guest, self.uffd, self.sources, self.counters = host, guest, uffd, sources, counters
        self.pidfd, self.name = os.pidfd_open(guest_pid), f"pid {guest_pid}"
        self.base = 0                                        # where the guest's memory lies in the guest
        self.leaving = False
        self._most = 1                                       # pages that are asked for at once: see AT_ONCE_S
        self._stage = mmap.mmap(-1, paging.PAGES_AT_ONCE * PAGE)
        self._source = ctypes.addressof(ctypes.c_char.from_buffer(self._stage))

    def serve(self) -> None:
        """Restore pages until the guest is gone, or the hypervisor: then the process ends."""
        _thread.start_new_thread(self._mourn, ())
        ends = select.poll()
        for end in (self.host.fileno(), self.guest.fileno()):
            ends.register(end, select.POLLIN)
        while True:
            ready = dict(ends.poll())
            if self.guest.fileno() in ready and not self._hear_guest():
                ends.unregister(self.guest.fileno())         # it dies, or leaves: wait for the hypervisor to know
                self.leaving = True
            if self.host.fileno() in ready and not self._hear_host():
                ends.unregister(self.host.fileno())          # the other thread sees the guest out

    def _hear_host(self) -> bool:
        """Restore what the hypervisor names; False when it is gone."""
        data = _received(self.host)
        if not data:
            return False
        try:
            message = paging.decode(data, (paging.RESTORE,))
        except Malformed:                                    # a hypervisor that speaks so is none
            return False
        try:
            self._restore(self._named(message.words), message.words[0])
        except OSError as error:                             # the guest's memory is gone, or filled already
            self._failed((message.words[0] - self.base) // PAGE, f"page at {message.words[0]:#x}: {error.strerror}")
        return True

    def _named(self, words: Sequence[int]) -> list[int]:
        """Return the pages that a message names."""
        first = (words[0] - self.base) // PAGE
        if words[1:] == (1,):                                # the usual message, and somebody stands there
            return [first]
        return [gfn for word, pages in zip(words[::2], words[1::2], strict=True)
                for gfn in range((word - self.base) // PAGE, (word - self.base) // PAGE + pages)]

    def _failed(self, gfn: int, why: str, along: bool = False) -> None:
        """Say that a page cannot be restored: to the hypervisor, and on the guest's stderr, since it will be ended.

        Of a page `along` with one that was touched only the hypervisor is told: nobody waits for it.
        """
        why = " ".join(why.split())                          # it may hold a function's words
        if not along:
            _complain(f"guest ({self.name}): page {gfn} cannot be restored: {why}")
        with suppress(OSError):                              # the next read finds out
            self.host.send(paging.encode(paging.FAILED, (self.base + gfn * PAGE,), why))

    def _restore(self, gfns: Sequence[int], bits: int) -> None:
        """Fill pages that were named with these bits, those together that one request has."""
        for part in self.sources.parts(gfns):
            done = 0
            while done < len(part.gfns):
                done += self._restore_some(part.cut(done, self._most), bits)

    def _restore_some(self, part: Part, bits: int) -> int:
        """Fill the first pages of a part, or say that the first cannot be; return how many are done with."""
        try:
            data = self._bytes_of(part)
        except (Unrestorable, OSError) as error:
            self._failed(part.gfns[0], str(error), bool(bits & paging.ALONG))
            return 1                                         # the others may be better off
        count = len(data) // PAGE
        self._fill(part.gfns[:count], data, bool(bits & paging.CLEAN))
        return count

    def _bytes_of(self, part: Part) -> bytes:
        """Return the bytes of a part's first page, and of those behind it as far as that goes well and fast."""
        began = monotonic()
        try:
            data = self.sources.bytes_of(part)
        except (Unrestorable, OSError):
            if len(part.gfns) == 1:
                raise
            data = self.sources.bytes_of(part.cut(0, 1))     # which of them failed?  Not this one, perhaps
        spent = (monotonic() - began) / (len(data) // PAGE)
        self._most = min(paging.PAGES_AT_ONCE, max(1, int(AT_ONCE_S / spent))) if spent else paging.PAGES_AT_ONCE
        return data

    def _fill(self, gfns: Sequence[int], data: bytes, clean: bool) -> None:
        """Fill pages, counted before: filling lets the toucher go on, and who has seen the page sees the count."""
        self._stage[:len(data)] = data
        self.counters[_RESTORED_WORD] += len(gfns)
        for at, gfn, count in _runs(gfns):
            start, source, length, done = self.base + gfn * PAGE, self._source + at * PAGE, count * PAGE, 0
            while done < length:
                done += self.uffd.copy(start + done, source + done, length - done, clean)

    def _hear_guest(self) -> bool:
        """Take a disk or a function over; False when the guest has closed its end."""
        try:
            data, fds, _, _ = socket.recv_fds(self.guest, paging.MESSAGE_LIMIT + paging.TEXT_LIMIT, 4)
        except OSError:
            return False
        if not data:
            return False
        try:
            message, problem = paging.decode(data, (paging.DISK, paging.FUNCTION, paging.MOVED)), ""
            self._take(message, fds)
        except Exception as error:                           # told to the guest, whose function or disk it is
            problem = f"{type(error).__name__}: {error}"
        with suppress(OSError):
            self.guest.send(paging.encode(paging.DONE, (), problem))
        return True

    def _take(self, message: Message, fds: list[int]) -> None:
        if message.kind == paging.MOVED:
            (self.base,) = message.words
        elif message.kind == paging.DISK:
            number, *cost = message.words
            self.sources.disks[number] = fds[0]
            if cost:
                self.sources.costs[number] = cost[0], cost[1]
        else:
            first, pages = message.words
            if fds:
                self.sources.add(first, pages, _function(fds[0]))
            else:
                self.sources.forget(first, pages)

    def _mourn(self) -> None:
        """Wait until the guest is dead, or the hypervisor, and end the process."""
        ends = select.poll()
        ends.register(self.pidfd, select.POLLIN)
        ends.register(self.host.fileno(), select.POLLRDHUP)
        if self.pidfd not in dict(ends.poll()):
            self._bereaved()
        os._exit(0)

    def _bereaved(self) -> None:
        """The hypervisor is gone, and no fault will be resolved any more: see the guest out."""
        leaving = select.poll()
        leaving.register(self.pidfd, select.POLLIN)
        leaving.register(self.guest.fileno(), select.POLLRDHUP)      # a message of its is no leaving
        if self.leaving or leaving.poll(LEAVE_S * 1000):
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        _complain(f"guest ({self.name}): the hypervisor is gone; this guest did not leave, and was ended")


def _runs(gfns: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the runs of neighbours among pages: where a run begins in the sequence, its first page, how many."""
    if len(gfns) == 1:
        return [(0, gfns[0], 1)]
    starts = [0, *(at for at in range(1, len(gfns)) if gfns[at] != gfns[at - 1] + 1)]
    return [(at, gfns[at], end - at) for at, end in zip(starts, [*starts[1:], len(gfns)], strict=True)]


def _complain(line: str) -> None:
    with suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))


def _function(fd: int) -> Restore:
    """Return the function that lies pickled in a descriptor."""
    import pickle
    with os.fdopen(fd, "rb") as blob:
        blob.seek(0)
        restore: Restore = pickle.load(blob)
        return restore


def _received(link: socket.socket) -> bytes:
    try:
        return link.recv(paging.MESSAGE_LIMIT + paging.TEXT_LIMIT)
    except OSError:
        return b""


def main(arguments: list[str]) -> int:
    """Serve the guest whose descriptors and numbers the arguments are."""
    host, guest, uffd, table, counters, pages, pid, base = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)             # Ctrl-C is the guest's to understand
    words = memoryview(mmap.mmap(counters, PAGE)).cast("q")
    sources = Sources(memoryview(mmap.mmap(table, pages * 8, access=mmap.ACCESS_READ)).cast("q"), words)
    pager = Pager(socket.socket(fileno=host), socket.socket(fileno=guest), Userfault(uffd), sources, words, pid)
    pager.base = base
    pager.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
