"""`memcommons ctl`: questions to a running hypervisor, and its answers for people.

Each command is given `call`, which carries one question to one cluster and returns the answer.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from hypervisor.toolstack.table import console_for, mib, number, plain_table
from shm.abi import PAGE_SIZE
from shm.errors import UsageProblem
from shm.units import format_size, parse_size

OK, FAILED = 0, 1
Call = Callable[[dict[str, Any]], dict[str, Any]]


def show_list(call: Call, as_json: bool) -> int:
    """Print the cluster and its guests."""
    cluster = call({"call": "list"})
    if as_json:
        print(json.dumps(cluster))
        return OK
    console = console_for(sys.stdout)
    console.print(f"cluster {cluster['cluster']}: scheme {cluster['scheme']}")
    console.print(f"budget {format_size(cluster['budget'])}: {number(cluster['frames_used'])} frames used, "
                  f"{number(cluster['frames_free'])} free, {number(cluster['heap_frames'])} of them the tmem heap's; "
                  f"{number(cluster['swap_pages'])} pages on the swap disk")
    table = plain_table("guest", "pid", "RAM MiB", "frames", "persistent", "ephemeral", "faults",
                        "states", title="guests")
    for guest in cluster["guests"]:
        states = " ".join(f"{state} {number(count)}" for state, count in guest["states"].items() if count)
        table.add_row(guest["name"], str(guest["pid"]), mib(guest["ram"]), number(guest["frames"]),
                      number(guest["persistent"]), number(guest["ephemeral"]), guest["faults"], states)
    console.print(table if cluster["guests"] else "no guests")
    for guest in cluster["guests"]:
        if guest["moved"] is not None:
            console.print(f"the tmem of {guest['name']} is in cluster {guest['moved']}")
    for name in cluster["waiting"]:
        console.print(f"the tmem of {name} is here, and {name} has not come yet")
    return OK


def set_budget(call: Call, size: str) -> int:
    """Change the budget while the guests run."""
    try:
        wanted = parse_size(size)
    except ValueError as error:
        raise UsageProblem(f"set-budget: {error}") from None
    answer = call({"call": "set-budget", "bytes": wanted})
    returned = answer["returned_frames"]
    print(f"budget {format_size(answer['budget'])}, {number(answer['frames_used'])} frames used; "
          f"{number(returned)} frames ({format_size(returned * PAGE_SIZE)}) went back to the machine")
    return OK


def audit(call: Call) -> int:
    """Print where the ledger and the kernel differ; that is a failure."""
    answer = call({"call": "audit"})
    found = [*answer["drifts"], *answer["problems"]]
    for line in found:
        print(line)
    print(f"{number(answer['checks'])} checks, ledger and kernel at most {answer['max_drift_frames']} frames apart")
    return FAILED if found or answer["max_drift_frames"] else OK


def stop(call: Call) -> int:
    call({"call": "stop"})
    print("told to stop")
    return OK
