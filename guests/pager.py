"""The pager: a small process beside a guest that restores discarded pages in hardware mode.

The thread that touched a discarded page stands in the kernel, perhaps with Python's lock in its hands: so whoever
restores the page is another process.  The hypervisor reserves the frame and names the page; the pager finds the bytes,
fills the page through the guest's userfaultfd, which lets the thread go on.

Where the bytes come from, the first that knows the page:

    a function for a range of pages     `guest.array(..., rebuild=f)`: a copy of f, called here
    the table of sources                a block of a guest's disk, or zeros; kept by the guest kernel
    a function for every page           `guest.on_discard(handler)`

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
import time
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from shm import paging
from shm.paging import PAGE, Malformed, Message
from shm.userfault import Userfault

LEAVE_S = 2.0
AT_ONCE_S = 0.5              # a source is asked for as many pages at once as it last gave in this time
HANGING_S = 60               # a restore function that runs so long is of a guest that was ended: SIGALRM ends the pager
# Count.PAGER_RESTORED, PAGER_DISK_READS, PAGER_DISK_REQUESTS: written by the pager alone
_RESTORED_WORD, _READ_WORD, _REQUESTS_WORD = 35, 36, 37
NANO = 1_000_000_000

Restore = Callable[[int, int], bytes]        # (gfn, pages) -> their bytes


class Unrestorable(Exception):
    """A page whose bytes cannot be had; the line says why."""


class Sources:
    """All that may know a page's bytes."""

    def __init__(self, table: memoryview, counters: memoryview) -> None:
        self._table, self._counters = table, counters
        self._block = memoryview(mmap.mmap(-1, paging.PAGES_AT_ONCE * PAGE))     # on pages: a disk's file may be direct
        self.disks: dict[int, int] = {}
        self.costs: dict[int, tuple[int, int]] = {}          # of a disk: ns to sleep for a request, and for each block
        self.ranges: list[tuple[int, int, Restore]] = []     # first, pages; the latest first
        self.last_resort: Restore | None = None              # for pages that nobody else knows

    def bytes_of(self, gfn: int, most: int) -> bytes:
        """Return the bytes of page `gfn`, and of up to `most - 1` pages behind it where that is no more work."""
        for first, pages, restore in self.ranges:
            if first <= gfn < first + pages:
                count = min(most, first + pages - gfn)
                return _checked(restore, gfn, count)
        if self._table[gfn] == paging.NOBODY and self.last_resort is not None:
            return _checked(self.last_resort, gfn, self._unknown(gfn, most))
        return self._from_table(gfn, most)

    def _unknown(self, gfn: int, most: int) -> int:
        """Return how many pages from `gfn` on, up to `most`, nobody else knows."""
        most = min([most, *(first - gfn for first, _, _ in self.ranges if first > gfn)])
        return next((n for n in range(1, most) if self._table[gfn + n] != paging.NOBODY), most)

    def _from_table(self, gfn: int, most: int) -> bytes:
        entry = self._table[gfn]
        if entry == paging.ZEROS:
            return bytes(PAGE)
        if entry == paging.NOBODY:
            raise Unrestorable(f"nothing can restore page {gfn}: it was made volatile without a source")
        count = 1
        while count < most and entry >> paging.TAIL_SHIFT == 0 and self._table[gfn + count] == entry + count:
            count += 1
        tail, entry = divmod(entry, 1 << paging.TAIL_SHIFT)
        disk, block = divmod(entry - paging.FIRST_BLOCK, 1 << paging.DISK_SHIFT)
        if disk not in self.disks:
            raise Unrestorable(f"page {gfn} is on disk {disk}, which was never named")
        read = os.preadv(self.disks[disk], [self._block[:count * PAGE]], block * PAGE)
        data = bytes(self._block[:read])
        if len(data) <= (count - 1) * PAGE:                  # the last block of an image may be cut: zeros follow
            raise Unrestorable(f"disk {disk} ends before block {block + count - 1}")
        self._counters[_READ_WORD] += count
        self._counters[_REQUESTS_WORD] += 1
        latency, transfer = self.costs.get(disk, (0, 0))
        if latency:
            time.sleep((latency + count * transfer) / NANO)
        return (data[:tail] if tail else data).ljust(count * PAGE, b"\0")

    def add(self, first: int, pages: int, restore: Restore) -> None:
        """Take a restore function over, in place of those whose pages it all knows."""
        if pages == len(self._table):
            self.last_resort = restore
            return
        self.forget(first, pages)
        self.ranges.insert(0, (first, pages, restore))

    def forget(self, first: int, pages: int) -> None:
        """Drop the functions all of whose pages these are."""
        if pages == len(self._table):
            self.last_resort = None
        self.ranges = [known for known in self.ranges if not first <= known[0] <= known[0] + known[1] <= first + pages]


