"""The guest process: `python -m guests check` and `python -m guests run`, as the toolstack starts them.

    check    a JSON list of {"name", "workload", "ram", "options"} on standard input; one line a problem on standard
             error and exit 2, or nothing and exit 0
    run      one order on standard input, see `guests.workloads.session`

What is heavy is imported where it is used: `check` of a scenario loads only the workloads that it names.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from shm.errors import UsageProblem

USAGE = "usage: python -m guests check|run, with JSON on standard input"
KEYS = ("name", "workload", "ram", "options")


def main(arguments: Sequence[str], connect: Callable[..., Any] | None = None) -> int:
    """Return the exit status; `connect` stands in for `Guest.connect` in tests."""
    hold_standard_streams()
    if list(arguments) == ["check"]:
        return check()
    if list(arguments) == ["run"]:
        from guests.guest import Guest
        from guests.workloads.session import run
        return run(connect or Guest.connect)
    print(USAGE, file=sys.stderr)
    return 2


def hold_standard_streams() -> None:
    """Put the null device where a standard stream was closed.

    Else a pipe or a disk would get its number, and be read as orders, or have events written into it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)           # the lowest free number: this one


def check() -> int:
    """Say what is wrong with the guests of a scenario."""
    try:
        guests = guests_of(sys.stdin.read() if sys.stdin else "")
    except UsageProblem as problem:
        print(problem, file=sys.stderr)
        return 2
    problems = [line for guest in guests for line in _problems(guest)]
    for line in problems:
        print(line, file=sys.stderr)
    return 2 if problems else 0


def guests_of(text: str) -> list[dict[str, Any]]:
    """Return the list that standard input holds; UsageProblem when it is none."""
    try:
        guests = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageProblem(f"check: standard input is not JSON: {text[:60]!r}") from None
    if not isinstance(guests, list) or not all(isinstance(guest, dict) for guest in guests):
        raise UsageProblem("check: standard input must be a list of {name, workload, ram, options}")
    return guests


def _problems(guest: dict[str, Any]) -> list[str]:
    """Return one line for each thing that is wrong with one guest."""
    from guests.workloads.order import check_guest
    name = guest.get("name")
    lines = [f"guest {name!r}: {key!r} is missing" for key in KEYS[:2] if not isinstance(guest.get(key), str)]
    lines += [f"guest {name!r}: there is no {key!r}; allowed: {', '.join(KEYS)}" for key in guest if key not in KEYS]
    lines += _ram_problems(name, guest.get("ram"))
    return lines or check_guest(guest["name"], guest["workload"], guest.get("options", {}))


def _ram_problems(name: object, ram: Any) -> list[str]:
    from shm.units import parse_size
    try:
        if ram is not None:
            parse_size(ram)
    except ValueError as error:
        return [f"guest {name!r}: 'ram': {error}"]
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
