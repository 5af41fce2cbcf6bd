"""Child processes of tests: they speak in lines, each wait has a deadline, and all are reaped at the end."""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import IO, Any

import pytest

from shm import names
from shm.abi import PAGE_SIZE

ROOT = Path(__file__).parents[2]
DEADLINE_S = 20.0            # of every wait; reached only by a test that fails
# For `python_process(MEMCOMMONS, "run", ...)`: the command as a person types it.
MEMCOMMONS = """
import sys
from hypervisor.toolstack.cli import main
sys.argv = ["memcommons", *sys.argv[1:]]
sys.exit(main())
"""
UNREAD_BYTES = 1 << 20       # of a hypervisor's news: a guest that leaves is one line, and a full pipe holds it up


class Child:
    """A child process that speaks in lines; each wait has a deadline."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.pid = self.process.pid
        self.killed = False
        self._rest = b""

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def line(self, deadline: float = DEADLINE_S) -> str:
        """Return its next line; AssertionError when it ends, or says nothing in time."""
        assert self.process.stdout is not None
        until = monotonic() + deadline
        while b"\n" not in self._rest:
            more = _more(self.process.stdout, 65536, until)
            assert more, f"it ended: {self._complaint()}"
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def error_line(self, deadline: float = DEADLINE_S) -> str:
        """Return its next line on standard error, alike; what follows is left where it is."""
        assert self.process.stderr is not None
        line, until = b"", monotonic() + deadline
        while not line.endswith(b"\n"):
            more = _more(self.process.stderr, 1, until)
            assert more, f"it ended: {line!r}"
            line += more
        return line.decode().rstrip("\n")

    def _complaint(self) -> str:
        assert self.process.stderr is not None
        self.process.wait(DEADLINE_S)
        return self.process.stderr.read().decode()

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is dead."""
        self.killed = True
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def leave(self) -> int:
        """End its input, wait for it, and return its exit status; kill it when it does not go."""
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process.stderr.close()


def _more(stream: IO[bytes], most: int, until: float) -> bytes:
    """Return the next bytes of a pipe, none at its end; AssertionError when none come in time."""
    ready, _, _ = select.select([stream], [], [], max(0.0, until - monotonic()))
    assert ready, "nothing came in time"
    return os.read(stream.fileno(), most)


class HypervisorProcess(Child):
    """`python -m hypervisor`.  `event()` is its next line; what a test does not ask for waits in the pipe."""

    def __init__(self, order: dict[str, Any]) -> None:
        super().__init__(["-m", "hypervisor"])
        assert self.process.stdout is not None
        fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, UNREAD_BYTES)
        self.cluster: str = order["cluster"]
        self.expects_drift = False
        self.say(json.dumps(order))

    def event(self, deadline: float = DEADLINE_S) -> dict[str, Any]:
        return json.loads(self.line(deadline))

    def stop(self) -> None:
        """Stop it if it runs, and hold its last words against it; of a killed one, remove what it left."""
        if self.killed:
            self.leave()
            names.remove(names.leftovers(self.cluster))
            return
        if self.process.poll() is None:
            self.process.terminate()
        try:
            words = self.event()
            while words["event"] != "stopped":
                words = self.event()
            assert words["problems"] == []
            assert self.expects_drift or words["audit"]["max_drift_frames"] == 0
        finally:
            status = self.leave()
        assert status == 0


@pytest.fixture
def hypervisor_process(new_cluster_name: Callable[[], str],
                       stems: list[str]) -> Iterator[Callable[..., HypervisorProcess]]:
    """Start a hypervisor as a child: sizes in pages, as `machine`; ready when this returns."""
    with ExitStack() as stack:
        def start(budget: int = 256, scheme: str = "cmm2+tmem", swap: int = 1024, **more: Any) -> HypervisorProcess:
            order = {"cluster": new_cluster_name(), "budget": budget * PAGE_SIZE, "scheme": scheme,
                     "swap": swap * PAGE_SIZE} | more
            child = HypervisorProcess(order)
            stack.callback(child.stop)
            assert child.event() == {"event": "ready", "pid": child.pid}
            stems.extend(names.stem(item.cluster, item.run) for item in names.objects(child.cluster)
                         if item.name.endswith(".cluster"))
            return child
        yield start


@pytest.fixture
def python_process() -> Iterator[Callable[..., Child]]:
    """Run Python code as a child: `python_process(code, *arguments)`; it is killed at the end if it still runs."""
    with ExitStack() as stack:
        def start(code: str, *arguments: str) -> Child:
            child = Child(["-c", code, *arguments])
            stack.callback(_reap, child)
            return child
        yield start


def _reap(child: Child) -> None:
    child.process.kill()
    child.leave()
