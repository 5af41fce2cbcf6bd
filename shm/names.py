"""What our objects are called, and what a killed cluster left behind.

    memcommons.CLUSTER.RUN.cluster           held (flock) by the hypervisor while it lives; made first, removed last
    memcommons.CLUSTER.RUN.heap              frames of the tmem store
    memcommons.CLUSTER.RUN.gN.ram            a guest's memory; made first of the guest's objects, removed last
                                             (its control objects are memfds, which have no names)
    sem.memcommons.CLUSTER.RUN.gN.lock       the state lock
    /memcommons.CLUSTER.RUN.gN.{req,rep}     message queues, which no folder lists: their names follow from gN.ram

Two runs of one cluster name never share an object: the run id is drawn at the start.  A cluster is dead when nobody
holds its `.cluster` object; then, and only then, its names may be removed.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import posix_ipc

from shm.arena import SHM_FOLDER
from shm.errors import UsageProblem

PREFIX = "memcommons"
CLUSTER_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_OBJECT = re.compile(rf"(sem\.)?{PREFIX}\.(?P<cluster>[A-Za-z0-9_-]+)\.(?P<run>[0-9a-f]{{6}})\.(?P<rest>[a-z0-9.]+)")
QUEUES = ("req", "rep")


class Leftover(NamedTuple):
    cluster: str
    run: str
    kind: str                # "memory", "semaphore" or "queue"
    name: str                # as its own unlink takes it, without the slash


def checked_cluster(name: str) -> str:
    """Return `name`, or raise UsageProblem: it becomes part of names of objects."""
    if not CLUSTER_NAME.fullmatch(name):
        raise UsageProblem(f"cluster name {name!r}: use 1 to 40 letters, digits, '-' and '_'")
    return name


def new_run() -> str:
    return secrets.token_hex(3)


def stem(cluster: str, run: str) -> str:
    return f"{PREFIX}.{cluster}.{run}"


def is_alive(cluster: str, run: str) -> bool:
    """Say whether a hypervisor holds this run: its lock dies with it, whatever killed it."""
    try:
        fd = os.open(f"{SHM_FOLDER}/{stem(cluster, run)}.cluster", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def objects(cluster: str | None = None) -> list[Leftover]:
    """Return every object of every cluster (or of one), alive or not, whose folder lists it, and the queues' names."""
    found = []
    for entry in sorted(os.listdir(SHM_FOLDER)):
        match = _OBJECT.fullmatch(entry)
        if match and cluster in (None, match["cluster"]):
            kind = "semaphore" if entry.startswith("sem.") else "memory"
            found.append(Leftover(match["cluster"], match["run"], kind, entry.removeprefix("sem.")))
            if match["rest"].endswith(".ram"):
                found += [found[-1]._replace(kind="queue", name=f"{entry.removesuffix('ram')}{end}") for end in QUEUES]
    return found


def leftovers(cluster: str | None = None) -> list[Leftover]:
    """Return what dead clusters left behind and this user may remove."""
    own = [item for item in objects(cluster) if item.kind == "queue" or _is_ours(item)]
    alive = {run: is_alive(*run) for run in {(item.cluster, item.run) for item in own}}
    return [item for item in own if not alive[item.cluster, item.run]]


def _is_ours(item: Leftover) -> bool:
    path = Path(SHM_FOLDER) / ("sem." * (item.kind == "semaphore") + item.name)
    try:
        return os.geteuid() in (0, path.stat().st_uid)
    except OSError:
        return False


def remove(items: list[Leftover]) -> list[Leftover]:
    """Unlink `items`, memories last and `.cluster` last of all; return those that were there."""
    unlink = {"queue": posix_ipc.unlink_message_queue, "semaphore": posix_ipc.unlink_semaphore,
              "memory": posix_ipc.unlink_shared_memory}
    removed = []
    for item in sorted(items, key=lambda item: (list(unlink).index(item.kind), item.name.endswith(".cluster"),
                                                item.name.endswith(".ram"))):
        try:
            unlink[item.kind]("/" + item.name)
        except (posix_ipc.ExistentialError, posix_ipc.PermissionsError):
            continue
        removed.append(item)
    return removed


def forget_guest(guest_stem: str) -> None:
    """Unlink all names of one guest, in whatever state its making or unmaking is; the memory's own name last."""
    for end in QUEUES:
        _quietly(posix_ipc.unlink_message_queue, f"/{guest_stem}.{end}")
    _quietly(posix_ipc.unlink_semaphore, f"/{guest_stem}.lock")
    _quietly(posix_ipc.unlink_shared_memory, f"/{guest_stem}.ram")


def _quietly(unlink: Callable[[str], None], name: str) -> None:
    with suppress(posix_ipc.ExistentialError):
        unlink(name)
