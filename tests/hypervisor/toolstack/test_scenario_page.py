"""docs/scenarios.md names every key of a scenario, every choice and every option of a workload, and no other."""

import re
from pathlib import Path
from typing import get_args

import pytest

from guests.workloads import WORKLOADS, load
from hypervisor.schemes import offered
from hypervisor.toolstack.scenario import TABLES

PAGE = Path(__file__).parents[3] / "docs/scenarios.md"
HEADS = {"": "key", "guest": "`[[guest]]`"} | {name: f"`[{name}]`" for name in TABLES if name not in ("", "guest")}
KEPT_APART = {"hypervisor", "tmem", "balloon", "disk", "guest", "options"}       # tables of their own


def rows_under(head: str) -> dict[str, str]:
    """Return the rows of the table with this head: key -> everything else."""
    tables = [[[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
              for part in PAGE.read_text().split("\n\n")]
    [table] = [table for table in tables if table and table[0][0] == head]
    return {key: " ".join(row[1:]) for row in table[2:] for key in row[0].split(", ")}


@pytest.mark.parametrize("name", TABLES, ids=lambda name: name or "scenario")
def test_every_key_is_named_and_no_other(name):
    assert rows_under(HEADS[name]).keys() == TABLES[name].model_fields.keys() - KEPT_APART


@pytest.mark.parametrize("name", TABLES, ids=lambda name: name or "scenario")
def test_every_choice_is_named(name):
    said = rows_under(HEADS[name])
    for key, field in TABLES[name].model_fields.items():
        for choice in get_args(field.annotation):
            assert not isinstance(choice, str) or choice in said[key], (key, choice)


def test_every_scheme_is_named():
    assert [name for name in offered() if name not in rows_under("key")["scheme"].split(", ")
            and f" {name}" not in rows_under("key")["scheme"]] == []


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_option_of_a_workload_is_named_and_no_other(workload):
    said = rows_under("workload")[workload]
    options = load(workload).Options.model_fields
    assert [name for name in options if not re.search(rf"\b{name}\b", said)] == []
    others = {name for other in WORKLOADS for name in load(other).Options.model_fields} - options.keys()
    assert [name for name in others if re.search(rf"\b{name} \(", said)] == []
