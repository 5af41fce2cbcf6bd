"""What a folder of results came from: the command as it was typed, and its scenario's text.  For who repeats it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ORIGIN = "origin.json"


def origin(scenario: Path, words: Sequence[str]) -> dict[str, Any]:
    """Return the origin as JSON keeps it; `words`: what was typed after the command's name."""
    return {"command": shlex.join(["memcommons", *words]), "scenario": str(scenario),
            "text": scenario.read_text(encoding="utf-8", errors="replace")}
