"""docs/conformance.md says which file tests which rule: it is held against the tests, both ways."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
RULES = {str(number) for number in range(1, 114)} | {"28b"}
MOST_EXEMPT = 8
OTHER_BACKENDS = {"112", "113"}
_ROW = re.compile(r"^\| (\d+b?) \| [SXBL] \| .+ \| (.+) \|$", re.MULTILINE)
CMM2_RULES = {f"R{number}" for number in range(1, 49)}
_CMM2_ROW = re.compile(r"^\| (R\d+) \| [PDE] \| .+ \| (.+) \| (both|software|hardware) \|$", re.MULTILINE)
_EXEMPT = re.compile(r"^\| (\d+b?) \| (?![SXBL] \|).+ \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> str:
    return (FOLDER.parents[1] / "docs" / "conformance.md").read_text()


@pytest.fixture(scope="module")
def tested() -> dict[str, set[str]]:
    """The files in which each rule has a test, by their short names."""
    found: dict[str, set[str]] = {}
    for path in FOLDER.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = re.match(r"test_t(\d+b?)_", node.name) if isinstance(node, ast.FunctionDef) else None
            if named:
                found.setdefault(named[1], set()).add(path.stem.removeprefix("test_"))
    return found


def listed(page: str) -> dict[str, set[str]]:
    return {rule: set(re.findall(r"`(\w+)`", files)) for rule, files in _ROW.findall(page)}


def exempt(page: str) -> set[str]:
    return set(_EXEMPT.findall(page.partition("## Exempt")[2].partition("## ")[0]))


def test_every_rule_has_one_row(page):
    rows = [rule for rule, _ in _ROW.findall(page)]
    assert sorted(rows) == sorted(RULES)


def test_every_rule_is_tested_or_exempt(page, tested):
    assert RULES - set(tested) == exempt(page) == OTHER_BACKENDS
    assert len(exempt(page)) <= MOST_EXEMPT


def test_the_table_says_where_each_rule_is_tested(page, tested):
    assert {rule: files for rule, files in listed(page).items() if files} == tested


def test_a_number_that_is_no_rule_would_be_found(tested):
    assert set(tested) <= RULES


# CMM2

@pytest.fixture(scope="module")
def tested_cmm2() -> dict[str, set[str]]:
    """The files in which each rule of CMM2 has a test."""
    found: dict[str, set[str]] = {}
    for path in FOLDER.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = re.match(r"test_r(\d+)_", node.name) if isinstance(node, ast.FunctionDef) else None
            if named:
                found.setdefault(f"R{int(named[1])}", set()).add(path.stem.removeprefix("test_"))
    return found


@pytest.fixture(scope="module")
def modes_collected() -> dict[str, set[str]]:
    """The fault modes in which pytest would run tests of each rule, by the tests' own ids."""
    files = sorted(str(path) for path in FOLDER.glob("test_cmm2_*.py"))
    listing = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
                             cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=120, check=True).stdout
    found: dict[str, set[str]] = {}
    for rule, mode in re.findall(r"::test_r(\d+)_\w+\[[^\]\n]*\b(software|hardware)\b", listing):
        found.setdefault(f"R{int(rule)}", set()).add(mode)
    return found


def test_every_cmm2_rule_has_one_row_and_is_tested(page, tested_cmm2):
    rows = [rule for rule, _, _ in _CMM2_ROW.findall(page)]
    assert sorted(rows) == sorted(CMM2_RULES) and set(tested_cmm2) == CMM2_RULES


def test_the_cmm2_table_says_where_each_rule_is_tested(page, tested_cmm2):
    assert {rule: set(re.findall(r"`(\w+)`", files)) for rule, files, _ in _CMM2_ROW.findall(page)} == tested_cmm2


def test_the_cmm2_table_says_in_which_modes(page, modes_collected):
    said = {rule: {"software", "hardware"} if modes == "both" else {modes}
            for rule, _, modes in _CMM2_ROW.findall(page)}
    assert said == modes_collected
