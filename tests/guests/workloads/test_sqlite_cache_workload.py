"""The bank in SQLite's own cache: right on any host, the same work on each, and what is wrong is found."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from harness.hardware_guests import needs_hardware
from plain_guest import PlainGuest

from guests.workloads import load
from guests.workloads.proof import WrongContent
from guests.workloads.sqlite_cache import Traffic
from hypervisor.toolstack.connection import call
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.errors import HypervisorGone, UsageProblem

SMALL = {"rows": 3000, "scan_rows": 50}              # about 90 pages
HOSTS = [
    {"pages": 256}, {"pages": 256, "mischief": 0.05}, {"pages": 48}, {"pages": 48, "mischief": 0.05},
    {"pages": 64, "features": ()},
]

# A guest in hardware mode; it says "ready", works until it is told to stop, finishes, and says what it counted.
WORK = """
import json, sys, threading
from guests import Guest
from guests.workloads.sqlite_cache import SqliteCache, SqliteCacheOptions
from shm.counters import Count, named
stop = threading.Event()
def listen():
    sys.stdin.readline()
    stop.set()
with Guest.connect(sys.argv[1], "g", 4096 * int(sys.argv[2]), faults=sys.argv[3]) as guest:
    bank = SqliteCache(SqliteCacheOptions.model_validate(json.loads(sys.argv[4])), 1)
    try:
        bank.prepare(None, guest, lambda: None)
        print("ready", flush=True)
        threading.Thread(target=listen, daemon=True).start()
        while not stop.is_set():
            bank.step()
        bank.finish()
        print(json.dumps(named(guest.counters, Count)), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        bank.close()
    sys.stdin.read()
"""


@pytest.fixture
def bank() -> Iterator[Callable[..., Any]]:
    """Prepare a bank on a guest without a hypervisor: bank(host, seed, option=...)."""
    with ExitStack() as stack:
        def make(host: dict[str, Any], seed: int = 1, **options: Any) -> Any:
            kind = load("sqlite-cache")
            workload = kind(kind.Options.model_validate(SMALL | options), seed)
            stack.callback(workload.close)
            workload.prepare(None, PlainGuest(**host), lambda: None)
            return workload
        yield make


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_the_bank_works_and_adds_up(bank, host) -> None:
    workload = bank(host)
    for _ in range(300):
        assert workload.step()
    workload.finish()
    counters = workload.guest.counters
    assert (counters[Count.OPERATIONS], counters[Count.MISMATCHES]) == (300, 0)
    assert counters[Count.PAGES_VERIFIED] > 300
    assert counters[Count.DISCARD_FAULTS] == 0
    assert (counters[Count.STABLE_FAILURES] > 0) == ("mischief" in host)


def test_the_same_seed_is_the_same_work_on_any_host(bank) -> None:
    def told(host: dict[str, Any], seed: int) -> list[str]:
        workload, said = bank(host, seed), []
        workload._connection.set_trace_callback(said.append)
        for _ in range(100):
            workload.step()
        workload.close()
        return said

    first = told(HOSTS[0], 5)
    assert len(first) > 300
    assert all(told(host, 5) == first for host in HOSTS[1:])
    assert told(HOSTS[0], 6) != first


def test_what_sqlite_reads_again_is_counted_as_disk_reads(bank) -> None:
    workload = bank({"pages": 256}, mix={"scan": 1})
    before = int(workload.guest.counters[Count.GUEST_DISK_READS])
    assert before == 0, "it was built in the cache"
    gone = len(workload.guest.discard(range(256)))
    workload.finish()
    lost = int(workload.guest.counters[Count.STABLE_FAILURES])
    assert gone >= lost > 50
    assert workload.guest.counters[Count.GUEST_DISK_READS] == lost


def test_bytes_become_whole_pages_once(tmp_path) -> None:
    io, counters = tmp_path / "io", [0] * 64
    io.write_text("rchar: 1000\nwchar: 0\n")
    traffic = Traffic(counters, str(io))
    looks = 0
    for read, written in ((0, 0), (PAGE_SIZE - 1, PAGE_SIZE), *[(3 * PAGE_SIZE, PAGE_SIZE)] * 300):
        looks += len(io.read_text())                 # the kernel counts each look as a read
        io.write_text(f"rchar: {1000 + read + looks}\nwchar: {written}\n")
        traffic.count()
    assert (counters[Count.GUEST_DISK_READS], counters[Count.GUEST_DISK_WRITES]) == (3, 1)
    Traffic(counters, str(tmp_path / "no")).count()


def test_a_page_that_changed_while_idle_is_found(bank) -> None:
    workload = bank({"pages": 256})
    workload.guest.memory.rows[:, 1234] ^= 0x10
    with pytest.raises(WrongContent, match=r"wrong page: page [0-9]+ of SQLite's cache: its checksum"):
        workload.finish()
    assert workload.guest.counters[Count.MISMATCHES] >= 1


BREAKS = [
    ("UPDATE accounts SET filler = 'x' || substr(filler, 2) WHERE id = 7", "wrong row: "),
    ("UPDATE accounts SET balance = balance + 1 WHERE id = 7", "wrong row: "),
    ("DELETE FROM accounts WHERE id = 2999", "wrong row: [0-9]+ rows, it should be [0-9]+ rows"),
    ("UPDATE tellers SET balance = balance + 1 WHERE id = 7", "the invariant is broken"),
    ("DELETE FROM history WHERE id = 1", "rows and sum of history"),
]


@pytest.mark.parametrize(("statement", "said"), BREAKS)
def test_a_wrong_value_is_found(bank, statement, said) -> None:
    workload = bank({"pages": 256}, mix={"payment": 1})
    for _ in range(20):
        workload.step()
    workload._sql(statement)
    with pytest.raises(WrongContent, match=said):
        workload.finish()


def test_what_the_guest_raises_comes_through_sqlite(bank) -> None:
    workload = bank({"pages": 256})

    def gone(order, gfn) -> int:
        raise HypervisorGone("gone")

    for cache in workload.cache.caches.values():
        cache._essa_one = gone
    with pytest.raises(HypervisorGone, match=r"^gone$"):
        workload.step()


def test_software_mode_is_refused_with_one_line() -> None:
    kind = load("sqlite-cache")
    workload, guest = kind(kind.Options(), 1), PlainGuest(64)
    guest.memory = SimpleNamespace(view=None)
    with pytest.raises(UsageProblem, match=r"workload 'sqlite-cache' needs plain memory.*use faults = .hardware"):
        workload.prepare(None, guest, lambda: None)
    workload.close()


@needs_hardware
@pytest.mark.stress
@pytest.mark.parametrize(("scheme", "budget"), [("cmm2", 160), ("cmm2", 512), ("swap", 160)])
def test_right_while_pages_are_discarded_and_swapped_at_will(hypervisor_process, python_process, scheme,
                                                             budget) -> None:
    """In 512 pages of RAM; with a budget of 160 frames the host must take more than half of them away."""
    hypervisor = hypervisor_process(budget=budget, scheme=scheme)
    child = python_process(WORK, hypervisor.cluster, "512", "hardware", json.dumps({"rows": 14_000, "theta": 0.4}))
    assert child.line() == "ready"
    for turn in range(60):
        call(hypervisor.cluster, {"call": "discard", "name": "g", "first": turn % 8 * 64, "count": 64})
    child.say("stop")
    said = child.line()
    assert said.startswith("{"), said
    counts = json.loads(said)
    assert (counts["mismatches"], counts["discard_faults"]) == (0, 0)
    assert (counts["stable_failures"] > 50) == (scheme == "cmm2")
    host = next(told for told in call(hypervisor.cluster, {"call": "list"})["guests"])["host_counters"]
    assert host["discard_faults"] == 0, "SQLite touched a page that it had not asked for"
    assert budget > 160 or host["swap_in"] > 50, "no stable page came back by a hardware fault"
    assert child.leave() == 0


def test_software_mode_is_refused_on_a_real_guest(hypervisor_process, python_process) -> None:
    child = python_process(WORK, hypervisor_process().cluster, "128", "software", "{}")
    assert child.line().startswith("UsageProblem: guest 'g': workload 'sqlite-cache' needs plain memory")
    assert child.leave() == 0
