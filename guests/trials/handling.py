"""How a guest learns that a page is gone, and where its kernel must expect it (E4).

One guest reads pages of a file larger than its memory, copied and mapped by turns, while the host takes all that it may
have every `every` operations: volatile pages under cmm2, the pool's under tmem.

    trapped         touches that were discard faults           told      make stable found the page gone
    missed          gets from the pool that found nothing

And in the kernel's source:

    traps           places that handle a discard fault, which may come of any touch
    asked_before    places that make pages stable, and must look whether they still are
    misses          places that get from the pool, and must look whether it was there
    refusals        places that put, and must look whether it was taken
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import guests
from guests.guest import Guest
from guests.kernel import Kernel
from guests.mappings.operator import ALL_KIB, Operator
from guests.trials.known import Reader, Since, disk_of
from shm.abi import PAGE_SIZE
from shm.counters import Count

RAM, FILE = 256, 384             # pages
ROOT = Path(guests.__file__).parent
KERNEL = ("kernel", "cleancache.py", "frontswap.py")
FAULT = "DiscardFault"
STABLE = {"make_stable", "make_stable_one"}
GETS, PUTS = {"get", "get_many"}, {"put", "put_many"}


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    with Operator(cluster) as operator, Guest.connect(cluster, "one", RAM * PAGE_SIZE) as guest, \
            disk_of(guest, FILE) as disk, Kernel(guest) as kernel:
        reader, random = Reader(kernel.open(disk)), Random(1)
        reader.read(range(FILE))                     # so that no page is missed for the first time below
        since = Since(guest)
        for number in range(options["operations"]):
            if number % options["every"] == 0:
                take(operator, guest)
            index = random.randrange(FILE)
            if number % 2:
                reader.read_run(index, 1)
            else:
                reader.read([index])
        missed = since[Count.CLEANCACHE_GETS] - since[Count.CLEANCACHE_HITS]
        return {"trapped": since[Count.DISCARD_FAULTS], "told": since[Count.STABLE_FAILURES], "missed": missed,
                "wrong": reader.wrong, "places": places()}


def take(operator: Operator, guest: Guest) -> None:
    """Take what the host may have: volatile pages where there are any, and else the pool's."""
    if "hint-volatile" in guest.features:
        operator.order("discard", name=guest.name, first=0, count=guest.pages)
    else:
        operator.order("tmem-flush", kib=ALL_KIB)


def places() -> dict[str, int]:
    """Count the places in the source."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {"traps": sum(1 for node in nodes if isinstance(node, ast.ExceptHandler) and names(node, FAULT)),
            "asked_before": sum(1 for call in calls(nodes, STABLE)),
            "misses": sum(1 for call in calls(nodes, GETS) if of_pool(call)),
            "refusals": sum(1 for call in calls(nodes, PUTS) if of_pool(call))}


def sources() -> list[Path]:
    """Return the modules of the guest's kernel and of its clients of tmem."""
    return sorted(path for name in KERNEL for path in ([ROOT / name] if name.endswith(".py")
                                                       else (ROOT / name).glob("*.py")))


def names(handler: ast.ExceptHandler, error: str) -> bool:
    return handler.type is not None and any(isinstance(node, ast.Name) and node.id == error
                                            for node in ast.walk(handler.type))


def calls(nodes: list[ast.AST], methods: set[str]) -> Iterator[ast.Call]:
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
            yield node


def of_pool(call: ast.Call) -> bool:
    """Say whether the method is a pool's: of `pool`, or of an attribute of that name."""
    assert isinstance(call.func, ast.Attribute)
    owner = call.func.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name.strip("_") == "pool"
