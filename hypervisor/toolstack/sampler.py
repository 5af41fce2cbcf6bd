"""What the memory of a phase is, seen by psutil and by the kernel's own count.

    maps     at most once a second: memory_maps of every process; RSS and PSS of the arena's mappings (guest memories
             and the tmem heap), and of the whole process.  PSS, so that a page that two map counts once in sum.
    kernel   beside it: the hypervisor's `list`, whose kernel_bytes is the kernel's count (st_blocks) of the same
             objects.  psutil cannot see pages that nobody maps; the kernel's count sees all.
    shared   five times a second, cheap: memory_info().shared less what was not the arena's when the work began.

In hardware mode each guest has a pager beside it: a process of the guest's, counted with all others and shown apart.
The hypervisor maps no guest memory there, and a page that lost its mapping while its access bit was looked at is seen
by the kernel's count alone, until it is touched again.

Walking the maps costs time that the guests then lack (at 5 Hz 8 guests lost 10 %), so the pause between two walks is
never less than twenty times what the last one took.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from hypervisor.toolstack.results import MapSample, Memory, SharedSample

ARENA_PREFIX, ARENA_SUFFIXES = "/dev/shm/memcommons.", (".ram", ".heap")
MAPS_SECONDS, SHARED_SECONDS = 1.0, 0.2
WALK_SHARE = 20


def is_arena(path: str) -> bool:
    return path.startswith(ARENA_PREFIX) and path.removesuffix(" (deleted)").endswith(ARENA_SUFFIXES)


def memory_of(process: psutil.Process) -> Memory | None:
    """Walk the process's maps; None when it is gone."""
    try:
        maps = process.memory_maps(grouped=True)
    except psutil.Error:
        return None
    arena = [m for m in maps if is_arena(m.path)]
    (rss, pss), (arena_rss, arena_pss) = (
        (sum(m.rss for m in some), sum(m.pss for m in some)) for some in (maps, arena))
    return Memory(rss, pss, arena_rss, arena_pss, sum(m.private_clean + m.private_dirty for m in maps))


class Sampler:
    """Samples of one phase, from go to the last done."""

    def __init__(self, hypervisor: int, guests: Mapping[str, int], ask: Callable[[], dict[str, Any]],
                 walked: Callable[[MapSample, dict[str, Any]], None], shared: Callable[[SharedSample], None],
                 pagers: Mapping[str, int] | None = None) -> None:
        """Take pids of all; `ask` returns the hypervisor's list; `walked` and `shared` are told each sample."""
        self.samples: list[MapSample] = []
        self.shared: list[SharedSample] = []
        self.seen: dict[str, Any] = {}               # the last list
        self._ask, self._tell_walked, self._tell_shared = ask, walked, shared
        self._hypervisor = _process(hypervisor)
        self._guests = _processes_of(guests)
        self._pagers = _processes_of(pagers or {})
        self._began = self._next_maps = self._next_shared = 0.0
        self._not_arena: dict[int, int] = {}         # pid -> shared bytes at the start that were not the arena's

    def begin(self) -> None:
        """Take the start values and the first sample: the work begins now."""
        self._began = time.monotonic()
        for process in self._processes():
            memory = memory_of(process)
            if memory:
                self._not_arena[process.pid] = max(0, _shared(process) - memory.arena_rss)
        self.take()

    @property
    def due(self) -> float:
        """When the next sample is wanted (monotonic)."""
        return min(self._next_maps, self._next_shared)

    def take_due(self) -> None:
        """Take what is due, if anything is."""
        now = time.monotonic()
        if now >= self._next_maps:
            self.take()
        elif now >= self._next_shared:
            self._take_shared(now)

    def take(self) -> None:
        """Walk all maps now, and ask for the kernel's count.  What `ask` raises is raised."""
        start = time.monotonic()
        self.seen = self._ask()
        sample = MapSample(
            start - self._began, memory_of(self._hypervisor) if self._hypervisor else None,
            _memories(self._guests), self.seen.get("kernel_bytes"), _memories(self._pagers))
        self.samples.append(sample)
        self._take_shared(start)
        took = time.monotonic() - start
        self._next_maps = start + max(MAPS_SECONDS, WALK_SHARE * took)
        self._tell_walked(sample, self.seen)

    def _take_shared(self, now: float) -> None:
        total = sum(max(0, _shared(process) - self._not_arena.get(process.pid, 0)) for process in self._processes())
        self.shared.append(SharedSample(now - self._began, total))
        self._next_shared = now + SHARED_SECONDS
        self._tell_shared(self.shared[-1])

    def _processes(self) -> list[psutil.Process]:
        everybody = (self._hypervisor, *self._guests.values(), *self._pagers.values())
        return [process for process in everybody if process]


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _processes_of(pids: Mapping[str, int]) -> dict[str, psutil.Process | None]:
    return {name: _process(pid) for name, pid in pids.items()}


def _memories(processes: Mapping[str, psutil.Process | None]) -> dict[str, Memory]:
    """Walk the maps of those that are there."""
    walked = {name: memory_of(process) for name, process in processes.items() if process}
    return {name: memory for name, memory in walked.items() if memory}


def _shared(process: psutil.Process) -> int:
    try:
        return process.memory_info().shared
    except psutil.Error:
        return 0
