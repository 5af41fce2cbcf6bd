"""Fixtures of comparisons: a scenario of two banks, and a look at which phases were really run."""

from pathlib import Path

import pytest

from hypervisor.toolstack.reading import load
from hypervisor.toolstack.scenario import Scenario

BANKS = ('name = "two"', 'budget = "64MiB"', "seconds = 4", "seed = 7",
         'guest = [{name = "bank", count = 2, ram = "64MiB", workload = "sqlite"}]')


@pytest.fixture
def banks(tmp_path: Path) -> Scenario:
    path = tmp_path / "banks.toml"
    path.write_text("\n".join(BANKS))
    return load(path)
