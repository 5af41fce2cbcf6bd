"""One guest of a phase as the toolstack sees it: how far it is, and what it may say at that point.

Rule 1: what a guest may say is a row of MAY_SAY; anything else it says, and junk, is a failure of that guest.
Rule 2: a guest fails once, with one line; what comes later only adds its exit status.
Rule 3: its figures are checked before they are believed: a count is a whole number, work takes no longer than our
        own clock saw, and the measured run did exactly the operations that were ordered.
Rule 4: a pager that it names is counted as its own, so it must be one of the processes that this guest started.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeGuard

from hypervisor.toolstack.child import Child
from hypervisor.toolstack.faultmode import HARDWARE
from hypervisor.toolstack.plan import GuestOrder
from hypervisor.toolstack.results import GuestResult
from shm.diskcost import MODELS, NANO, VIRTUAL
from shm.latency import checked

BAD_USAGE = 2                   # exit status of a guest whose order cannot be carried out
CLOCK_SLACK_SECONDS = 0.1
ROUNDING_SECONDS = 1e-6
CORES = os.cpu_count() or 1
BLOCKS = ("guest_disk_reads", "guest_disk_writes", "guest_swap_reads", "guest_swap_writes", "pager_disk_reads")


class Stage(Enum):
    STARTING = "starting"
    READY = "ready"
    WORKING = "working"
    DONE = "done"               # its work is done; it keeps its memory until it is sent home
    LEFT = "left"
    FAILED = "failed"


MAY_SAY: dict[Stage, dict[str, Stage]] = {
    Stage.STARTING: {"ready": Stage.READY, "failed": Stage.FAILED},
    Stage.READY: {"failed": Stage.FAILED},
    Stage.WORKING: {"done": Stage.DONE, "failed": Stage.FAILED},
    Stage.DONE: {"failed": Stage.FAILED},
    Stage.LEFT: {},
    Stage.FAILED: {},
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a guest says of its work in its line "done"."""

    operations: int
    seconds: float
    pages_verified: int
    mismatches: int
    virtual_seconds: float = 0.0
    cpu_seconds: float | None = None        # None, and no latency: it did not say
    latency: list[int] = field(default_factory=list)


