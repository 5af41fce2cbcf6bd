"""Attaching to a cluster and leaving it, and what a guest is told when the hypervisor goes."""

import threading

import numpy as np
import posix_ipc
import pytest

from guests import AddressingException, Essa, Guest, HypervisorGone, MemcommonsError, TmemRefused
from guests import guest as guest_module
from hypervisor.schemes import SCHEMES
from shm.abi import ABI_VERSION, PAGE_SIZE
from shm.counters import Count
from shm.errors import UsageProblem

PAGE = bytes([7]) * PAGE_SIZE


@pytest.fixture
def running(machine):
    return machine(budget=128, swap=1024)


def frames(running):
    return running.inside(lambda: running.machine.ledger.used)


def test_a_guest_has_what_it_asked_for(running):
    with Guest.connect(running.cluster, "mine", "64KiB", weight=3) as guest:
        assert (guest.cluster, guest.name, guest.pages) == (running.cluster, "mine", 16)
        domain = running.domain("mine")
        assert (domain.pages, domain.max_pages, domain.weight) == (16, 16, 3)
        assert guest.essa_one(Essa.GET_STATE, 15) == 0x03
        with pytest.raises(AddressingException):
            guest.essa_one(Essa.GET_STATE, 16)
        guest.ping()


@pytest.mark.parametrize(("ram", "max_mem", "pages", "most"), [
    ("64KiB", None, 16, 16), (65536, "128KiB", 16, 32), ("64KiB", 4096, 16, 16), ("66KiB", None, 16, 16)])
def test_sizes(running, ram, max_mem, pages, most):
    with Guest.connect(running.cluster, "mine", ram, max_mem):
        domain = running.domain("mine")
        assert (domain.pages, domain.max_pages) == (pages, most)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_guest_is_told_what_its_scheme_switches_on(machine, scheme):
    expected = {"baseline": set(), "none": set(), "more-ram": set(), "swap": set(), "balloon": {"balloon"},
                "light": {"hint-unused"}, "tmem": {"cleancache", "frontswap"}, "swapcache": {"host-cache"},
                "cmm2": {"hint-unused", "hint-volatile"}, "cmm2+balloon": {"hint-unused", "hint-volatile", "balloon"},
                "cmm2+tmem": {"hint-unused", "hint-volatile", "cleancache", "frontswap"}}
    guest = machine(scheme=scheme).guest()
    assert guest.features == expected[scheme]
    if scheme in ("tmem", "swapcache", "cmm2+tmem"):
        assert guest.tmem.new_pool(persistent=False).put(1, 1, PAGE)
    else:
        with pytest.raises(TmemRefused):
            guest.tmem.new_pool(persistent=False)


