"""Guests that misuse hardware faults: junk handed over, memory unmapped, forks, second mappings.

Each harms itself at most: it is told what was wrong, or ended, and the hypervisor's accounts stay right (which is
asserted whenever a hypervisor stops).
"""

import fcntl
import os
import signal
import socket
import struct

import numpy as np
import pytest
from harness.hardware_guests import (
    CONNECT,
    HOLD,
    IMPORTS,
    PAGES,
    counts,
    described,
    discard,
    ended,
    last_words,
    needs_hardware,
    silent,
)

from guests import Guest
from shm import userfault
from shm.errors import UsageProblem
from shm.userfault import Userfault, open_userfault

pytestmark = needs_hardware

SEGV = "signal.signal(signal.SIGSEGV, signal.SIG_DFL)\n"
LIBC = """
libc = ctypes.CDLL(None, use_errno=True)
libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
size = guest.pages * 4096
"""
SECOND_MAPPING = """
with open(f"/dev/shm/{guest.stem}.ram", "r+b") as ram:
    second = np.frombuffer(mmap.mmap(ram.fileno(), size), np.uint8)
"""


@pytest.fixture
def hostile(hypervisor_process, python_process):
    """Start a hypervisor and a guest that runs `code`: (hypervisor, child)."""
    def start(code: str, **settings):
        hypervisor = hypervisor_process(**settings)
        return hypervisor, python_process(IMPORTS + CONNECT + LIBC + code, hypervisor.cluster)
    return start


def test_a_guest_that_unmaps_its_memory_and_touches_it_dies_of_that(hostile):
    hypervisor, child = hostile("libc.munmap(memory.base, size)\nview[3].sum()")
    assert ended(hypervisor, "guest-died") == ""
    assert child.process.wait() == -signal.SIGSEGV


def test_a_guest_that_unmapped_its_memory_is_ended_when_a_page_is_to_be_preserved(hostile):
    hypervisor, child = hostile("view[:] = 7\nlibc.munmap(memory.base, size)\nsay('unmapped')" + HOLD)
    assert child.line() == "unmapped"
    discard(hypervisor.cluster, 0, 8)
    assert "the guest's memory is not mapped and registered there" in ended(hypervisor)
    assert child.process.wait() == -signal.SIGKILL


def test_a_child_of_a_guest_has_no_guest_memory(hostile):
    """Its touch is its own SIGSEGV; the parent goes on."""
    _hypervisor, child = hostile("""
view[3] = 5
child = os.fork()
if not child:
    view[3].sum()
    os._exit(0)
say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), view[3, 0])
""" + HOLD)
    assert child.line() == f"{-signal.SIGSEGV} 5"


def test_a_guest_that_registers_another_mapping_is_ended_at_the_fault_there(hostile):
    hypervisor, child = hostile(SECOND_MAPPING + """
memory.mapping.uffd.register(second.ctypes.data, size)
say("found", second[5 * 4096])
""")
    assert ended(hypervisor) == "a page fault outside its memory came through its userfaultfd"
    assert child.process.wait() == -signal.SIGKILL and silent(child)


def test_a_guest_that_registers_other_memory_is_ended_at_the_fault_there(hostile):
    hypervisor, child = hostile("""
other = np.frombuffer(mmap.mmap(-1, size), np.uint8)
memory.mapping.uffd.register(other.ctypes.data, size)
say("found", other[0])
""")
    assert ended(hypervisor) == "a page fault outside its memory came through its userfaultfd"
    assert child.process.wait() == -signal.SIGKILL and silent(child)


TAKEN = {
    "unregistered": "memory.mapping.uffd.unregister(memory.base, size)\nview[5].sum()",
    "through a second mapping": SECOND_MAPPING + "second[5 * 4096]",
    "by its own fill": "memory.mapping.uffd.zero(memory.base + 5 * 4096, 4096)",
}


@pytest.mark.parametrize("code", TAKEN.values(), ids=TAKEN)
def test_a_frame_that_a_guest_takes_itself_is_found_by_the_audit(hostile, code):
    hypervisor, child = hostile(code + HOLD)
    assert ended(hypervisor) == "it took frames that were not granted"
    assert child.process.wait() == -signal.SIGKILL


def test_a_page_that_the_guest_punched_ends_it_at_its_own_touch(hostile):
    hypervisor, child = hostile("""
view[5] = 9
libc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
assert libc.madvise(memory.base + 5 * 4096, 4096, 9) == 0        # MADV_REMOVE
say("found", view[5].sum())
""")
    hypervisor.expects_drift = True                          # known and open: it shows as drift until then
    assert ended(hypervisor) == "page 5 was granted and is gone: the guest took it away itself"
    assert child.process.wait() == -signal.SIGKILL and silent(child)


