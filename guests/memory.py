"""Guest RAM in software mode: every access goes through here.

The access protocol: take the state lock, look the page up, and if it is there copy the bytes and set its bits before
the lock is given up; if it needs the hypervisor, give the lock up first (it needs it to grant), ask, and start again.
A page just granted is no victim until it was accessed once, so starting again ends.

    Sr Vr Pr   normal      Sp Sz   a hypercall, then again      Vz   discard fault      Ur Uz   addressing exception

An access is all or nothing a page; a batch is not all or nothing, except that a fault of the guest's own making
(discarded or unused pages) is found before anything is read or written for the caller to see.
"""

from collections.abc import Callable, Sequence
from time import monotonic, monotonic_ns
from typing import NoReturn

import numpy as np

from guests.sources import Sources
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, Op, Status
from shm.channel import GuestEnd
from shm.counters import Count
from shm.errors import AddressingException, BrokenInvariant, DiscardFault, HypervisorGone, OutOfMemory, UsageProblem
from shm.pagestate import (
    CONTENT_MASK,
    GUEST_CHANGE,
    HOST_CHANGE,
    POT_VOLATILE,
    PRESERVED,
    REFERENCED,
    USAGE_MASK,
    Access,
    Essa,
)
from shm.statemap import StateMap, checked_gfns
from shm.transfer import Transfer

GRANT_DEADLINE_S = 30.0      # a page that cannot be had in this time, though never refused: something is broken
# An attribute of an enum costs half a microsecond: the access path uses plain numbers.
_NORMAL, _PAGE_IN, _ZERO_FILL, _ADDRESSING, _DISCARD_FAULT = map(int, Access)
_READ = REFERENCED
_STORE = REFERENCED | HOST_CHANGE | GUEST_CHANGE
_FILL = REFERENCED | HOST_CHANGE                     # input into a page: its guest-change bit is cleared instead

Restore = Callable[[int], bytes]


