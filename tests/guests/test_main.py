"""The guest process: what it prints, what it leaves with, and that it leaves in time, whatever it is doing."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.children import DEADLINE_S, ROOT, Child

from guests.workloads import WORKLOADS
from shm.abi import PAGE_SIZE
from shm.diskcost import MODELS, NANO
from shm.latency import bucket_of

# `python -m guests run` on a guest without a hypervisor; the cluster's name says how it behaves.
FAKE_RUN = """
import socket, sys, time
sys.path.append("tests/guests")
from fakes import FakeGuest
from guests.__main__ import main
from guests.workloads import leave
from shm.errors import HypervisorGone, OutOfMemory, UsageProblem

class Guest(FakeGuest):
    def close(self):
        print("closed", file=sys.stderr, flush=True)
        time.sleep(3 * leave.GRACE_SECONDS if self.slow else 0)

    def wait_gone(self):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect("\\0" + DOOR)
            link.recv(1)                     # until whoever holds the other end closes it
        return True

def behave(guest, cluster):
    calm, reads = guest.memory.read_part, []
    def read_part(*arguments):
        reads.append(1)
        if len(reads) > 100 and cluster == "stuck":
            print("stuck", file=sys.stderr, flush=True)
            time.sleep(1000)
        if len(reads) > 100 and cluster in FAILURES:
            raise FAILURES[cluster]
        page = calm(*arguments)
        return page[:-1] + bytes([page[-1] ^ 1]) if len(reads) > 100 and cluster == "liar" else page
    guest.memory.read_part, guest.slow = read_part, cluster == "slow"
    return guest

FAILURES = {"gone": HypervisorGone("the hypervisor does not answer"), "full": OutOfMemory("no frame"),
            "bug": ZeroDivisionError("two\\nlines")}

