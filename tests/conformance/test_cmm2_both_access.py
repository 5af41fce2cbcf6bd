"""R24 to R31, R36, R42 and R47 over real worlds: what an access finds, and what a fault is, in both fault modes.

Where a guest would be ended, it is a child of the test.
"""

import ctypes
import os
import signal
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from harness.children import DEADLINE_S, ROOT
from harness.pages import page
from kernel_guests import block

from guests import pager_process
from guests.hardware import HardwareMemory
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import AddressingException, DiscardFault
from shm.pagestate import Essa, was_discarded

ZEROS = bytes(PAGE_SIZE)
HARDWARE = pytest.mark.parametrize("mode", ["hardware"], indirect=True)   # `test_cmm2_kernel` has the other mode
# A child that is a guest, brings page 3 into a state, and then touches it when it is told to.
TOUCHER = """
import sys
from guests import Essa, Guest
cluster, name, mode, state, how = sys.argv[1:]
with Guest.connect(cluster, name, 64 * 4096, faults=mode) as guest:
    if state == "Ur":
        guest.memory.write(3, b"x" * 4096)
    guest.essa(Essa.SET_UNUSED, [3])
    print("ready", flush=True)
    sys.stdin.readline()
    view = guest.memory.view
    try:
        if how == "load":
            found = bytes(view[3]) if mode == "hardware" else guest.memory.read(3)
        elif mode == "hardware":
            view[3, 0] = 7
        else:
            guest.memory.write_part(3, 0, b"x")
        print("went on", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


@contextmanager
def stopped_pager(world):
    """Hold the guest's pager up, in hardware mode: nothing is restored until the block ends."""
    pid = world.memory.pager.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Load(threading.Thread):
    """A thread that loads one page by C code, without Python's lock."""

    def __init__(self, address: int) -> None:
        super().__init__()
        self.found = ctypes.create_string_buffer(PAGE_SIZE)
        self.address = address
        self.start()

    def run(self) -> None:
        ctypes.memmove(self.found, self.address, PAGE_SIZE)

    def end(self) -> bytes:
        self.join(DEADLINE_S)
        assert not self.is_alive()
        return self.found.raw


# access

@pytest.mark.parametrize(("state", "how"), [("Uz", "load"), ("Uz", "store"), ("Ur", "load"), ("Ur", "store")])
def test_r24_an_unused_page_is_an_addressing_exception(world, python_process, state, how):
    """In hardware mode the guest is ended by it; one that still has its frame is not noticed, as in KVM."""
    name = f"toucher-{state}-{how}"
    child = python_process(TOUCHER, world.hypervisor.cluster, name, world.mode, state, how)
    assert child.line() == "ready"
    child.say("touch")
    if not world.hardware:
        assert child.line() == "AddressingException"
    elif state == "Ur":
        assert child.line() == "went on"
    else:
        assert "addressing exception" in world.ended(name)
        assert child.process.wait(DEADLINE_S) == -signal.SIGKILL


def test_r24_the_exception_names_the_page_and_changes_nothing(world):
    world.bring(3, "Uz")
    for gfn in (64, -1):
        with pytest.raises(AddressingException):
            world.memory.read(gfn)
    assert world.states(3) == ["Uz"] and world.row()["frames"] == 0


def test_r24_as_kvm_has_it_a_page_that_has_its_frame_is_there(new_world):
    kvm = new_world(cmma="kvm")
    kvm.bring(3, "Ur")
    assert kvm.touch(3) == page(3)
    kvm.store(3, b"more")
    assert kvm.touch(3) == b"more" + page(3)[4:] and kvm.states(3) == ["Ur"]


def test_r25_preserved_and_zero_pages_come_back_without_a_word(world):
    world.bring(0, "Sp")
    world.bring(9, "Sz")
    assert [world.touch(gfn) for gfn in (0, 9)] == [page(0), ZEROS]
    assert world.states(0, 9) == ["Sr", "Sr"] and world.used_slots() == world.discard_faults() == 0


