"""Several guest processes against one hypervisor, doing random things in too little memory (invariants 1 to 7).

Each guest checks every page, state and answer against its own model; at the end the ledger is what the kernel says, no
volatile page was ever written to the swap disk, and nothing is left.  A seed decides what is done and by whom; which
guest comes when is up to the machine.
"""

import random
import select
import signal
from contextlib import suppress
from time import monotonic

import pytest

from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem

CODE = "import runpy, sys; sys.argv[0] = 'restless'; runpy.run_path('tests/stress/restless.py', run_name='__main__')"
DEADLINE_S = 60.0
BUDGET, GUESTS, GUEST_PAGES = 360, 4, 256                    # 4 guests of 256 pages, and their pools, in 360 frames
# What a seed adds to random operations, by its last digit.
KILLED, RESIZED, SCHEMES = {2, 5, 8}, {1, 3, 5, 7, 9}, {6: "cmm2", 9: "swap"}
CAPPED = {4: 40, 7: 10}                                      # ephemeral pages at the most
KIND_BY_KIND = {3, 4}                                        # the other reclaim policy
FORMS = {1: "lz4", 2: "tze", 4: "lz4", 5: "dedup", 8: "lz4"}                 # of stored pages; raw for the others
WRITTEN_BACK = {0, 5, 8}                                     # persistent pages too go to the swap disk


class Crew:
    """A hypervisor and its guests, and what the test does to them while they work."""

    def __init__(self, host, children, seed, seconds):
        self.host, self.children, self.patience = host, children, seconds + 2 * DEADLINE_S
        self.random = random.Random(seed)
        self.lines = {child: [] for child in children}
        self.most = BUDGET

    def resize(self):
        frames = self.random.randrange(BUDGET // 2, 2 * BUDGET)
        self.most = max(self.most, frames)
        with suppress(UsageProblem):                         # persistent pages stand in the way: it stays as it was
            call(self.host.cluster, {"call": "set-budget", "bytes": frames * PAGE_SIZE})

    def kill_one(self):
        victim = self.random.choice(self.children)
        self.children.remove(victim)
        victim.process.send_signal(signal.SIGKILL)
        victim.kill()

    def lines_of(self, child):
        """Read what a guest has said; say whether it has anything more to say."""
        line = child.line(DEADLINE_S)
        self.lines[child].append(line)
        return line in ("begun", "again")

    def work(self, kill, resize):
        """Listen to all until they are done; now and then kill one, or change the budget."""
        kill_at = self.random.randrange(5, 40) if kill else -1
        working, heard, until = list(self.children), 0, monotonic() + self.patience
        while working:
            assert monotonic() < until, {child.pid: lines[-1] for child, lines in self.lines.items()}
            ready, _, _ = select.select([child.process.stdout for child in working], [], [], DEADLINE_S)
            for child in [child for child in working if child.process.stdout in ready]:
                heard += 1
                if not self.lines_of(child):
                    working.remove(child)
            if resize and heard % 7 == 0:
                self.resize()
            if heard >= kill_at >= 0:
                kill_at = -1
                self.kill_one()
                working = [child for child in working if child in self.children]


def stress(hypervisor_process, python_process, seed, seconds, guests=GUESTS):
    kind = seed % 10
    host = hypervisor_process(budget=BUDGET, swap=4 * guests * GUEST_PAGES, scheme=SCHEMES.get(kind, "cmm2+tmem"),
                              ephemeral_pages=CAPPED.get(kind, 0), form=FORMS.get(kind, "raw"),
                              write_back=kind in WRITTEN_BACK,
                              reclaim="u-e-v-p-s" if kind in KIND_BY_KIND else "hint-after-choice")
    children = [python_process(CODE, host.cluster, f"g{n}", str(seed), str(seconds)) for n in range(guests)]
    crew = Crew(host, children, seed, seconds)
    crew.work(kill=kind in KILLED, resize=kind in RESIZED)
    for child in crew.children:
        assert crew.lines[child][-1].startswith("done "), crew.lines[child][-1]
        assert child.process.wait(DEADLINE_S) == 0
    prove_sound(host, crew)


def prove_sound(host, crew):
    answer, audit = call(host.cluster, {"call": "list"}), call(host.cluster, {"call": "audit"})
    assert (audit["problems"], audit["drifts"], audit["max_drift_frames"]) == ([], [], 0)
    assert (answer["guests"], answer["swap_pages"], answer["ephemeral"]) == ([], 0, 0)
    assert answer["kernel_bytes"] == answer["frames_used"] * PAGE_SIZE == answer["heap_frames"] * PAGE_SIZE
    assert answer["peak_frames"] <= crew.most and answer["kernel_peak_bytes"] <= crew.most * PAGE_SIZE
    counters = answer["counters"]
    assert counters["volatile_swap_writes"] == 0
    busy = {"swap_out", "swap_in", "zero_fills", "discards", "freed_unused"}
    idle = {name for name in busy if not counters[name]}
    assert idle == set(), "there was not enough pressure to prove anything"


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(10))
def test_random_guests_in_too_little_memory(hypervisor_process, python_process, seed):
    stress(hypervisor_process, python_process, seed, seconds=3)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [101, 105, 108])
def test_random_guests_for_minutes(hypervisor_process, python_process, seed):
    stress(hypervisor_process, python_process, seed, seconds=120, guests=6)
