"""Pagers that die, stop, or lie; a hypervisor that dies.  Guests go with them, in time, and never read zeros for it.

Each is a process of its own here: hypervisor, guest, pager.
"""

import os
import signal
from time import monotonic

import pytest
from harness.hardware_guests import CONNECT, HOLD, IMPORTS, counts, ended, gone, last_words, needs_hardware, silent

pytestmark = needs_hardware
FAULT_DEADLINE_S = 1.0
SOON_S = 5.0                 # far more than any of these takes, far less than for ever

HANGING = "guest.on_discard(lambda gfn: time.sleep(600))\nsay(memory.pager.pid)\n"
TOUCH = """
discard()
say("found", view[3].sum())
"""


@pytest.fixture
def doomed(hypervisor_process, python_process):
    """Start a guest that says its pager's pid first: (hypervisor, child, pid of the pager)."""
    def start(code: str, **settings):
        hypervisor = hypervisor_process(**settings)
        child = python_process(IMPORTS + CONNECT + code, hypervisor.cluster)
        return hypervisor, child, int(child.line())
    return start


def test_a_pager_that_dies_takes_its_guest_along(doomed):
    hypervisor, child, pager = doomed("say(memory.pager.pid)" + HOLD)
    os.kill(pager, signal.SIGKILL)
    assert ended(hypervisor) == "its pager is gone, and discarded pages could not be restored"
    assert child.process.wait(SOON_S) == -signal.SIGKILL


def test_a_pager_that_dies_while_a_thread_stands_in_a_fault(doomed):
    hypervisor, child, pager = doomed(HANGING + TOUCH)
    assert child.line() == "ready"
    while not counts(hypervisor.cluster)["discard_faults"]:
        pass
    os.kill(pager, signal.SIGKILL)
    assert ended(hypervisor) == "its pager is gone, and discarded pages could not be restored"
    assert child.process.wait(SOON_S) == -signal.SIGKILL and silent(child)


def test_a_pager_that_is_stopped_ends_its_guest_at_the_deadline(doomed):
    hypervisor, child, pager = doomed("guest.on_discard(bytes)\nsay(memory.pager.pid)\nsys.stdin.readline()" + TOUCH,
                                      fault_deadline=FAULT_DEADLINE_S)
    os.kill(pager, signal.SIGSTOP)
    child.say("go on")
    assert child.line() == "ready"
    assert ended(hypervisor) == "its pager did not restore page 3 within 1 s"
    assert child.process.wait(SOON_S) == -signal.SIGKILL and silent(child)
    assert gone(pager)                                       # stopped as it was: the hypervisor ended it too


def test_a_hypervisor_that_dies_while_a_thread_stands_in_a_fault(doomed):
    """The pager sees the guest out: nobody else can, and the fault must not complete."""
    hypervisor, child, pager = doomed("say(memory.pager.pid)\nsys.stdin.readline()\nsay('ready')\nsay(view[9].sum())")
    hypervisor.process.send_signal(signal.SIGSTOP)           # so that the fault stands
    child.say("go on")
    assert child.line() == "ready"
    start = monotonic()
    hypervisor.kill()
    assert child.process.wait(SOON_S) == -signal.SIGKILL and silent(child)
    assert monotonic() - start > 1.0                         # it had the time to leave by itself
    assert "the hypervisor is gone; this guest did not leave, and was ended" in last_words(child)
    assert gone(pager)


def test_a_hypervisor_that_dies_while_a_restore_function_hangs(doomed):
    """What hangs in the pager keeps it from restoring pages, and from nothing else."""
    hypervisor, child, pager = doomed(HANGING + TOUCH)
    assert child.line() == "ready"
    while not counts(hypervisor.cluster)["discard_faults"]:
        pass
    hypervisor.kill()
    assert child.process.wait(SOON_S) == -signal.SIGKILL and silent(child)
    assert gone(pager)


def test_a_guest_in_no_fault_leaves_by_itself_when_the_hypervisor_dies(doomed):
    hypervisor, child, pager = doomed("say(memory.pager.pid)\nguest.wait_gone(60)\nguest.close()\nsay('left')")
    hypervisor.kill()
    assert child.line() == "left"
    assert child.process.wait(SOON_S) == 0
    assert last_words(child) == "" and gone(pager)


def test_when_hypervisor_and_pager_die_a_fault_stands_and_is_never_zeros(doomed):
    """The guest itself holds the last descriptor of its userfaultfd."""
    hypervisor, child, pager = doomed("say(memory.pager.pid)\nsys.stdin.readline()\nsay('ready')\nsay(view[9].sum())")
    for pid in (hypervisor.pid, pager):
        os.kill(pid, signal.SIGSTOP)
    child.say("go on")
    assert child.line() == "ready"
    os.kill(pager, signal.SIGKILL)
    hypervisor.kill()
    assert not gone(child.pid, 1.0)
    child.kill()
    assert silent(child)


# pagers that lie