def connect(cluster, name, ram, max_mem, weight, faults):
    if cluster == "none":
        raise UsageProblem("no cluster 'none' is running")
    return behave(Guest(ram // 4096), cluster)

DOOR = sys.argv[1]
leave.GRACE_SECONDS = 0.5
sys.exit(main(["run"], connect))
"""
REFERENCES = [n * 7 % 50 for n in range(400)]


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.txt"
    path.write_text("".join(f"{page}\n" for page in REFERENCES))
    return str(path)


class Run:
    """One `run` on a fake, and the far end of its hypervisor."""

    def __init__(self, child: Child, door: socket.socket) -> None:
        self.child = child
        self.pid = child.pid
        self._door = door
        self.hypervisor: socket.socket | None = None

    def order(self, trace: str, cluster: str = "calm", **more: Any) -> None:
        options = {"file": trace} | more.pop("options", {})
        self.child.say(json.dumps({"cluster": cluster, "name": "x", "workload": "trace", "ram": 64 * PAGE_SIZE,
                                   "options": options} | more))

    def attach(self) -> None:
        """Hold the hypervisor's end; it is open once the guest has attached."""
        self.hypervisor, _ = self._door.accept()

    def event(self) -> dict[str, Any]:
        return json.loads(self.child.line())

    def begin(self, trace: str, **more: Any) -> None:
        self.order(trace, **more)
        self.attach()
        assert self.event() == {"event": "ready"}
        self.child.say("go")

    def lose_hypervisor(self) -> None:
        self.hypervisor.close()

    def status(self) -> int:
        """Wait for its end without ending its input."""
        return self.child.process.wait(DEADLINE_S)

    def errors(self) -> list[str]:
        """Return what it said on standard error; `left_in_order` is whether it closed its guest."""
        assert self.child.process.stderr is not None
        lines = self.child.process.stderr.read().decode().splitlines()
        self.left_in_order = "closed" in lines
        return [line for line in lines if line != "closed"]

    def rest(self) -> bytes:
        assert self.child.process.stdout is not None
        return self.child._rest + self.child.process.stdout.read()

    def close(self) -> None:
        if self.hypervisor is not None:
            self.lose_hypervisor()


@pytest.fixture
def door() -> Iterator[tuple[str, socket.socket]]:
    """A name for the fake's hypervisor, and the socket that listens there; in no folder, so nothing is left."""
    name = f"fake-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        listener.settimeout(DEADLINE_S)
        yield name, listener


@pytest.fixture
def run(python_process: Callable[..., Child], door: tuple[str, socket.socket]) -> Iterator[Run]:
    name, listener = door
    one = Run(python_process(FAKE_RUN, name), listener)
    yield one
    one.close()


# -- a run that goes well

@pytest.mark.parametrize(("more", "operations"), [
    ({"operations": 50}, 50), ({"operations": 400}, 400), ({}, 400), ({"operations": 50, "selfballoon": True}, 50),
])
def test_ready_go_done_quit(run: Run, trace: str, more: dict[str, Any], operations: int) -> None:
    run.begin(trace, **more)
    done = run.event()
    assert list(done) == ["event", "operations", "seconds", "virtual_seconds", "pages_verified", "mismatches", "cpu_s",
                          "latency"]
    assert sum(done.pop("latency")) == operations and 0 < done.pop("cpu_s") < DEADLINE_S
    assert done | {"seconds": 0} == {"event": "done", "operations": operations, "seconds": 0, "virtual_seconds": 0,
                                     "pages_verified": operations, "mismatches": 0}
    assert 0 < done["seconds"] < DEADLINE_S
    assert run.child.process.poll() is None, "it keeps its memory until it is told to go"
    run.child.say("quit")
    assert (run.status(), run.rest(), run.errors()) == (0, b"", [])


def test_a_disk_that_costs_is_in_the_guests_clock(run: Run, trace: str) -> None:
    """Each page is read once, most by a request of their own; all else is found in memory, or in tmem."""
    hdd, pages = MODELS["hdd"], len(set(REFERENCES))
    run.begin(trace, disk={"latency": "hdd"})
    done = run.event()
    requests, rest = divmod(round(done["virtual_seconds"] * NANO) - hdd.transfer_ns(pages), hdd.latency_ns)
    assert 0 < requests <= pages and abs(rest) < pages, "a rounded nanosecond a transfer"
    assert sum(done["latency"]) == len(REFERENCES)
    assert sum(done["latency"][bucket_of(hdd.latency_ns):]) >= requests
    run.child.say("quit")
    assert run.status() == 0


def test_it_works_for_the_seconds_ordered(run: Run, trace: str) -> None:
    run.begin(trace, seconds=0.3, options={"repeat": True})
    done = run.event()
    assert done["seconds"] >= 0.3
    assert done["operations"] == done["pages_verified"] > 100


def test_it_stops_at_its_limit_and_says_how_far_it_came(run: Run, trace: str) -> None:
    run.begin(trace, operations=10**12, limit_seconds=0.3, options={"repeat": True})
    done = run.event()
    assert done["seconds"] >= 0.3
    assert 0 < done["operations"] < 10**12


def test_it_does_nothing_before_go(run: Run, trace: str) -> None:
    run.order(trace)
    run.attach()
    assert run.event() == {"event": "ready"}
    with pytest.raises(AssertionError, match="nothing came in time"):
        run.child.line(0.3)
    run.child.say("go")
    assert run.event()["event"] == "done"


def test_after_done_the_end_of_input_is_as_good_as_quit(run: Run, trace: str) -> None:
    run.begin(trace)
    assert run.event()["event"] == "done"
    run.child.process.stdin.close()
    assert (run.status(), run.errors()) == (0, [])


def test_the_end_of_the_work_looks_at_the_whole(run: Run) -> None:
    options = {"table": "256KiB", "derived": "64KiB", "columns": 1, "block": 16, "queries": 1, "updates": 0}
    run.child.say(json.dumps({"cluster": "calm", "name": "x", "workload": "analytics", "ram": 128 * PAGE_SIZE,
                              "options": options, "operations": 2}))
    run.attach()
    run.child.say("go")
    assert run.event() == {"event": "ready"}
    assert run.event()["pages_verified"] == 16 + 2 * 16 + 64, "while it is filled, two blocks, the table at the end"


def test_a_slow_farewell_is_its_own(run: Run, trace: str) -> None:
    """The hypervisor lets go of a guest that leaves: that is not the hypervisor's end."""
    run.begin(trace, cluster="slow")
    assert run.event()["event"] == "done"
    run.child.say("quit")
    assert run.child.error_line() == "closed"
    run.lose_hypervisor()
    assert (run.status(), run.errors()) == (0, [])


# -- failures

@pytest.mark.parametrize(("cluster", "said"), [
    ("liar", "wrong page: trace, page [0-9]+: byte 4095 of 4096 is 0x.. where 0x.. was written"),
    ("full", "no frame"),
    ("bug", "ZeroDivisionError: two lines"),
])
def test_a_failure_is_an_event_of_one_line(run: Run, trace: str, cluster: str, said: str) -> None:
    run.begin(trace, cluster=cluster)
    failed = run.event()
    assert set(failed) == {"event", "error"}
    assert failed["event"] == "failed"
    assert re.fullmatch(said, failed["error"]), failed
    assert run.status() == 1
    assert run.rest() == b""
    assert bool(run.errors()) == (cluster == "bug"), "a bug leaves its traceback"


def test_the_hypervisor_that_does_not_answer_is_one_line(run: Run, trace: str) -> None:
    run.begin(trace, cluster="gone")
    assert run.status() == 1
    assert (run.rest(), run.errors()) == (b"", ["guest 'x': the hypervisor does not answer"])


GONE = ["guest 'x': the hypervisor is gone; this guest's memory is lost with it"]


def waiting(run: Run, trace: str) -> None:
    run.order(trace)
    run.attach()
    assert run.event() == {"event": "ready"}


def working(run: Run, trace: str) -> None:
    run.begin(trace, options={"repeat": True})


def stuck(run: Run, trace: str) -> None:
    """In an operation that never ends."""
    run.begin(trace, cluster="stuck")
    assert run.child.error_line() == "stuck"


def done(run: Run, trace: str) -> None:
    run.begin(trace)
    assert run.event()["event"] == "done"


STAGES = [waiting, working, stuck, done]


@pytest.mark.parametrize("stage", STAGES)
def test_without_its_hypervisor_it_ends_with_one_line(run: Run, trace: str, stage) -> None:
    stage(run, trace)
    run.lose_hypervisor()
    assert run.status() == 1
    assert run.errors() == GONE


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_is_obeyed_quietly(run: Run, trace: str, stage, number: int, status: int) -> None:
    stage(run, trace)
    os.kill(run.pid, number)
    assert run.status() == status
    assert (run.rest(), run.errors()) == (b"", [])
    assert run.left_in_order == (stage is not stuck), "between two operations, unless there is no end of one"


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep numpy from starting threads: one of them would take the signals, as long as they are blocked elsewhere."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


@pytest.mark.parametrize("stage", [working, stuck])
def test_a_signal_is_obeyed_where_numpy_has_no_threads(one_thread: None, run: Run, trace: str, stage) -> None:
    stage(run, trace)
    os.kill(run.pid, signal.SIGTERM)
    assert run.status() == 143
    assert (run.rest(), run.errors()) == (b"", [])


@pytest.mark.parametrize("stage", [waiting, working, stuck])
def test_the_end_of_input_before_the_end_of_work_is_said(run: Run, trace: str, stage) -> None:
    stage(run, trace)
    run.child.process.stdin.close()
    assert run.status() == 1
    assert run.errors() == ["guest 'x': standard input was closed before the work was done"]


def test_a_signal_before_the_order_is_obeyed(run: Run) -> None:
    with pytest.raises(AssertionError):
        run.child.line(1.0)                  # it is up and waits for its order, or will find the signal when it is
    os.kill(run.pid, signal.SIGTERM)
    assert run.status() in (143, -signal.SIGTERM)
    assert run.errors() == []


def test_nobody_reads_its_events(run: Run, trace: str) -> None:
    run.order(trace)
    run.attach()
    assert run.event() == {"event": "ready"}
    run.child.process.stdout.close()
    run.child.say("go")
    assert run.status() == 1
    assert run.errors() == ["guest 'x': standard output was closed"]


def test_a_closed_standard_output_is_never_a_disk(door: tuple[str, socket.socket], trace: str) -> None:
    """Its number would be given to the next file that is opened: the image, and events would be written into it."""
    order = {"cluster": "calm", "name": "x", "workload": "trace", "ram": 64 * PAGE_SIZE, "options": {"file": trace}}
    ended = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" "$2" >&-', sys.executable, FAKE_RUN, door[0]],
        input=f"{json.dumps(order)}\ngo\nquit\n", stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=DEADLINE_S,
        check=False)
    assert (ended.returncode, ended.stderr) == (0, "closed\n")


# -- orders that cannot be carried out

def test_a_refusal_to_attach_is_one_line(run: Run, trace: str) -> None:
    run.order(trace, cluster="none")
    assert (run.status(), run.rest(), run.errors()) == (2, b"", ["no cluster 'none' is running"])


@pytest.mark.parametrize(("line", "said"), [
    ("junk", "guest: the order is not JSON: 'junk'"),
    ("", "guest: the order is not JSON: ''"),
    (json.dumps({"cluster": "c", "name": "x", "workload": "w", "ram": 4096}),
     f"guest 'x': there is no workload 'w'; allowed: {', '.join(WORKLOADS)}"),
    (json.dumps({"cluster": "c", "name": "x", "workload": "trace", "ram": 4096, "options": {"file": "no.lis"}}),
     "guest 'x': trace no.lis: no such file or directory; give the path of a trace"),
    (json.dumps({"cluster": "c", "name": "x", "workload": "scan", "ram": 4096, "options": {"size": "9"}}),
     "guest 'x': option 'size': '9' is not a size; use B, KiB, MiB or GiB, such as \"64MiB\""),
])
def test_a_bad_order_is_refused(run: Run, line: str, said: str) -> None:
    run.child.say(line)
    assert (run.status(), run.rest(), run.errors()) == (2, b"", [said])


@pytest.mark.parametrize("word", ["went", "quit", ""])
def test_another_word_than_go_is_refused(run: Run, trace: str, word: str) -> None:
    waiting(run, trace)
    run.child.say(word)
    assert run.status() == 2
    assert run.errors() == [f"guest 'x': {word!r} came on standard input; 'go' was expected"]


# -- against a real hypervisor

def test_a_real_guest_of_a_real_hypervisor(hypervisor_process: Callable[..., Any], trace: str) -> None:
    hypervisor = hypervisor_process(budget=256)
    guest = Child(["-m", "guests", "run"])
    guest.say(json.dumps({"cluster": hypervisor.cluster, "name": "x", "workload": "trace", "ram": 128 * PAGE_SIZE,
                          "options": {"file": trace}, "operations": 300}))
    assert json.loads(guest.line()) == {"event": "ready"}
    guest.say("go")
    said = json.loads(guest.line())
    assert (said["event"], said["operations"], said["pages_verified"]) == ("done", 300, 300)
    guest.say("quit")
    assert guest.process.wait(DEADLINE_S) == 0
    assert guest.leave() == 0


def test_a_real_guest_whose_hypervisor_is_killed(hypervisor_process: Callable[..., Any], trace: str) -> None:
    hypervisor = hypervisor_process(budget=256)
    guest = Child(["-m", "guests", "run"])
    guest.say(json.dumps({"cluster": hypervisor.cluster, "name": "x", "workload": "trace", "ram": 128 * PAGE_SIZE,
                          "options": {"file": trace}}))
    assert json.loads(guest.line()) == {"event": "ready"}
    hypervisor.kill()
    assert guest.process.wait(DEADLINE_S) == 1
    assert guest.process.stderr.read().decode().splitlines() == GONE
    guest.leave()


# -- check, and the command line

def command(*arguments: str, text: str | None = "") -> tuple[int, str, list[str]]:
    ended = subprocess.run([sys.executable, "-m", "guests", *arguments], input=text, capture_output=True, text=True,
                           cwd=ROOT, timeout=DEADLINE_S, check=False)
    return ended.returncode, ended.stdout, ended.stderr.splitlines()


GOOD = {"name": "bank", "workload": "sqlite", "ram": "64MiB", "options": {"database": "8MiB"}}


def test_check_says_nothing_of_what_is_right(trace: str) -> None:
    replay = {"name": "t", "workload": "trace", "ram": 1 << 20, "options": {"file": trace, "cache_pages": 10}}
    assert command("check", text=json.dumps([GOOD, replay])) == (0, "", [])
    assert command("check", text="[]") == (0, "", [])


def test_check_says_everything_that_is_wrong() -> None:
    guests = [GOOD | {"options": {"foo": 1, "theta": 9}}, GOOD, GOOD | {"name": "b", "workload": "bench"},
              {"name": "c", "ram": "1MiB"}, GOOD | {"name": "d", "ram": "64MB"}, GOOD | {"name": "e", "colour": "red"}]
    status, out, lines = command("check", text=json.dumps(guests))
    assert (status, out) == (2, "")
    assert sorted(lines) == sorted([
        "guest 'bank': workload 'sqlite' has no option 'foo'; allowed: database, cache, theta, sync_every, mix",
        "guest 'bank': option 'theta': 9 is too large; at most 2.0",
        f"guest 'b': there is no workload 'bench'; allowed: {', '.join(WORKLOADS)}",
        "guest 'c': 'workload' is missing",
        "guest 'd': 'ram': '64MB' is not a size; use B, KiB, MiB or GiB, such as \"64MiB\"",
        "guest 'e': there is no 'colour'; allowed: name, workload, ram, options",
    ])


@pytest.mark.parametrize(("text", "said"), [
    ("", "check: standard input is not JSON: ''"),
    ("{}", "check: standard input must be a list of {name, workload, ram, options}"),
    ("[3]", "check: standard input must be a list of {name, workload, ram, options}"),
])
def test_check_of_junk_is_one_line(text: str, said: str) -> None:
    assert command("check", text=text) == (2, "", [said])


@pytest.mark.parametrize("arguments", [(), ("serve",), ("run", "fast"), ("--help",)])
def test_the_command_line_is_check_or_run(arguments: tuple[str, ...]) -> None:
    assert command(*arguments) == (2, "", ["usage: python -m guests check|run, with JSON on standard input"])


@pytest.mark.parametrize(("word", "said"), [
    ("run", "guest: no order came on standard input; write one JSON object on a line"),
    ("check", "check: standard input is not JSON: ''"),
])
@pytest.mark.parametrize("stdin", ["<&-", "</dev/null"])
def test_a_closed_standard_input_is_one_line(word: str, said: str, stdin: str) -> None:
    ended = subprocess.run(["sh", "-c", f'"$0" -m guests {word} {stdin}', sys.executable], capture_output=True,
                           text=True, cwd=ROOT, timeout=DEADLINE_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.splitlines()) == (2, "", [said])
