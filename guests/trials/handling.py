"""Where a guest's kernel must expect that a page is gone: counted in its own source (E4).

    traps           places that handle a discard fault, which may come of any touch
    asked before    places that make pages stable, and must look whether they still are
    misses          places that get from the pool, and must look whether it was there
    refusals        places that put, and must look whether it was taken
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import guests

ROOT = Path(guests.__file__).parent
KERNEL = ("kernel", "cleancache.py", "frontswap.py")
FAULT = "DiscardFault"
STABLE = {"make_stable", "make_stable_one"}
GETS, PUTS = {"get", "get_many"}, {"put", "put_many"}


def run(_cluster: str, _options: Mapping[str, Any]) -> dict[str, Any]:
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
