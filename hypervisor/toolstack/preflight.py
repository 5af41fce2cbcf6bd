"""What is looked at before anything starts: room for memory, room for swap, and the guests' own view of their orders.

Rule: each finding is one UsageProblem that says what is missing and the way out; nothing has been made by then.
A scenario that passes may still meet a full disk later; that is then an error of the run, and no crash.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hypervisor.schemes import BASELINE, SCHEMES
from hypervisor.tmem.pools import MAX_SHARED
from hypervisor.toolstack.child import Child
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.plan import CONTROL_BYTES_A_GUEST, baseline_budget
from hypervisor.toolstack.scenario import Scenario
from hypervisor.toolstack.watch import Happening, Watch
from shm.arena import SHM_FOLDER, free_bytes
from shm.directio import check_direct
from shm.errors import MemcommonsError, UsageProblem
from shm.units import format_size

CHECK_SECONDS = 60.0
GUEST_DISKS = Path("/var/tmp")      # where guests make their disks (guests.disk)


def check(scenario: Scenario, schemes: Sequence[str], means: Means) -> None:
    """Raise UsageProblem for the first thing that will not do."""
    check_memory_room(scenario, schemes, free_bytes())
    check_swap_room(scenario, schemes, room_in)
    check_caches(scenario, schemes)
    if scenario.table.disk.direct:
        for folder in dict.fromkeys((str(GUEST_DISKS), scenario.table.hypervisor.folder)):
            check_direct(folder)
    check_guests(scenario, means)


def check_memory_room(scenario: Scenario, schemes: Sequence[str], free: int) -> None:
    control = len(scenario.guests) * CONTROL_BYTES_A_GUEST
    needs = {scheme: scenario.table.budget + control for scheme in schemes}
    needs[BASELINE] = baseline_budget(scenario) + control
    phase = max(needs, key=needs.__getitem__)
    refuse_small_shm(needs[phase], free, f"{scenario.source}: the {phase} run of {len(scenario.guests)} guests",
                     "or use fewer guests or less ram")


def refuse_small_shm(need: int, free: int, who: str, otherwise: str) -> None:
    if need > free:
        size = f"{(need >> 20) + 16}m"
        raise UsageProblem(
            f"{who} needs {format_size(need)} in {SHM_FOLDER}, which has {format_size(free)} free; enlarge it "
            f"(docker run --shm-size={size}, or mount -o remount,size={size} {SHM_FOLDER}), {otherwise}")


def check_swap_room(scenario: Scenario, schemes: Sequence[str], room: Callable[[Path], int]) -> None:
    """Look for room for the hypervisor's swap file and the guests' own where a scheme cuts their RAM or balloons it."""
    folder = Path(scenario.table.hypervisor.folder)
    if any(SCHEMES[scheme].swap for scheme in schemes):
        refuse_full_disk(folder, scenario.swap_bytes, room(folder), f"{scenario.source}: hypervisor.swap")
    cut = max(scenario.total_ram - (0 if SCHEMES[scheme].balloon else sum(scenario.rams(scheme, scenario.table.budget)))
              for scheme in schemes)
    if cut:
        refuse_full_disk(GUEST_DISKS, cut, room(GUEST_DISKS), f"{scenario.source}: the guests' own swap")


def check_caches(scenario: Scenario, schemes: Sequence[str]) -> None:
    """A host that caches guests' disks does so in one shared pool a guest, and has so many of these."""
    cached = [scheme for scheme in schemes if SCHEMES[scheme].host_cache]
    if cached and len(scenario.guests) > MAX_SHARED:
        raise UsageProblem(f"{scenario.source}: scheme {cached[0]!r} takes {MAX_SHARED} guests at most, and there are "
                           f"{len(scenario.guests)}; use fewer guests")


def refuse_full_disk(folder: Path, need: int, free: int, who: str) -> None:
    if need > free:
        raise UsageProblem(f"{who} needs {format_size(need)} in {folder}, which has {format_size(free)} free; "
                           f"make room there, or ask for less swap (hypervisor.swap) or less ram")


def _ignored(happening: Happening) -> None:
    """Its findings come on standard error, which the child keeps."""


def room_in(folder: Path) -> int:
    """Return the free bytes in `folder`, where we must be able to write."""
    try:
        room = os.statvfs(folder)
    except OSError as error:
        raise UsageProblem(f"swap folder {folder}: {error.strerror}; set hypervisor.folder to a real one") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageProblem(f"swap folder {folder}: cannot be written; set hypervisor.folder to one that can")
    return room.f_bavail * room.f_frsize


def check_guests(scenario: Scenario, means: Means) -> None:
    """Have the guests' own program look at workloads and options; its first line is the finding."""
    asked = [{"name": guest.name, "workload": guest.workload, "ram": guest.ram, "options": guest.options}
             for guest in scenario.table.guest]
    with Watch(means.interruption) as watch:
        checker = Child("the check of the guests", means.guest_check, asked, scenario.folder)
        watch.add(checker)
        checker.end_of_input()
        try:
            ended = watch.until(lambda: not checker.alive, time.monotonic() + CHECK_SECONDS, _ignored)
        finally:
            checker.kill()
            watch.until(lambda: not checker.alive, time.monotonic() + means.patience.kill, _ignored,
                        interruptible=False)
    if not ended:
        raise MemcommonsError(f"{checker.title} took more than {CHECK_SECONDS:.0f} s, and was killed")
    if checker.status:
        finding = checker.tail[0] if checker.tail else checker.how_it_ended()
        raise UsageProblem(f"{scenario.source}: {finding}")
