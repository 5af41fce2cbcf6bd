"""Deaths: of guests at any moment, of the hypervisor at any moment, and orderly ends; who notices, and what is left."""

import json
import random
import signal
import subprocess
import sys
from time import monotonic

import numpy as np
import posix_ipc
import pytest
import victims

from guests import Guest, HypervisorGone
from hypervisor.toolstack.connection import call
from shm import names
from shm.abi import PAGE_SIZE

FRAMES_BACK_S = 2.0          # promised: a dead guest's frames are back in this time
GUESTS_TOLD_S = 5.0          # promised: guests know in this time that their hypervisor is gone
DEADLINE_S = 20.0
CODE = "import sys; sys.path.insert(0, 'tests/hypervisor'); import victims; victims.main()"


@pytest.fixture
def victim(python_process):
    """Start a guest process in some mode; it has begun when this returns."""
    def start(host, name, mode):
        child = python_process(CODE, host.cluster, name, mode)
        assert child.line() == "again"
        return child
    return start


class Witness:
    """A guest of the test's own that must not notice anything."""

    def __init__(self, host):
        self.guest = Guest.connect(host.cluster, "witness", 40 * PAGE_SIZE, 100 * PAGE_SIZE)
        self.pages = np.random.default_rng(5).integers(0, 256, (40, PAGE_SIZE), np.uint8)
        self.guest.memory.write_many(range(40), self.pages)
        self.pool = self.guest.tmem.new_pool(persistent=True)
        assert self.pool.put_many(1, range(20), self.pages[:20]).all()

    def prove_unharmed(self):
        assert (self.guest.memory.read_many(range(40)) == self.pages).all()
        hits, pages = self.pool.get_many(1, range(20))
        assert hits.all() and (pages == self.pages[:20]).all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.guest.close()


def settled(host):
    """What the cluster says of itself once its dead are buried, with the kernel's word beside it."""
    answer, audit = call(host.cluster, {"call": "list"}), call(host.cluster, {"call": "audit"})
    assert audit["problems"] == [] and audit["max_drift_frames"] == 0, audit["drifts"]
    assert answer["kernel_bytes"] == answer["frames_used"] * PAGE_SIZE
    assert answer["counters"]["volatile_swap_writes"] == 0
    return answer


def next_event(host, kind, deadline):
    """Return the next event of one kind; those of guests that come and go before it are passed over."""
    until = monotonic() + deadline
    while True:
        event = host.event(max(0.01, until - monotonic()))
        if event["event"] == kind:
            return event


# Guests

# Frames of the cluster: fewer than victim and witness have pages; with persistent puts, enough for these to be taken.
BUDGETS = {"writes": 160, "puts": 700, "hints": 160, "holds_the_lock": 160}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", BUDGETS)
def test_a_guest_killed_at_any_moment(hypervisor_process, victim, mode, seed):
    """Frames and pools are back in 2 s, its names are gone, and a witness under the same pressure notices nothing."""
    host, rng = hypervisor_process(budget=BUDGETS[mode]), random.Random(f"{mode} {seed}")
    with Witness(host) as witness:
        child = victim(host, "victim", mode)
        for _ in range(rng.randrange(4) if mode != "holds_the_lock" else 0):
            child.line()
        witness.prove_unharmed()
        child.kill()
        event = next_event(host, "guest-died", FRAMES_BACK_S)
        assert (event["name"], event["pid"]) == ("victim", child.pid)
        answer = settled(host)
        assert [guest["name"] for guest in answer["guests"]] == ["witness"]
        [shown] = answer["guests"]
        assert answer["frames_used"] == shown["frames"] + answer["heap_frames"]
        assert answer["ephemeral"] == 0
        witness.prove_unharmed()
        assert not [item for item in names.objects(host.cluster) if ".g1." in item.name]


def test_all_guests_killed_at_once(hypervisor_process, victim):
    host = hypervisor_process(budget=256)
    children = [victim(host, mode, mode) for mode in BUDGETS]
    for child in children:
        child.process.send_signal(signal.SIGKILL)
    for child in children:
        child.kill()
    died = {next_event(host, "guest-died", FRAMES_BACK_S)["name"] for _ in children}
    assert died == set(BUDGETS)
    answer = settled(host)
    assert answer["guests"] == []
    assert answer["frames_used"] == answer["heap_frames"] and answer["swap_pages"] == 0


