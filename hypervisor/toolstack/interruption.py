"""Ctrl-C and SIGTERM as a flag that the loops look at, never as an exception in the middle of a line.

An exception raised by a signal handler can fall between the start of a child and the note that it exists, and the
child is left behind.  So the handler only notes the signal; `fd` becomes readable, which ends a wait; and the loop
raises Interrupted where it is safe.  A second signal changes nothing: the way out has deadlines of its own.
"""

import signal
import socket
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """Somebody wants us to stop."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self.exit_status = 128 + signum
        self.problems: list[str] = []       # what went wrong while all was being stopped
        super().__init__(f"stopped by {signal.Signals(signum).name}")


class Interruption:
    """Note the first signal while the context lasts.  Only in the main thread."""

    def __init__(self) -> None:
        self.signum: int | None = None      # written by the signal handler alone
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self.fd = self._reader.fileno()

    def __enter__(self) -> "Interruption":
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {signum: signal.signal(signum, self._noted) for signum in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    def _noted(self, signum: int, _frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum

    def drain(self) -> None:
        """Empty the pipe, so that `fd` is quiet again; the flag stays."""
        try:
            while self._reader.recv(256):
                pass
        except BlockingIOError:
            pass

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.signum is not None:
            raise Interrupted(self.signum)
