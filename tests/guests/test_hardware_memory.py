"""What the accessors of hardware memory promise while the pager is at work, and where only user-mode faults are."""

from harness.hardware_guests import CONNECT, HOLD, IMPORTS, discard, needs_hardware

pytestmark = needs_hardware

CLEARED = """
def restore(gfn):
    import time
    time.sleep(0.2)                              # so that the page is made stable and cleared while it is being filled
    return b"\\1" * 4096
view[8] = 5                                      # dirty
guest.on_discard(restore)
guest.essa(Essa.SET_VOLATILE, [8])
say("volatile")
sys.stdin.readline()
libc, at = ctypes.CDLL(None), memory.base + 8 * 4096
reader = threading.Thread(target=lambda: libc.memcmp(ctypes.c_void_p(at), ctypes.c_void_p(at + 8), ctypes.c_size_t(8)))
reader.start()
while guest.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 8) == 0x0F:
    pass
memory.clear_dirty([8])
reader.join()
say(bool(memory.dirty([8])[0]))
view[8, 100] = 77
say(bool(memory.dirty([8])[0]))
guest.essa(Essa.SET_POT_VOLATILE, [8])
say("potentially volatile")
sys.stdin.readline()
say(view[8, 100])
"""


def test_a_page_cleared_while_it_is_filled_notices_the_next_store(hypervisor_process, python_process):
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + CLEARED + HOLD, hypervisor.cluster)
    assert child.line() == "volatile"
    assert discard(hypervisor.cluster, 8, 1) == 1
    child.say("go on")
    assert [child.line(), child.line(), child.line()] == ["False", "True", "potentially volatile"]
    discard(hypervisor.cluster, 8, 1)
    child.say("go on")
    assert child.line() == "77"


PINNED = """
from shm import userfault
full = userfault._system_call
def user_mode_only(flags):
    if not flags:
        raise PermissionError(1, "Operation not permitted")
    return full(flags)
userfault._system_call, userfault._DEVICE = user_mode_only, "/dev/no-userfaultfd"     # as an unprivileged user has it
""" + CONNECT + """
memory.write_many(np.arange(4), np.ones((4, 4096), np.uint8), clean=True)
zeros, into = open("/dev/zero", "rb", buffering=0), os.memfd_create("written")
with memory.pin(0, 4) as part:
    say(zeros.readinto(part), os.write(into, part))
say(memory.dirty(np.arange(4)).tolist())
"""


def test_a_pinned_page_is_good_for_system_calls_where_they_cannot_wait(hypervisor_process, python_process):
    """Clean pages are protected against stores: a call that stores to one would fail with EFAULT."""
    child = python_process(IMPORTS + PINNED, hypervisor_process().cluster)
    assert child.line() == "16384 16384"
    assert child.line() == "[True, True, True, True]"
    assert child.leave() == 0
