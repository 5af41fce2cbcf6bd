"""No store that completed is lost, whatever the hypervisor takes meanwhile; `store_races.py` is the program.

Short here; the long form is `scripts/run_tests.sh -m soak tests/stress/test_store_races.py`, or the program itself.
"""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))          # in whatever way pytest imports

import store_races

from shm.errors import UsageProblem
from shm.userfault import open_userfault


def has_hardware_faults() -> bool:
    try:
        open_userfault().close()
    except UsageProblem:
        return False
    return True


HARDWARE = pytest.param("hardware", marks=pytest.mark.skipif(not has_hardware_faults(), reason="no userfaultfd here"))


def race(cluster: str, seconds: float, faults: str) -> dict[str, int]:
    figures = store_races.run(seconds, faults, seed=7, name=cluster)
    assert figures["lost"] == figures["volatile_swap_writes"] == 0
    assert min(figures[what] for what in ("stores", "written_back", "discards", "swap_out", "discard_faults")) > 0
    return figures


@pytest.mark.stress
@pytest.mark.parametrize("faults", ["software", HARDWARE])
def test_stores_against_discards(cluster_name, faults):
    figures = race(cluster_name, 4.0, faults)
    assert (figures["write_faults"] > 0) == (figures["hardware_faults"] > 0) == (faults == "hardware")


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("faults", ["software", HARDWARE])
def test_stores_against_discards_for_ten_minutes(cluster_name, faults):
    race(cluster_name, 600.0, faults)
