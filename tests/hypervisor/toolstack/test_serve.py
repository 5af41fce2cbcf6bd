"""`memcommons serve` as a process of its own, with real guests, and each way in which it may end."""

import os
import re
import signal
import time

import psutil
import pytest
from harness.children import MEMCOMMONS

from guests import Guest
from hypervisor.toolstack.connection import call
from hypervisor.toolstack.serve import serve_order
from shm.errors import UsageProblem

DEADLINE_S = 20.0


@pytest.fixture
def serve(python_process, new_cluster_name):
    """Serve a cluster; return (its name, the process, the hypervisor's pid).  It is stopped at the end."""
    started = []

    def start():
        name = new_cluster_name()
        process = python_process(MEMCOMMONS, "serve", "--name", name, "--budget", "4MiB", "--swap", "4MiB")
        line = process.line()
        served = re.fullmatch(
            rf"cluster '{name}' serves 4\.0 MiB under cmm2\+tmem \(pid (\d+)\); a guest joins with "
            rf"Guest\.connect\('{name}', name='mine', ram='64MiB'\); stop it with `memcommons ctl {name} stop`", line)
        assert served, line
        started.append(process)
        return name, process, int(served[1])
    yield start
    for process in started:
        process.process.terminate()
        process.process.wait(DEADLINE_S)


def ended(process):
    """Wait for its end; return (status, what it wrote on standard error)."""
    status = process.process.wait(DEADLINE_S)
    return status, process.process.stderr.read().decode()


def test_guest_joins_and_stop_ends_it(serve):
    name, process, pid = serve()
    with Guest.connect(name, name="mine", ram="1MiB") as guest:
        guest.memory.write(3, b"x" * 4096)
        assert guest.memory.read(3) == b"x" * 4096
        assert [entry["name"] for entry in call(name, {"call": "list"})["guests"]] == ["mine"]
    call(name, {"call": "stop"})
    assert ended(process) == (0, "")
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it(serve, signum):
    _, process, pid = serve()
    os.kill(process.pid, signum)
    assert ended(process) == (128 + signum, f"stopped by {signum.name}: guests and hypervisor have been ended\n")
    assert not psutil.pid_exists(pid)


def test_killed_hypervisor_is_told_and_cleaned_up_after(serve):
    name, process, pid = serve()
    os.kill(pid, signal.SIGKILL)
    status, said = ended(process)
    assert status == 1
    assert re.fullmatch(rf"the hypervisor \(pid {pid}\) was killed by signal 9\n"
                        rf"cluster '{name}' had left \d+ names behind; now removed\n", said)


def test_killed_serve_takes_its_hypervisor_along(serve):
    _, process, pid = serve()
    hypervisor = psutil.Process(pid)
    process.kill()
    hypervisor.wait(DEADLINE_S)


def test_name_in_use_is_one_line(serve, python_process):
    name, _, _ = serve()
    second = python_process(MEMCOMMONS, "serve", "--name", name, "--budget", "4MiB")
    status, said = ended(second)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith(f"cluster name {name!r} is in use")


def test_guest_that_dies_is_news(serve, python_process):
    name, process, _ = serve()
    guest = python_process("import sys; from guests import Guest; g = Guest.connect(sys.argv[1], 'mine', '1MiB'); "
                           "print('in', flush=True); sys.stdin.read()", name)
    assert guest.line() == "in"
    guest.kill()
    deadline = time.monotonic() + DEADLINE_S
    while call(name, {"call": "list"})["guests"]:
        assert time.monotonic() < deadline
    os.kill(process.pid, signal.SIGTERM)
    assert re.match(rf"guest 'mine' \(pid {guest.pid}\) (died|left)\n", ended(process)[1])


def test_order_has_what_was_asked_for():
    assert serve_order("demo", "64MiB", "swap", None, "u-e-v-p-s") == {
        "cluster": "demo", "budget": 64 << 20, "scheme": "swap", "reclaim": "u-e-v-p-s", "swap": 128 << 20,
        "ephemeral_pages": 0, "quirks": "none", "form": "raw", "write_back": False, "dedup_across": False,
        "cmma": "architected", "folder": "/var/tmp"}


def test_order_has_what_was_asked_for_of_tmem():
    order = serve_order("demo", "64MiB", "tmem", None, "u-e-v-p-s", "lz4", "xen-4.2", True, True)
    assert [order[key] for key in ("form", "quirks", "write_back", "dedup_across")] == ["lz4", "xen-4.2", True, True]


@pytest.mark.parametrize("cmma", ["architected", "kvm", "off"])
def test_order_says_how_essa_is_executed(cmma):
    assert serve_order("demo", "64MiB", "cmm2", None, "u-e-v-p-s", cmma=cmma)["cmma"] == cmma


def test_a_kind_of_cmma_that_is_none():
    with pytest.raises(UsageProblem, match=r"^--cmma: 'on' is not a kind of CMMA; allowed: architected, kvm, off$"):
        serve_order("demo", "64MiB", "cmm2", None, "u-e-v-p-s", cmma="on")


@pytest.mark.parametrize(("option", "words", "allowed"), [
    ("--reclaim", ("zip", "raw", "none"), "hint-after-choice, u-e-v-p-s"),
    ("--form", ("u-e-v-p-s", "zip", "none"), "raw, lz4, dedup, tze"),
    ("--quirks", ("u-e-v-p-s", "raw", "zip"), "none, xen-4.2")])
def test_word_that_is_no_choice_is_named_with_those_that_are(option, words, allowed):
    with pytest.raises(UsageProblem, match=f"^{option}: 'zip' is not .*; allowed: {allowed}$"):
        serve_order("demo", "64MiB", "tmem", None, *words)
