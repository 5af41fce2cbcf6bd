"""Worlds for the rules of CMM2: a hypervisor in another process, its guest in the process of the test, in either mode.

    software    every access goes through `memory`; a discard fault is an exception
    hardware    accesses are plain loads and stores; a discard fault is served by the guest's pager

Two processes in both modes: a thread that stands in a hardware fault may hold Python's lock, and a hypervisor that runs
in a thread beside it could never serve the fault.

Rule 1: the host's deeds are real, and asked for through the door; grace and references do not count there.
Rule 2: the audit is held against the hypervisor at the end of every world, with its guests still there.
Rule 3: in hardware mode somebody can restore every page: a mistake is a wrong byte, and not the end of the test's own
        process.  `page(gfn)` in a bare world, POISON where a kernel should have said where its pages are.
"""

from collections.abc import Iterable
from time import monotonic
from typing import Any

import numpy as np
from harness.children import DEADLINE_S, HypervisorProcess
from harness.pages import SET, page

from guests import Guest
from shm import door
from shm.abi import PAGE_SIZE
from shm.arena import runs
from shm.counters import Count
from shm.errors import UsageProblem
from shm.pagestate import CONTENT_MASK, GUEST_CHANGE, RESIDENT, Essa, State
from shm.userfault import open_userfault

MODES = ("software", "hardware")
POISON = 0xEE


def why_no_hardware() -> str:
    """Return why this machine has no hardware faults, in one line; empty where it has."""
    try:
        open_userfault().close()
    except UsageProblem as problem:
        return str(problem)
    return ""


class World:
    """One hypervisor and one guest of it, named `g` unless a test has more; `another` attaches more."""

    def __init__(self, hypervisor: HypervisorProcess, mode: str, pages: int, max_pages: int | None = None,
                 name: str = "g") -> None:
        self.hypervisor, self.hardware, self.mode = hypervisor, mode == "hardware", mode
        self.link = door.connect(hypervisor.cluster)
        self.guests: dict[str, Guest] = {}
        self.name = name
        self.guest = self.another(name, pages, max_pages)
        self.memory, self.map = self.guest.memory, self.guest.memory.map

    def another(self, name: str, pages: int, max_pages: int | None = None) -> Guest:
        """Attach a guest of this process."""
        most = None if max_pages is None else max_pages * PAGE_SIZE
        guest = Guest.connect(self.hypervisor.cluster, name, pages * PAGE_SIZE, most, faults=self.mode)
        self.guests[name] = guest
        if self.hardware:
            guest.on_discard(lambda gfn: bytes([gfn % 251 + 1]) * 4096)      # as `harness.pages.page`
        return guest

    # the host

    def order(self, call: str, **what: Any) -> dict[str, Any]:
        """Give the hypervisor an order; AssertionError when it refuses."""
        door.send(self.link, {"call": call, **what})
        answer, _ = door.receive(self.link)
        assert "error" not in answer, answer
        return answer

    def evict(self, first: int, count: int = 1) -> int:
        """Have the host take frames, as the states of the pages say; return how many it took."""
        frames = self.order("discard", name=self.name, first=int(first), count=int(count))["frames"]
        if not self.hardware:
            return frames
        gfns, deadline = slice(first, first + count), monotonic() + DEADLINE_S
        content = self.map.content
        while (content[gfns] & CONTENT_MASK == RESIDENT).any() and monotonic() < deadline:
            # One that was restored a moment ago is spared until the hypervisor has heard so.
            frames += self.order("discard", name=self.name, first=int(first), count=int(count))["frames"]
        return frames

    def evict_each(self, gfns: Iterable[int]) -> int:
        numbers = np.array(sorted({int(gfn) for gfn in gfns}), np.int64)
        return sum(self.evict(first, count) for first, count in runs(numbers))

    def row(self, name: str = "") -> dict[str, Any]:
        """Return what the hypervisor says of a guest."""
        return next(row for row in self.order("list")["guests"] if row["name"] == (name or self.name))

    def counts(self, name: str = "") -> dict[str, int]:
        """Return the host's counters of a guest."""
        return self.row(name)["host_counters"]

    def used_slots(self) -> int:
        return self.order("list")["swap_pages"]

    def audit(self) -> None:
        """Hold the kernel's count and every structure against the ledger; void copies are settled by it too."""
        audit = self.order("audit")
        assert audit["problems"] == [] and audit["max_drift_frames"] == 0, audit
        host = self.order("list")
        assert sum(row["frames"] for row in host["guests"]) + host["heap_frames"] == host["frames_used"]
        assert host["frames_used"] * PAGE_SIZE == host["kernel_bytes"]
        assert host["counters"]["volatile_swap_writes"] == 0

    def until(self, condition: Any) -> None:
        """Ask the hypervisor again and again until `condition()`; AssertionError when it never comes true."""
        deadline = monotonic() + DEADLINE_S
        while not condition():
            assert monotonic() < deadline, "it never came true"

    def ended(self, name: str) -> str:
        """Wait for a guest to be ended, and return why."""
        while (event := self.hypervisor.event())["event"] != "guest-ended" or event["name"] != name:
            continue
        return event["why"]

    # the guest

    def states(self, *gfns: int) -> list[str]:
        """Return the states' names.  Under the lock: a filled page lets its toucher go on before `content` says r."""
        with self.map.lock:
            return [State(state).name for state in self.map.states(np.array(gfns))]

    def bring(self, gfn: int, state: str, dirty: bool = True) -> None:
        """Bring a page into a state by what guest and host really do; one with a content holds `page(gfn)`."""
        word, deed = state
        if deed in "rp" or word == "V":
            self.memory.write(gfn, page(gfn), clean=not dirty)
        else:
            self.guest.release([gfn])                        # it may have been granted along with its neighbour
            self.map.usage[gfn] = int(self.map.usage[gfn]) & ~GUEST_CHANGE | dirty
        if word != "S":
            self.guest.essa(SET[word], [gfn])
        if deed == "p" or state == "Vz":
            assert self.evict(gfn) == 1
        assert self.states(gfn) == [state]

    def touch(self, gfn: int) -> bytes:
        """Load a page: plainly in hardware mode, through `memory` in software mode."""
        return bytes(self.memory.view[gfn]) if self.hardware else self.memory.read(gfn)

    def store(self, gfn: int, data: bytes) -> None:
        """Store at the beginning of a page, in the same way."""
        if self.hardware:
            self.memory.view[gfn, :len(data)] = np.frombuffer(data, np.uint8)
        else:
            self.memory.write_part(gfn, 0, data)

    def byte(self, gfn: int) -> int:
        """Return what GET_STATE says."""
        return self.guest.essa_one(Essa.GET_STATE, gfn)

    def discard_faults(self) -> int:
        """Return how many were delivered: to the guest (software), to its pager (hardware)."""
        return int(self.guest.counters[Count.DISCARD_FAULTS]) + self.counts()["discard_faults"]

    def restored(self) -> int:
        """Return how many pages the pager has filled."""
        return int(self.guest.counters[Count.PAGER_RESTORED])

    def close(self) -> None:
        """Hold the audit against the world, and end it."""
        try:
            self.audit()
        finally:
            for guest in self.guests.values():
                guest.close()
            self.link.close()
