"""A hypervisor in a process of its own, for a benchmark; and where both sides run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from guests import Guest

STOP_S = 20.0


def pin(pid: int, core: int) -> None:
    """Put a process on one core, if there are that many."""
    cores = sorted(os.sched_getaffinity(0) if pid else range(os.cpu_count() or 1))
    os.sched_setaffinity(pid, {cores[core % len(cores)]})


@contextmanager
def hypervisor(name: str, budget: int, swap: int = 0, core: int | None = None, **more: object) -> Iterator[int]:
    """Run a hypervisor of `budget` bytes as cluster `name`, `more` in its order; yields its pid."""
    order = {"cluster": name, "budget": budget, "swap": swap} | more
    with subprocess.Popen([sys.executable, "-m", "hypervisor"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if "ready" not in line:
            raise SystemExit(f"the hypervisor did not start: {line.strip()}")
        process.stdout.close()                       # nobody reads on: a full pipe would hold it up, a closed one not
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        try:
            yield process.pid
        finally:
            process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def guest(name: str, ram: str) -> Iterator[Guest]:
    with Guest.connect(name, "bench", ram) as attached:
        yield attached
