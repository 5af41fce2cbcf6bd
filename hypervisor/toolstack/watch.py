"""Wait for whatever our children do: say something, or die.  One selector, always with a deadline.

It decides nothing: `wait` returns what happened, in the order seen, and the caller's tables say what it means.
"""

import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from hypervisor.toolstack.child import Child
from hypervisor.toolstack.interruption import Interruption


@dataclass(frozen=True, slots=True)
class Said:
    child: Child
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Junk:
    child: Child
    text: str


@dataclass(frozen=True, slots=True)
class Left:
    """The child is dead and buried; `child.status` says how it ended."""

    child: Child


Happening = Said | Junk | Left


class Watch:
    """The children that are alive, and the pipe that a signal wakes."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption
        self._selector = selectors.DefaultSelector()
        self._selector.register(interruption.fd, selectors.EVENT_READ)

    def close(self) -> None:
        self._selector.close()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def add(self, child: Child) -> None:
        for fd in (child.out.fd, child.err.fd, child.pidfd):
            self._selector.register(fd, selectors.EVENT_READ, child)

    def wait(self, until: float) -> list[Happening]:
        """Return what happens first; nothing once `until` (monotonic) has passed or a signal has come."""
        ready = self._selector.select(max(0.0, until - time.monotonic()))
        happened: list[Happening] = []
        for key, _ in ready:
            child = key.data
            if child is None:
                self._interruption.drain()
            elif child.alive:
                happened += self._heed(child, key.fd)
        return happened

    def _heed(self, child: Child, fd: int) -> list[Happening]:
        if fd == child.pidfd:
            for watched in (child.out, child.err):
                if watched.open:
                    self._selector.unregister(watched.fd)
            self._selector.unregister(fd)
            return [_happening(child, said) for said in child.bury()] + [Left(child)]
        said = child.heard() if fd == child.out.fd else []
        child.note_errors()
        for stream in (child.out, child.err):
            self._forget_if_ended(stream.fd, stream.open)
        return [_happening(child, word) for word in said]

    def _forget_if_ended(self, fd: int, is_open: bool) -> None:
        """A pipe at its end is readable for ever: take it out of the selector."""
        if not is_open and fd in self._selector.get_map():
            self._selector.unregister(fd)

    def until(self, condition: Callable[[], bool], deadline: float, take: Callable[[Happening], Any],
              interruptible: bool = True) -> bool:
        """Hand happenings to `take` until `condition` holds; False when the deadline came first.

        A signal raises Interrupted, but not on the way out, which is not `interruptible`.
        """
        while not condition():
            if interruptible:
                self._interruption.check()
            if time.monotonic() >= deadline:
                return False
            for happening in self.wait(deadline):
                take(happening)
        return True


def _happening(child: Child, said: dict[str, Any] | str) -> Happening:
    return Junk(child, said) if isinstance(said, str) else Said(child, said)