class Memory:
    """A guest's pages, by guest frame number.  One thread at a time makes hypercalls; any may access."""

    def __init__(self, ram: np.ndarray, map_: StateMap, channel: GuestEnd, transfer: Transfer,
                 counters: np.ndarray) -> None:
        self.map = map_
        self.pages = map_.pages
        self.channel = channel
        self.transfer = transfer
        self.counters = counters
        self.restore: Restore | None = None          # set by Guest.on_discard
        self.view: np.ndarray | None = None          # (pages, 4096) to be touched plainly: in hardware mode
        self.sources: Sources | None = None          # where discarded pages can be read again: in hardware mode
        self._rows = ram.reshape(-1, PAGE_SIZE)
        self._bytes = ram.data                       # touched only where the state says that there is a frame

    def restore_with(self, restore: Restore | None) -> None:
        """Let `restore(gfn) -> 4096 bytes` restore discarded pages; None: a touch raises DiscardFault."""
        self.restore = restore

    def release(self) -> None:
        """Say that the guest is about to leave."""

    def close(self) -> None:
        """Let go of what is not the garbage collector's."""

    def __reduce__(self) -> NoReturn:
        raise UsageProblem("guest memory cannot be copied to another process: a restore function must not refer to it")

    # one page

    def read(self, gfn: int) -> bytes:
        """Return the 4096 bytes of a page."""
        return self.read_part(gfn, 0, PAGE_SIZE)

    def read_part(self, gfn: int, offset: int, length: int) -> bytes:
        """Return `length` bytes of a page from `offset` on."""
        self._check_part(gfn, offset, length)
        map_, start = self.map, gfn * PAGE_SIZE + offset
        while True:
            with map_.lock:
                access = map_.access_one(gfn)
                if access == _NORMAL:
                    map_.mark_one(gfn, _READ)
                    return bytes(self._bytes[start:start + length])
            self._fault_one(gfn, access)

    def write(self, gfn: int, data: bytes | np.ndarray, clean: bool = False) -> None:
        """Store a whole page; `clean` says that it is input, equal to its backing store: the page is not dirty then."""
        if len(data) != PAGE_SIZE:
            raise ValueError(f"a page is {PAGE_SIZE} bytes, not {len(data)}")
        self.write_part(gfn, 0, data, clean)

    def write_part(self, gfn: int, offset: int, data: bytes | np.ndarray, clean: bool = False) -> None:
        """Store `data` into a page from `offset` on."""
        self._check_part(gfn, offset, len(data))
        map_, start = self.map, gfn * PAGE_SIZE + offset
        source = memoryview(data)                    # type: ignore[arg-type]  # an array has a buffer
        while True:
            with map_.lock:
                access = map_.access_one(gfn)
                if access == _NORMAL:
                    # The change bits go first: dying between the two leaves a page too dirty, never too clean.
                    map_.mark_one(gfn, _FILL if clean else _STORE)
                    self._bytes[start:start + len(source)] = source
                    if clean:
                        map_.usage[gfn] &= 0xFF ^ GUEST_CHANGE
                    return
            self._fault_one(gfn, access)

    def _check_part(self, gfn: int, offset: int, length: int) -> None:
        if not 0 <= gfn < self.pages:
            raise AddressingException([gfn])
        if offset < 0 or length < 0 or offset + length > PAGE_SIZE:
            raise ValueError(f"bytes {offset} to {offset + length} do not lie in a page of {PAGE_SIZE}")

    def _fault_one(self, gfn: int, access: int) -> None:
        """Answer what an access found instead of the page, so that it can start again; or raise."""
        if access == _ADDRESSING:
            raise AddressingException([gfn])
        if access == _DISCARD_FAULT:
            self._discarded(np.array([gfn]))
            return
        if not self._ask(np.array([gfn])):
            raise OutOfMemory(f"page {gfn}: the hypervisor has no frame for it")

    def _discarded(self, gfns: np.ndarray) -> None:
        """Deliver a discard fault (R26): to the restore function if there is one, else to the caller."""
        self.counters[Count.DISCARD_FAULTS] += len(gfns)
        if self.restore is None:
            raise DiscardFault(gfns)
        for gfn in gfns.tolist():
            data = self.restore(gfn)
            if len(data) != PAGE_SIZE:
                raise ValueError(f"the restore function gave {len(data)} bytes for page {gfn}, not {PAGE_SIZE}")
            was_p = self.map.usage[gfn] & USAGE_MASK == POT_VOLATILE
            self._put_back(gfn, data, Essa.SET_POT_VOLATILE if was_p else Essa.SET_VOLATILE)

    def _put_back(self, gfn: int, data: bytes, order: Essa) -> None:
        """Fill a discarded page, and let it be P or V again.

        In one step: made P after its frame was taken once more, it would be V, and a later store to it could be lost.
        """
        map_, start = self.map, gfn * PAGE_SIZE
        map_.essa_one(Essa.SET_STABLE, gfn)
        while True:
            with map_.lock:
                access = map_.access_one(gfn)
                if access == _NORMAL:
                    map_.mark_one(gfn, _FILL)
                    self._bytes[start:start + PAGE_SIZE] = data
                    map_.usage[gfn] &= 0xFF ^ GUEST_CHANGE
                    map_.hint_one(order, gfn)
                    return
            self._fault_one(gfn, access)

    # many pages

    def read_many(self, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return copies (n, 4096) of pages, in their order."""
        numbers = checked_gfns(gfns, self.pages)
        out = np.empty((len(numbers), PAGE_SIZE), np.uint8)

        def copy(rows: np.ndarray | slice, gfns: np.ndarray) -> None:
            out[rows] = self._rows[gfns]

        self._each(numbers, copy, _READ)
        return out

    def write_many(self, gfns: Sequence[int] | np.ndarray, pages: np.ndarray, clean: bool = False) -> None:
        """Store `pages` (n, 4096); `clean` as in `write`."""
        numbers = checked_gfns(gfns, self.pages)
        if pages.shape != (len(numbers), PAGE_SIZE):
            raise ValueError(f"{len(numbers)} pages are an array of {(len(numbers), PAGE_SIZE)}, not {pages.shape}")

        def store(rows: np.ndarray | slice, gfns: np.ndarray) -> None:
            self._rows[gfns] = pages[rows]
            if clean:
                self.map.usage[gfns] &= 0xFF ^ GUEST_CHANGE

        self._each(numbers, store, _FILL if clean else _STORE)

    def _each(self, gfns: np.ndarray, carry_out: Callable[[np.ndarray | slice, np.ndarray], None], bits: int) -> None:
        """Carry an access out on every page, those that are there first, then those that had to be asked for."""
        map_, rows, deadline = self.map, None, None
        while True:
            with map_.lock:
                access = map_.tables.access.take(map_.pairs(gfns))
                if not access.any():                 # all NORMAL: the usual case
                    map_.usage[gfns] |= bits
                    carry_out(slice(None) if rows is None else rows, gfns)
                    return
                bad = (access == _ADDRESSING) | (access == _DISCARD_FAULT)
                there = np.flatnonzero(access == _NORMAL) if not bad.any() else bad[:0].nonzero()[0]
                map_.usage[gfns[there]] |= bits
                rows = np.arange(len(gfns)) if rows is None else rows
                carry_out(rows[there], gfns[there])
            self._refuse(gfns, access)
            left = access != _NORMAL if not bad.any() else np.ones(len(gfns), bool)
            gfns, rows = gfns[left], rows[left]
            deadline = self._ask_some(gfns, access[left], deadline)

    def make_resident(self, gfns: Sequence[int] | np.ndarray) -> None:
        """Bring frames in for stable pages that have none, as code 5 asks (R11)."""
        self._each(checked_gfns(gfns, self.pages), lambda rows, gfns: None, 0)

    def _refuse(self, gfns: np.ndarray, access: np.ndarray) -> None:
        if (access == _ADDRESSING).any():
            raise AddressingException(gfns[access == _ADDRESSING])
        discarded = gfns[access == _DISCARD_FAULT]
        if len(discarded):
            self._discarded(discarded)

    def _ask_some(self, gfns: np.ndarray, access: np.ndarray, deadline: float | None) -> float:
        deadline = deadline or monotonic() + GRANT_DEADLINE_S
        wanted = gfns[(access == _PAGE_IN) | (access == _ZERO_FILL)]
        if len(wanted) and not self._ask(wanted[:MULTICALL_LIMIT]):
            raise OutOfMemory(f"{len(wanted)} pages: the hypervisor has no frames for them")
        if monotonic() > deadline:
            raise HypervisorGone(f"pages were granted and lost again for {GRANT_DEADLINE_S:g} s")
        return deadline

    def _ask(self, gfns: np.ndarray) -> bool:
        """Ask the hypervisor for frames; say whether to look again (False: it has none).  The lock is not held."""
        start = monotonic_ns()
        self.transfer.gfns[:len(gfns)] = gfns
        reply = self.channel.call(Op.FAULT, len(gfns))
        self.counters[Count.HYPERCALLS] += 1
        self.counters[Count.FAULTS] += len(gfns)
        self.counters[Count.WAIT_FAULT_NS] += monotonic_ns() - start
        if reply.status == Status.EFAULT:
            raise BrokenInvariant(f"the hypervisor does not know pages {gfns[:4]}")
        return reply.status == Status.OK

    # the balloon

    def balloon(self, gfns: Sequence[int] | np.ndarray) -> int:
        """Make pages unused and hand their frames to the host; return how many it took at once."""
        numbers = checked_gfns(gfns, self.pages)
        self._hint(Essa.SET_UNUSED, numbers)
        return sum(self._hand_over(numbers[at:at + MULTICALL_LIMIT]) for at in range(0, len(numbers), MULTICALL_LIMIT))

    def deflate(self, gfns: Sequence[int] | np.ndarray) -> bool:
        """Take pages of the balloon back: stable, resident and zero; False when the host has no frames for them all.

        They are as they were then: what persistent pages took of max_mem cannot be had twice (T67).
        """
        numbers = checked_gfns(gfns, self.pages)
        self._hint(Essa.SET_STABLE, numbers)
        try:
            self.make_resident(numbers)
        except OutOfMemory:
            self.balloon(numbers)
            return False
        return True

    def _hint(self, order: Essa, gfns: np.ndarray) -> None:
        self.map.essa(order, gfns)
        self.counters[Count.ESSA] += len(gfns)

    def _hand_over(self, gfns: np.ndarray) -> int:
        start = monotonic_ns()
        self.transfer.gfns[:len(gfns)] = gfns
        reply = self.channel.call(Op.BALLOON, len(gfns))
        self.counters[Count.HYPERCALLS] += 1
        self.counters[Count.WAIT_OTHER_NS] += monotonic_ns() - start
        if reply.status == Status.EFAULT:
            raise BrokenInvariant(f"the hypervisor says that pages {gfns[:4]} are not unused")
        return reply.value if reply.status == Status.OK else 0

    # what the guest can see of the host's deeds

    def evicted(self, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return which pages the host has on its swap disk (bool), read off its own array: no lock and no ESSA.

        For choices alone: it may be otherwise a moment later.
        """
        return self.map.content[np.asarray(gfns, np.int64)] & CONTENT_MASK == PRESERVED

    # dirty bits, the guest's own

    def dirty(self, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return which pages are dirty (bool): stored to since they were last cleared."""
        return self.map.usage[checked_gfns(gfns, self.pages)] & GUEST_CHANGE != 0

    def clear_dirty(self, gfns: Sequence[int] | np.ndarray) -> None:
        """Clear dirty bits; only of pages that were made stable before (R36: test, make stable, clear)."""
        numbers = checked_gfns(gfns, self.pages)
        with self.map.lock:
            self.map.usage[numbers] &= 0xFF ^ GUEST_CHANGE
