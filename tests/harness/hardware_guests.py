"""Guests in hardware mode as child processes: some misbehave, or their pagers do, and are ended for it.

A child says what it finds in lines; `ended` is what the hypervisor says of it, `last_words` what it and its pager wrote
to stderr, complete when both are gone.
"""

import os
import select
import time
from typing import Any

import pytest

from harness.children import DEADLINE_S, Child, HypervisorProcess
from hypervisor.toolstack.connection import call
from shm.errors import UsageProblem
from shm.userfault import open_userfault

PAGES = 64

IMPORTS = """
import ctypes, mmap, os, signal, socket, sys, threading, time
sys.path.insert(0, os.getcwd())
import numpy as np
from guests import Essa, Guest
from guests.pager_process import PagerProcess
from shm.errors import MemcommonsError
def say(*words):
    print(*words, flush=True)
"""
CONNECT = f"""
guest = Guest.connect(sys.argv[1], "g", {PAGES} * 4096, faults="hardware")
memory, view, volatile = guest.memory, guest.memory.view, np.arange(8)
def discard():                                   # what never was resident is discarded at once
    guest.essa(Essa.SET_VOLATILE, volatile)
    say("ready")
"""
HOLD = "\nsys.stdin.read()\n"                    # until the test lets it go


def refused() -> str:
    """Return why there are no hardware faults here; empty where there are."""
    try:
        open_userfault().close()
    except UsageProblem as problem:
        return str(problem)
    return ""


needs_hardware = pytest.mark.skipif(bool(refused()), reason=refused() or "there is a userfaultfd")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def ended(hypervisor: HypervisorProcess, how: str = "guest-ended") -> str:
    """Return why guest `g` was ended: the hypervisor's next event says it."""
    event = hypervisor.event()
    assert (event["event"], event["name"]) == (how, "g"), event
    return str(event.get("why", ""))


def last_words(child: Child, deadline: float = DEADLINE_S) -> str:
    """Return all that a child and its pager wrote to stderr, when both have gone."""
    assert child.process.stderr is not None
    found, fd, until = b"", child.process.stderr.fileno(), time.monotonic() + deadline
    while True:
        ready, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"somebody holds its stderr: {found!r}"
        more = os.read(fd, 65536)
        if not more:
            return found.decode()
        found += more


def silent(child: Child) -> bool:
    """Say that a child, ended by now, has said no word more."""
    assert child.process.stdout is not None
    return not child._rest and not child.process.stdout.read()


def gone(pid: int, deadline: float = DEADLINE_S) -> bool:
    """Say whether a process ends in time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], deadline)[0])
    finally:
        os.close(pidfd)


def counts(cluster: str) -> dict[str, int]:
    """Return what the hypervisor has counted of guest `g`."""
    counted: dict[str, int] = described(cluster)["host_counters"]
    return counted


def described(cluster: str) -> dict[str, Any]:
    """Return what the hypervisor says of guest `g`."""
    described: dict[str, Any] = next(each for each in call(cluster, {"call": "list"})["guests"] if each["name"] == "g")
    return described


def discard(cluster: str, first: int, count: int) -> int:
    """Have the hypervisor evict pages of guest `g`; return how many frames went."""
    frames: int = call(cluster, {"call": "discard", "name": "g", "first": first, "count": count})["frames"]
    return frames
