"""The processes of one phase: started, listened to, and ended; a hypervisor and its guests.

Rule 1: after `end` no process of ours is left and no name of the cluster, whatever happened before; `end` never
        raises, is not interruptible, and is bounded by deadlines.
Rule 2: the hypervisor's death or refusal ends every wait by an exception; a guest's death ends no wait of itself.
Rule 3: all state is written by the thread that waits, in `_take`; conditions only look at it.
"""

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from hypervisor.toolstack.child import Child
from hypervisor.toolstack.guestrun import BAD_USAGE, GuestRun, Stage, one_line
from hypervisor.toolstack.means import Means
from hypervisor.toolstack.plan import PhasePlan
from hypervisor.toolstack.watch import Happening, Junk, Left, Said, Watch
from shm.errors import MemcommonsError, UsageProblem
from shm.names import leftovers, remove


class PhaseBroken(MemcommonsError):
    """This phase cannot go on; the line says why."""


class Crew:
    """Who takes part in a phase."""

    def __init__(self, plan: PhasePlan, means: Means) -> None:
        self.guests: dict[str, GuestRun] = {}
        self.account: Mapping[str, Any] = {}       # the hypervisor's last line
        self.problems: list[str] = []              # those that are no single guest's
        self.began = self.ended = 0.0              # of the work (monotonic): go, and the last done so far
        self._plan, self._means = plan, means
        self._watch = Watch(means.interruption)
        self._hypervisor: Child | None = None
        self._serving = self._leaving = False
        self._refusal: str | None = None           # why the order cannot be carried out: the person's problem

    @property
    def hypervisor(self) -> Child:
        assert self._hypervisor, "started first"
        return self._hypervisor

    def at(self, stage: Stage) -> list[GuestRun]:
        return [guest for guest in self.guests.values() if guest.stage is stage]

    # -- start

    def start_hypervisor(self) -> None:
        self._hypervisor = Child("the hypervisor", self._means.hypervisor, self._plan.hypervisor)
        self._watch.add(self._hypervisor)
        self.note("start", pid=self._hypervisor.pid, cluster=self._plan.cluster, budget=self._plan.budget)
        patience = self._means.patience.start
        if not self.wait(lambda: self._serving, time.monotonic() + patience):
            raise PhaseBroken(f"{self._hypervisor.title} was not ready after {patience:.0f} s")

    def start_guests(self) -> None:
        """Start all guests and wait until each is ready or has failed."""
        for order in self._plan.guests:
            child = Child(f"guest {order.name!r}", self._means.guest, order.line, self._plan.folder)
            self.guests[order.name] = GuestRun(order, child)
            self._watch.add(child)
            self.note("start", guest=order.name, pid=child.pid)
        patience = self._means.patience.prepare
        if not self.wait(lambda: not self.at(Stage.STARTING), time.monotonic() + patience):
            for guest in self.at(Stage.STARTING):
                guest.fail(f"{guest.child.title} was not ready after {patience:.0f} s, and was ended")

    # -- listen

    def wait(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait for `condition`; False when `deadline` came first.  Raise what makes the phase pointless."""
        came = self._watch.until(
            lambda: condition() or self._refusal is not None or not self.hypervisor.alive, deadline, self._take)
        if self._refusal is not None:
            raise UsageProblem(self._refusal)
        if not self.hypervisor.alive:
            raise self._hypervisor_left(self.hypervisor)
        return came

    def _hypervisor_left(self, hypervisor: Child) -> MemcommonsError:
        if self.account:
            return PhaseBroken(f"{hypervisor.title} was stopped from outside in mid-run")
        if not self._serving and hypervisor.status == BAD_USAGE and hypervisor.tail:
            return UsageProblem(hypervisor.tail[-1])
        return PhaseBroken(hypervisor.how_it_ended())

    def ask(self, question: str) -> dict[str, Any]:
        """Ask the hypervisor; when it does not answer, say whether it is dead or hangs."""
        try:
            return self._means.call(self._plan.cluster, {"call": question})
        except MemcommonsError as error:
            self.wait(lambda: False, time.monotonic() + 1.0)
            raise PhaseBroken(f"{self.hypervisor.title} does not answer: {error}") from error

    def _take(self, happening: Happening) -> None:
        child = happening.child
        guest = next((guest for guest in self.guests.values() if guest.child is child), None)
        match happening:
            case Said(_, event) if guest:
                guest.said(event, time.monotonic() - self.began)
                self.ended = time.monotonic() if event["event"] == "done" else self.ended
            case Said(_, event):
                self._hypervisor_said(event)
            case Junk(_, text) if guest:
                guest.junk(text)
            case Junk(_, text):
                self.problems.append(f"{child.title} wrote what is no event: {text!r}")
            case Left() if guest:
                guest.left(self._leaving)
                self._refusal = self._refusal or guest.refusal
        self._note_happening(happening)

    def _hypervisor_said(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "ready":
                self._serving = True
            case "refused" if not self._serving:
                self._refusal = one_line(event.get("error"))
            case "refused":
                self.problems.append(f"{self.hypervisor.title} gave up: {one_line(event.get('error'))}")
            case "stopped":
                self.account = event
            case "guest-ended" if event.get("name") in self.guests:
                self.guests[event["name"]].why_ended = str(event.get("why"))

    # -- end

    def send_home(self) -> None:
        """Tell the guests that are done to quit, and wait until they have left."""
        self._leaving = True
        for guest in self.at(Stage.DONE):
            guest.child.tell("quit")
        patience = self._means.patience.leave
        if not self.wait(lambda: not self.at(Stage.DONE), time.monotonic() + patience):
            for guest in self.at(Stage.DONE):
                guest.fail(f"{guest.child.title} had not left {patience:.0f} s after it was told to, and was killed")

    def end(self) -> None:
        """Stop whoever is left, guests first, and remove what a hypervisor that died left behind."""
        patience = self._means.patience
        if self._hypervisor and not self._hypervisor.alive:
            self._wait_until_gone(self._guest_children, patience.orphans)
            for child in self._guest_children():
                self.problems.append(f"{child.title} had not left {patience.orphans:.0f} s after its hypervisor died")
        for guest in self.guests.values():
            guest.dismissed()
        self._end_all(self._guest_children, patience.leave)
        self._end_all(self._hypervisors, patience.stop)
        self._watch.close()
        self._clean()

    def _end_all(self, living: Callable[[], list[Child]], patience: float) -> None:
        """Ask politely, wait, kill, wait."""
        for child in living():
            child.signal(signal.SIGTERM)
        self._wait_until_gone(living, patience)
        for child in living():
            self.problems.append(f"{child.title} did not end within {patience:.0f} s, and was killed")
            child.kill()
        self._wait_until_gone(living, self._means.patience.kill)

    def _wait_until_gone(self, living: Callable[[], list[Child]], patience: float) -> None:
        self._watch.until(lambda: not living(), time.monotonic() + patience, self._take, interruptible=False)

    def _guest_children(self) -> list[Child]:
        return [guest.child for guest in self.guests.values() if guest.child.alive]

    def _hypervisors(self) -> list[Child]:
        return [self._hypervisor] if self._hypervisor and self._hypervisor.alive else []

    def _clean(self) -> None:
        """A hypervisor that stopped in order left nothing; one that was killed left its names."""
        removed = remove(leftovers(self._plan.cluster))
        if removed:
            self.note("cleaned", names=[item.name for item in removed])
            self.problems.append(f"cluster {self._plan.cluster!r} had left {len(removed)} names behind; now removed")

    # -- keep

    def note(self, event: str, **facts: Any) -> None:
        self._means.journal.event(self._plan.label, event, **facts)

    def _note_happening(self, happening: Happening) -> None:
        who = happening.child.what
        match happening:
            case Said(_, event):
                self.note("said", who=who, said=event)
            case Junk(_, text):
                self.note("junk", who=who, text=text)
            case Left(child):
                self.note("left", who=who, pid=child.pid, status=child.status, stderr=list(child.tail))