@dataclass(slots=True)
class GuestRun:
    """Written by the phase's loop alone."""

    order: GuestOrder
    child: Child
    stage: Stage = Stage.STARTING
    report: Report | None = None
    pager: int | None = None                # pid of the process that restores its pages, in hardware mode
    finished: bool = False                  # it reported exactly the work that was ordered
    problem: str | None = None              # one line; set together with FAILED
    refusal: str | None = None              # its order was wrong: the person's problem, not a failure
    why_ended: str | None = None            # the hypervisor says that it ended this guest
    counters: Mapping[str, int] = field(default_factory=dict)    # the last that the hypervisor's list showed
    host_counters: Mapping[str, int] = field(default_factory=dict)   # ... and the hypervisor's own of this guest

    def fail(self, line: str) -> None:
        """End this guest as a failure: it is killed, unless it is leaving already."""
        if self.stage is not Stage.FAILED:
            self.stage, self.problem = Stage.FAILED, line
            self.child.kill()

    def said(self, event: Mapping[str, Any], elapsed: float) -> None:
        """Take an event; `elapsed` is the time since go."""
        word = str(event["event"])
        if self.stage is Stage.FAILED:
            return
        if word not in MAY_SAY[self.stage]:
            self.fail(f"{self.child.title} said {word!r} while it was {self.stage.value}, and was ended")
        elif word == "failed":
            self.stage, self.problem = Stage.FAILED, f"{self.child.title}: {one_line(event.get('error'))}"
        elif word == "done":
            self._done(event, elapsed)
        else:
            self._ready(event)

    def _ready(self, event: Mapping[str, Any]) -> None:
        """Take "ready"; in hardware mode it names the guest's pager."""
        self.pager = event.get("pager")
        if self.pager is not None and not started_by(self.child.pid, self.pager):
            named, self.pager = str(self.pager)[:40], None
            self.fail(f"{self.child.title} named {named} as its pager, which is no process of its own, and was ended")
        elif self.pager is None and self.order.line.get("faults") == HARDWARE:
            self.fail(f"{self.child.title} was to work with hardware faults, and has no pager")
        else:
            self.stage = Stage.READY

    def _done(self, event: Mapping[str, Any], elapsed: float) -> None:
        report = checked_report(event, elapsed)
        if report is None:
            self.fail(f"{self.child.title} reported work that makes no sense: {str(dict(event))[:200]}")
            return
        self.report, self.stage = report, Stage.DONE
        ordered = self.order.operations
        if ordered is None or report.operations == ordered or self._ran_out_of_work(report, ordered):
            self.finished = True
        else:
            self.stage, self.problem = Stage.FAILED, self._fell_short(report, ordered)

    def check_waits(self) -> None:
        """Fail a guest that claims more virtual waits than its counts of blocks can have cost."""
        most = self._most_virtual_seconds()
        if self.report is not None and self.report.virtual_seconds > most + ROUNDING_SECONDS:
            self.finished = False
            self.fail(f"{self.child.title} claims to have waited {self.report.virtual_seconds:.3f} s for disks; what "
                      f"was counted comes to {most:.3f} s at the most")

    def _most_virtual_seconds(self) -> float:
        """Return what all its blocks cost, each asked for alone, and what the hypervisor charged it with."""
        disk = self.order.line.get("disk", {})
        if disk.get("time") != VIRTUAL:
            return 0.0
        blocks = sum(self.counters.get(name, 0) for name in BLOCKS)
        own = MODELS[disk["latency"]].alone_ns(blocks, blocks)
        return (own + self.host_counters.get("swap_wait_ns", 0)) / NANO

    def _ran_out_of_work(self, report: Report, ordered: int) -> bool:
        return not self.order.exact and report.operations < ordered and report.seconds < self.order.limit_seconds

    def _fell_short(self, report: Report, ordered: int) -> str:
        if report.operations < ordered and report.seconds >= self.order.limit_seconds:
            return self.too_slow(report.operations)
        return f"{self.child.title} did {report.operations} operations; its order was {ordered}"

    def too_slow(self, operations: int) -> str:
        """Say that the limit has passed: the slow-down is named as far as it can be known."""
        ordered, limit = self.order.operations, self.order.limit_seconds
        did = f"{operations} operations" if ordered is None else f"{operations} of {ordered} operations"
        if operations == ordered:
            did = f"all of its {ordered} operations, and not ended its work,"
        return (f"{self.child.title} had done {did} when its limit of {limit:.0f} s had passed: a slow-down of more "
                f"than 10; give it a larger budget, or less work")

    def junk(self, text: str) -> None:
        self.fail(f"{self.child.title} wrote what is no event, and was ended: {text!r}")

    def left(self, sent_home: bool) -> None:
        """Take its death."""
        if self.stage is Stage.DONE and sent_home and self.child.status == 0:
            self.stage = Stage.LEFT
        elif self.stage is not Stage.FAILED:
            if self.stage is Stage.STARTING and self.child.status == BAD_USAGE and self.child.tail:
                self.refusal = self.child.tail[-1]
            because = f" (the hypervisor ended it: {self.why_ended})" if self.why_ended else ""
            self.stage, self.problem = Stage.FAILED, self.child.how_it_ended() + because

    def dismissed(self) -> None:
        """The phase is over: what this guest does from now on, because it is told to stop, is no failure of its own."""
        if self.stage not in (Stage.LEFT, Stage.FAILED):
            self.stage = Stage.FAILED

    @property
    def operations(self) -> int:
        return self.report.operations if self.report else self.counters.get("operations", 0)

    def result(self) -> GuestResult:
        report = self.report or Report(
            self.counters.get("operations", 0), 0.0, self.counters.get("pages_verified", 0),
            self.counters.get("mismatches", 0))
        return GuestResult(
            self.order.name, self.order.workload, self.order.ram, self.order.line["ram"], self.child.pid,
            report.operations, report.seconds if self.finished else None, report.pages_verified,
            report.mismatches, self.child.status, dict(self.counters), report.virtual_seconds,
            report.cpu_seconds, report.latency)


def one_line(text: Any) -> str:
    return " ".join(str(text).split())


def checked_report(event: Mapping[str, Any], elapsed: float) -> Report | None:
    """Return what a line "done" says, or None when it cannot be true."""
    operations, verified, mismatches = (event.get(key) for key in ("operations", "pages_verified", "mismatches"))
    seconds, virtual = event.get("seconds"), event.get("virtual_seconds", 0.0)
    if not (_is_count(operations) and _is_count(verified) and _is_count(mismatches)):
        return None
    if not (_is_time(seconds) and _is_time(virtual) and seconds <= elapsed + CLOCK_SLACK_SECONDS):
        return None
    cpu, latency = event.get("cpu_s"), checked(event.get("latency", []), operations if "latency" in event else 0)
    if latency is None or not (cpu is None or (_is_time(cpu) and cpu <= CORES * (elapsed + CLOCK_SLACK_SECONDS))):
        return None
    return Report(operations, float(seconds), verified, mismatches, float(virtual), cpu, latency)


def started_by(guest: int, pid: object) -> bool:
    """Say whether `pid` is a process of the session that the guest leads (`child`, rule 1)."""
    if not _is_count(pid) or not 0 < pid < 1 << 31:
        return False
    try:
        return pid != guest and os.getsid(pid) == guest
    except OSError:
        return False


def _is_time(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0
