"""A guest that balloons has its kernel ticked between operations, and no other has."""

from types import SimpleNamespace

import pytest

from guests.workloads.order import Order
from guests.workloads.session import _between, work


@pytest.mark.parametrize(("balloons", "ticks"), [(True, 5), (False, 0)])
def test_a_tick_an_operation(balloons, ticks):
    happened: list[str] = []
    order = Order(cluster="c", name="n", workload="w", ram=4096, operations=5)
    workload = SimpleNamespace(step=lambda: happened.append("step") or True)
    kernel = SimpleNamespace(tick=lambda: happened.append("tick"), ticks=balloons)
    done, _ = work(order, workload, _between(kernel, lambda: happened.append("going on")))
    assert done == 5
    assert (happened.count("tick"), happened.count("going on"), happened.count("step")) == (ticks, 5, 5)
