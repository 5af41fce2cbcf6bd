"""The pager as a process: small, without numpy, gone with its guest; and hardware faults for an unprivileged user."""

import subprocess
import sys

import psutil
import pytest
from harness.children import ROOT
from harness.hardware_guests import CONNECT, HOLD, IMPORTS, PAGES, as_root, gone, last_words, needs_hardware

pytestmark = needs_hardware
MOST_BYTES = 12 << 20        # of its own


def test_a_pager_is_small_and_has_no_numpy(hypervisor_process, python_process):
    """After work too: functions of plain bytes bring nothing along."""
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + """
guest.on_discard(lambda gfn: bytes([gfn]) * 4096)
discard()
say(view[:8].sum(), memory.pager.pid)
""" + HOLD, hypervisor.cluster)
    assert child.line() == "ready"
    total, pager = map(int, child.line().split())
    assert total == 4096 * sum(range(8))
    assert psutil.Process(pager).memory_full_info().uss <= MOST_BYTES
    with open(f"/proc/{pager}/maps") as maps:
        assert "numpy" not in maps.read()


def test_the_pagers_modules_import_no_numpy():
    """Also where nothing maps a library: its Python files would cost as much."""
    code = "import sys, guests.pager; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    modules = subprocess.run([sys.executable, "-S", "-E", "-c", path + code],
                             capture_output=True, text=True, check=True, timeout=20).stdout.split()
    assert "guests" in modules
    assert not {"numpy", "msgpack", "posix_ipc", "psutil", "cloudpickle"} & set(modules)


@pytest.mark.parametrize("end", ["guest.close()", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", ""])
def test_a_pager_goes_with_its_guest(hypervisor_process, python_process, end):
    hypervisor = hypervisor_process()
    code = f"say(memory.pager.pid)\nsys.stdin.readline()\n{end}"
    child = python_process(IMPORTS + CONNECT + code, hypervisor.cluster)
    pager = int(child.line())
    child.say("go on")
    assert gone(child.pid) and gone(pager)
    assert last_words(child) == ""


# an unprivileged user: a userfaultfd for user mode alone

NOBODY = """
import ctypes, json, os, resource, subprocess, sys
sys.path.insert(0, os.getcwd())
import numpy as np
import psutil
import hypervisor.__main__, hypervisor.machine, guests.pager, guests.pager_process, guests.guest, shm.userfault
np.random.default_rng(0)
def become_nobody():                             # after the imports: the interpreter may lie where nobody else may look
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)       # PR_SET_DUMPABLE, as for a process that began as this user
"""
HYPERVISOR = NOBODY + """
become_nobody()
sys.exit(hypervisor.__main__.serve({"cluster": sys.argv[1], "budget": 64 << 12, "swap": 256 << 12, "folder": "/tmp"}))
"""
GUEST = NOBODY + f"""
class Forked:
    \"\"\"The pager, as a fork: this user cannot execute an interpreter that lies in root's home.\"\"\"
    def __init__(self, argv, pass_fds, **_):
        self.pid = os.fork()
        if not self.pid:
            for fd in set(range(3, 256)) - set(pass_fds):    # the guest's own ends: it could not hear them close
                try:
                    os.close(fd)
                except OSError:
                    pass
            os._exit(guests.pager.main(argv[-8:]))
    def wait(self, timeout=None):
        os.waitpid(self.pid, 0)
        self.wait = self.kill = lambda *_: None
    def kill(self):
        os.kill(self.pid, 9)
def say(*words):
    print(*words, flush=True)
guests.pager_process.subprocess.Popen = Forked
become_nobody()
guest = guests.guest.Guest.connect(sys.argv[1], "g", {PAGES} * 4096, faults="auto")
from guests import Essa
say(guest.faults, guest.memory.mapping.uffd.user_mode_only)
view, buffer = guest.memory.view, guest.memory.buffer
guest.on_discard(lambda gfn: bytes([gfn]) * 4096)
guest.essa(Essa.SET_VOLATILE, np.arange(40, 48))
view[:32] = 7
for turn in range(3):
    say(int(view[:32].sum()), int(view[40:48, 0].sum()), int(view[50].sum()))
    sys.stdin.readline()
sink = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
try:
    say(os.write(sink, buffer[0:4096]))
except OSError as error:
    say(error.strerror)
with guest.memory.pin(0, 8) as part:
    say(os.write(sink, part))
guest.close()
"""


@as_root
def test_an_unprivileged_user_has_hardware_faults_in_user_mode(new_cluster_name, stems, python_process):
    """All is served but system calls on pages that are not there: those are EFAULT, and `pin` is the way."""
    cluster = new_cluster_name()
    hypervisor = python_process(HYPERVISOR, cluster)
    assert "ready" in hypervisor.line()
    child = python_process(GUEST, cluster)
    assert child.line() == "hardware True"
    for _ in range(3):
        assert child.line() == f"{32 * 4096 * 7} {sum(range(40, 48))} 0"
        evict(cluster)
        child.say("go on")
    assert child.line() == "Bad address"
    assert child.line() == str(8 * 4096)
    assert gone(child.pid)
    assert last_words(child) == ""
    assert '"guest-left"' in hypervisor.line()
    hypervisor.process.terminate()
    last = hypervisor.line()
    assert '"problems": []' in last
    assert '"max_drift_frames": 0' in last


def evict(cluster):
    """Have that user's hypervisor evict: its door bears the user's number, so another process of his asks."""
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from hypervisor.toolstack.connection import call
import msgpack, shm.names
os.setgroups([]); os.setgid(65534); os.setuid(65534)
call({cluster!r}, {{"call": "discard", "name": "g"}})
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20, capture_output=True)
