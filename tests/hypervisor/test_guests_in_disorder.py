"""What a guest in hardware mode does to itself must not end the hypervisor, nor anybody else."""

import pytest
from harness.hardware_guests import CONNECT, HOLD, IMPORTS, counts, needs_hardware

from guests import Guest
from shm.abi import PAGE_SIZE

pytestmark = needs_hardware


@pytest.fixture
def bystander(hypervisor_process, python_process):
    """Start a hypervisor, a guest that runs `code`, and one of ours beside it: (hypervisor, child, ours)."""
    guests = []

    def start(code: str, **settings):
        hypervisor = hypervisor_process(**settings)
        guests.append(Guest.connect(hypervisor.cluster, "bystander", 64 * PAGE_SIZE))
        guests[0].memory.write(0, b"x" * PAGE_SIZE)
        return hypervisor, python_process(IMPORTS + CONNECT + code + HOLD, hypervisor.cluster), guests[0]
    yield start
    for guest in guests:
        guest.close()


def goes_on(guest: Guest) -> bool:
    guest.memory.write(1, b"y" * PAGE_SIZE)
    return guest.memory.read(0) == b"x" * PAGE_SIZE


DEAD_PAGERS = {
    "killed": "os.kill(memory.pager.pid, signal.SIGKILL)\nmemory.read_many(np.arange(64))\n",
    "stopped": "os.kill(memory.pager.pid, signal.SIGSTOP)\nfor gfn in list(range(64)) * 100:\n"
               "    memory._ask(np.array([gfn]))\n    guest.essa(Essa.SET_STABLE, [gfn])\n"
               "    guest.essa(Essa.SET_VOLATILE, [gfn])\n",
}


@pytest.mark.parametrize("code", DEAD_PAGERS.values(), ids=DEAD_PAGERS)
def test_a_hypercall_that_finds_the_pager_gone_ends_its_guest_alone(bystander, code):
    hypervisor, child, ours = bystander(f"""
guest.on_discard(lambda gfn: bytes(4096))
guest.essa(Essa.SET_VOLATILE, np.arange(64))
{code}
""", fault_deadline=1.0)
    event = hypervisor.event()
    assert (event["event"], event["name"]) == ("guest-ended", "g") and "its pager" in event["why"]
    assert child.process.wait(20) == -9
    assert goes_on(ours)


def test_a_guest_that_locks_its_memory_is_served_without_access_bits(bystander):
    hypervisor, child, ours = bystander("""
libc = ctypes.CDLL(None, use_errno=True)
libc.mlock2.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
assert libc.mlock2(memory.base, 64 * 4096, 1) == 0           # MLOCK_ONFAULT
for turn in range(4):
    for page in range(64):
        assert turn == 0 or view[page, 5] == turn - 1 + page
        view[page] = turn + page
say("right")
""", budget=48)
    assert child.line() == "right"
    assert counts(hypervisor.cluster)["swap_out"] > 0, "else the hand never came by"
    assert goes_on(ours)


def test_a_guest_that_unmaps_what_the_hand_passes_harms_itself_alone(bystander):
    hypervisor, child, ours = bystander("""
memory.write_many(np.arange(40), np.ones((40, 4096), np.uint8))
memory.map.usage[:] |= 0x10                                  # referenced, it says
libc = ctypes.CDLL(None, use_errno=True)
libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
libc.munmap(memory.base, 64 * 4096)
say("unmapped")
""", budget=48)
    assert child.line() == "unmapped"
    for gfn in range(64):
        ours.memory.write(gfn, b"x" * PAGE_SIZE)
    assert hypervisor.event()["event"] == "guest-ended"
    assert goes_on(ours)


def test_a_word_to_the_pager_is_no_leaving_when_the_hypervisor_is_dead(hypervisor_process, python_process):
    """One thread stands in a fault, another registers a function: the guest is ended all the same, and never hangs."""
    hypervisor = hypervisor_process(budget=64, swap=0, scheme="cmm2", fault_deadline=60)
    child = python_process(IMPORTS + CONNECT + """
other = Guest.connect(sys.argv[1], "other", 64 * 4096)
other.memory.write_many(np.arange(64), np.ones((64, 4096), np.uint8))    # no frame is left
libc = ctypes.CDLL(None)
at = memory.base + 50 * 4096
threading.Thread(target=lambda: libc.memcmp(ctypes.c_void_p(at), ctypes.c_void_p(at + 8), ctypes.c_size_t(8))).start()
say("standing")
sys.stdin.readline()
guest.on_discard(lambda gfn: bytes(4096))
""", hypervisor.cluster)
    assert child.line() == "standing"
    hypervisor.kill()
    child.say("go on")
    assert child.process.wait(20) == -9