def _checked(restore: Restore, gfn: int, pages: int) -> bytes:
    signal.alarm(HANGING_S)
    try:
        data = restore(gfn, pages)
        found = memoryview(data).nbytes
    except (Exception, SystemExit) as error:
        raise Unrestorable(f"the restore function failed for page {gfn}: {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
    if found != pages * PAGE:
        raise Unrestorable(f"the restore function gave {found} bytes for page {gfn}, not {pages * PAGE}")
    return data


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
            for word, pages in zip(message.words[::2], message.words[1::2], strict=True):
                self._restore(word, min(pages, paging.PAGES_AT_ONCE))
        except OSError as error:                             # the guest's memory is gone, or filled already
            self._failed(message.words[0] & ~(PAGE - 1), f"page at {message.words[0]:#x}: {error.strerror}")
        return True

    def _failed(self, start: int, why: str, along: bool = False) -> None:
        """Say that a page cannot be restored: to the hypervisor, and on the guest's stderr, since it will be ended.

        Of a page `along` with one that was touched only the hypervisor is told: nobody waits for it.
        """
        why = " ".join(why.split())                          # it may hold a function's words
        if not along:
            _complain(f"guest ({self.name}): page {(start - self.base) // PAGE} cannot be restored: {why}")
        with suppress(OSError):                              # the next read finds out
            self.host.send(paging.encode(paging.FAILED, (start,), why))

    def _restore(self, word: int, pages: int) -> None:
        """Fill a run that was named: address with its bits, and how many pages."""
        start, clean, along = word & ~(PAGE - 1), bool(word & paging.CLEAN), bool(word & paging.ALONG)
        end = start + pages * PAGE
        while start < end:
            try:
                data = self._bytes_of(start, min(self._most, (end - start) // PAGE))
            except (Unrestorable, OSError) as error:
                self._failed(start, str(error), along)
                start += PAGE                                # the others may be better off
                continue
            self._fill(start, data, clean)
            start += len(data)

    def _bytes_of(self, start: int, pages: int) -> bytes:
        """Return the bytes of the page at `start`, and of those behind it as far as that goes well and fast."""
        began, gfn = monotonic(), (start - self.base) // PAGE
        try:
            data = self.sources.bytes_of(gfn, pages)
        except (Unrestorable, OSError):
            if pages == 1:
                raise
            data = self.sources.bytes_of(gfn, 1)             # which of them failed?  Not this one, perhaps
        spent = (monotonic() - began) / (len(data) // PAGE)
        self._most = min(paging.PAGES_AT_ONCE, max(1, int(AT_ONCE_S / spent))) if spent else paging.PAGES_AT_ONCE
        return data

    def _fill(self, start: int, data: bytes, clean: bool) -> None:
        """Fill pages, counted before: filling lets the toucher go on, and who has seen the page sees the count."""
        self._stage[:len(data)] = data
        self.counters[_RESTORED_WORD] += len(data) // PAGE
        done = 0
        while done < len(data):
            done += self.uffd.copy(start + done, self._source + done, len(data) - done, clean)

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
