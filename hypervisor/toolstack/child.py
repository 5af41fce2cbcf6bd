"""A child process that speaks lines: one order in, JSON events out, the last of its standard error kept.

Rule 1: a child has a session of its own, so that Ctrl-C reaches only us and we stop the children in order.
Rule 2: no read and no write blocks; whoever waits, waits in `watch` with a deadline.
Rule 3: a dead child is buried once: its process group is killed while its pid is still ours (a zombie keeps it), and
        only then is it reaped.  So nothing that a guest started outlives it, and no stranger's group is ever hit.
Rule 4: what a child prints is not trusted: a line is an event (a JSON object with "event") or it is junk.
"""

import json
import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from shm.errors import MemcommonsError

LINE_LIMIT = 1 << 20            # bytes; a longer line is junk
TAIL_LINES = 20
READ_BYTES = 1 << 16
ORDER_LIMIT = 1 << 16           # what a fresh pipe holds: an order is written whole, without waiting


class Stream:
    """One pipe from a child, cut into lines as they come.  Non-blocking."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe, "opened by Popen"
        self.fd = pipe.fileno()
        self.open = True
        self._pipe = pipe
        self._rest = b""
        os.set_blocking(self.fd, False)

    def lines(self) -> list[str]:
        """Return the lines that are there; after the end, what was left without a newline."""
        self._rest += b"".join(self._chunks())
        *whole, self._rest = self._rest.split(b"\n")
        if self._rest and (not self.open or len(self._rest) > LINE_LIMIT):
            whole.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace").strip() for line in whole if line.strip()]

    def _chunks(self) -> Iterator[bytes]:
        """Yield what can be read now, at most one line's limit: a child that floods us must not hold us."""
        for _ in range(LINE_LIMIT // READ_BYTES + 1):
            try:
                chunk = os.read(self.fd, READ_BYTES) if self.open else b""
            except BlockingIOError:
                return
            if not chunk:
                self.open = False
                return
            yield chunk

    def close(self) -> None:
        self.open = False
        self._pipe.close()


class Child:
    """A process that was given its order."""

    def __init__(self, what: str, argv: Sequence[str], order: Any, folder: Path | None = None) -> None:
        """Start `argv`; `what` names it for people ("guest 'bank'"), `order` (JSON) is its first line."""
        self.what = what
        self.status: int | None = None               # as subprocess has it: -9 when killed by signal 9
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        line = json.dumps(order)
        if len(line) >= ORDER_LIMIT:
            raise MemcommonsError(f"{what} was given an order of {len(line)} bytes; at most {ORDER_LIMIT}")
        self._process = _started(what, argv, folder)
        self.pid = self._process.pid
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            self._process.kill()
            self._process.communicate()
            raise MemcommonsError(f"{what} could not be watched: {error.strerror}") from error
        self.out, self.err = Stream(self._process.stdout), Stream(self._process.stderr)
        assert self._process.stdin
        self._stdin = self._process.stdin
        os.set_blocking(self._stdin.fileno(), False)
        self.tell(line)

    @property
    def title(self) -> str:
        return f"{self.what} (pid {self.pid})"

    @property
    def alive(self) -> bool:
        return self.status is None

    def tell(self, line: str) -> None:
        """Send one line.  A child that cannot take it is dying or hangs: its death or a deadline will say so."""
        if self.alive and not self._stdin.closed:
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(self._stdin.fileno(), line.encode() + b"\n")

    def end_of_input(self) -> None:
        self._stdin.close()

    def heard(self) -> list[dict[str, Any] | str]:
        """Return the events (dict) and the junk (str) that have come on standard output."""
        return [_event(line) for line in self.out.lines()]

    def note_errors(self) -> None:
        """Keep the last lines of standard error."""
        self.tail.extend(self.err.lines())

    def signal(self, signum: int) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signum)

    def kill(self) -> None:
        """Kill the process and whatever it started."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def bury(self) -> list[dict[str, Any] | str]:
        """After its death (pidfd readable): return the last it said, reap it, close everything."""
        self.kill()
        self.status = self._process.wait()
        last = self.heard()
        self.note_errors()
        self.close()
        return last

    def close(self) -> None:
        for stream in (self.out, self.err):
            stream.close()
        self._stdin.close()
        os.close(self.pidfd)

    def how_it_ended(self) -> str:
        """Return one line about its death, with the last that it wrote on standard error."""
        assert self.status is not None
        if self.status < 0:
            return f"{self.title} was killed by signal {-self.status}"
        said = f": {self.tail[-1].removeprefix(self.what + ': ')}" if self.tail else ""
        return f"{self.title} ended with status {self.status}{said}"


def _started(what: str, argv: Sequence[str], folder: Path | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                cwd=folder, start_new_session=True)
    except OSError as error:
        raise MemcommonsError(f"{what} could not be started: {error.strerror}") from error


def _event(line: str) -> dict[str, Any] | str:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return line[:200]
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else line[:200]
