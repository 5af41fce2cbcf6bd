"""docs/conformance.md says which file tests which rule: it is held against the tests, both ways."""

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
RULES = {str(number) for number in range(1, 114)} | {"28b"}
MOST_EXEMPT = 8
OTHER_BACKENDS = {"112", "113"}
_ROW = re.compile(r"^\| (\d+b?) \| [SXBL] \| .+ \| (.+) \|$", re.MULTILINE)
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
