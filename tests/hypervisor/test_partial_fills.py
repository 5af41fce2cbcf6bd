"""A fill that stops half-way in hardware mode: what came before belongs to whoever touched it, the rest is not granted.

The memory is registered in this very process, and nobody serves its faults: a touch of a page that is not there would
stand for ever.  So nothing here may show it (a failing assertion shows what a test was given).
"""

import errno
import mmap
import os
import socket

import numpy as np
import pytest
from harness.hardware_guests import needs_hardware

from hypervisor.domains import Hardware
from hypervisor.giving import Wanting
from hypervisor.mapping import Mapping
from shm.abi import PAGE_SIZE
from shm.pagestate import Sp, Sz
from shm.userfault import open_userfault

pytestmark = needs_hardware
PAGES = 8


class Mapped:
    """A guest of a machine that stands still, whose memory is mapped and registered here."""

    def __init__(self, machine, domain, memory):
        self.machine, self.domain, self._memory = machine, domain, memory

    def first_bytes(self, gfns, count=1) -> list[bytes]:
        return [os.pread(self.domain.ram.fd, count, gfn * PAGE_SIZE) for gfn in gfns]

    def grant(self, state) -> int:
        assert self.machine.ledger.reserve(self.domain.number, PAGES)
        return self.machine.cmm2.grant(self.domain, Wanting(np.arange(PAGES), np.full(PAGES, state, np.uint8)))

    def frames(self) -> tuple[int, int]:
        """Return what the ledger says, and the kernel."""
        return self.machine.ledger.held[self.domain.number], self.domain.ram.resident()


@pytest.fixture
def mapped(still_machine):
    still = still_machine(budget=32, scheme="cmm2", swap=64)
    domain = still.guest(pages=PAGES).domain
    memory = np.frombuffer(mmap.mmap(domain.ram.fd, PAGES * PAGE_SIZE), np.uint8)
    uffd, (pager, other) = open_userfault(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    uffd.register(memory.ctypes.data, PAGES * PAGE_SIZE)
    domain.hardware = Hardware(Mapping(uffd, memory.ctypes.data, domain.ram), pager)
    yield Mapped(still.machine, domain, memory)
    other.close()


def stops_after(monkeypatch, mapping: Mapping, call: str, pages: int, number: int, stored: bytes = b""):
    """Let `call` fill no more than `pages` pages and then fail; a toucher stores to each as soon as it is there."""
    fill, left = getattr(mapping.uffd, call), [pages]

    def limited(start, *rest):
        if not left[0]:
            raise OSError(number, os.strerror(number))
        left[0] -= 1
        at = 1 if call == "copy" else 0                      # the source comes before the length
        rest = (*rest[:at], PAGE_SIZE, *rest[at + 1:])
        done = fill(start, *rest)
        os.pwrite(mapping.ram.fd, stored, start - mapping.base)
        return done
    monkeypatch.setattr(mapping.uffd, call, limited)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.ESRCH])
def test_what_was_filled_before_is_kept_with_what_was_stored_to_it(mapped, monkeypatch, number):
    stops_after(monkeypatch, mapped.domain.mapping, "zero", 3, number, b"stored")
    assert mapped.grant(Sz) == 3
    assert mapped.frames() == (3, 3)
    assert mapped.domain.resident_mask().tolist() == [True] * 3 + [False] * 5
    assert mapped.first_bytes(range(3), 6) == [b"stored"] * 3


def test_nothing_filled_is_an_error_and_nothing_is_held(mapped, monkeypatch):
    stops_after(monkeypatch, mapped.domain.mapping, "zero", 0, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        mapped.grant(Sz)
    assert mapped.frames() == (0, 0)
    assert not mapped.domain.resident_mask().any()


def swapped_out(mapped) -> None:
    """Let each page hold its number, and be on the swap disk."""
    assert mapped.grant(Sz) == PAGES
    for gfn in range(PAGES):
        os.pwrite(mapped.domain.ram.fd, bytes([gfn]), gfn * PAGE_SIZE)
    assert mapped.machine.cmm2.evict(mapped.domain, np.arange(PAGES)) == PAGES


def test_pages_read_back_in_part_keep_the_slots_of_the_others(mapped, monkeypatch):
    machine, domain = mapped.machine, mapped.domain
    swapped_out(mapped)
    with monkeypatch.context() as full:
        stops_after(full, domain.mapping, "copy", 3, errno.ENOSPC)
        assert mapped.grant(Sp) == 3
    assert machine.swap.used == PAGES - 3
    assert machine.ledger.reserve(domain.number, 5)
    assert machine.cmm2.grant(domain, Wanting(np.arange(3, PAGES), np.full(5, Sp, np.uint8))) == 5
    assert mapped.first_bytes(range(PAGES)) == [bytes([gfn]) for gfn in range(PAGES)]
    assert machine.swap.used == 0


def test_a_swap_disk_that_cannot_be_read_holds_no_frame(mapped, monkeypatch):
    swapped_out(mapped)

    def broken(slots):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    with monkeypatch.context() as bad:
        bad.setattr(mapped.machine.swap, "read", broken)
        with pytest.raises(OSError, match="Input/output"):
            mapped.grant(Sp)
    assert mapped.frames() == (0, 0)
    assert mapped.grant(Sp) == PAGES


def test_a_page_in_the_way_is_the_guests_fault(mapped):
    os.posix_fallocate(mapped.domain.ram.fd, 3 * PAGE_SIZE, PAGE_SIZE)
    assert mapped.grant(Sz) == 3
    assert "has taken that page" in mapped.machine.cmm2.doomed.pop(mapped.domain)
    mapped.domain.ram.punch([(3, 1)])
    assert mapped.frames() == (3, 3)
