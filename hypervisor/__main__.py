"""`python -m hypervisor`: one hypervisor, started by the toolstack.

Reads its settings as one line of JSON on stdin, says `ready` (or `refused`, exit 2) as a line of JSON on stdout,
reports what happens to guests in further lines, and serves until SIGTERM, an order to stop, or the end of stdin.
"""

import json
import os
import resource
import signal
import sys
from typing import Any

from shm.abi import PAGE_SIZE
from shm.errors import MemcommonsError


def main() -> int:
    order = json.loads(sys.stdin.readline())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))   # a guest takes 14 descriptors
    signal.signal(signal.SIGINT, signal.SIG_IGN)     # Ctrl-C is the toolstack's to answer, in order
    try:
        return serve(order)
    except MemcommonsError as error:
        report({"event": "refused", "error": str(error)})
        return 2


def serve(order: dict[str, Any]) -> int:
    """Run a machine with the settings of `order`; sizes there are bytes."""
    from hypervisor.machine import FAULT_DEADLINE_S, BalloonRules, Machine, Settings

    machine = Machine(Settings(
        cluster=order["cluster"], budget=order["budget"] // PAGE_SIZE, scheme=order.get("scheme", "cmm2+tmem"),
        reclaim=order.get("reclaim", "hint-after-choice"), bias=order.get("bias", 0.0),
        swap=order.get("swap", 0) // PAGE_SIZE,
        ephemeral_pages=order.get("ephemeral_pages", 0), folder=order.get("folder"), form=order.get("form", "raw"),
        quirks=order.get("quirks", "none"), write_back=order.get("write_back", False),
        dedup_across=order.get("dedup_across", False), cmma=order.get("cmma", "architected"),
        disk=order.get("disk", "none"), disk_time=order.get("disk_time", "virtual"),
        direct=order.get("direct", False),
        access_bits=order.get("access_bits", True), fault_deadline=order.get("fault_deadline", FAULT_DEADLINE_S),
        targets=order.get("targets", "greedy"), balloon=BalloonRules(**order.get("balloon", {})),
    ), report)
    signal.signal(signal.SIGTERM, lambda *_: setattr(machine, "stopping", True))
    machine.watch(sys.stdin.fileno(), lambda: setattr(machine, "stopping", not os.read(sys.stdin.fileno(), 4096)))
    report({"event": "ready", "pid": os.getpid()})
    try:
        machine.run()
        machine.check()
        words = machine.orders.last_words()
    finally:
        machine.close()
    report({"event": "stopped"} | words)
    return 0


def report(event: dict[str, Any]) -> None:
    """Write one line; whoever started us may be gone."""
    try:
        print(json.dumps(event), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
