"""The unmodified LMDB library on a guest's memory: every value right, whatever is taken; and what it refuses."""

import json

import pytest
from harness.hardware_guests import needs_hardware

from shm.abi import PAGE_SIZE

RAM_PAGES = 1024

WORK = """
import json, os, sys
sys.path.insert(0, os.getcwd())
from guests import Guest
from guests.workloads.lmdb_store import Lmdb, LmdbOptions
from shm.counters import Count, named
with Guest.connect(sys.argv[1], "g", 4096 * int(sys.argv[2]), faults=sys.argv[3]) as guest:
    store = Lmdb(LmdbOptions.model_validate(json.loads(sys.argv[4])), 1)
    try:
        store.prepare(None, guest, lambda: None)
        for _ in range(int(sys.argv[5])):
            store.step()
        store.finish()
        print(json.dumps(named(guest.counters, Count)), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        store.close()
"""


@pytest.fixture
def work(hypervisor_process, python_process):
    """Let a guest of RAM_PAGES in half as many frames do `steps`; return its last line."""
    def run(steps: int, faults: str = "hardware", ram: int = RAM_PAGES, **options) -> str:
        hypervisor = hypervisor_process(budget=RAM_PAGES // 2, scheme="cmm2", swap=2 * RAM_PAGES)
        child = python_process(WORK, hypervisor.cluster, str(ram), faults, json.dumps(options), str(steps))
        return child.line(60.0)
    return run


@needs_hardware
@pytest.mark.parametrize("updates", [0.0, 0.3])
def test_every_value_is_right_in_half_of_the_memory(work, updates):
    line = work(1500, database="2500KiB", updates=updates, sync_every=20)
    counted = json.loads(line)
    assert counted["mismatches"] == 0 and counted["pages_verified"] > 0
    assert counted["operations"] == 1500 and counted["pager_restored"] > 100


def test_software_mode_is_refused_in_one_line(work):
    line = work(1, faults="software", database="1MiB")
    assert line.startswith("UsageProblem") and 'use faults = "hardware"' in line


@needs_hardware
def test_a_database_larger_than_the_guest_is_refused(work):
    line = work(1, database="8MiB")
    assert line.startswith("UsageProblem") and "give it more, or a smaller database" in line
    assert RAM_PAGES * PAGE_SIZE == 4 << 20