def test_r25_a_store_brings_them_in_too(world):
    world.bring(0, "Sp")
    world.bring(9, "Sz")
    for gfn in (0, 9):
        world.store(gfn, b"new")
    assert [world.touch(gfn) for gfn in (0, 9)] == [b"new" + page(0)[3:], b"new" + ZEROS[3:]]
    assert world.memory.dirty([0, 9]).all()


# faults

def test_r26_a_touch_of_a_discarded_page_is_one_fault_an_attempt_that_names_it(world):
    """Loads and stores; the state is not changed by the delivery: the page is V, or P, as it was."""
    touches = (lambda gfn: world.touch(gfn), lambda gfn: world.store(gfn, b"x"))
    for attempt, (gfn, state, touch) in enumerate([(9, "Vr", touches[0]), (5, "Vr", touches[1]),
                                                   (20, "Pr", touches[0]), (30, "Pr", touches[1])], 1):
        world.bring(gfn, state, dirty=False)
        world.evict(gfn)
        assert world.states(gfn) == ["Vz"]
        if world.hardware:
            touch(gfn)
            world.until(lambda attempt=attempt: world.restored() == attempt)     # told after the toucher goes on
            assert world.states(gfn) == [state]
        else:
            with pytest.raises(DiscardFault) as fault:
                touch(gfn)
            assert fault.value.gfns.tolist() == [gfn] and world.states(gfn) == ["Vz"]
        assert world.discard_faults() == attempt


RECORDING = """import sys; sys.path[:] = {path!r}
from guests import pager
named = pager.Pager._named
def note(self, words):
    with open(NOTES, 'a') as notes:
        print(*words, file=notes)
    return named(self, words)
pager.Pager._named = note
sys.exit(pager.main(sys.argv[1:]))"""


@HARDWARE
def test_r26_the_parameter_is_the_absolute_address_of_the_page(new_world, monkeypatch, tmp_path):
    """What a pager is told, by one that takes notes.  Bit 0 says that the page is clean."""
    notes = tmp_path / "notes"
    monkeypatch.setattr(pager_process, "_START", RECORDING.replace("NOTES", repr(str(notes))))
    world = new_world()
    assert isinstance(world.memory, HardwareMemory)
    for gfn, dirty in ((9, False), (5, True)):
        world.bring(gfn, "Vz", dirty)
        ctypes.memmove(ctypes.create_string_buffer(8), world.memory.base + gfn * PAGE_SIZE + 1234, 8)
    words = [int(word) for word in notes.read_text().split()]
    said, pages = words[::2], words[1::2]
    assert pages == [1, 1] and all(word & 0xFFE == 0 for word in said)
    assert [word & ~1 for word in said] == [world.memory.base + gfn * PAGE_SIZE for gfn in (9, 5)]
    assert [word & 1 for word in said] == [1, 0]


def test_r27_a_page_that_is_discarded_and_never_touched_is_no_event(world):
    for gfn in range(32):
        world.bring(gfn, "Vr")
    hypercalls = world.counts()["hypercalls"]
    assert world.evict(0, 32) == 32
    world.store(40, b"other")
    assert world.discard_faults() == world.restored() == 0
    assert world.counts()["hypercalls"] - hypercalls == (not world.hardware)       # of the other page


def test_r28_a_page_restored_by_whoever_can_is_as_if_nothing_had_been(world):
    """The bare guest: `on_discard` in both modes, and the retry finds it."""
    world.guest.on_discard(lambda gfn: bytes([gfn % 251 + 1]) * 4096)
    world.bring(3, "Vz", dirty=False)
    assert world.touch(3) == page(3) == world.touch(3)
    assert world.states(3) == ["Vr"] and world.discard_faults() == 1
    assert not world.memory.dirty([3]).any(), "restored clean"


