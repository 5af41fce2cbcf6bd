"""The reasons to leave, and the certainty of leaving in time, whatever the guest's own thread is doing.

    SIGTERM, SIGINT      leave quietly, with 143 or 130
    end of input         whoever ordered the work is gone, and has not said "quit"
    hypervisor gone      memory and pools are lost: one line, and 1

Rule 1: the first reason counts, and is only noted: the thread that works looks at it between two operations
        (`going_on`), so that nothing is torn in the middle.
Rule 2: a thread that does not look within GRACE_SECONDS is not waited for: the process ends where it is.  Its memory
        and its lock are the hypervisor's to take back.
Rule 3: the three threads wait in the kernel and use no processor.
Rule 4: signals are blocked in the thread that works, so that none of its system calls is ever interrupted.  They cannot
        be waited for with sigwait: numpy's threads are older than the mask, and one of them would take the signal.  So
        a handler's wake-up pipe tells the watching thread, whichever thread the kernel chose.
"""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

GRACE_SECONDS = 2.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)
INPUT_BYTES = 1 << 16
LAST_WORD = "quit"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the guest leaves: the exit status, and what is said on standard error (nothing: quietly)."""

    status: int
    line: str | None = None


END_OF_INPUT = Reason(1, "standard input was closed before the work was done")
HYPERVISOR_GONE = Reason(1, "the hypervisor is gone; this guest's memory is lost with it")


class Leave(Exception):
    """Raised in the working thread, between two operations."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Departure:
    """Watches for reasons, hands over lines of standard input.  Its threads write `reason`, under `_lock`."""

    def __init__(self, title: str, end: Callable[[int], None] = os._exit) -> None:
        self.title = title
        self.reason: Reason | None = None
        self._end = end
        self._end_of_input = END_OF_INPUT
        self._dismissed = False
        self._lines: SimpleQueue[str | None] = SimpleQueue()     # None: look at the reason
        self._lock = threading.Lock()
        self._said = False

    # -- the working thread

    def going_on(self) -> None:
        """Raise Leave if there is a reason to."""
        if self.reason is not None:
            raise Leave(self.reason)

    def line(self, seconds: float | None = None) -> str | None:
        """Return the next line of standard input; None after that many seconds.  Raise Leave if that comes first."""
        try:
            line = self._lines.get(timeout=seconds)
        except Empty:
            return None
        if line is None:
            self.going_on()
        return line

    def work_is_done(self) -> None:
        """From now on the end of standard input is as good as "quit"."""
        self._end_of_input = Reason(0)

    def dismiss(self) -> None:
        """The guest is leaving by itself: no reason counts any more."""
        with self._lock:
            self._dismissed = True

    def say(self, reason: Reason) -> None:
        """Write the reason's line to standard error, once, whichever thread comes first."""
        with self._lock:
            said, self._said = self._said, True
        if reason.line and not said:
            os.write(2, f"{self.title}: {reason.line}\n".encode())

    # -- the watching threads

    def watch_signals(self) -> None:
        """Call it in the main thread, before it starts others of its own: they inherit the mask."""
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        for number in SIGNALS:
            signal.signal(number, _noted)
        signal.set_wakeup_fd(tell)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        _start("signals", self._signals, told)

    def watch_input(self, fd: int = 0) -> None:
        _start("input", self._input, fd)

    def watch_hypervisor(self, wait_gone: Callable[[], bool]) -> None:
        """`wait_gone()` returns once the hypervisor is gone."""
        _start("hypervisor", self._hypervisor, wait_gone)

    def _signals(self, told: int) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._leave(Reason(128 + os.read(told, 1)[0]))

    def _input(self, fd: int) -> None:
        last, rest = "", b""
        while chunk := _read(fd):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._lines.put(last := line.decode(errors="replace"))
        if rest:
            self._lines.put(last := rest.decode(errors="replace"))
        if last.strip() != LAST_WORD:                # else all is said that will be: a file with all three lines
            self._leave(self._end_of_input)

    def _hypervisor(self, wait_gone: Callable[[], bool]) -> None:
        wait_gone()
        self._leave(HYPERVISOR_GONE)

    def _leave(self, reason: Reason) -> None:
        """Note the reason, and end the process if nobody looks at it in time."""
        with self._lock:
            if self._dismissed or self.reason is not None:
                return
            self.reason = reason
        self._lines.put(None)
        threading.Event().wait(GRACE_SECONDS)
        self.say(reason)
        self._end(reason.status)


def _noted(number: int, frame: object) -> None:
    """Do nothing: the wake-up pipe has told it already."""


def _read(fd: int) -> bytes:
    """Return what is there; nothing at the end of it, and where standard input was never open."""
    try:
        return os.read(fd, INPUT_BYTES)
    except OSError:
        return b""


def _start(name: str, run: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=run, args=arguments, name=f"watch-{name}", daemon=True).start()
