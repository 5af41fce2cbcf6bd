"""What every test shares: names of its own, and a look at what it left behind.

    new_cluster_name, cluster_name     names that no other test has, also when tests run in parallel
    machine, still_machine             hypervisors in this process: `harness.machines`
    hypervisor_process                 `python -m hypervisor`, a real child: `harness.children`
    python_process                     any Python code as a child, its lines read with a deadline
    nothing_is_left                    runs around every test
"""

import gc
import os
import secrets
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import posix_ipc
import psutil
import pytest
from hypothesis import HealthCheck, settings

from shm import names

sys.path.append(str(Path(__file__).parent))          # for `harness`, in whatever way pytest imports
pytest_plugins = ["harness.machines", "harness.children"]

FAILED = pytest.StashKey[bool]()
FD_ALLOWANCE = 2             # libraries open a thing or two on first use and keep it (/dev/urandom, a data base's lock)
OUR_FDS = (names.PREFIX, "pidfd", "eventpoll", "eventfd", "userfaultfd")
GUESTS_SEARCHED = 130        # guest numbers whose queues are looked for by name, since no folder lists queues

settings.register_profile("memcommons", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("memcommons")


def pytest_collection_finish() -> None:
    gc.freeze()              # modules and tests stay: what one test left is then found in 1 ms and not in 50


@pytest.fixture
def cluster_names() -> list[str]:
    """The names of this test's clusters: what it may have left behind is looked for under these alone."""
    return []


@pytest.fixture
def new_cluster_name(cluster_names: list[str]) -> Callable[[], str]:
    def new() -> str:
        cluster_names.append(f"t-{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}-{secrets.token_hex(6)}")
        return cluster_names[-1]
    return new


@pytest.fixture
def cluster_name(new_cluster_name: Callable[[], str]) -> str:
    return new_cluster_name()


@pytest.fixture
def stems() -> list[str]:
    """The stems (cluster and run) of this test's machines, by which its queues can be found."""
    return []


def open_fds() -> set[tuple[str, str]]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except OSError:                              # the descriptor of the listing itself
            continue
    return found


def children() -> set[int]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:                        # the usual case, without a look at every process
        return set()
    return {child.pid for child in psutil.Process().children(recursive=True)}


def queue_exists(name: str) -> bool:
    try:
        posix_ipc.MessageQueue("/" + name).close()
    except posix_ipc.ExistentialError:
        return False
    return True


def objects_left(cluster_names: list[str], stems: list[str]) -> list[str]:
    marks = [f"{names.PREFIX}.{name}." for name in cluster_names]
    files = [entry for entry in os.listdir("/dev/shm") if any(mark in entry for mark in marks)]
    queues = [f"{stem}.g{n}.{end}" for stem in stems for n in range(GUESTS_SEARCHED) for end in names.QUEUES]
    return files + [name for name in queues if queue_exists(name)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = report.failed or item.stash.get(FAILED, False)
    return report


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, cluster_names: list[str], stems: list[str]) -> Iterator[None]:
    """Every test gives back all it took: names, processes, threads, descriptors."""
    threads, fds, processes = set(threading.enumerate()), open_fds(), children()
    yield
    assert objects_left(cluster_names, stems) == []
    assert children() <= processes
    assert set(threading.enumerate()) <= threads
    if request.node.stash.get(FAILED, False):
        return                                       # its traceback keeps what it held
    if open_fds() - fds:
        request.node.funcargs.clear()                # a mapping keeps its descriptor until it is collected,
        gc.collect()                                 # and pytest keeps what fixtures gave to the test until then
    opened = {target for _, target in open_fds() - fds}
    assert not [target for target in opened if any(word in target for word in OUR_FDS)]
    assert len(opened) <= FD_ALLOWANCE, opened
