"""Stand-ins for `python -m hypervisor` and `python -m guests`: they speak the same lines, and misbehave on order.

    fake_children.py hypervisor BEHAVIOUR      fake_children.py guest      (behaviour: the order's options)

In hardware mode a fake guest has a pager: a child that does nothing.
A fake guest holds a connection to its fake hypervisor, as a real one does, and leaves when that breaks.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any


def say(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forever() -> None:
    while True:
        signal.pause()


def deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# -- hypervisor

def hypervisor(behaviour: str) -> None:
    order = json.loads(sys.stdin.readline())
    door = socket.socket(socket.AF_UNIX)
    door.bind("\0memcommons-fake/" + order["cluster"])
    door.listen(64)
    if behaviour == "refuses":
        say("refused", error="cluster name 'x' is in use")
        sys.exit(2)
    if behaviour == "refuses-silently":
        print("no room on the swap disk", file=sys.stderr, flush=True)
        sys.exit(2)
    if behaviour == "dies-at-start":
        kill_self()
    if behaviour == "hangs-at-start":
        forever()
    if behaviour == "interrupts-us":
        os.kill(os.getppid(), signal.SIGINT)
        forever()
    signal.signal(signal.SIGTERM, lambda *_: stopped(behaviour))
    if behaviour == "deaf":
        deaf()
    if behaviour == "junk":
        print("warning: this is no event", flush=True)
    say("ready", pid=os.getpid())
    if behaviour == "gives-up":
        door.accept()
        say("refused", error="frame 7 has two owners")
        sys.exit(2)
    if behaviour == "stops-by-itself":
        door.accept()
        stopped("")
    sys.stdin.read()
    if behaviour != "deaf":
        stopped(behaviour)
    forever()


def stopped(behaviour: str) -> None:
    if behaviour != "no-account":
        drift = 3 if behaviour == "drifts" else 0
        say("stopped", counters={"discards": 7, "hypercalls": 11}, audit={"checks": 5, "max_drift_frames": drift},
            peak_frames=100, kernel_peak_bytes=409600, cpu_seconds=0.75,
            tmem={"refusals": {"frozen": 3}, "counters": {}},
            problems=["a lost page"] if behaviour == "loses" else [])
    os._exit(0)


# -- guest

def guest() -> None:
    order = json.loads(sys.stdin.readline())
    options = order["options"]
    behaviour = options.get("behave", "well")
    link = socket.socket(socket.AF_UNIX)
    link.connect("\0memcommons-fake/" + order["cluster"])
    threading.Thread(target=leave_with_the_hypervisor, args=(link, order["name"]), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    STARTS.get(behaviour, lambda options: None)(options)
    say("ready", **pager_of(order, behaviour))
    if behaviour == "killed-when-ready":
        kill_self()
    if sys.stdin.readline() != "go\n":
        sys.exit(4)
    AT_WORK.get(behaviour, work)(order)
    if behaviour == "killed-when-done":
        kill_self()
    if sys.stdin.readline() not in ("quit\n", ""):
        sys.exit(5)
    if behaviour == "leaves-badly":
        print("the last page was lost", file=sys.stderr, flush=True)
        sys.exit(3)


def pager_of(order: dict[str, Any], behaviour: str) -> dict[str, Any]:
    if order.get("faults") != "hardware" or behaviour == "has-no-pager":
        return {}
    named = {"names-us": os.getppid(), "names-itself": os.getpid(), "names-no-number": "1", "names-nobody": 1 << 30}
    return {"pager": named[behaviour] if behaviour in named else idle_child()}


def idle_child() -> int:
    return subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"]).pid


def leave_with_the_hypervisor(link: socket.socket, name: str) -> None:
    with contextlib.suppress(ConnectionError):
        link.recv(1)
    print(f"guest {name!r}: the hypervisor is gone", file=sys.stderr, flush=True)
    os._exit(1)


def interrupt_by(signum: int) -> None:
    os.kill(os.getppid(), signum)
    forever()


def less_when_measured(order: dict[str, Any]) -> None:
    """Do well in the baseline, whose cluster's name ends in -0, and fall short in the next run."""
    done(order, operations=order["operations"] - (not order["cluster"].endswith("-0")))


