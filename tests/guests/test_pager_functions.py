"""Restore functions that do not restore: refused when they are registered, or the guest is ended, within the deadline.

The thread that touched the page stands in the kernel, so nothing can be raised there: the pager writes one line to the
guest's stderr, and the hypervisor says why it ended the guest.  The rest of the cluster goes on.
"""

import os
import signal
from time import monotonic

import pytest
from harness.hardware_guests import CONNECT, HOLD, IMPORTS, ended, gone, last_words, needs_hardware, silent

pytestmark = needs_hardware
FAULT_DEADLINE_S = 1.0

TOUCH = """
discard()
say("found", view[3].sum())
"""
FAILING = {
    "raises": ("lambda gfn: 1 // 0", "ZeroDivisionError"),
    "raises two lines": ("lambda gfn: int('a\\nb')", "ValueError: invalid literal"),
    "too short": ("lambda gfn: b'short'", "it gave 5 bytes for a page of 4096"),
    "too long": ("lambda gfn: bytes(8192)", "it gave 8192 bytes for a page of 4096"),
    "nothing": ("lambda gfn: None", "TypeError"),
    "a number, of which bytes() would make zeros": ("lambda gfn: 4096", "TypeError"),
    "text": ("lambda gfn: 'a' * 4096", "TypeError"),
    "exits": ("lambda gfn: sys.exit(3)", "SystemExit: 3"),
}


@pytest.mark.parametrize(("function", "said"), FAILING.values(), ids=FAILING)
def test_a_function_that_fails_ends_its_guest_with_one_line(hypervisor_process, python_process, function, said):
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + f"guest.on_discard({function})" + TOUCH, hypervisor.cluster)
    assert child.line() == "ready"
    why, words = ended(hypervisor), last_words(child)
    assert why.startswith("page 3 could not be restored") and said in why
    assert words.count("\n") == 1 and f"guest (pid {child.pid}): page 3 cannot be restored" in words and said in words
    assert child.process.wait() == -signal.SIGKILL and silent(child)


ARRAYS = {
    "too few elements": ("np.zeros(stop - start - 1)", "elements for 0 to 512"),
    "too many": ("np.zeros(stop - start + 1)", "elements for 0 to 512"),
    "another dtype": ("np.zeros(stop - start, 'c16')", "complex128"),
    "no numbers": ("[None] * (stop - start)", "object"),
    "one for all": ("7.0", "it gave 1 elements"),
}


@pytest.mark.parametrize(("given", "said"), ARRAYS.values(), ids=ARRAYS)
def test_a_rebuild_function_that_fails_ends_its_guest(hypervisor_process, python_process, given, said):
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + f"""
array = guest.array(1024, "f8", rebuild=lambda start, stop: {given})
say("ready")
say(array.values.sum())
""", hypervisor.cluster)
    assert child.line() == "ready"
    why, words = ended(hypervisor), last_words(child)
    assert said in why and said in words and words.count("\n") == 1
    assert silent(child)


HANGING = {"sleeps": "lambda gfn: time.sleep(600)", "in a loop": "lambda gfn: [0 for _ in iter(int, 1)]"}


@pytest.mark.parametrize("function", HANGING.values(), ids=HANGING)
def test_a_function_that_takes_too_long_ends_its_guest_and_then_the_pager(hypervisor_process, python_process, function):
    hypervisor = hypervisor_process(fault_deadline=FAULT_DEADLINE_S)
    child = python_process(IMPORTS + """
program = PagerProcess.program()
program[-1] = program[-1].replace(
    "from guests.pager", "from guests import pager_sources; pager_sources.HANGING_S = 3; from guests.pager")
PagerProcess.program = staticmethod(lambda: program)
""" + CONNECT + f"guest.on_discard({function})\nsay(memory.pager.pid)" + TOUCH, hypervisor.cluster)
    pager, start = int(child.line()), monotonic()
    assert child.line() == "ready"
    assert ended(hypervisor) == f"its pager did not restore page 3 within {FAULT_DEADLINE_S:g} s"
    assert monotonic() - start >= FAULT_DEADLINE_S
    assert gone(pager) and last_words(child) == "" and silent(child)


