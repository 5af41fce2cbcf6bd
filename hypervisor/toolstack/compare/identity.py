"""What must be equal for a finished point to be used again: what was run, with which code, and where.

    scenario    the text of the file            options   those that change the work or the machine's part in it
    code        every module of the three packages but those of `compare`, `claims` and `curves`: they arrange and show
    machine     cores, kernel, Python           faults    the mode that was decided

Which schemes, overcommits and seeds are wanted is no part of it: a comparison may be widened later.
Files that a scenario names (traces) are not looked at.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("shm", "hypervisor", "guests")
ARRANGING = {Path(__file__).resolve().parents[1] / name for name in ("compare", "claims", "curves")}


def identity(what: str, text: bytes, options: Mapping[str, Any], faults: str,
             machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a comparison as JSON keeps it."""
    return {"command": what, "scenario": hashlib.sha256(text).hexdigest(), "faults": faults, "code": code_version(),
            "options": dict(sorted(options.items())), "machine": dict(machine)}


@cache
def code_version() -> str:
    """Return a digest of the code that measures."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not ARRANGING & set(path.parents):
                digest.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def differences(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what differs, in words: a digest is only named, a value is shown as it was and as it is."""
    found = []
    for name in sorted(kept.keys() | wanted.keys()):
        old, new = kept.get(name), wanted.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new)
        elif old != new:
            found.append(name if name in ("scenario", "code") else f"{name} ({_word(old)} then, {_word(new)} now)")
    return found


def _word(value: Any) -> str:
    return "not given" if value is None else str(value)[:60]
