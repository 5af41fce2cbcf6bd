"""Orders through the door: what they answer, what they refuse, and that a lower budget gives memory back at once."""

import os
import signal

import numpy as np
import pytest

from guests import Essa, HypervisorGone
from hypervisor.orders import GUESTS_A_MESSAGE, LEAST_BUDGET
from hypervisor.toolstack.connection import call
from shm import door
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

SUMMARY = {"cluster", "scheme", "budget", "frames_used", "frames_free", "heap_frames", "swap_pages", "peak_frames",
           "kernel_bytes", "kernel_peak_bytes", "counters", "audit", "guests"}
GUEST = {"name", "pid", "ram", "frames", "persistent", "ephemeral", "states", "counters"}


def ask(running, order, **more):
    return call(running.cluster, {"call": order} | more)


def set_budget(running, frames):
    return ask(running, "set-budget", bytes=frames * PAGE_SIZE)


def pattern(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, PAGE_SIZE), np.uint8)


def kernel_frames(running, *guests):
    """What the kernel says is resident, asked from here: not by way of the hypervisor."""
    objects = [running.machine.heap.object, *(running.domain(guest.name).ram for guest in guests)]
    return sum(os.fstat(item.fd).st_blocks for item in objects) * 512 // PAGE_SIZE


def test_list_describes_the_cluster_and_its_guests(machine):
    running = machine(budget=300, scheme="cmm2+tmem")
    guest = running.guest("bank", pages=32, max_pages=64)
    guest.memory.write_many(range(20), pattern(20))
    guest.essa(Essa.SET_VOLATILE, range(5))
    guest.tmem.new_pool(persistent=False).put(1, 1, bytes(PAGE_SIZE))
    keep = guest.tmem.new_pool(persistent=True)
    keep.put_many(1, [1, 2], pattern(2))
    answer = ask(running, "list")
    assert set(answer) >= SUMMARY
    assert (answer["cluster"], answer["scheme"], answer["budget"]) == (running.cluster, "cmm2+tmem", 300 * PAGE_SIZE)
    assert answer["frames_used"] + answer["frames_free"] == 300
    assert answer["kernel_bytes"] == answer["frames_used"] * PAGE_SIZE
    [shown] = answer["guests"]
    assert set(shown) >= GUEST
    assert (shown["name"], shown["pid"], shown["ram"]) == ("bank", os.getpid(), 32 * PAGE_SIZE)
    assert (shown["frames"], shown["persistent"], shown["ephemeral"]) == (20, 2, 1)
    assert {name: n for name, n in shown["states"].items() if n} == {"Sr": 15, "Vr": 5, "Sz": 12}
    assert shown["counters"]["essa"] == 5
    assert answer["counters"]["tmem_puts_stored"] == 3


def test_a_list_of_30_guests_comes_in_parts(machine):
    """Each part stays below what the door carries; put together they are all the guests, each once."""
    running = machine(budget=300)
    names = [f"g{n:02}" for n in range(30)]
    for name in names:
        running.guest(name)
    with door.connect(running.cluster) as link:
        door.send(link, {"call": "list"})
        first, _ = door.receive(link)
        door.send(link, {"call": "list", "from": first["next"]})
        second, _ = door.receive(link)
    assert [len(part["guests"]) for part in (first, second)] == [GUESTS_A_MESSAGE, 30 - GUESTS_A_MESSAGE]
    assert second["next"] is None
    assert [guest["name"] for guest in ask(running, "list")["guests"]] == names


def test_a_list_of_a_cluster_without_guests(machine):
    answer = ask(machine(), "list")
    assert (answer["guests"], answer["next"], answer["frames_used"]) == ([], None, 0)


@pytest.mark.parametrize("start", ["0", None, 1.0, [0]])
def test_a_list_from_nowhere(machine, start):
    with pytest.raises(UsageProblem, match=r"from .* is not a number"):
        ask(machine(), "list", **{"from": start})