REFUSED = {
    "the guest": ("lambda gfn: guest.ping()", "guest 'g' cannot be copied"),
    "its memory": ("lambda gfn: memory.read(gfn + 1)", "guest memory cannot be copied"),
    "its memory as numpy sees it": ("lambda gfn: bytes(view[gfn + 1])", "a ndarray that lies in guest memory"),
    "a part of that": ("lambda gfn: bytes(part)", "a ndarray that lies in guest memory"),
    "its buffer": ("lambda gfn: bytes(buffer[:4096])", "a memoryview that lies in guest memory"),
    "an array": ("lambda gfn: bytes(array.values)", "array at page 0 lives in guest memory"),
    "a method of the guest's": ("guest.essa", "guest 'g' cannot be copied"),
    "its tmem": ("lambda gfn: guest_tmem", "cannot pickle"),
    "an open file": ("lambda gfn: file.read(4096)", "cannot"),
}


@pytest.mark.parametrize(("function", "said"), REFUSED.values(), ids=REFUSED)
def test_what_refers_to_the_guest_is_refused_when_it_is_registered(hypervisor_process, python_process, function, said):
    """With one line, and the guest goes on with what it had registered before."""
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + f"""
guest.on_discard(lambda gfn: bytes([gfn]) * 4096)
array = guest.array(512, "f8")
part, buffer, guest_tmem, file = view[5, 7:], memory.buffer, guest.tmem, open("/dev/zero", "rb")
try:
    guest.on_discard({function})
except MemcommonsError as error:
    say(type(error).__name__, str(error))
""" + TOUCH + HOLD, hypervisor.cluster)
    line = child.line()
    assert line.startswith("UsageProblem this restore function cannot be copied to the pager") and said in line
    assert child.line() == "ready"
    assert child.line() == f"found {3 * 4096}"


def test_a_function_works_with_a_copy_of_what_it_referred_to(hypervisor_process, python_process):
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + """
fill = [7]
guest.on_discard(lambda gfn: bytes(fill) * 4096)
fill[0] = 9
""" + TOUCH + HOLD, hypervisor.cluster)
    assert child.line() == "ready"
    assert child.line() == f"found {7 * 4096}"


def test_no_function_can_touch_a_page_since_the_pager_has_no_memory_of_the_guest(hypervisor_process, python_process):
    """So a restore function takes no discard fault of its own: by construction, and not by a rule that it must keep."""
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + """
guest.on_discard(lambda gfn: bytes(4096))
say(memory.pager.pid)
""" + HOLD, hypervisor.cluster)
    pager = int(child.line())
    with open(f"/proc/{child.pid}/maps") as maps:
        assert ".ram" in maps.read()
    with open(f"/proc/{pager}/maps") as maps:
        assert ".ram" not in maps.read()
    assert not [fd for fd in os.listdir(f"/proc/{pager}/fd") if ".ram" in os.readlink(f"/proc/{pager}/fd/{fd}")]


def test_what_cannot_be_unpickled_in_the_pager_is_refused_by_it(hypervisor_process, python_process):
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + """
class Odd:
    def __reduce__(self):
        return int, ("no number",)
try:
    guest.on_discard(Odd())
except MemcommonsError as error:
    say(type(error).__name__, str(error))
guest.on_discard(lambda gfn: b"x" * 4096)
""" + TOUCH + HOLD, hypervisor.cluster)
    assert child.line().startswith("UsageProblem the pager refused: ValueError: invalid literal for int()")
    assert child.line() == "ready"
    assert child.line() == f"found {ord('x') * 4096}"


def test_a_page_that_nobody_can_restore_ends_the_guest(hypervisor_process, python_process):
    hypervisor = hypervisor_process()
    child = python_process(IMPORTS + CONNECT + TOUCH, hypervisor.cluster)
    assert child.line() == "ready"
    assert "nothing can restore page 3" in ended(hypervisor)
    assert "nothing can restore page 3" in last_words(child) and silent(child)


def test_a_slow_function_that_goes_on_filling_is_not_taken_for_stopped(hypervisor_process, python_process):
    """Asked for all pages at once, it takes longer than the deadline, which is of each step."""
    hypervisor = hypervisor_process(fault_deadline=1.5)
    child = python_process(IMPORTS + CONNECT + """
def restore(gfn):
    import time
    time.sleep(0.04)
    return bytes([gfn]) * 4096
guest.on_discard(restore)
guest.essa(Essa.SET_VOLATILE, np.arange(64))
say(memory.read_many(np.arange(64))[:, 0].tolist() == list(range(64)))
""", hypervisor.cluster)
    assert child.line() == "True"
    assert child.leave() == 0
