"""A guest's mapping as the hypervisor sees it: events decoded, pages filled, and who is to blame when that fails."""

import mmap
import os
import struct

import numpy as np
import pytest
from harness.hardware_guests import needs_hardware

from hypervisor.mapping import EVENT, Mapping, Unmapped
from shm.abi import PAGE_SIZE
from shm.arena import SharedObject
from shm.userfault import EVENT_BYTES, EVENT_PAGEFAULT, FLAG_PROTECTED, FLAG_WRITE, open_userfault

pytestmark = needs_hardware
PAGES = 16


@pytest.fixture
def mapping():
    """A mapping of this process, as if it were a guest's."""
    ram = SharedObject(os.memfd_create("memcommons-test", os.MFD_CLOEXEC))
    os.ftruncate(ram.fd, PAGES * PAGE_SIZE)
    ram.pages = PAGES
    memory = np.frombuffer(mmap.mmap(ram.fd, PAGES * PAGE_SIZE), np.uint8)
    made = Mapping(open_userfault(), memory.ctypes.data, ram)
    made.uffd.register(made.base, PAGES * PAGE_SIZE)
    yield made
    made.close()
    ram.close()


def content(mapping: Mapping, gfns: list[int]) -> list[int]:
    """Return the first byte of each page, read by descriptor."""
    return [os.pread(mapping.ram.fd, 1, gfn * PAGE_SIZE)[0] for gfn in gfns]


def pages(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8)[:, None], PAGE_SIZE, 1)


def event(address: int, flags: int = 0, kind: int = EVENT_PAGEFAULT) -> bytes:
    return struct.pack("<B7xQQ8x", kind, flags, address)


def test_an_event_is_as_long_as_the_kernel_makes_it():
    assert EVENT.itemsize == EVENT_BYTES == len(event(0))


def test_faults_are_sorted_by_kind_and_page_each_once(mapping):
    at = [mapping.base + gfn * PAGE_SIZE for gfn in range(PAGES)]
    found = mapping.faults(b"".join([
        event(at[5] + 17), event(at[2], FLAG_WRITE), event(at[5]), event(at[7], FLAG_WRITE | FLAG_PROTECTED),
        event(at[2] + 4095), event(at[7], FLAG_PROTECTED), event(at[9], kind=0x13),
    ]))
    assert found.missing.tolist() == [2, 5]
    assert found.protected.tolist() == [7]
    assert found.outside == 0


@pytest.mark.parametrize("offset", [-1, -PAGE_SIZE, PAGES * PAGE_SIZE, 1 << 40, -(1 << 40)])
def test_faults_outside_the_memory_are_counted_and_are_no_pages(mapping, offset):
    found = mapping.faults(event(mapping.base) + event((mapping.base + offset) % (1 << 64)))
    assert found.missing.tolist() == [0]
    assert found.outside == 1


def test_any_events_decode(mapping):
    rng = np.random.default_rng(4)
    for _ in range(200):
        found = mapping.faults(rng.bytes(EVENT_BYTES * 8))
        assert all(0 <= gfn < PAGES for gfn in [*found.missing, *found.protected])


def test_pages_are_filled_in_runs(mapping):
    gfns = np.array([1, 2, 3, 7, 9, 10])
    mapping.fill(gfns, pages(*range(11, 17)), protected=False)
    mapping.zero(np.array([4, 5, 12]))
    assert content(mapping, gfns.tolist()) == list(range(11, 17))
    assert [gfn for gfn in range(PAGES) if mapping.has_frame(gfn)] == [1, 2, 3, 4, 5, 7, 9, 10, 12]
    assert mapping.ram.resident() == 9


def test_looking_for_a_frame_takes_none(mapping):
    assert not any(mapping.has_frame(gfn) for gfn in range(PAGES))
    assert mapping.ram.resident() == 0


def test_protection_of_nothing_is_nothing(mapping):
    for step in (mapping.protect, mapping.unprotect, mapping.wake, mapping.zero):
        step(np.array([], np.int64))


CALLS = {
    "fill": lambda mapping, gfns: mapping.fill(gfns, pages(1), protected=False),
    "zero": lambda mapping, gfns: mapping.zero(gfns),
    "protect": lambda mapping, gfns: mapping.protect(gfns),
    "unprotect": lambda mapping, gfns: mapping.unprotect(gfns),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_memory_that_is_registered_no_more_is_the_guests_fault(mapping, call):
    mapping.uffd.unregister(mapping.base, PAGES * PAGE_SIZE)
    with pytest.raises(Unmapped, match="the guest's memory is not mapped and registered there"):
        call(mapping, np.array([3]))


@pytest.mark.parametrize("call", [CALLS["fill"], CALLS["zero"]])
def test_a_page_that_is_there_already_is_the_guests_fault(mapping, call):
    os.posix_fallocate(mapping.ram.fd, 3 * PAGE_SIZE, PAGE_SIZE)
    with pytest.raises(Unmapped, match=f"{mapping.base + 3 * PAGE_SIZE:#x}: the guest has taken that page behind"):
        call(mapping, np.array([3]))


def test_a_run_that_stops_in_the_middle_is_told_apart(mapping):
    """What lies before is filled; the page that is in the way is named."""
    os.posix_fallocate(mapping.ram.fd, 5 * PAGE_SIZE, PAGE_SIZE)
    with pytest.raises(Unmapped, match=f"{mapping.base + 5 * PAGE_SIZE:#x}"):
        mapping.fill(np.array([3, 4, 5, 6]), pages(1, 2, 3, 4), protected=False)
    assert content(mapping, [3, 4, 5, 6]) == [1, 2, 0, 0]