def test_a_guest_that_closes_its_own_userfaultfd_is_served_on(hostile):
    """Hypervisor and pager hold it too."""
    _hypervisor, child = hostile("""
os.close(memory.mapping.uffd.fd)
guest.on_discard(lambda gfn: bytes([gfn]) * 4096)
discard()
say(view[3, 0], view[20, 0])
os.dup2(0, memory.mapping.uffd.fd)
""" + HOLD)
    assert child.line() == "ready"
    assert child.line() == "3 0"


def test_a_touch_of_a_page_given_up_is_an_addressing_exception(hostile):
    hypervisor, child = hostile("guest.essa(Essa.SET_UNUSED, [5])\nsay('found', view[5].sum())")
    assert ended(hypervisor) == "addressing exception: it touched page 5, which it had given up"
    assert child.process.wait() == -signal.SIGKILL and silent(child)


def test_a_base_that_is_wrong_ends_the_guest_at_its_first_fault(hostile):
    hypervisor, child = hostile("""
guest._hand_over({"base": memory.base - (1 << 30)})
say("found", view[5].sum())
""")
    assert ended(hypervisor) == "a page fault outside its memory came through its userfaultfd"
    assert silent(child)


def test_a_userfaultfd_made_blocking_ends_its_guest(hostile):
    """The flag is shared by all who hold the descriptor; a read without an event would hold up everybody."""
    hypervisor, child = hostile("""
os.set_blocking(memory.mapping.uffd.fd, True)
say("found", view[5].sum())
""")
    assert ended(hypervisor) == "it made its userfaultfd block, which would have held up everybody"
    assert silent(child)


# what is handed over

@pytest.fixture
def software(hypervisor_process):
    """A guest in software mode, in this process: it may hand junk over; (hypervisor, guest)."""
    hypervisor = hypervisor_process()
    with Guest.connect(hypervisor.cluster, "g", PAGES * 4096) as guest:
        yield hypervisor, guest


def junk() -> dict[str, list[str]]:
    return {"nothing but numbers": [], "one descriptor": ["uffd"], "three": ["uffd", "socket", "socket"],
            "files": ["file", "file"], "no userfaultfd": ["file", "socket"], "no socket": ["uffd", "file"],
            "the wrong way round": ["socket", "uffd"], "pipes": ["pipe", "pipe"],
            "a userfaultfd that was not introduced": ["bare uffd", "socket"],
            "one that tells more than faults": ["telling uffd", "socket"]}


NOBODIES = {"unconnected": "socket.socket()",
            "socket": "socket.socketpair()[0]"}
EVENT_REMOVE = 1 << 3        # a feature: madvise(MADV_REMOVE) is told, and stands until that is read


def make(kind: str) -> int:
    if kind == "uffd":
        return open_userfault().fd
    if kind.endswith("uffd"):
        bare = Userfault(userfault._system_call(0 if os.geteuid() == 0 else 1))
        if kind.startswith("telling"):
            request = struct.pack("3Q", 0xAA, userfault._WANTED | EVENT_REMOVE, 0)
            fcntl.ioctl(bare.fd, userfault._API, bytearray(request))
        return bare.fd
    if kind == "socket":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        return ours.detach()
    if kind == "pipe":
        ends = os.pipe()
        os.close(ends[1])
        return ends[0]
    return os.open("/dev/null", os.O_RDWR)


@pytest.mark.parametrize("kinds", junk().values(), ids=junk())
def test_junk_descriptors_are_refused_and_closed(software, kinds):
    hypervisor, guest = software
    before = len(os.listdir(f"/proc/{hypervisor.pid}/fd"))
    fds = [make(kind) for kind in kinds]
    try:
        with pytest.raises(UsageProblem, match="hardware: "):
            guest._hand_over({"base": 1 << 30}, tuple(fds))
    finally:
        for fd in fds:
            os.close(fd)
    assert len(os.listdir(f"/proc/{hypervisor.pid}/fd")) == before
    guest.memory.write(3, b"x" * 4096)
    assert guest.memory.read(3) == b"x" * 4096
    assert described(hypervisor.cluster)["faults"] == "software"


@pytest.mark.parametrize("base", [None, "0", -4096, 0, 5, 1 << 56, 1 << 63, 1.5, True, [4096]])
def test_a_base_that_is_no_address_is_refused(software, base):
    hypervisor, guest = software
    fds = make("uffd"), make("socket")
    try:
        with pytest.raises(UsageProblem, match="hardware: base must be the address of a page"):
            guest._hand_over({"base": base}, fds)
    finally:
        for fd in fds:
            os.close(fd)
    assert described(hypervisor.cluster)["faults"] == "software"


