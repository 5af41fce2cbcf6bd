"""The binding to userfaultfd: a mapping of this process, touched by a thread that stands in C and lets Python run.

Every wait has a deadline; a thread that stands is let go by the end of its test.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import struct
import threading

import pytest
from harness.hardware_guests import needs_hardware

from shm import userfault
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem
from shm.userfault import FLAG_PROTECTED, FLAG_WRITE, Userfault, is_userfault, open_userfault

pytestmark = needs_hardware
PAGES, DEADLINE_S = 8, 10.0
libc = ctypes.CDLL(None, use_errno=True)         # calls through it let other threads run
libc.memcpy.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t


class Registered:
    """Some pages of shared memory, registered."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("memcommons-test", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, PAGES * PAGE_SIZE)
        self.map = mmap.mmap(self.fd, PAGES * PAGE_SIZE)
        self.anchor = ctypes.c_char.from_buffer(self.map)
        self.base = ctypes.addressof(self.anchor)
        self.uffd = open_userfault()
        self.uffd.register(self.base, PAGES * PAGE_SIZE)
        self.threads: list[threading.Thread] = []

    def at(self, page: int) -> int:
        return self.base + page * PAGE_SIZE

    def touch(self, page: int, store: bytes = b"") -> list[bytes]:
        """Load from, or store to, the page in a thread; the list gets what it found when it comes back."""
        found: list[bytes] = []

        def go() -> None:
            buffer = ctypes.create_string_buffer(store or b"\0" * 8, 8)
            ends = (self.at(page), ctypes.addressof(buffer))
            libc.memcpy(*(ends if store else ends[::-1]), 8)
            found.append(buffer.raw)

        self.threads.append(threading.Thread(target=go))
        self.threads[-1].start()
        return found

    def event(self) -> tuple[int, int]:
        """Return the next fault: (page, flags)."""
        assert select.select([self.uffd.fd], [], [], DEADLINE_S)[0], "no fault was reported"
        kind, flags, address = struct.unpack_from("<B7xQQ8x", self.uffd.events())
        assert kind == userfault.EVENT_PAGEFAULT
        return (address - self.base) // PAGE_SIZE, flags

    def join(self) -> None:
        for thread in self.threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "it stands at a page"

    def close(self) -> None:
        self.uffd.unregister(self.base, PAGES * PAGE_SIZE)   # whoever still stands goes on
        self.join()
        self.uffd.close()
        del self.anchor
        self.map.close()
        os.close(self.fd)


@pytest.fixture
def memory():
    registered = Registered()
    yield registered
    registered.close()


@pytest.fixture
def source():
    """The address of two pages full of `a` and `b`."""
    pages = mmap.mmap(-1, 2 * PAGE_SIZE)
    pages[:] = b"a" * PAGE_SIZE + b"b" * PAGE_SIZE
    anchor = ctypes.c_char.from_buffer(pages)
    yield ctypes.addressof(anchor)
    del anchor
    pages.close()


def test_a_touch_of_a_missing_page_stands_until_it_is_filled(memory, source):
    found = memory.touch(3)
    assert memory.event() == (3, 0)
    assert found == []
    assert memory.uffd.copy(memory.at(3), source, PAGE_SIZE) == PAGE_SIZE
    memory.join()
    assert found == [b"a" * 8]


def test_zeros_are_filled_in_too_and_neighbours_with_them(memory):
    found = memory.touch(3)
    assert memory.event() == (3, 0)
    assert memory.uffd.zero(memory.at(2), 3 * PAGE_SIZE) == 3 * PAGE_SIZE
    memory.join()
    found = memory.touch(4)
    memory.join()
    assert found == [bytes(8)]
    assert memory.uffd.events() == b""


def test_a_store_to_a_protected_page_stands_until_the_protection_is_lifted(memory, source):
    memory.uffd.copy(memory.at(0), source, 2 * PAGE_SIZE)
    memory.uffd.protect(memory.at(1), PAGE_SIZE)
    assert memory.touch(1, store=b"n") == []
    page, flags = memory.event()
    assert page == 1
    assert flags & (FLAG_PROTECTED | FLAG_WRITE) == FLAG_PROTECTED | FLAG_WRITE
    assert os.pread(memory.fd, 1, PAGE_SIZE) == b"b"         # not yet
    memory.uffd.unprotect(memory.at(1), PAGE_SIZE)
    memory.join()
    assert os.pread(memory.fd, 1, PAGE_SIZE) == b"n"


def test_a_page_filled_as_protected_can_be_loaded_and_reports_its_first_store(memory, source):
    memory.uffd.copy(memory.at(0), source, PAGE_SIZE, protected=True)
    found = memory.touch(0)
    memory.join()
    assert found == [b"a" * 8]
    memory.touch(0, store=b"n")
    assert memory.event()[1] & FLAG_PROTECTED
    memory.uffd.unprotect(memory.at(0), PAGE_SIZE)


