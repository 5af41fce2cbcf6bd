"""Modules and functions stay small enough to be read at once; each module says what it is, and does nothing yet."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES, FUNCTION_LINES = 350, 50
FOLDERS = ("shm", "hypervisor", "guests", "scripts")


@pytest.fixture(scope="module")
def modules() -> dict[str, str]:
    """The text of every module, by its path."""
    return {str(path.relative_to(ROOT)): path.read_text()
            for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}


def functions(text: str) -> dict[str, int]:
    """How many lines each function has, by name and line."""
    return {f"{node.name}, line {node.lineno}": node.end_lineno - node.lineno + 1 for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_a_module_has_one_subject(modules):
    lines = {module: len(text.splitlines()) for module, text in modules.items()}
    assert {module: count for module, count in lines.items() if count > MODULE_LINES} == {}


def test_functions_are_short(modules):
    lines = {f"{module}: {what}": count for module, text in modules.items() for what, count in functions(text).items()}
    assert len(lines) > 500
    assert {function: count for function, count in lines.items() if count > FUNCTION_LINES} == {}


def test_every_module_opens_with_what_it_is(modules):
    opening = {module: (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
               for module, text in modules.items()}
    assert [module for module, words in opening.items() if not words.rstrip().endswith((".", ":"))] == []


def loose_calls(text: str) -> list[str]:
    """What a module calls when it is imported, other than on what it has just made itself."""
    body = ast.parse(text).body
    own = {target.id for node in body if isinstance(node, ast.Assign) for target in node.targets
           if isinstance(target, ast.Name)}
    calls = [ast.unparse(node) for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    return [call for call in calls if call.split(".")[0] not in own and not call.startswith("sys.path")]


def test_no_work_at_import(modules):
    assert {module: loose_calls(text) for module, text in modules.items() if loose_calls(text)} == {}


def test_work_at_import_would_be_found():
    assert loose_calls("import os\napp = App()\napp.add(1)\nos.mkdir('x')\nprint(2)") == ["os.mkdir('x')", "print(2)"]
