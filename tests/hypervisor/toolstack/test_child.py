"""Children: lines cut as they come, orders, deaths, and signals as a flag."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hypervisor.toolstack.child import ORDER_LIMIT, Child, Stream
from hypervisor.toolstack.interruption import Interrupted, Interruption
from hypervisor.toolstack.watch import Junk, Left, Said, Watch
from shm.errors import MemcommonsError

PYTHON = (sys.executable, "-S", "-E", "-c")
SECONDS = 30.0                 # a deadline that no test should meet


def run(interruption, program, order=None):
    """Run a child to its end; return it and what happened."""
    happened = []
    with Watch(interruption) as watch:
        child = Child("guest 'x'", (*PYTHON, program), order)
        watch.add(child)
        assert watch.until(lambda: not child.alive, time.monotonic() + SECONDS, happened.append)
    return child, happened


def test_order_arrives_and_events_come_back(interruption):
    program = "import json, sys; order = json.loads(input()); print(json.dumps({'event': 'x', 'order': order}))"
    child, happened = run(interruption, program, {"a": [1, "ü"]})
    assert happened == [Said(child, {"event": "x", "order": {"a": [1, "ü"]}}), Left(child)]
    assert child.status == 0


@pytest.mark.parametrize("line", ["junk", "[]", "3", '{"no": "event"}', '{"event": 7}', '{"event": "x"', "[" * 100_000])
def test_whatever_is_no_event_is_junk(interruption, line):
    child, happened = run(interruption, f"print({line!r})")
    assert happened == [Junk(child, line[:200]), Left(child)]


def test_line_without_an_end_counts_at_the_end(interruption):
    child, happened = run(interruption, "print('{\"event\": \"x\"}', end='')")
    assert happened == [Said(child, {"event": "x"}), Left(child)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_line_is_the_same_however_it_is_cut(size):
    """Each piece is read before the next is written."""
    reader, writer = os.pipe()
    text = '{"event": "é"}\n\n{"event": "two"}\nrest'.encode()
    with os.fdopen(reader, "rb") as pipe:
        stream, lines = Stream(pipe), []
        for start in range(0, len(text), size):
            os.write(writer, text[start:start + size])
            lines += stream.lines()
        os.close(writer)
        lines += stream.lines()
    assert lines == ['{"event": "é"}', '{"event": "two"}', "rest"]


def test_last_lines_of_standard_error_are_kept(interruption):
    child, _ = run(interruption, "import sys\nfor n in range(50): print(n, file=sys.stderr)\nsys.exit(3)")
    assert list(child.tail) == [str(n) for n in range(30, 50)]
    assert child.how_it_ended() == f"guest 'x' (pid {child.pid}) ended with status 3: 49"


def test_killed_child(interruption):
    child, _ = run(interruption, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert child.how_it_ended() == f"guest 'x' (pid {child.pid}) was killed by signal 11"


def test_child_that_closes_its_output_and_stays_is_no_busy_wait(interruption):
    """Pipes at their end are readable for ever; they must not keep the wait awake."""
    program = "import os, sys; print('{\"event\": \"bye\"}', flush=True); os.close(1); os.close(2); sys.stdin.read()"
    happened = []
    with Watch(interruption) as watch:
        child = Child("guest 'x'", (*PYTHON, program), {})
        watch.add(child)
        assert watch.until(lambda: not (child.out.open or child.err.open), time.monotonic() + SECONDS, happened.append)
        deadline = time.monotonic() + 0.05
        assert watch.wait(deadline) == []
        assert time.monotonic() >= deadline, "nothing woke it before its time"
        child.end_of_input()
        assert watch.until(lambda: not child.alive, time.monotonic() + SECONDS, happened.append)
    assert happened == [Said(child, {"event": "bye"}), Left(child)]


def test_telling_a_dead_child_is_harmless(interruption):
    child, _ = run(interruption, "")
    child.tell("go")
    child.signal(signal.SIGTERM)
    child.kill()


def test_program_that_is_not_there():
    with pytest.raises(MemcommonsError, match=r"^guest 'x' could not be started: No such file or directory$"):
        Child("guest 'x'", ("/nowhere/python",), {})


def test_order_too_long_for_a_pipe_is_refused():
    with pytest.raises(MemcommonsError, match=r"^guest 'x' was given an order of \d+ bytes; at most 65536$"):
        Child("guest 'x'", (*PYTHON, ""), "x" * ORDER_LIMIT)


def test_wait_ends_at_its_deadline(interruption):
    with Watch(interruption) as watch:
        assert not watch.until(lambda: False, time.monotonic() + 0.01, print)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_wait_and_is_raised_where_it_is_safe(interruption, signum):
    with Watch(interruption) as watch:
        os.kill(os.getpid(), signum)
        with pytest.raises(Interrupted) as caught:
            watch.until(lambda: False, time.monotonic() + SECONDS, print)
        assert caught.value.exit_status == 128 + signum
        assert not watch.until(lambda: False, time.monotonic() + 0.01, print, interruptible=False)


def test_signal_wakes_a_wait_that_has_begun(interruption):
    with Watch(interruption) as watch:
        program = "import os, signal, sys; input(); os.kill(os.getppid(), signal.SIGINT); sys.stdin.read()"
        child = Child("guest 'x'", (*PYTHON, program), {})
        watch.add(child)
        with pytest.raises(Interrupted):
            watch.until(lambda: False, time.monotonic() + SECONDS, print)
        child.kill()
        assert watch.until(lambda: not child.alive, time.monotonic() + SECONDS, print, interruptible=False)


def test_first_signal_counts_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match="stopped by SIGTERM"):
            interruption.check()
    assert signal.getsignal(signal.SIGTERM) is before


def test_closed_standard_input_of_ours_does_not_matter():
    """With 0, 1 and 2 closed, the pipes of a child get those numbers; it must work all the same."""
    program = """
import os, sys, time
out = os.dup(1)
for fd in (0, 1, 2): os.close(fd)
from hypervisor.toolstack.child import Child
from hypervisor.toolstack.interruption import Interruption
from hypervisor.toolstack.watch import Watch
happened = []
with Interruption() as interruption, Watch(interruption) as watch:
    child = Child("x", (sys.executable, "-S", "-c", "print('{\\"event\\": \\"' + input() + '\\"}')"), 7)
    watch.add(child)
    watch.until(lambda: not child.alive, time.monotonic() + 30, happened.append)
os.write(out, str((child.status, happened[0].event)).encode())
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "(0, {'event': '7'})"