def test_r29_a_system_call_on_a_discarded_page_completes(world):
    """Software: the copy faults before the call, whose retry completes.  Hardware: served inside the call."""
    for gfn in (3, 4, 5):
        world.bring(gfn, "Vr")
    world.evict(4)
    left, right = socket.socketpair()
    with left, right:
        if not world.hardware:
            with pytest.raises(DiscardFault):
                world.memory.read_many([3, 4, 5])
            world.guest.on_discard(page)
            left.sendall(world.memory.read_many([3, 4, 5]))
        elif world.memory.mapping.uffd.user_mode_only:
            with pytest.raises(OSError, match="Bad address"):
                os.write(left.fileno(), world.memory.buffer[4 * PAGE_SIZE:5 * PAGE_SIZE])
            with world.memory.pin(3, 3) as pinned:
                left.sendall(pinned)
        else:
            left.sendall(world.memory.buffer[3 * PAGE_SIZE:6 * PAGE_SIZE])
        found = right.recv(3 * PAGE_SIZE, socket.MSG_WAITALL)
    assert found == page(3) + page(4) + page(5)
    assert world.discard_faults() == (1 if world.hardware else 2)


@HARDWARE
def test_r29_a_pinned_range_is_stable_and_resident_until_it_is_let_go(world):
    world.bring(3, "Vz")
    with world.memory.pin(3, 2):
        assert world.order("discard", name="g", first=3, count=2)["frames"] == 0
        assert world.states(3, 4) == ["Sr", "Sr"] and world.touch(3) == page(3)
    assert world.evict(3, 2) == 2


@HARDWARE
def test_r30_two_threads_on_one_page_are_one_restore_and_both_go_on(world):
    world.bring(3, "Vz")
    faults, address = world.counts()["hardware_faults"], world.memory.base + 3 * PAGE_SIZE
    with stopped_pager(world):
        one = Load(address)
        world.until(lambda: world.discard_faults() == 1)
        other = Load(address)
        world.until(lambda: world.counts()["hardware_faults"] == faults + 2)
    assert one.end() == page(3) == other.end()
    assert (world.discard_faults(), world.states(3)) == (1, ["Vr"])
    world.until(lambda: world.restored() == 1)
    assert world.evict(3) == 1, "nothing holds it"


@HARDWARE
def test_r31_a_page_whose_fault_is_pending_is_not_used_for_anything_else(kernel_guest):
    """A program has its address, so it keeps its place; another processor takes all memory that can be had."""
    vm = kernel_guest(cpus=2)
    with vm.kernel.running(0):
        mapping = vm.file.mmap(0, 4)
        address = mapping.pages[1].ctypes.data
    gfn = vm.gfn(1)
    vm.evict([gfn])
    with stopped_pager(vm.world):
        load = Load(address)
        vm.world.until(lambda: vm.discard_faults() == 1)
        with vm.kernel.running(1):
            anon = vm.kernel.anon(110)
            anon.write_many(range(110), np.full((110, PAGE_SIZE), 7, np.uint8))
            assert gfn not in anon._places.gfn and vm.gfn(1) == gfn
            with pytest.raises(OSError, match="locked or in use"):
                vm.file.truncate(0)
    assert load.end() == block(1)
    with vm.kernel.running(0):
        assert (anon.read_many(range(110)) == 7).all()
        mapping.unmap()


@HARDWARE
def test_r33_a_page_made_stable_while_it_is_restored_is_stable_and_whole(world):
    world.bring(3, "Vz")
    with stopped_pager(world):
        load = Load(world.memory.base + 3 * PAGE_SIZE)
        world.until(lambda: world.discard_faults() == 1)
        assert not was_discarded(world.guest.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 3))
    assert world.touch(3) == page(3) == load.end()
    assert world.states(3) == ["Sr"]


# dirt that plain stores leave behind

@HARDWARE
@pytest.mark.parametrize("reverse", [False, True])
def test_r36_a_plain_store_of_another_thread_survives_the_hand_over_and_not_its_reverse(world, reverse):
    """Test, make stable, clear; the host evicts in the moment between the last two."""
    memory, guest = world.memory, world.guest
    world.bring(3, "Pr", dirty=False)
    data = ctypes.create_string_buffer(b"precious", 8)
    store = threading.Thread(target=ctypes.memmove, args=(memory.base + 3 * PAGE_SIZE, data, 8))
    store.start()
    store.join(DEADLINE_S)
    assert memory.dirty([3]).all()
    steps = [lambda: guest.essa_one(Essa.SET_STABLE_IF_NOT_DISCARDED, 3), lambda: memory.clear_dirty([3])]
    first, second = reversed(steps) if reverse else steps
    first()
    world.evict(3)
    second()
    assert (world.touch(3)[:8] == b"precious") == (not reverse)