def test_counters_that_a_guest_scribbled_are_shown_and_nothing_more(machine):
    running = machine()
    guest = running.guest()
    guest.counters[:] = (1 << 64) - 1
    assert ask(running, "list")["guests"][0]["counters"]["mismatches"] == (1 << 64) - 1


# Budgets

@pytest.mark.parametrize("size", [0, -1, LEAST_BUDGET * PAGE_SIZE - 1, 1 << 62, "64MiB", None, 1e6, True, [1]],
                         ids=lambda size: repr(size))
def test_a_budget_that_cannot_be(machine, size):
    running = machine(budget=100)
    with pytest.raises(UsageProblem, match=r"budget .* bytes: use 256 KiB to \d+ MiB"):
        ask(running, "set-budget", bytes=size)
    assert ask(running, "list")["budget"] == 100 * PAGE_SIZE


def test_a_lower_budget_gives_discarded_pages_back_at_once(machine):
    """The kernel's own count is down when the order is answered; nothing was written to the swap disk."""
    running = machine(budget=400)
    guest = running.guest(pages=256)
    guest.memory.write_many(range(256), pattern(256))
    guest.essa(Essa.SET_VOLATILE, range(200))
    assert kernel_frames(running, guest) == 256
    answer = set_budget(running, 100)
    assert kernel_frames(running, guest) <= 100
    assert (answer["budget"], answer["returned_frames"]) == (100 * PAGE_SIZE, 256 - answer["frames_used"])
    assert answer["frames_used"] <= 100
    assert (guest.memory.read_many(range(200, 256)) == pattern(256)[200:]).all()
    counters = ask(running, "list")["counters"]
    assert counters["discards"] >= 156 and counters["swap_out"] == counters["volatile_swap_writes"] == 0


def test_a_lower_budget_evicts_ephemeral_pages_and_the_heaps_free_frames(machine):
    running = machine(budget=400)
    guest = running.guest(pages=16)
    pool = guest.tmem.new_pool(persistent=False)
    assert pool.put_many(1, range(256), pattern(256)).all()
    pool.get_many(1, range(200, 256))                        # taken out: their frames stay with the heap, free
    held = kernel_frames(running, guest)
    set_budget(running, 64)
    assert kernel_frames(running, guest) <= 64 < held
    hits, pages = pool.get_many(1, range(200))
    assert hits.any() and (pages[hits] == pattern(256)[:200][hits]).all()
    assert not hits[:100].any(), "the oldest went first"


def test_a_lower_budget_preserves_stable_pages_and_loses_none(machine):
    running = machine(budget=400, swap=400)
    guest = running.guest(pages=256)
    guest.memory.write_many(range(256), pattern(256))
    set_budget(running, 100)
    assert kernel_frames(running, guest) <= 100
    assert ask(running, "list")["swap_pages"] >= 156
    for first in range(0, 256, 32):
        assert (guest.memory.read_many(range(first, first + 32)) == pattern(256)[first:first + 32]).all()
    assert kernel_frames(running, guest) <= 100


@pytest.mark.parametrize("swap", [0, 50], ids=["no swap disk", "a small swap disk"])
def test_a_budget_that_cannot_be_met_is_refused_and_stays(machine, swap):
    running = machine(budget=400, swap=swap)
    guest = running.guest(pages=256)
    guest.memory.write_many(range(256), pattern(256))
    with pytest.raises(UsageProblem, match=r"budget 400 KiB cannot be met.*stays as it was"):
        set_budget(running, 100)
    assert ask(running, "list")["budget"] == 400 * PAGE_SIZE
    guest.essa(Essa.SET_VOLATILE, [])
    assert (guest.memory.read_many(range(256)) == pattern(256)).all()