@pytest.mark.parametrize("seed", range(2))
def test_a_guest_killed_while_it_attaches_or_leaves(hypervisor_process, victim, seed):
    host, rng = hypervisor_process(budget=256), random.Random(seed)
    with Witness(host) as witness:
        for n in range(4):
            child = victim(host, f"victim{n}", "comes_and_goes")
            for _ in range(rng.randrange(5)):
                child.line()
            child.kill()
        witness.prove_unharmed()
        until = monotonic() + DEADLINE_S
        while len(settled(host)["guests"]) > 1:
            assert monotonic() < until, "somebody was not buried"
        assert {item.name.split(".")[3] for item in names.objects(host.cluster)} == {"cluster", "heap", "g0"}


def test_a_lock_held_by_the_dead_keeps_nobody_from_memory(hypervisor_process, victim):
    """The holder dies under memory pressure; what it had is used by another at once."""
    host = hypervisor_process(budget=64, swap=0)
    child = victim(host, "holder", "holds_the_lock")
    with Guest.connect(host.cluster, "heir", 60 * PAGE_SIZE) as heir:
        child.kill()
        next_event(host, "guest-died", FRAMES_BACK_S)
        heir.memory.write_many(range(56), np.full((56, PAGE_SIZE), 3, np.uint8))
        assert (heir.memory.read_many(range(56)) == 3).all()
        settled(host)


def test_a_child_of_a_dead_guest_takes_no_frames(hypervisor_process, victim):
    """It still maps the memory: a touch is its own SIGBUS, for the object has length 0 by then."""
    host = hypervisor_process(budget=256)
    child = victim(host, "parent", "leaves_a_child")
    child.kill()
    next_event(host, "guest-died", FRAMES_BACK_S)
    assert child.line() == "touching it: SIGBUS"
    answer = settled(host)
    assert (answer["guests"], answer["frames_used"]) == ([], answer["heap_frames"])


def test_a_guest_that_closes_gives_all_back(hypervisor_process):
    host = hypervisor_process(budget=256)
    with Witness(host):
        assert settled(host)["frames_used"] > 0
    answer = settled(host)
    assert (answer["guests"], answer["frames_used"]) == ([], answer["heap_frames"])
    assert {item.name.split(".")[3] for item in names.objects(host.cluster)} == {"cluster", "heap"}


# The hypervisor

@pytest.mark.parametrize("mode", victims.BEREFT)
def test_the_hypervisor_killed_while_a_guest(hypervisor_process, victim, mode):
    """Within 5 s the guest gets HypervisorGone with one clear line, whatever it was waiting for."""
    host = hypervisor_process(budget=128)                    # fewer frames than it has pages: it faults for ever
    child = victim(host, "bereft", mode)
    if mode == "blocked_call":
        host.process.send_signal(signal.SIGSTOP)
        child.say("call")
        assert child.line() == "calling"
    killed = monotonic()
    host.kill()
    line = child.line()
    while line == "again":
        line = child.line()
    assert line.startswith("gone at ") and len(line) < 200
    assert float(line.split()[2].rstrip(":")) - killed <= GUESTS_TOLD_S
    assert child.process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("seed", range(2))
def test_the_hypervisor_killed_at_any_moment_is_cleaned_up_after(hypervisor_process, victim, seed):
    """What it leaves is listed as leftovers of that cluster, removed, and then gone: memory, semaphores, queues."""
    host, rng = hypervisor_process(budget=256), random.Random(seed)
    children = [victim(host, mode, mode) for mode in ("writes", "puts", "hints")]
    for child in rng.choices(children, k=rng.randrange(1, 6)):
        child.line()
    assert names.leftovers(host.cluster) == [], "a living cluster has none"
    host.kill()
    for child in children:
        child.kill()
    left = names.leftovers(host.cluster)
    kinds = {kind: [item.name for item in left if item.kind == kind] for kind in ("memory", "semaphore", "queue")}
    assert {kind: len(found) for kind, found in kinds.items()} == {"memory": 2 + 3, "semaphore": 3, "queue": 6}
    assert {item.name for item in names.remove(left)} == {item.name for item in left}
    assert names.objects(host.cluster) == names.leftovers(host.cluster) == []
    for queue in kinds["queue"]:
        with pytest.raises(posix_ipc.ExistentialError):
            posix_ipc.MessageQueue("/" + queue)
    assert names.remove(left) == [], "removing twice is harmless"


def test_leftovers_of_the_dead_are_not_those_of_the_living(hypervisor_process):
    dead, living = hypervisor_process(), hypervisor_process()
    with Guest.connect(living.cluster, "g", 16 * PAGE_SIZE) as guest:
        dead.kill()
        assert {item.cluster for item in names.leftovers()} & {dead.cluster, living.cluster} == {dead.cluster}
        names.remove(names.leftovers(dead.cluster))
        guest.memory.write(0, b"\x01" * PAGE_SIZE)
        assert guest.memory.read(0)[0] == 1


