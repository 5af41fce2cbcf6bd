"""One guest whose anonymous working set outgrows what it was given, while the host has memory to spare (E12).

    options    tenant    its `Needs`
               before, after   anonymous pages of its working set
               tight     pages of the budget until it grows, while its pages of `after` are filled; 0: never tight
               windows, work   how many windows of how many operations; one decision of a balloon's controller each
               seed

Figures: {"before", "growing", "after": windows}, each with what was counted and `clock_ns`: the processor time of this
process, and waits by the disks' model.  What the hypervisor does meanwhile is not in it.
"""

from collections.abc import Mapping
from time import process_time_ns
from typing import Any

from guests.mappings.operator import Operator
from guests.trials.steps import DECIDE
from guests.trials.tenant import Load, Needs, Tenant, grown
from shm.abi import PAGE_SIZE

Window = dict[str, int]


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Let it work in what it has, grow, and work on."""
    with Operator(cluster) as operator, Tenant(cluster, 0, Needs(**options["tenant"]), options["seed"]) as tenant:
        ample = operator.order("list")["budget"]
        small, large = Load(anon=options["before"]), Load(anon=options["after"])
        if options["tight"]:
            operator.order("set-budget", bytes=options["tight"] * PAGE_SIZE)
        tenant.take_up(large if options["tight"] else small)
        tenant.fill()
        tenant.take_up(small)
        windows(operator, tenant, options)                   # until a balloon has settled: not looked at
        found = {"before": windows(operator, tenant, options)}
        operator.order("set-budget", bytes=ample)
        tenant.take_up(large)
        tenant.visit()
        found["growing"] = windows(operator, tenant, options)
        tenant.visit()                                       # pages that a balloon gave room for too late are back now
        return found | {"after": windows(operator, tenant, options)}


def windows(operator: Operator, tenant: Tenant, options: Mapping[str, Any]) -> list[Window]:
    return [window(operator, tenant, options["work"]) for _ in range(options["windows"])]


def window(operator: Operator, tenant: Tenant, operations: int) -> Window:
    before, began = tenant.counted(operator), process_time_ns()
    tenant.work(operations)
    took = process_time_ns() - began
    found = grown(tenant.counted(operator), before)
    if "balloon" in tenant.guest.features:
        operator.order(DECIDE)
    return found | {"clock_ns": took + found["waited_ns"], "pages": tenant.pages}