def test_persistent_pages_hold_a_budget_up(machine):
    running = machine(budget=1000, swap=0)
    guest = running.guest(pages=16, max_pages=500)
    pool = guest.tmem.new_pool(persistent=True)
    assert pool.put_many(1, range(200), pattern(200)).all()
    with pytest.raises(UsageProblem, match="persistent"):
        set_budget(running, 150)
    hits, pages = pool.get_many(1, range(200))
    assert hits.all() and (pages == pattern(200)).all()


def test_a_higher_budget_is_used_at_once(machine):
    running = machine(budget=64, swap=0)
    guest = running.guest(pages=256)
    guest.memory.write_many(range(40), pattern(40))
    assert set_budget(running, 400)["returned_frames"] == 0
    guest.memory.write_many(range(256), pattern(256))
    assert kernel_frames(running, guest) == 256


def test_budgets_up_and_down_while_a_guest_works(machine):
    running = machine(budget=400, swap=1000)
    guest, rng = running.guest(pages=256), np.random.default_rng(4)
    guest.memory.write_many(range(256), pattern(256))
    for _ in range(20):
        frames = int(rng.integers(64, 400))
        set_budget(running, frames)
        gfns = rng.choice(256, 40, replace=False)
        assert (guest.memory.read_many(gfns) == pattern(256)[gfns]).all()
        assert kernel_frames(running, guest) <= frames


# Audit, stop, and what is no order

def test_an_audit_on_demand(machine):
    running = machine()
    guest = running.guest()
    guest.memory.write(0, bytes(PAGE_SIZE))
    before = ask(running, "list")["audit"]["checks"]
    answer = ask(running, "audit")
    assert answer["checks"] > before
    assert (answer["max_drift_frames"], answer["drifts"], answer["problems"]) == (0, [], [])


def test_an_audit_tells_what_does_not_add_up(machine):
    running = machine(budget=100)
    running.expects_drift = True
    guest = running.guest(pages=16)
    guest.memory.write_many(range(4), pattern(4))
    domain = running.domain()
    running.inside(lambda: domain.ram.punch([(0, 1)]))       # a frame less than the ledger says: our bug
    answer = ask(running, "audit")
    assert answer["max_drift_frames"] == 1
    assert answer["drifts"][0] == "guest 0: kernel -1 frames"
    running.inside(lambda: domain.ram.allocate([(0, 1)]))


def test_stop_answers_and_stops(hypervisor_process):
    child = hypervisor_process()
    assert call(child.cluster, {"call": "stop"}) == {"ok": True}
    child.process.wait(20)
    with pytest.raises(UsageProblem, match="no cluster"):
        call(child.cluster, {"call": "list"})


def test_an_order_to_a_hypervisor_that_died_before_it_answered(hypervisor_process):
    child = hypervisor_process()
    link = door.connect(child.cluster)
    child.process.send_signal(signal.SIGSTOP)
    door.send(link, {"call": "list"})
    child.kill()
    with pytest.raises(HypervisorGone):
        door.receive(link)
    link.close()


def test_an_order_that_nobody_knows(machine):
    with pytest.raises(UsageProblem, match=r"unknown call 'shrink'.*list.*set-budget.*audit.*stop"):
        ask(machine(), "shrink")


def test_states_of_every_kind_are_counted(machine):
    running = machine(budget=200)
    guest = running.guest(pages=64)
    guest.memory.write_many(range(30), pattern(30))
    for first, order in ((0, Essa.SET_UNUSED), (5, Essa.SET_VOLATILE), (10, Essa.SET_POT_VOLATILE)):
        guest.essa(order, range(first, first + 5))
    guest.essa(Essa.SET_UNUSED, [40])
    guest.essa(Essa.SET_VOLATILE, [41, 42])
    shown = ask(running, "list")["guests"][0]["states"]
    assert shown == {"Sr": 15, "Sp": 0, "Sz": 31, "Ur": 5, "Uz": 1, "Vr": 5, "Vz": 2, "Pr": 5}