def test_a_name_is_free_again_after_a_kill_and_before_the_cleaning(hypervisor_process, python_process):
    """The door dies with its hypervisor; the leftovers of the old run do not hinder a new one."""
    first = hypervisor_process()
    first.kill()
    order = json.dumps({"cluster": first.cluster, "budget": 64 * PAGE_SIZE, "scheme": "none"})
    command = [sys.executable, "-m", "hypervisor"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second:
        second.stdin.write(order.encode() + b"\n")
        second.stdin.flush()
        assert json.loads(second.stdout.readline())["event"] == "ready"
        runs = {item.run for item in names.objects(first.cluster)}
        assert len(runs) == 2 and len({item.run for item in names.leftovers(first.cluster)} & runs) == 1
        second.stdin.close()
        assert json.loads(second.stdout.readline())["event"] == "stopped"
    assert second.returncode == 0


# Orderly ends

ENDS = {"SIGTERM": lambda host: host.process.terminate(), "end of input": lambda host: host.process.stdin.close(),
        "an order to stop": lambda host: call(host.cluster, {"call": "stop"})}


@pytest.mark.parametrize("how", ENDS)
def test_an_orderly_end(hypervisor_process, victim, how):
    """`stopped` with counters and a clean audit, exit 0, nothing left; its guests are told."""
    host = hypervisor_process(budget=256)
    guest = Guest.connect(host.cluster, "mine", 16 * PAGE_SIZE)
    guest.memory.write_many(range(10), np.zeros((10, PAGE_SIZE), np.uint8))
    child = victim(host, "other", "calls")
    ENDS[how](host)
    words = next_event(host, "stopped", DEADLINE_S)
    host.killed = True                                       # its last words are read here
    assert words["problems"] == [] and words["audit"]["max_drift_frames"] == 0 and words["audit"]["checks"] > 0
    assert words["peak_frames"] >= 10 and words["kernel_peak_bytes"] >= 10 * PAGE_SIZE
    assert words["counters"]["zero_fills"] == 10
    assert host.process.wait(DEADLINE_S) == 0
    assert names.objects(host.cluster) == []
    assert guest.wait_gone(DEADLINE_S)
    with pytest.raises(HypervisorGone):
        guest.ping()
    guest.close()
    line = child.line()
    while line == "again":
        line = child.line()
    assert line.startswith("gone at ")


def test_control_c_is_not_the_hypervisors_to_answer(hypervisor_process):
    """The toolstack stops its guests first, then the hypervisor, in order."""
    host = hypervisor_process()
    host.process.send_signal(signal.SIGINT)
    assert call(host.cluster, {"call": "list"})["guests"] == []


REFUSED = {
    "a swap folder that does not exist": ({"folder": "/nowhere/at/all"}, "no swap disk in /nowhere/at/all"),
    "a cluster name that cannot be": ({"cluster": "a b"}, "cluster name 'a b': use 1 to 40"),
}


def started(order):
    """Start a hypervisor that is expected to refuse; return its event and its exit status."""
    done = subprocess.run([sys.executable, "-m", "hypervisor"], input=json.dumps(order).encode() + b"\n",
                          capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.stderr == b""
    return json.loads(done.stdout), done.returncode


@pytest.mark.parametrize(("changed", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_started(cluster_name, changed, words):
    event, status = started({"cluster": cluster_name, "budget": 64 * PAGE_SIZE, "swap": 64 * PAGE_SIZE} | changed)
    assert (event["event"], status) == ("refused", 2)
    assert words in event["error"] and "\n" not in event["error"]
    assert names.objects(cluster_name) == []


def test_a_name_in_use(hypervisor_process):
    host = hypervisor_process()
    before = names.objects(host.cluster)
    event, status = started({"cluster": host.cluster, "budget": 64 * PAGE_SIZE})
    assert (event["event"], status) == ("refused", 2) and "is in use" in event["error"]
    assert names.objects(host.cluster) == before


def test_whoever_started_it_is_gone(hypervisor_process):
    """Its output goes nowhere: it stops all the same when its input ends, and leaves nothing."""
    host = hypervisor_process()
    host.process.stdout.close()
    with Guest.connect(host.cluster, "g", 16 * PAGE_SIZE):
        pass
    host.process.stdin.close()
    assert host.process.wait(DEADLINE_S) == 0
    assert names.objects(host.cluster) == []
    host.killed = True                                       # nobody can read its last words