LIAR = """
import ctypes, os, socket, struct, sys, time
sys.path.insert(0, {root!r})
from shm import paging
from shm.userfault import Userfault
host, guest, uffd, table, counters, pages, pid, base = map(int, sys.argv[1:])
link, faults = socket.socket(fileno=host), Userfault(uffd)
spare = ctypes.create_string_buffer(8192)
source = -(-ctypes.addressof(spare) // 4096) * 4096
def asked():
    return paging.decode(link.recv(4096), (paging.RESTORE,)).words[0] & ~4095
def send(data):
    try:
        link.send(data)
    except OSError:
        sys.exit()
{lie}
os.pidfd_open(pid)
link.recv(4096)                                  # until the hypervisor hangs up
"""
MALFORMED = "its pager sent a message of"
LIES = {
    "a message of one byte": ("asked(); send(b'x')", f"{MALFORMED} 1 bytes"),
    "a message of no kind": ("asked(); send(struct.pack('<II', 99, 0))", f"{MALFORMED} kind 99"),
    "what only the hypervisor says": ("address = asked(); send(paging.restore_one(address))", f"{MALFORMED} kind 1"),
    "more words than it has": ("asked(); send(struct.pack('<II', paging.FAILED, 1 << 31))", "its pager sent"),
    "a text without end": ("asked(); send(paging.encode(paging.FAILED, (), '') + b'x' * 401)", "its pager sent a text"),
    "a page that it was not asked for": ("address = asked(); send(paging.encode(paging.FAILED, (address + 4096,), ''))",
                                         "for which it was not asked"),
    "an address of nowhere": ("asked(); send(paging.encode(paging.FAILED, ((1 << 64) - 1,), ''))",
                              "for which it was not asked"),
    "no page at all": ("asked(); send(paging.encode(paging.FAILED, (), ''))", "for which it was not asked"),
    "unasked": ("send(paging.encode(paging.FAILED, (base,), 'no'))", "for which it was not asked"),
    "silence": ("asked(); time.sleep(600)", "its pager did not restore page 3 within 1 s"),
    "hanging up": ("asked(); link.close(); time.sleep(600)", "its pager is gone"),
    "a flood of junk": ("asked()\nwhile True: send(b'x' * 64)", "its pager sent"),
    "a flood of failures": ("asked()\nwhile True: send(paging.encode(paging.FAILED, (base,), 'x' * 400))",
                            "for which it was not asked"),
}


def with_pager(lie: str) -> str:
    """Return code that lets the guest's pager be a liar, which lives no longer than the guest."""
    liar = LIAR.format(root=os.getcwd(), lie="import threading, select\n"
                       "def watch():\n    select.select([os.pidfd_open(pid)], [], [])\n    os._exit(0)\n"
                       "threading.Thread(target=watch, daemon=True).start()\n" + lie)
    return f"PagerProcess.program = staticmethod(lambda: [sys.executable, '-c', {liar!r}])\n"


@pytest.mark.parametrize(("lie", "why"), LIES.values(), ids=LIES)
def test_a_pager_that_lies_ends_its_guest(hypervisor_process, python_process, lie, why):
    """And nothing else: the hypervisor serves on, and its accounts are right (asserted when it stops)."""
    hypervisor = hypervisor_process(fault_deadline=FAULT_DEADLINE_S)
    start = monotonic()
    child = python_process(IMPORTS + with_pager(lie) + CONNECT + TOUCH, hypervisor.cluster)
    assert why in ended(hypervisor)
    assert child.process.wait(SOON_S) == -signal.SIGKILL
    assert monotonic() - start < 4 * SOON_S
    assert "found" not in (child._rest + child.process.stdout.read()).decode()
    last_words(child)


def test_a_frame_that_a_pager_takes_unasked_ends_its_guest(hypervisor_process, python_process):
    """The audit finds it within a second, and takes it back."""
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + with_pager("faults.copy(base + 20 * 4096, source, 4096)") + CONNECT + HOLD,
                           hypervisor.cluster)
    assert ended(hypervisor) == "it took frames that were not granted"
    assert child.process.wait(SOON_S) == -signal.SIGKILL


def test_a_pager_that_reads_nothing_ends_its_guest(hypervisor_process, python_process):
    """Many threads fault, and its queue fills: whether by the queue or by the deadline, the guest goes."""
    hypervisor = hypervisor_process(fault_deadline=FAULT_DEADLINE_S)
    child = python_process(IMPORTS + with_pager("time.sleep(600)") + CONNECT + """
guest.essa(Essa.SET_VOLATILE, np.arange(64))
copy = ctypes.CDLL(None).memcpy                  # it lets other threads run
copy.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
def touch(gfn):
    copy(ctypes.create_string_buffer(8), memory.base + gfn * 4096, 8)
    say("found")
for gfn in range(0, 64, 2):
    threading.Thread(target=touch, args=(gfn,)).start()
""", hypervisor.cluster)
    assert "its pager did not re" in ended(hypervisor)
    assert child.process.wait(SOON_S) == -signal.SIGKILL and silent(child)
    last_words(child)