def refuse(options: dict[str, Any]) -> None:
    print("guest 'a': line 7 of the trace is damaged", file=sys.stderr, flush=True)
    os._exit(2)


def fail_at_start(options: dict[str, Any]) -> None:
    print("Traceback\nMemoryError: no room", file=sys.stderr, flush=True)
    os._exit(3)


def leave_a_child(options: dict[str, Any]) -> None:
    with open(options["note"], "w") as note:
        note.write(str(idle_child()))


def done(order: dict[str, Any], **changed: Any) -> None:
    facts = {"operations": order["operations"] or 100, "seconds": 0.0, "pages_verified": 5, "mismatches": 0}
    say("done", **facts | changed)


def work(order: dict[str, Any]) -> None:
    done(order)


def out_of_memory_when_cut(order: dict[str, Any]) -> None:
    """Do well with all the RAM that was promised, and fail with less."""
    if order["ram"] < order["max_mem"]:
        say("failed", error="out of memory")
        sys.exit(1)
    done(order, seconds=0.05)


def hang(order: dict[str, Any]) -> None:
    forever()


def hang_deaf(order: dict[str, Any]) -> None:
    deaf()
    forever()


STARTS = {
    "refuses": refuse, "fails-at-start": fail_at_start, "killed-at-start": lambda options: kill_self(),
    "hangs-at-start": lambda options: forever(), "interrupts-us": lambda options: interrupt_by(signal.SIGTERM),
    "sends-SIGTERM": lambda options: interrupt_by(signal.SIGTERM),
    "sends-SIGINT": lambda options: interrupt_by(signal.SIGINT),
    "leaves-a-child": leave_a_child,
    "ready-twice": lambda options: print('{"event": "ready"}\n{"event": "ready"}', flush=True),
    "done-before-go": lambda options: say("done"),
    "unknown-word": lambda options: say("hello"), "junk": lambda options: print("[1, 2]", flush=True),
    "junk-flood": lambda options: print("x" * (2 << 20), flush=True),
    "not-text": lambda options: os.write(1, b"\xff\xfe\x00\n"),
}
AT_WORK = {
    "killed-at-work": lambda order: kill_self(),
    "failed": lambda order: (say("failed", error="page 7 of 'x' was wrong"), sys.exit(1)),
    "wrong": lambda order: done(order, mismatches=2),
    "negative": lambda order: done(order, operations=-1),
    "too-long": lambda order: done(order, seconds=1e6),
    "claims-waits": lambda order: done(order, virtual_seconds=0.5),
    "latencies-lost": lambda order: done(order, latency=[99]),
    "cpu-of-another": lambda order: done(order, cpu_s=1e6),
    "backwards": lambda order: done(order, virtual_seconds=-0.5),
    "not-a-number": lambda order: done(order, seconds=float("nan")),
    "a-text": lambda order: done(order, pages_verified="many"),
    "a-truth": lambda order: done(order, mismatches=False),
    "less-when-measured": less_when_measured,
    "brisk": lambda order: done(order, seconds=0.05), "out-of-memory-when-cut": out_of_memory_when_cut,
    "idle": lambda order: done(order, operations=0),
    "more": lambda order: done(order, operations=1 + (order["operations"] or 100)),
    "less": lambda order: done(order, operations=order["operations"] - 1),
    "gave-up": lambda order: done(order, operations=1, seconds=order["limit_seconds"]),
    "hangs": hang, "hangs-deaf": hang_deaf,
    "done-twice": lambda order: (done(order), done(order)),
    "deaf-to-quit": lambda order: (done(order), hang_deaf(order)),
}

if __name__ == "__main__":
    hypervisor(sys.argv[2]) if sys.argv[1] == "hypervisor" else guest()
