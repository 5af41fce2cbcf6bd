"""Move a guest's tmem from one cluster to another while the guest puts, replaces and flushes pages all the time.

    python scripts/examples/migrate.py

Starts two clusters (`memcommons serve`) and a guest, has `memcommons ctl LEFT tmem-migrate worker RIGHT` move it in the
middle, and then reads everything back: each handle must hold what the guest put there last, bit for bit.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack

import numpy as np

from guests import Guest

MEMCOMMONS = [sys.executable, "-m", "hypervisor.toolstack.cli"]
HANDLES = 8192                                       # 32 MiB
BATCH = 64
BEFORE, AFTER = 400, 400                             # batches that the guest works off before and after


def pages_of(stamps: np.ndarray) -> np.ndarray:
    """Return one page a stamp, all different, each computable from its stamp."""
    words = stamps.astype(np.uint64)[:, None] * np.arange(1, 513, dtype=np.uint64)
    return words.view(np.uint8)


class Worker:
    """A guest at work in a thread, and the last stamp of each handle, 0 where there is none."""

    def __init__(self, guest: Guest) -> None:
        self.pool = guest.tmem.new_pool(persistent=True)
        self.stamps = np.zeros(HANDLES, np.uint64)
        self.batches, self.refused, self.slowest = 0, 0, 0.0
        self.halt = threading.Event()

    def run(self) -> None:
        rng = np.random.default_rng(1)
        while not self.halt.is_set():
            indexes = rng.choice(HANDLES, BATCH, replace=False)
            if rng.random() < 0.2:
                self.pool.flush_many(1, indexes)
                self.stamps[indexes] = 0
            else:
                fresh = rng.integers(1, 1 << 40, BATCH).astype(np.uint64)
                stored = self.pool.put_many(1, indexes, pages_of(fresh))
                self.refused += int(np.count_nonzero(~stored))
                self.stamps[indexes] = np.where(stored, fresh, 0)
            self.batches += 1

    def wait_for(self, batches: int) -> None:
        until = self.batches + batches
        while self.batches < until:
            self.halt.wait(0.01)

    def wrong(self) -> int:
        """Read everything back; return how many handles do not hold what was put there last."""
        hits, pages = self.pool.get_many(1, np.arange(HANDLES))
        right = (pages == np.where(self.stamps[:, None] > 0, pages_of(self.stamps), 0)).all(axis=1)
        return int(np.count_nonzero(~right | (hits != (self.stamps > 0))))


def serve(name: str, stack: ExitStack) -> str:
    """Start a cluster that ends with `stack`; return its name."""
    command = [*MEMCOMMONS, "serve", "--name", name, "--budget", "128MiB", "--scheme", "tmem", "--swap", "0B"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(process.wait, 30)
    stack.callback(subprocess.run, [*MEMCOMMONS, "ctl", name, "stop"], stdout=subprocess.DEVNULL, check=False)
    assert process.stdout is not None
    print(process.stdout.readline().strip().partition(";")[0])
    return name


def migrate(source: str, guest: str, target: str) -> dict[str, float]:
    """Move the guest, and print what that took."""
    command = [*MEMCOMMONS, "ctl", source, "tmem-migrate", guest, target, "--json"]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"moved: {report['pages']} pages sent, {report['resent']} of them again or new, {report['gone']} flushes, "
          f"{report['rounds']} rounds more, {report['bytes'] >> 20} MiB in {report['seconds']:.2f} s; "
          f"downtime {report['downtime_s'] * 1000:.1f} ms")
    return report


def main() -> int:
    with ExitStack() as stack:
        left, right = (serve(f"demo-{side}-{os.getpid()}", stack) for side in ("left", "right"))
        guest = stack.enter_context(Guest.connect(left, "worker", "1MiB", "96MiB"))
        worker = Worker(guest)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            worker.wait_for(BEFORE)
            migrate(left, "worker", right)
            worker.wait_for(AFTER)
        finally:
            worker.halt.set()
            thread.join()
        wrong, held = worker.wrong(), int(np.count_nonzero(worker.stamps))
    print(f"{worker.batches} batches of {BATCH} pages, {worker.refused} puts refused; {held} handles hold pages, "
          f"{wrong} are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
