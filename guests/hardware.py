"""Guest RAM in hardware mode: plain loads and stores on a mapping that is registered with userfaultfd.

Whoever touches it (numpy, a memoryview, C code) finds what the processor would find:

    Sr Vr Pr Ur   the bytes      Sz Sp   the hypervisor fills the page, the thread goes on
    Vz            a discard fault: the pager restores the page, the thread goes on
    Uz            addressing exception: the guest is ended, as a kernel would be by its own oops

Rule 1: nothing of guest memory is touched while the state lock is held: the hypervisor needs the lock to grant.
Rule 2: GUEST_CHANGE is clear only on pages that are write-protected.  A plain store to one is a write-protect fault, on
        which the hypervisor sets the change bits and lifts the protection; the accessors here do the same by themselves
        before they store.  All other pages count as changed: too dirty is slow, too clean is wrong.
Rule 3: of many pages that are missing, the accessors ask for all at once, before they touch them; so the host's want of
        memory is an exception, as in software mode.  A plain touch cannot be told no: it waits, and in the end the
        guest is ended.
Rule 4: a child process does not inherit the mapping: a touch there would take frames behind the hypervisor's back.

The methods of `Memory` that go by page number work as in software mode, without its locks.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep

import numpy as np

from guests.mapping import AdoptedMapping, Mapping, OwnMapping, mappings_of
from guests.memory import GRANT_DEADLINE_S, Memory, Restore
from guests.pager_process import PagerProcess
from guests.restores import EachPage
from guests.sources import Sources
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, Op, Status
from shm.arena import SharedObject
from shm.channel import GuestEnd
from shm.counters import Count
from shm.errors import AddressingException, OutOfMemory, UsageProblem
from shm.pagestate import CONTENT_MASK, GUEST_CHANGE, HOST_CHANGE, REFERENCED, RESIDENT, Access, Essa, was_discarded
from shm.statemap import StateMap, checked_gfns
from shm.transfer import Transfer

_STORE = REFERENCED | HOST_CHANGE | GUEST_CHANGE
_ZERO_FILL, _ADDRESSING = int(Access.ZERO_FILL), int(Access.ADDRESSING)
MOVE_DEADLINE_S, MOVE_PAUSE_S = 5.0, 0.001   # for pages that are still being filled at the old place


class HardwareMemory(Memory):
    """A guest's pages, by guest frame number, and as plain memory."""

    def __init__(self, mapping: Mapping, ram: SharedObject, pager: PagerProcess, map_: StateMap, channel: GuestEnd,
                 transfer: Transfer, counters: np.ndarray, moved: Callable[[int], bool]) -> None:
        """`moved(base)` tells the hypervisor of another address; False: pages are being filled at the old one."""
        super().__init__(mapping.bytes, map_, channel, transfer, counters)
        self.mapping, self.pager, self._moved = mapping, pager, moved
        self._ram = SharedObject(os.dup(ram.fd), ram.name)
        self.sources: Sources = pager.sources
        self.view: np.ndarray = self._rows                               # (pages, 4096) uint8: touch it as you like
        self._usage, self._content = map_.usage.data, map_.content.data

    # plain memory

    @property
    def base(self) -> int:
        """The address of page 0 in this process."""
        return self.mapping.base

    @property
    def buffer(self) -> memoryview:
        """All of it as bytes, writable, for C code.

        A system call on a page that is not there is served too, except where only user-mode faults are (an
        unprivileged user): it fails with EFAULT there.  `pin` the range first.
        """
        return self._bytes

    @contextmanager
    def pin(self, first: int, pages: int) -> Iterator[memoryview]:
        """Hold `pages` pages from `first` on stable and resident, as for a system call; gives their bytes.

        OutOfMemory when the hypervisor has no frames, or lets this guest pin no more; DiscardFault never: a page that
        was discarded is restored first.
        """
        gfns = checked_gfns(np.arange(first, first + pages), self.pages)
        self.make_stable(gfns)
        self._pin(Op.PIN, gfns)
        try:
            if self.mapping.uffd.user_mode_only:             # in a system call, neither fill nor store may be a fault
                self._rows[gfns, 0].sum()
                self._soil(gfns)
            yield self._bytes[first * PAGE_SIZE:(first + pages) * PAGE_SIZE]
        finally:
            self._pin(Op.UNPIN, gfns)

    def make_stable(self, gfns: np.ndarray) -> int:
        """Make pages stable with their bytes; return how many were found discarded.

        Those are touched, so that the pager restores them.  OutOfMemory when they are discarded again all the time.
        """
        deadline, discarded = monotonic() + GRANT_DEADLINE_S, -1
        while len(gfns):
            old = self.map.essa(Essa.SET_STABLE_IF_NOT_DISCARDED, gfns)
            self.counters[Count.ESSA] += len(gfns)
            gfns = gfns[np.asarray(was_discarded(old))]
            discarded = len(gfns) if discarded < 0 else discarded
            self._rows[gfns, 0].sum()
            if monotonic() > deadline:
                raise OutOfMemory(f"{len(gfns)} pages were restored and discarded again for {GRANT_DEADLINE_S:g} s")
        return max(0, discarded)

    def _pin(self, op: Op, gfns: np.ndarray) -> None:
        for at in range(0, len(gfns), MULTICALL_LIMIT):
            part = gfns[at:at + MULTICALL_LIMIT]
            self.transfer.gfns[:len(part)] = part
            reply = self.channel.call(op, len(part))
            self.counters[Count.HYPERCALLS] += 1
            if reply.status != Status.OK:
                if op == Op.PIN and at:
                    self._pin(Op.UNPIN, gfns[:at])
                raise OutOfMemory(f"{len(gfns)} pages cannot be pinned: the hypervisor has no frames for them, or this "
                                  f"guest holds as many as it may; pin less at once")

    # the mapping of somebody else's code

    @property
    def path(self) -> str:
        """The memory object as a file: what a library is given to open and map."""
        return os.readlink(f"/proc/self/fd/{self._ram.fd}")

    def mapped_by_others(self) -> list[int]:
        """Return the addresses at which this process maps the memory from its beginning on, beside ours."""
        return [piece.start for piece in mappings_of(self._ram) if piece.start != self.base]

    def adopt(self, address: int) -> None:
        """Let the mapping that somebody else's code made of `path` be the guest's memory, in place of the present one.

        It is shared and whole, of a descriptor opened for writing.  What that code touched of it before was pinned;
        nobody touches any of the memory, by whatever mapping, until this returns.  `view`, `buffer` and `base` are
        the adopted ones then, read-only where the mapping is; what was taken of the old ones is dead.  All pages with
        a frame count as changed.  `map_own` comes first, then may the mapping's owner unmap it.

        UsageProblem for another address, or when the pages that were touched before are not there within
        MOVE_DEADLINE_S: everything is as it was then.
        """
        self._move_to(AdoptedMapping(address, self._ram, self.mapping.uffd))

    def map_own(self) -> None:
        """Map the memory ourselves again, in place of an adopted mapping.  As `adopt` otherwise."""
        self._move_to(OwnMapping(self._ram.fd, self.pages, self.mapping.uffd))

    def _move_to(self, new: Mapping) -> None:
        """Move to a mapping that is registered already: tell the hypervisor, tell the pager, leave the old one.

        Race: an eviction or a fault meanwhile.  Until it is told, the hypervisor fills and protects through the old
        mapping, which is registered still; afterwards through the new one: at no moment through none.  A page filled
        through either is there in both.  Protections do not move: so what has a frame counts as changed, and what gets
        one later is filled, and protected if it is clean, through the new mapping.  The pager is never asked while one
        of the two has yet to hear of it: the hypervisor moves only when no fault waits, and nobody makes another.
        """
        try:
            self._tell_host(new.base)
        except BaseException:
            new.leave()
            raise
        self.pager.moved(new.base)
        with self.map.lock:
            self.map.usage[self.map.content & CONTENT_MASK == RESIDENT] |= GUEST_CHANGE
        old, self.mapping = self.mapping, new
        self.view = self._rows = new.bytes.reshape(-1, PAGE_SIZE)
        self._bytes = new.bytes.data
        old.leave()

    def _tell_host(self, base: int) -> None:
        deadline = monotonic() + MOVE_DEADLINE_S
        while not self._moved(base):
            if monotonic() > deadline:
                raise UsageProblem(f"pages of the guest's memory were being filled for {MOVE_DEADLINE_S:g} s; let "
                                   "nobody touch it while it moves to another mapping")
            sleep(MOVE_PAUSE_S)

    # one page

    def read_part(self, gfn: int, offset: int, length: int) -> bytes:
        """Return `length` bytes of a page from `offset` on."""
        self._check_part(gfn, offset, length)
        start = gfn * PAGE_SIZE + offset
        return bytes(self._bytes[start:start + length])

    def write_part(self, gfn: int, offset: int, data: bytes | np.ndarray, clean: bool = False) -> None:
        """Store `data` into a page from `offset` on; `clean` as in `write`."""
        self._check_part(gfn, offset, len(data))
        if not self._usage[gfn] & GUEST_CHANGE:
            self._soil(np.array([gfn]))
        start = gfn * PAGE_SIZE + offset
        source = memoryview(data)                            # type: ignore[arg-type]  # an array has a buffer
        self._bytes[start:start + len(source)] = source
        if clean:
            self.clear_dirty([gfn])

    # many pages

    def read_many(self, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return copies (n, 4096) of pages, in their order."""
        numbers = checked_gfns(gfns, self.pages)
        self._populate(numbers)
        return self._rows[numbers]

    def write_many(self, gfns: Sequence[int] | np.ndarray, pages: np.ndarray, clean: bool = False) -> None:
        """Store `pages` (n, 4096); `clean` as in `write`."""
        numbers = checked_gfns(gfns, self.pages)
        if pages.shape != (len(numbers), PAGE_SIZE):
            raise ValueError(f"{len(numbers)} pages are an array of {(len(numbers), PAGE_SIZE)}, not {pages.shape}")
        self._populate(numbers)
        protected = numbers[self.map.usage[numbers] & GUEST_CHANGE == 0]
        if len(protected):
            self._soil(protected)
        self._rows[numbers] = pages
        if clean:
            self.clear_dirty(numbers)

    def make_resident(self, gfns: Sequence[int] | np.ndarray) -> None:
        """Bring frames in for stable pages that have none, as code 5 asks (R11)."""
        numbers = checked_gfns(gfns, self.pages)
        deadline = None
        while len(missing := self._missing(numbers)):
            deadline = self._ask_some(missing, self.map.tables.access.take(self.map.pairs(missing)), deadline)

    def _missing(self, gfns: np.ndarray) -> np.ndarray:
        """Return the pages that have no frame and need the hypervisor alone: stable ones."""
        away = gfns[self.map.content[gfns] & CONTENT_MASK != RESIDENT]
        if not len(away):
            return away
        return away[self.map.tables.access.take(self.map.pairs(away)) <= _ZERO_FILL]

    def _populate(self, gfns: np.ndarray) -> None:
        """Ask for many missing pages at once, discarded ones too.

        Without the lock: what is lost again before it is touched comes by its fault.
        """
        away = gfns[self.map.content[gfns] & CONTENT_MASK != RESIDENT]
        if len(away) < 2:
            return
        access = self.map.tables.access.take(self.map.pairs(away))
        self._refuse_unused(away, access)
        for at in range(0, len(away), MULTICALL_LIMIT):
            if not self._ask(away[at:at + MULTICALL_LIMIT]):
                raise OutOfMemory(f"{len(away)} pages: the hypervisor has no frames for them")

    def _refuse_unused(self, gfns: np.ndarray, access: np.ndarray) -> None:
        if (access == _ADDRESSING).any():
            raise AddressingException(gfns[access == _ADDRESSING])

    # dirty bits

    def clear_dirty(self, gfns: Sequence[int] | np.ndarray) -> None:
        """Clear dirty bits and let the next store be noticed; only of pages made stable before (R36).

        Race: a store between the two steps.  Both are done under the state lock, the protection first: the store's
        fault waits for the lock and sets the bit again.

        Race: the pager is still filling a page, and would undo the protection.  So each is touched first, which waits
        for it.  A stable page is not discarded meanwhile, and what is swapped out meanwhile comes back protected.
        """
        numbers = checked_gfns(gfns, self.pages)
        self._rows[numbers[self.map.content[numbers] & CONTENT_MASK == RESIDENT], 0].sum()
        with self.map.lock:
            self.mapping.protect(numbers)
            self.map.usage[numbers] &= 0xFF ^ GUEST_CHANGE

    def _soil(self, gfns: np.ndarray) -> None:
        """Set the change bits and lift the protection, as the hypervisor would on the fault of a store."""
        with self.map.lock:
            self.map.usage[gfns] |= _STORE
            self.mapping.unprotect(gfns)

    # discard faults

    def restore_with(self, restore: Restore | None) -> None:
        """Let `restore(gfn) -> 4096 bytes` restore what nobody else knows; a copy of it, called in the pager."""
        if restore is None:
            raise UsageProblem("in hardware mode a restore function is replaced, never taken away")
        self.pager.restore(0, self.pages, EachPage(restore))

    def release(self) -> None:
        """Let the pager know that the guest leaves: it then waits for the hypervisor to close, and goes."""
        self.pager.leave()

    def close(self) -> None:
        self.pager.close()
        self.mapping.uffd.close()
        self._ram.close()