REFUSED = {
    "a wrong unit": ({"ram": "64MB"}, "guest 'mine': '64MB' is not a size"),
    "less than a page": ({"ram": "1KiB"}, "pages 0 is not a number from 1"),
    "a wrong limit": ({"ram": "64KiB", "max_mem": "all"}, "'all' is not a size"),
    "an empty name": ({"ram": "64KiB", "name": ""}, "guest name ''"),
    "a name that is taken": ({"ram": "64KiB", "name": "first"}, "'first' is attached already"),
    "a negative weight": ({"ram": "64KiB", "weight": -1}, "weight -1"),
    "no such cluster": ({"ram": "64KiB", "cluster": "nobody-is-here"}, "no cluster 'nobody-is-here' is running"),
    "no cluster's name": ({"ram": "64KiB", "cluster": "a b"}, "cluster name 'a b'"),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_is_one_clear_line(running, arguments, said):
    running.guest("first")
    with pytest.raises(UsageProblem) as caught:
        Guest.connect(**{"cluster": running.cluster, "name": "mine"} | arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert running.inside(lambda: len(running.machine.domains)) == 1


def test_versions_that_differ_are_refused_and_both_named(running, monkeypatch):
    monkeypatch.setattr(guest_module, "ABI_VERSION", 7)
    with pytest.raises(UsageProblem, match=f"ABI version 7 of the guest, {ABI_VERSION} of the hypervisor"):
        Guest.connect(running.cluster, "mine", "64KiB")


@pytest.mark.parametrize("what", ["MessageQueue", "Semaphore"])
def test_a_hypervisor_that_goes_while_a_guest_attaches_is_gone_and_nothing_is_left_open(running, monkeypatch, what):
    """What it has made is gone when the guest opens it; the descriptors that were handed over are closed again."""
    real = getattr(posix_ipc, what)

    def opened(name, *flags, **more):
        if not flags:                                # the hypervisor makes, in this same process; the guest opens
            raise posix_ipc.ExistentialError("no such object")
        return real(name, *flags, **more)

    with monkeypatch.context() as patch:
        patch.setattr(posix_ipc, what, opened)
        with pytest.raises(HypervisorGone, match="cannot be opened: no such object"):
            Guest.connect(running.cluster, "mine", "64KiB")
    running.until(lambda: not running.machine.domains)


def test_leaving_gives_everything_back_before_it_returns(running):
    guest = running.guest(pages=16)
    guest.memory.write_many(range(8), np.zeros((8, PAGE_SIZE), np.uint8))
    pool = guest.tmem.new_pool(persistent=False)
    assert pool.put(1, 1, PAGE)
    domain = running.domain()
    running.inside(lambda: running.machine.cmm2.evict(domain, np.array([0, 1])))
    assert running.inside(lambda: running.machine.swap.used) == 2
    guest.close()
    machine = running.machine
    assert running.inside(lambda: (machine.ledger.held.get(0, 0), machine.swap.used, machine.store.ephemeral,
                                   len(machine.domains))) == (0, 0, 0, 0)
    assert running.inside(lambda: machine.events[-1]["event"]) == "guest-left"


def test_leaving_twice_is_harmless(running):
    guest = running.guest()
    guest.close()
    guest.close()


def test_the_name_of_a_guest_that_left_is_free(running):
    running.guest("a").close()
    assert running.guest("a").memory.read(0) == bytes(PAGE_SIZE)


def test_no_guest_sees_what_another_left_behind(running):
    """Invariant 6: fresh pages are zero, however often their frames have changed hands."""
    for n in range(5):
        with Guest.connect(running.cluster, f"g{n}", "64KiB") as guest:
            assert not guest.memory.read_many(range(16)).any()
            guest.memory.write_many(range(16), np.full((16, PAGE_SIZE), n + 1, np.uint8))


def test_guests_see_their_own_pages_alone(running):
    guests = [running.guest(name, pages=8) for name in "abc"]
    for n, guest in enumerate(guests):
        guest.memory.write_many(range(8), np.full((8, PAGE_SIZE), n + 1, np.uint8))
    for n, guest in enumerate(guests):
        assert (guest.memory.read_many(range(8)) == n + 1).all()


def test_a_guest_cannot_write_what_is_the_hypervisors(running):
    guest = running.guest()
    assert not guest._map.content.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        guest._map.content[0] = 0


def test_hints_are_counted_and_answered_with_the_old_state(running):
    guest = running.guest()
    guest.memory.write(0, PAGE)
    assert guest.essa(Essa.SET_VOLATILE, [0, 1]).tolist() == [0x00, 0x03]
    assert guest.essa_one(Essa.GET_STATE, 0) == 0x0C
    assert guest.essa_one(Essa.SET_STABLE_NODAT, 0) == 0x0C
    assert guest.essa_one(Essa.GET_STATE, 0) == 0x20
    assert guest.counters[Count.ESSA] == 5
    with pytest.raises(ValueError):
        guest.essa(9, [0])
    with pytest.raises(ValueError):
        guest.essa_one(9, 0)
    assert guest.counters[Count.ESSA] == 5


def test_hints_take_no_hypercall(running):
    guest = running.guest()
    guest.essa(Essa.SET_UNUSED, range(16))
    assert guest.counters[Count.HYPERCALLS] == 0
    assert running.inside(lambda: int(running.machine.counts()[0])) == 0


def test_counters_are_seen_by_the_hypervisor(running):
    guest = running.guest()
    guest.counters[Count.OPERATIONS] += 5
    answer = running.inside(lambda: running.machine.orders.list({}))
    [told] = answer["guests"]
    assert (told["name"], told["counters"]["operations"], told["states"]["Sz"]) == ("g", 5, 16)


# when the hypervisor goes


def test_a_stopped_hypervisor_is_gone_to_every_call(machine):
    running = machine()
    guest = running.guest()
    pool = guest.tmem.new_pool(persistent=False)
    guest.memory.write(0, PAGE)
    assert not guest.wait_gone(0)
    waiting = threading.Thread(target=guest.wait_gone, args=(20,))
    waiting.start()
    running.inside(lambda: setattr(running.machine, "stopping", True))
    running.thread.join(20)
    running.bury_guests()
    waiting.join(20)
    assert not waiting.is_alive(), "who waits for the end is woken by it"
    assert guest.wait_gone(0)
    for call in (guest.ping, lambda: guest.memory.read(5), lambda: pool.put(1, 1, PAGE), lambda: pool.get(1, 1),
                 lambda: guest.memory.read_many([6, 7])):
        with pytest.raises(HypervisorGone) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, MemcommonsError)
    guest.close()


def test_a_killed_hypervisor_is_gone_to_every_call(hypervisor_process):
    hypervisor = hypervisor_process(budget=128)
    guest = Guest.connect(hypervisor.cluster, "g", "64KiB")
    guest.memory.write(0, PAGE)
    hypervisor.kill()
    assert guest.wait_gone(5)
    with pytest.raises(HypervisorGone):
        guest.ping()
    with pytest.raises(HypervisorGone):
        guest.memory.read(5)
    assert guest.memory.read(0) == PAGE, "what needs no hypervisor goes on"
    guest.close()


GUEST = """
import sys
from guests import Guest
guest = Guest.connect(sys.argv[1], "child", "256KiB")
for gfn in range(64):
    guest.memory.write(gfn, bytes([gfn + 1]) * 4096)
pool = guest.tmem.new_pool(persistent=False)
pool.put(1, 1, bytes([9]) * 4096)
print("attached", flush=True)
sys.stdin.read()
"""


def test_a_killed_guest_gives_all_back_and_harms_nobody(running, python_process):
    mine = running.guest("mine")
    mine.memory.write(0, PAGE)
    child = python_process(GUEST, running.cluster)
    assert child.line() == "attached"
    assert running.domain("child").pid == child.pid
    assert frames(running) >= 65
    child.kill()
    running.until(lambda: len(running.machine.domains) == 1)
    assert running.inside(lambda: running.machine.ledger.held.get(1)) is None
    assert running.inside(lambda: running.machine.store.ephemeral) == 0
    assert mine.memory.read(0) == PAGE
