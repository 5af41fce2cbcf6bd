"""`memcommons ctl CLUSTER states`, `discard` and `reset-states`: page states of one guest, shown and changed.

Each command is given `call`, which carries one question to one cluster and returns the answer.
"""

import json
import sys

from hypervisor.census import census_table
from hypervisor.toolstack.control import OK, Call
from hypervisor.toolstack.table import console_for, number, plain_table
from shm.errors import UsageProblem


def show_states(call: Call, guest: str, as_json: bool) -> int:
    """Print how many pages of a guest are in which state."""
    guests = {told["name"]: told for told in call({"call": "list"})["guests"]}
    if guest not in guests:
        raise UsageProblem(f"no guest {guest!r} is attached; there are: {', '.join(sorted(guests)) or 'none'}")
    census = census_table(guests[guest]["states"])
    if as_json:
        print(json.dumps(census._asdict()))
        return OK
    table = plain_table("usage", "r", "p", "z", "sum", title=f"pages of {guest}")
    for name, *counts in census.rows:
        table.add_row(name, *map(number, counts))
    console = console_for(sys.stdout)
    console.print(table)
    console.print(f"of the resident pages {census.volatile_percent:.1f} % are volatile, "
                  f"{census.reclaimable_percent:.1f} % can be had without a write")
    return OK


def discard(call: Call, guest: str, first: int, count: int) -> int:
    """Take the frames of pages now, as their states allow."""
    answer = call({"call": "discard", "name": guest, "first": first, "count": count})
    print(f"took {number(answer['frames'])} frames; pages named: {number(answer['pages'])}")
    return OK


def reset_states(call: Call, guest: str) -> int:
    """Make all pages of a guest stable."""
    print(f"{number(call({'call': 'reset-states', 'name': guest})['pages'])} pages are stable")
    return OK