def test_a_second_mapping_cannot_be_handed_over(hostile):
    _hypervisor, child = hostile("""
from shm.userfault import open_userfault
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    guest._hand_over({"base": memory.base}, (open_userfault().fd, theirs.fileno()))
except MemcommonsError as error:
    say(error)
say(view[5].sum())
""" + HOLD)
    assert child.line() == "hardware: hand over one userfaultfd and one socket, once"
    assert child.line() == "0"


@pytest.mark.parametrize("kind", NOBODIES)
def test_a_pager_that_is_nobody_ends_the_guest(hypervisor_process, python_process, kind):
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + f"""
from shm.userfault import open_userfault
pager = {NOBODIES[kind]}
guest = Guest.connect(sys.argv[1], "g", {PAGES} * 4096)
guest._hand_over({{"base": 1 << 30}}, (open_userfault().fd, pager.fileno()))
pager.close()
""" + HOLD, hypervisor.cluster)
    assert ended(hypervisor) == "its pager is gone, and discarded pages could not be restored"
    assert child.process.wait() == -signal.SIGKILL


# two threads

TWO_THREADS = """
def restore(gfn):
    time.sleep(0.3)                              # so that both threads stand at the page
    return bytes([gfn]) * 4096
guest.on_discard(restore)
discard()
copy = ctypes.CDLL(None).memcpy                  # it lets other threads run
copy.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
start, found = threading.Barrier(2), []
def touch(offset):
    bytes_ = ctypes.create_string_buffer(8)
    start.wait()
    copy(bytes_, memory.base + 3 * 4096 + offset, 8)
    found.append(bytes_.raw)
threads = [threading.Thread(target=touch, args=(offset,)) for offset in (0, 2048)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
from shm.counters import Count
say(found == [b"\\3" * 8] * 2, guest.counters[Count.PAGER_RESTORED])
"""


def test_two_threads_at_one_page_are_one_restore_and_both_go_on(hostile):
    hypervisor, child = hostile(TWO_THREADS + HOLD)
    assert child.line() == "ready"
    assert child.line() == "True 1"
    assert counts(hypervisor.cluster)["discard_faults"] == 1


# where there is no userfaultfd

FILTERED = """
import struct
def refuse_userfaultfd():
    libc = ctypes.CDLL(None, use_errno=True)
    # load the number of the call; userfaultfd: EPERM; everything else passes
    program = b"".join(struct.pack("HBBI", *line) for line in (
        (0x20, 0, 0, 0), (0x15, 0, 1, 323), (0x06, 0, 0, 0x00050000 | 1), (0x06, 0, 0, 0x7FFF0000)))
    code = ctypes.create_string_buffer(program)
    prog = struct.pack("HxxxxxxP", 4, ctypes.addressof(code))
    assert libc.prctl(38, 1, 0, 0, 0) == 0       # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, prog, 0, 0) == 0    # PR_SET_SECCOMP, a filter
refuse_userfaultfd()
import shm.userfault
shm.userfault._DEVICE = "/dev/no-userfaultfd"
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter knows this machine's number of the call alone")
@pytest.mark.parametrize(("faults", "expected"), [
    ("auto", "software no userfaultfd (userfaultfd(2): Operation not permitted; /dev/no-userfaultfd: No such file"),
    ("hardware", "UsageProblem no userfaultfd (userfaultfd(2): Operation not permitted"),
])
def test_without_a_userfaultfd_auto_falls_back_and_says_why(hypervisor_process, python_process, faults, expected):
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + FILTERED + f"""
try:
    with Guest.connect(sys.argv[1], "g", 65536, faults={faults!r}) as guest:
        guest.memory.write(3, b"x" * 4096)
        say(guest.faults, guest.why_software)
except MemcommonsError as error:
    say(type(error).__name__, error)
""", hypervisor.cluster)
    line = child.line()
    assert line.startswith(expected)
    assert "vm.unprivileged_userfaultfd=1" in line and "--faults software" in line
    assert child.leave() == 0


def test_what_the_audit_knows_of_a_hardware_guest(hostile):
    """Frames on their way to a pager, filled, swapped and discarded: the ledger and the kernel agree all along."""
    hypervisor, child = hostile("""
guest.on_discard(lambda gfn: bytes([gfn]) * 4096)
for turn in range(20):
    view[8:40] = turn
    discard()
    say(int(view[:40].astype(int).sum()))
    sys.stdin.readline()
""", budget=48)
    for turn in range(20):
        assert child.line() == "ready"
        assert child.line() == str(4096 * (sum(range(8)) + 32 * turn))
        discard(hypervisor.cluster, 0, int(np.random.default_rng(turn).integers(1, 40)))
        child.say("go on")
    assert child.process.wait(20) == 0
    assert last_words(child) == ""
