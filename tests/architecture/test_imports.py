"""Which part may know which: the direction of imports is the architecture, and this file is its guard."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {"shm": {"shm"}, "hypervisor": {"shm", "hypervisor"}, "guests": {"shm", "guests"}}
PURE = ["shm/pagestate.py", "hypervisor/census.py", "hypervisor/policy/__init__.py", "hypervisor/policy/census.py",
        "hypervisor/policy/clock.py", "hypervisor/policy/balloon.py", "hypervisor/policy/targets.py",
        "guests/volatility.py", "guests/selfballoon.py", "hypervisor/schemes.py", "hypervisor/tmem/shares.py"]
EFFECTS = {"os", "io", "mmap", "posix_ipc", "psutil", "time", "random", "secrets", "subprocess", "multiprocessing",
           "threading", "signal", "select", "socket", "fcntl", "ctypes", "tempfile", "pathlib", "shutil", "sys"}
MODULES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(path: Path, everything: bool = True) -> Iterator[str]:
    """Yield the dotted names that a module imports; without `everything`, only at its import."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everything else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the direction"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_packages_import_only_downwards():
    """Also inside functions, and for types alone: knowing is knowing."""
    upwards = set()
    for path in MODULES:
        tops = {dotted.split(".")[0] for dotted in imported(path)}
        forbidden = set(MAY_IMPORT) - MAY_IMPORT[path.relative_to(ROOT).parts[0]] | {"tests", "scripts", "harness"}
        upwards |= {f"{name(path)} imports {top}" for top in tops & forbidden}
    assert upwards == set()


def test_there_are_modules_to_look_at():
    assert len(MODULES) > 50
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_have_no_effects(module):
    assert not {dotted.split(".")[0] for dotted in imported(ROOT / module)} & EFFECTS


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_know_pure_modules_alone(module):
    """Of ours: else an effect comes in by the back door."""
    pure = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in PURE} | {"shm.abi"}
    ours = [dotted for dotted in imported(ROOT / module) if dotted.split(".")[0] in MAY_IMPORT]
    assert all(any(dotted == known or dotted.startswith(known + ".") for known in pure) for dotted in ours), ours


def test_the_one_effect_of_the_abi_is_none():
    """`shm.abi` is known to pure modules for its constants: it may encode and decode, and nothing else."""
    assert not {dotted.split(".")[0] for dotted in imported(ROOT / "shm/abi.py")} & EFFECTS


FORBIDDEN_NAMES = {"manager", "util", "utils", "helper", "helpers", "misc", "handler", "handlers", "common", "tools"}


def test_no_module_is_named_after_nothing():
    assert [name(path) for path in MODULES if set(path.stem.split("_")) & FORBIDDEN_NAMES] == []


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the circles of a graph, each as the names along it."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            found.append(trail[trail.index(module):] + [module])
        elif module not in done:
            for following in sorted(graph.get(module, ())):
                visit(following, trail + [module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


def dotted_name(path: Path) -> str:
    return name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def module_graph() -> dict[str, set[str]]:
    """Which module of ours imports which, at its own import."""
    known = {dotted_name(path) for path in MODULES}
    graph = {}
    for path in MODULES:
        found = set()
        for dotted in imported(path, everything=False):
            found |= {candidate for candidate in (dotted, dotted.rpartition(".")[0]) if candidate in known}
        graph[dotted_name(path)] = found - {dotted_name(path)}
    return graph


def test_no_module_imports_itself_in_a_circle():
    assert cycles(module_graph()) == []


def test_a_circle_would_be_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