# a duty that is dropped; what a host's reclaim costs an idle guest

DROPPER = """
import sys
from pathlib import Path
from types import SimpleNamespace
sys.path[:0] = [sys.argv[1] + "/tests", sys.argv[1] + "/tests/conformance"]
from kernel_guests import KernelGuest
from test_cmm2_kernel import dropping, use
from worlds import World
from shm.pagestate import Essa
hypervisor = SimpleNamespace(cluster=sys.argv[2])
world = World(hypervisor, "hardware", 128, 256, sys.argv[5])
vm = KernelGuest(world, Path(sys.argv[3]))
print("ready", flush=True)
try:
    with dropping(vm, {Essa(int(sys.argv[4]))}, 0.3):
        use(vm)
    print("nobody noticed", flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


@HARDWARE
@pytest.mark.parametrize("duty", [Essa.SET_STABLE, Essa.SET_STABLE_IF_NOT_DISCARDED])
def test_r42_a_dropped_duty_is_caught_by_the_checks_or_by_the_hypervisor(world, python_process, tmp_path, duty):
    name = f"dropper-{int(duty)}"
    child = python_process(DROPPER, str(ROOT), world.hypervisor.cluster, str(tmp_path), str(int(duty)), name)
    assert child.line() == "ready"
    said = child.process.communicate(timeout=DEADLINE_S)[0].decode().strip()
    if child.process.returncode == -signal.SIGKILL:
        assert "addressing exception" in world.ended(name)
    else:
        assert said in ("BrokenInvariant", "AssertionError", "AddressingException")


IDLE = """
import sys
from guests import Essa, Guest
import numpy as np
cluster, name, mode = sys.argv[1:]
with Guest.connect(cluster, name, 64 * 4096, faults=mode) as guest:
    guest.memory.write_many(range(64), np.ones((64, 4096), np.uint8))
    guest.essa(Essa.SET_VOLATILE, range(32))
    guest.essa(Essa.SET_UNUSED, range(32, 40))
    print("idle", flush=True)
    sys.stdin.readline()
"""


def switches(pid: int) -> list[int]:
    """Return how often each thread of a process has gone to sleep: one that is woken does so once more."""
    found = []
    for thread in sorted(os.listdir(f"/proc/{pid}/task")):
        with open(f"/proc/{pid}/task/{thread}/status") as status:
            found += [int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches")]
    return found


def test_r47_an_idle_guest_is_never_woken_to_reclaim(world, python_process):
    """No thread of it runs while all of its pages are taken: discarded, freed, preserved."""
    name = "idle"
    child = python_process(IDLE, world.hypervisor.cluster, name, world.mode)
    assert child.line() == "idle"
    world.until(lambda: _all_sleep(child.pid))
    before = switches(child.pid)
    world.until(lambda: world.order("discard", name=name, first=0, count=64) and world.row(name)["frames"] == 0)
    counts = world.counts(name)
    assert (counts["discards"], counts["freed_unused"], counts["swap_out"]) == (32, 8, 24)
    assert switches(child.pid) == before


def _all_sleep(pid: int) -> bool:
    """Say whether each thread of a process sleeps; one that was just begun has not yet."""
    stats = [Path(f"/proc/{pid}/task/{thread}/stat").read_text() for thread in os.listdir(f"/proc/{pid}/task")]
    return all(stat.rpartition(")")[2].split()[0] == "S" for stat in stats)


def test_r47_a_balloon_does_wake_its_guest(kernel_guest):
    vm = kernel_guest()
    calls = vm.count(Count.HYPERCALLS)
    assert vm.kernel.balloon.set_target(64) == 64
    assert vm.count(Count.HYPERCALLS) > calls, "its own processor does the work"
