"""From a scenario file and the options of the command line to a checked scenario.

Rule 1: whatever the file holds, `load` returns a checked scenario or raises UsageProblem: file, key, what is allowed.
Rule 2: an option stands in for the file's key before anything is checked, and is named in its stead.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hypervisor.toolstack.complaints import sentence
from hypervisor.toolstack.scenario import (
    TABLES,
    GuestSpec,
    GuestTable,
    Scenario,
    ScenarioTable,
    check_budget,
    known_scheme,
)
from shm.abi import MAX_GUESTS
from shm.errors import UsageProblem

DEFAULT = "scripts/scenarios/default.toml"
INNER = {"disk": "latency"}      # options that stand for a key of the table of their name


def listed(schemes: str | None, option: str = "--scheme") -> list[str]:
    """Return the schemes of a comma list, each once; none for None.  `option` is how the person gave it."""
    names = [name.strip() for name in schemes.split(",")] if schemes is not None else []
    try:
        return list(dict.fromkeys(known_scheme(name) for name in names))
    except ValueError as error:
        raise UsageProblem(f"{option}: {error}") from None


def default_path() -> Path:
    """Return where the default scenario lies: beside the packages in a checkout, or where the person stands."""
    places = [Path(__file__).resolve().parents[2] / DEFAULT, Path(DEFAULT)]
    for place in places:
        if place.is_file():
            return place
    raise UsageProblem(f"{DEFAULT} is not here; name a scenario: memcommons run SCENARIO.toml")


def load(path: Path, options: Mapping[str, Any] | None = None, guests: int | None = None) -> Scenario:
    """Read and check the scenario at `path`; `options` stand in for its keys, `guests` is how many in all."""
    return _scenario(_read(path), shown(path), path.resolve().parent, options or {}, guests)


def built(raw: dict[str, Any], source: str, folder: Path, options: Mapping[str, Any] | None = None) -> Scenario:
    """Check a scenario that no file holds; `source` names it in errors, its guests are started in `folder`."""
    return _scenario(raw, source, folder, options or {}, None)


def _scenario(raw: dict[str, Any], source: str, folder: Path, options: Mapping[str, Any],
              guests: int | None) -> Scenario:
    if {"seconds", "operations"} <= options.keys():
        raise UsageProblem("--seconds and --ops exclude each other; give one of them")
    table = _checked(_replaced(raw, options), source, options)
    specs = _counted_out(table.guest if guests is None else _scaled(table.guest, guests), source)
    scenario = Scenario(source, folder, table, specs)
    _check_whole(scenario, options)
    return scenario


def shown(path: Path) -> str:
    """Return the path as people find it: from where they stand, if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path)


def _read(path: Path) -> dict[str, Any]:
    source = shown(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageProblem(f"{source}: {(error.strerror or str(error)).lower()}; name a scenario file") from error
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{source}: is not UTF-8 text (byte {error.start}); a scenario is TOML") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageProblem(f"{source}: is not TOML: {' '.join(str(error).split())}") from error


def _replaced(raw: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Put the options in the place of the file's keys; seconds and operations replace each other."""
    length = {"seconds", "operations"}
    dropped = length if length & options.keys() else set()
    kept = {key: value for key, value in raw.items() if key not in dropped}
    inner = {key: _inner(raw.get(key), {name: options[key]}) for key, name in INNER.items() if key in options}
    return {**kept, **options, **inner}


def _inner(table: Any, option: dict[str, Any]) -> Any:
    """Return a table with one key replaced; what is no table stays, for the check to find."""
    return table if table is not None and not isinstance(table, dict) else (table or {}) | option


def _where(source: str, key: str, options: Mapping[str, Any]) -> str:
    """Name a key as the person gave it: in the file, or as an option."""
    option = next((name for name, inner in INNER.items() if key == f"{name}.{inner}"), key)
    return "--" + ("ops" if key == "operations" else option) if option in options else f"{source}: {key}"


def _checked(raw: dict[str, Any], source: str, options: Mapping[str, Any]) -> ScenarioTable:
    try:
        return ScenarioTable.model_validate(raw)
    except ValidationError as error:
        key, said = sentence(error.errors()[0], {name: list(table.model_fields) for name, table in TABLES.items()})
        raise UsageProblem(f"{_where(source, key, options)}: {said}") from None


def _scaled(tables: Sequence[GuestTable], count: int) -> list[GuestTable]:
    """Return `tables` for `count` guests in all, dealt out in the scenario's own proportions."""
    dealt = Counter(islice(cycle([n for n, table in enumerate(tables) for _ in range(table.count)]), count))
    return [table.model_copy(update={"count": dealt[n]}) for n, table in enumerate(tables) if dealt[n]]


def _counted_out(tables: Sequence[GuestTable], source: str) -> tuple[GuestSpec, ...]:
    specs: dict[str, GuestSpec] = {}
    for n, table in enumerate(tables):
        names = [table.name] if table.count == 1 else [f"{table.name}-{k + 1}" for k in range(table.count)]
        for name in names:
            if name in specs:
                raise UsageProblem(f"{source}: guest[{n}].name: {name!r} is taken; give each guest a name of its own")
            specs[name] = GuestSpec(name, table.workload, table.ram, table.weight, table.options)
    return tuple(specs.values())


def _check_whole(scenario: Scenario, options: Mapping[str, Any]) -> None:
    """Check what no key shows alone."""
    source, table, count = scenario.source, scenario.table, len(scenario.guests)
    if not count:
        raise UsageProblem(f"{source}: no guests; write at least one [[guest]] with name, ram and workload")
    if count > MAX_GUESTS:
        raise UsageProblem(f"{source}: guest: {count} guests are too many; allowed: {MAX_GUESTS} in all")
    if (table.seconds is None) == (table.operations is None):
        given = "neither seconds nor operations is" if table.seconds is None else "seconds and operations are both"
        raise UsageProblem(f"{source}: {given} given; give one of them, such as seconds = 20")
    if table.hypervisor.bias and table.hypervisor.reclaim != "hint-after-choice":
        raise UsageProblem(f"{source}: hypervisor.bias: {table.hypervisor.reclaim} has no bias to be set; write it "
                           f"with reclaim = \"hint-after-choice\", or leave it out")
    if table.disk.direct and table.disk.latency != "none":
        raise UsageProblem(f"{_where(source, 'disk.latency', options)}: {table.disk.latency!r} is a model, and direct "
                           f"= true is the disk that there is; use one of the two")
    check_budget(table.budget, count, _where(source, "budget", options))
