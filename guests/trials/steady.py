"""Working sets that stay as they are (E6, E11): I/O in a steady state, in one case after another.

    options    cases      {"budget": pages, "tenants": `Needs` of each, "loads": (file, anon) of each,
                          "splits": lists of pages, one for each tenant, that its balloon leaves it; [] for no balloon}
               warm, work operations of each tenant before and while it is counted
               seed

Figures: {"cases": [case][split] -> what was counted in sum of all tenants}.  A case has new guests; its splits follow
one another, each warmed anew.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from guests.mappings.operator import Operator
from guests.trials.tenant import Load, Needs, Tenant, grown
from shm.abi import PAGE_SIZE

SLICE = 50                       # operations, then it is the next one's turn


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Measure all cases."""
    with Operator(cluster) as operator:
        return {"cases": [measured(operator, case, options) for case in options["cases"]]}


def measured(operator: Operator, case: Mapping[str, Any], options: Mapping[str, Any]) -> list[dict[str, int]]:
    """Measure one case, each split of it."""
    operator.order("set-budget", bytes=case["budget"] * PAGE_SIZE)
    with ExitStack() as stack:
        tenants = [stack.enter_context(Tenant(operator.cluster, number, Needs(**needs), options["seed"]))
                   for number, needs in enumerate(case["tenants"])]
        for tenant, load in zip(tenants, case["loads"], strict=True):
            tenant.take_up(Load(*load))
            tenant.fill()
        return [split_measured(operator, tenants, split, options) for split in case["splits"] or [()]]


def split_measured(operator: Operator, tenants: Sequence[Tenant], split: Sequence[int],
                   options: Mapping[str, Any]) -> dict[str, int]:
    """Give each tenant its pages, warm up, and count."""
    shrinking_first = sorted(zip(tenants, split, strict=bool(split)), key=lambda pair: pair[1] - pair[0].pages)
    for tenant, pages in shrinking_first:
        tenant.kernel.balloon.set_target(pages)
    in_turns(tenants, options["warm"])
    before = [tenant.counted(operator) for tenant in tenants]
    in_turns(tenants, options["work"])
    total = Counter[str]()
    for tenant, earlier in zip(tenants, before, strict=True):
        total.update(grown(tenant.counted(operator), earlier))
    return dict(total)


def in_turns(tenants: Sequence[Tenant], operations: int) -> None:
    """Let each tenant do so many operations, a slice at a time."""
    for done in range(0, operations, SLICE):
        for tenant in tenants:
            tenant.work(min(SLICE, operations - done))
