"""What the tests of workloads share: workloads prepared on a guest without a hypervisor, recorded, and corrupted."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from fakes import FakeGuest

from guests.disk import Disk
from guests.kernel import Kernel
from guests.workloads import load
from guests.workloads.base import Workload
from shm.counters import Count
from shm.pagestate import Essa, State

SWAP_PAGES = 4096


class WorkloadGuest(FakeGuest):
    """A fake that brings frames in when order 5 asks for it, as the guest library does."""

    def essa(self, order: Essa, gfns) -> np.ndarray:
        old = super().essa(order, gfns)
        if order == Essa.SET_STABLE_RESIDENT:
            for gfn, byte in zip(gfns, old.tolist(), strict=True):
                if byte & 0x03:
                    self.states[int(gfn)] = State.Sz
                    self.grant(int(gfn))
        return old

    def corrupt(self) -> None:
        """Flip one bit of every resident page behind everybody's back."""
        self.memory.rows[:, 1234] ^= 0x10


class Recorder:
    """Stands before a kernel, a file or a region, and writes down every call: name and arguments."""

    def __init__(self, inner: Any, log: list[tuple[Any, ...]]) -> None:
        self._inner, self._log = inner, log

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            self._log.append((name, *map(_plain, arguments), *options.items()))
            return value(*arguments, **options)
        return call


def _plain(value: Any) -> Any:
    """Return what an argument was, comparable: bytes and arrays as their content."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


class RecordedKernel:
    """A kernel whose files and regions are recorded.  What it asks of a rebuild is the host's doing, and is not."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.log = kernel, []
        self.guest, self.core, self.check = kernel.guest, kernel.core, kernel.check

    def open(self, disk: Disk, *arguments: Any, **options: Any) -> Recorder:
        return Recorder(self.kernel.open(disk, *arguments, **options), self.log)

    def anon(self, pages: int) -> Recorder:
        return Recorder(self.kernel.anon(pages), self.log)

    def rebuildable(self, pages: int, rebuild: Callable[..., Any]) -> Recorder:
        def unrecorded(indexes: np.ndarray) -> np.ndarray:
            before = len(self.log)
            rebuilt = rebuild(indexes)
            del self.log[before:]
            return rebuilt
        return Recorder(self.kernel.rebuildable(pages, unrecorded), self.log)


class Prepared:
    """A workload that is ready to work, and all around it."""

    def __init__(self, workload: Workload, guest: FakeGuest, kernel: Kernel, recorded: RecordedKernel | None) -> None:
        self.workload, self.guest, self.kernel, self.recorded = workload, guest, kernel, recorded

    def steps(self, count: int) -> None:
        for _ in range(count):
            assert self.workload.step()

    def count(self, which: Count) -> int:
        return int(self.guest.counters[which])

    @property
    def log(self) -> list[tuple[Any, ...]]:
        assert self.recorded is not None
        return self.recorded.log


@pytest.fixture
def prepare() -> Iterator[Callable[..., Prepared]]:
    """Prepare a workload: `prepare("scan", {"size": "64KiB"}, seed=3, pages=256, ...)`; the rest goes to the fake."""
    with ExitStack() as stack:
        def make(name: str, options: dict[str, Any], seed: int = 1, pages: int = 256, record: bool = False,
                 going_on: Callable[[], None] = lambda: None, **fake: Any) -> Prepared:
            kind = load(name)
            workload = kind(kind.Options.model_validate(options), seed)
            guest = WorkloadGuest(pages, **fake)
            swap = Disk.create(SWAP_PAGES, guest.counters, reads=Count.GUEST_SWAP_READS,
                               writes=Count.GUEST_SWAP_WRITES)
            stack.callback(swap.close)
            stack.callback(workload.close)
            kernel = Kernel(guest, swap, cache_pages=workload.cache_pages)
            recorded = RecordedKernel(kernel) if record else None
            workload.prepare(recorded or kernel, guest, going_on)
            return Prepared(workload, guest, kernel, recorded)
        yield make
