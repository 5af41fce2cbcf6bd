"""The loop of operations: a guest that balloons has its kernel ticked between, and each operation is timed."""

from types import SimpleNamespace

import numpy as np
import pytest

from guests.device import Device
from guests.workloads.order import Order
from guests.workloads.session import _between, work
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.diskcost import MODELS
from shm.latency import bucket_of, trimmed


@pytest.mark.parametrize(("balloons", "ticks"), [(True, 5), (False, 0)])
def test_a_tick_an_operation(balloons, ticks):
    happened: list[str] = []
    order = Order(cluster="c", name="n", workload="w", ram=4096, operations=5)
    workload = SimpleNamespace(step=lambda: happened.append("step") or True, device=None)
    kernel = SimpleNamespace(tick=lambda: happened.append("tick"), ticks=balloons)
    done = work(order, workload, _between(kernel, lambda: happened.append("going on")))
    assert done.operations == sum(done.latency) == 5
    assert (happened.count("tick"), happened.count("going on"), happened.count("step")) == (ticks, 5, 5)


def test_an_operation_takes_its_virtual_waits_too():
    """Three that wait for the disk, its pager and a page-in, and one that does not."""
    counters, hdd = np.zeros(PAGE_SIZE // 8, np.uint64), MODELS["hdd"]
    device = Device(counters, hdd)
    waits = [lambda: device.serve(0, [1]), lambda: counters.__setitem__(Count.PAGER_DISK_REQUESTS, 1),
             lambda: counters.__setitem__(Count.VIRTUAL_SWAP_NS, hdd.latency_ns), lambda: None]
    workload = SimpleNamespace(step=lambda: waits.pop(0)() or True, device=device)
    device.serve(0, [1])                                     # before the work: not counted
    done = work(Order(cluster="c", name="n", workload="w", ram=4096, operations=4), workload, lambda: None)
    assert done.operations == 4 and done.virtual_seconds == (3 * hdd.latency_ns + hdd.transfer_ns(1)) / 1e9
    assert sum(done.latency[bucket_of(hdd.latency_ns):]) == 3
    assert len(trimmed(done.latency)) > bucket_of(hdd.latency_ns)