def test_a_thread_that_is_woken_looks_again(memory):
    found = memory.touch(5)
    assert memory.event() == (5, 0)
    os.posix_fallocate(memory.fd, 5 * PAGE_SIZE, PAGE_SIZE)  # there now, and nobody said so
    memory.uffd.wake(memory.at(5), PAGE_SIZE)
    memory.join()
    assert found == [bytes(8)]


def test_two_threads_at_one_page_both_go_on(memory, source):
    found = [memory.touch(6), memory.touch(6)]
    assert memory.event()[0] == 6
    memory.uffd.copy(memory.at(6), source, PAGE_SIZE)
    memory.join()
    assert found == [[b"a" * 8]] * 2


def test_no_event_is_no_bytes_and_no_wait(memory):
    assert memory.uffd.events() == b""


def test_a_fill_that_stops_says_how_far_it_came(memory, source):
    memory.uffd.zero(memory.at(1), PAGE_SIZE)
    assert memory.uffd.copy(memory.at(0), source, 2 * PAGE_SIZE) == PAGE_SIZE
    assert memory.uffd.zero(memory.at(7), PAGE_SIZE) == PAGE_SIZE


def register_twice(uffd: Userfault, base: int, source: int) -> None:
    other = open_userfault()
    try:
        other.register(base, PAGE_SIZE)
    finally:
        other.close()


REFUSED = {
    "a page that is there": (lambda uffd, base, source: uffd.copy(base, source, PAGE_SIZE), errno.EEXIST),
    "a zero page that is there": (lambda uffd, base, source: uffd.zero(base, PAGE_SIZE), errno.EEXIST),
    "memory that is not registered": (lambda uffd, base, source: uffd.copy(source, source, PAGE_SIZE), errno.ENOENT),
    "no page": (lambda uffd, base, source: uffd.copy(base + 8, source, PAGE_SIZE), errno.EINVAL),
    "nothing": (lambda uffd, base, source: uffd.zero(base, 0), errno.EINVAL),
    "no source": (lambda uffd, base, source: uffd.copy(base + PAGE_SIZE, 8, PAGE_SIZE), errno.EFAULT),
    "protection elsewhere": (lambda uffd, base, source: uffd.protect(source, PAGE_SIZE), errno.ENOENT),
    "a second registration": (register_twice, errno.EBUSY),
}


@pytest.mark.parametrize(("call", "number"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_an_error_of_the_kernel(memory, source, call, number):
    memory.uffd.zero(memory.base, PAGE_SIZE)
    with pytest.raises(OSError) as refusal:
        call(memory.uffd, memory.base, source)
    assert refusal.value.errno == number


def descriptors() -> dict[str, int]:
    bare, telling = (Userfault(userfault._system_call(os.geteuid() != 0)).fd for _ in range(2))
    request = struct.pack("3Q", 0xAA, userfault._WANTED | 1 << 3, 0)         # EVENT_REMOVE too
    fcntl.ioctl(telling, userfault._API, bytearray(request))
    return {"one": open_userfault().fd, "bare": bare, "telling": telling, "file": os.open("/dev/null", os.O_RDONLY),
            "eventfd": os.eventfd(0)}


def test_only_a_userfaultfd_with_our_features_is_taken_for_one():
    fds = descriptors()
    try:
        assert {name for name, fd in fds.items() if is_userfault(fd)} == {"one"}
        assert not is_userfault(1 << 20)
    finally:
        for fd in fds.values():
            os.close(fd)


def refuse(*_):
    raise OSError(errno.EPERM, "no")


def test_where_nothing_else_is_allowed_it_is_for_user_mode_alone(monkeypatch):
    allowed = userfault._system_call
    monkeypatch.setattr(userfault, "_system_call", lambda flags: allowed(flags) if flags & 1 else refuse())
    monkeypatch.setattr(userfault, "_from_device", refuse)
    made = open_userfault()
    assert made.user_mode_only
    made.close()


def test_where_there_is_none_the_line_says_what_was_tried_and_what_to_change(monkeypatch):
    for way in ("_system_call", "_from_device"):
        monkeypatch.setattr(userfault, way, refuse)
    with pytest.raises(UsageProblem) as refusal:
        open_userfault()
    line = str(refusal.value)
    assert "\n" not in line
    assert line.count(": no") == 3
    for way_out in ("vm.unprivileged_userfaultfd=1", "/dev/userfaultfd", "seccomp", "--faults software"):
        assert way_out in line


def test_an_old_kernel_is_told_from_one_that_forbids(monkeypatch):
    monkeypatch.setattr(userfault, "_WANTED", userfault._WANTED | 1 << 62)
    with pytest.raises(UsageProblem, match="cannot write-protect shared memory"):
        open_userfault()
