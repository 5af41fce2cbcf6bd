"""Orders and options: whatever is wrong is one clear line that names guest, option and what is allowed."""

import json
from pathlib import Path
from typing import Any

import pytest

from guests.workloads import WORKLOADS, load
from guests.workloads.base import Workload
from guests.workloads.order import Order, check_guest, options_of, order_of
from shm.errors import UsageProblem

ORDER = {"cluster": "c", "name": "bank", "workload": "sqlite", "ram": 1 << 26, "max_mem": 1 << 26, "weight": 1,
         "options": {"database": "8MiB"}, "seed": 7, "seconds": 2, "operations": None, "limit_seconds": 20.0}
# workload, options, the lines that are said of them
WRONG: list[tuple[str, Any, list[str]]] = [
    ("sqlite", {"foo": 1}, ["guest 'g': workload 'sqlite' has no option 'foo'; "
                            "allowed: database, cache, theta, sync_every, mix"]),
    ("sqlite", {"mix": {"write": 1}}, ["guest 'g': workload 'sqlite' has no option 'mix.write'; "
                                       "allowed: mix.read, mix.range, mix.payment, mix.transfer"]),
    ("sqlite", {"database": "40MB"}, ["guest 'g': option 'database': '40MB' is not a size; "
                                      "use B, KiB, MiB or GiB, such as \"64MiB\""]),
    ("sqlite", {"database": "4KiB"}, ["guest 'g': option 'database': 4.0 KiB is out of range; "
                                      "allowed: 1.0 MiB to 4.0 GiB"]),
    ("sqlite", {"theta": 3}, ["guest 'g': option 'theta': 3 is too large; at most 2.0"]),
    ("sqlite", {"theta": -1}, ["guest 'g': option 'theta': -1 is too small; at least 0.0"]),
    ("sqlite", {"theta": "much"}, ["guest 'g': option 'theta': 'much' is not a number"]),
    ("sqlite", {"theta": float("nan")}, ["guest 'g': option 'theta': nan is not a finite number"]),
    ("sqlite", {"sync_every": 1.5}, ["guest 'g': option 'sync_every': 1.5 is not a whole number"]),
    ("sqlite", {"mix": 3}, ["guest 'g': option 'mix': 3 is not a table"]),
    ("sqlite", {"mix": {}}, ["guest 'g': option 'mix': all weights are 0; at least one kind of operation is needed"]),
    ("sqlite", {"mix": {"read": -1}}, ["guest 'g': option 'mix.read': -1 is too small; at least 0"]),
    ("sqlite", [1], ["guest 'g': options of workload 'sqlite': [1] is not a table"]),
    ("sqlite", {"foo": 1, "cache": "1TiB"}, [
        "guest 'g': option 'cache': '1TiB' is not a size; use B, KiB, MiB or GiB, such as \"64MiB\"",
        "guest 'g': workload 'sqlite' has no option 'foo'; allowed: database, cache, theta, sync_every, mix"]),
    ("scan", {"path": 3}, ["guest 'g': option 'path': 3 is not a text; put it in quotes"]),
    ("scan", {"path": "/nowhere/at/all"}, ["guest 'g': option 'path': '/nowhere/at/all' is not a folder; "
                                           "name one that holds files"]),
    ("scan", {"chunk": 0}, ["guest 'g': option 'chunk': 0 is too small; at least 1"]),
    ("analytics", {"updates": 1.5}, ["guest 'g': option 'updates': 1.5 is too large; at most 1.0"]),
    ("analytics", {"updates": 0.8, "queries": 0.8}, [
        "guest 'g': options of workload 'analytics': updates and queries are 1.6 of all operations together; "
        "at most 1"]),
    ("trace", {}, ["guest 'g': workload 'trace' needs the option 'file'"]),
    ("trace", {"file": "/nowhere.lis"}, ["guest 'g': trace /nowhere.lis: no such file or directory; "
                                         "give the path of a trace"]),
    ("trace", {"file": "a.lis", "format": "lis"}, [
        "guest 'g': option 'format': 'lis' is not allowed; "
        "allowed: arc, vscsi, csv, pages, u32, spc, msr, oraclegeneral, libcachesim"]),
    ("trace", {"file": "a.lis", "repeat": 1}, ["guest 'g': option 'repeat': 1 is neither true nor false"]),
    ("trace", {"file": "a.lis", "cache_pages": 5, "access": "map"}, [
        "guest 'g': options of workload 'trace': cache_pages counts read lookups; allowed with it: access = \"read\""]),
    ("stress", {"burst": 0}, ["guest 'g': option 'burst': 0 is too small; at least 1"]),
    ("sqlit", {}, [f"guest 'g': there is no workload 'sqlit'; allowed: {', '.join(WORKLOADS)}"]),
]
RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("sqlite", {}),
    ("sqlite", {"database": "40MiB", "cache": "256KiB", "theta": 1, "sync_every": 0, "mix": {"read": 1}}),
    ("scan", {"size": "1MiB", "path": str(Path(__file__).parent)}),
    ("analytics", {"table": "1GiB", "derived": 1 << 20, "updates": 0.5, "queries": 0.5}),
    ("stress", {"files": 0}),
]


