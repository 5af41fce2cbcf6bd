"""What psutil sees: checked against mappings that the test makes itself, page by page."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hypervisor.toolstack.sampler import Sampler, is_arena, memory_of
from shm.errors import HypervisorGone

PAGE = 4096


@pytest.mark.parametrize(("path", "expected"), [
    ("/dev/shm/memcommons.c.abcdef.g1.ram", True),
    ("/dev/shm/memcommons.c.abcdef.heap", True),
    ("/dev/shm/memcommons.c.abcdef.g1.ram (deleted)", True),
    ("/dev/shm/memcommons.c.abcdef.g1.usage", False),
    ("/dev/shm/memcommons.c.abcdef.g1.transfer", False),
    ("/dev/shm/other.ram", False),
    ("/usr/lib/memcommons.heap", False),
    ("[heap]", False)])
def test_arena_is_guest_memories_and_the_tmem_heap(path, expected):
    assert is_arena(path) is expected


@pytest.fixture
def arena():
    """A guest memory of 64 pages, mapped here; yields (path, mapping)."""
    path = Path(f"/dev/shm/memcommons.sampler-{os.getpid()}.abcdef.g0.ram")
    path.write_bytes(b"")
    os.truncate(path, 64 * PAGE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 64 * PAGE) as mapped:
        path.unlink()
        yield mapped


def test_touched_pages_are_counted_and_no_others(arena):
    before = memory_of(psutil.Process())
    for page in (0, 5, 63):
        arena[page * PAGE] = 1
    after = memory_of(psutil.Process())
    assert before.arena_rss == before.arena_pss == 0
    assert (after.arena_rss, after.arena_pss) == (3 * PAGE, 3 * PAGE)
    assert after.rss > after.arena_rss
    assert after.pss <= after.rss


def test_page_that_two_processes_map_counts_once_in_sum(arena):
    arena[0] = 1
    touch_and_wait = ("import mmap, sys; m = mmap.mmap(int(sys.argv[1]), 4096); m[0]; print(flush=True); "
                      "sys.stdin.read()")
    fd = next(int(fd) for fd in os.listdir("/proc/self/fd") if "sampler-" in link(fd))
    child = subprocess.Popen([sys.executable, "-S", "-c", touch_and_wait, str(fd)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, pass_fds=[fd])
    with child:
        child.stdout.readline()
        ours, theirs = memory_of(psutil.Process()), memory_of(psutil.Process(child.pid))
        child.stdin.close()
    assert ours.arena_rss == theirs.arena_rss == PAGE
    assert ours.arena_pss + theirs.arena_pss == PAGE


def link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@pytest.fixture
def gone():
    """A process that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as child:
        return psutil.Process(child.pid)


def test_process_that_is_gone_has_no_memory(gone):
    assert memory_of(gone) is None


class Told:
    """Keeps what a sampler tells."""

    def __init__(self, *guests, ask=lambda: {"kernel_bytes": 7}):
        self.walks, self.shared = [], []
        pids = {f"g{n}": pid for n, pid in enumerate(guests)}
        self.sampler = Sampler(os.getpid(), pids, ask, lambda sample, seen: self.walks.append((sample, seen)),
                               self.shared.append)


def test_sample_has_everybody_and_the_kernels_count(arena):
    told = Told(os.getpid())
    told.sampler.begin()
    arena[0] = arena[PAGE] = 1
    told.sampler.take()
    samples = told.sampler.samples
    assert [walk[0] for walk in told.walks] == samples
    assert [sample.kernel_bytes for sample in samples] == [7, 7]
    assert [sample.guests["g0"].arena_rss for sample in samples] == [0, 2 * PAGE]
    assert samples[1].arena_pss == 4 * PAGE, "ourselves twice: as hypervisor and as guest"
    assert samples[0].at <= samples[1].at


def test_shared_is_what_came_since_the_start(arena):
    arena[0] = 1                       # of the arena, although it was there before
    told = Told()
    told.sampler.begin()
    for page in range(1, 50):
        arena[page * PAGE] = 1
    told.sampler.take()
    first, last = (sample.shared_bytes for sample in (told.shared[0], told.shared[-1]))
    assert last - first == 49 * PAGE
    assert first == PAGE


def test_guest_that_died_is_missing(gone):
    told = Told(os.getpid(), gone.pid)
    told.sampler.begin()
    assert told.sampler.samples[0].guests.keys() == {"g0"}


def test_take_due_waits_for_its_time():
    told = Told()
    told.sampler.begin()
    walks = len(told.walks)
    told.sampler._next_maps = told.sampler._next_shared = float("inf")
    told.sampler.take_due()
    assert (len(told.walks), told.sampler.due) == (walks, float("inf"))
    told.sampler._next_shared = 0.0
    told.sampler.take_due()
    assert len(told.walks) == walks
    told.sampler._next_maps = 0.0
    told.sampler.take_due()
    assert len(told.walks) == walks + 1


def test_pause_grows_with_what_a_walk_costs(monkeypatch):
    ticks = iter([0.0, 10.0, 10.5])    # begin; the walk from 10.0 to 10.5
    told = Told()
    monkeypatch.setattr("hypervisor.toolstack.sampler.time.monotonic", lambda: next(ticks))
    told.sampler.begin()
    assert told.sampler._next_maps == 20.0


def test_hypervisor_that_does_not_answer_is_the_callers_problem():
    def ask():
        raise HypervisorGone("gone")

    told = Told(ask=ask)
    with pytest.raises(HypervisorGone):
        told.sampler.begin()
    assert told.sampler.samples == []
