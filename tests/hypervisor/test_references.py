"""Access bits by unmapping and looking again: exact to the page, contents and frames stay; or none at all."""

import mmap
import os

import numpy as np
import psutil
import pytest
from harness.hardware_guests import as_root, needs_hardware

from hypervisor import references
from hypervisor.references import References, references_of
from shm.abi import PAGE_SIZE
from shm.userfault import open_userfault

PAGES = 64


@pytest.fixture
def memory():
    """Memory of this process as a guest's is: registered, and all there; (bytes, base)."""
    fd = os.memfd_create("test-references")
    os.posix_fallocate(fd, 0, PAGES * PAGE_SIZE)
    made = mmap.mmap(fd, PAGES * PAGE_SIZE)
    found = np.frombuffer(made, np.uint8)
    base, uffd = int(found.ctypes.data), open_userfault()
    uffd.register(base, PAGES * PAGE_SIZE)
    found[::PAGE_SIZE] = np.arange(PAGES)
    yield found, base
    uffd.close()
    os.close(fd)


@pytest.fixture
def bits(memory):
    if psutil.swap_memory().total:
        pytest.skip("this machine has swap: pages would be written out")
    pidfd = os.pidfd_open(os.getpid())
    made = References(os.getpid(), pidfd, memory[1], PAGES)
    yield made
    made.close()
    os.close(pidfd)


@needs_hardware
@as_root
def test_what_is_touched_shows_and_nothing_else(memory, bits):
    bits.forget(np.arange(PAGES))
    assert not bits.touched().any()
    for page in (3, 4, 40):
        assert memory[0][page * PAGE_SIZE] == page           # the content stayed
    assert np.flatnonzero(bits.touched()).tolist() == [3, 4, 40]
    bits.forget(np.array([4]))
    assert np.flatnonzero(bits.touched()).tolist() == [3, 40]


@needs_hardware
@as_root
def test_many_scattered_pages_are_forgotten(memory, bits, monkeypatch):
    monkeypatch.setattr(references, "_VECTORS", 3)
    bits.forget(np.arange(0, PAGES, 2))
    assert np.flatnonzero(bits.touched()).tolist() == list(range(1, PAGES, 2))


def test_there_are_none_where_the_machine_has_swap(monkeypatch):
    monkeypatch.setattr(psutil, "swap_memory", lambda: type("Swap", (), {"total": 1}))
    assert references_of(os.getpid(), -1, 0, PAGES) is None


def test_there_are_none_where_the_kernel_refuses(monkeypatch):
    monkeypatch.setattr(psutil, "swap_memory", lambda: type("Swap", (), {"total": 0}))
    assert references_of(1 << 22, -1, 0, PAGES) is None