@pytest.mark.parametrize(("workload", "options", "lines"), WRONG)
def test_what_is_wrong_is_said_in_full(workload: str, options: Any, lines: list[str]) -> None:
    assert sorted(check_guest("g", workload, options)) == sorted(lines)
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize(("workload", "options"), RIGHT)
def test_what_is_right_is_taken(workload: str, options: dict[str, Any]) -> None:
    assert check_guest("g", workload, options) == []
    assert type(options_of("g", workload, options)) is load(workload).Options


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_of_the_registry_is_one(workload: str) -> None:
    kind = load(workload)
    assert issubclass(kind, Workload)
    required = [name for name, field in kind.Options.model_fields.items() if field.is_required()]
    assert required == (["file"] if workload == "trace" else [])


def test_the_first_problem_stands_for_all() -> None:
    with pytest.raises(UsageProblem, match=r"^guest 'g': option 'cache'") as error:
        options_of("g", "sqlite", {"foo": 1, "cache": "1TiB"})
    assert len(error.value.lines) == 2


def test_an_order_is_taken_as_it_is() -> None:
    order = order_of(json.dumps(ORDER))
    assert {key: getattr(order, key) for key in ORDER} == ORDER
    least = order_of(json.dumps({"cluster": "c", "name": "n", "workload": "w", "ram": 4096}))
    assert (least.limit_seconds, least.selfballoon) == (3600, False)
    assert order_of(json.dumps(ORDER | {"selfballoon": True})).selfballoon


BAD_ORDERS: list[tuple[str | None, str]] = [
    (None, "guest: no order came on standard input; write one JSON object on a line"),
    ("", "guest: the order is not JSON: ''"),
    ("hello", "guest: the order is not JSON: 'hello'"),
    ("[" * 100_000, "guest: the order is not JSON: '[["),
    ("[]", "guest: the order's : [] is not a table"),
    (json.dumps(ORDER | {"ram": "64MiB"}), "guest: the order's ram: '64MiB' is not a whole number"),
    (json.dumps(ORDER | {"ram": 0}), "guest: the order's ram: 0 is too small; it must be above 0"),
    (json.dumps(ORDER | {"selfballoon": 1}), "guest: the order's selfballoon: 1 is neither true nor false"),
    (json.dumps(ORDER | {"colour": 1}), "guest: the order's colour: "),
    (json.dumps({"cluster": "c"}), "guest: the order's name: "),
    (json.dumps(ORDER | {"operations": 0}), "guest: the order's operations: 0 is too small; at least 1"),
    (json.dumps(ORDER | {"seconds": -1}), "guest: the order's seconds: -1 is too small; it must be above 0"),
]


@pytest.mark.parametrize(("line", "said"), BAD_ORDERS, ids=range(len(BAD_ORDERS)))
def test_a_bad_order_is_one_line(line: str | None, said: str) -> None:
    with pytest.raises(UsageProblem) as error:
        order_of(line)
    assert str(error.value).startswith(said)
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


def test_an_order_is_frozen() -> None:
    with pytest.raises(ValueError):
        Order.model_validate(ORDER).name = "other"
