"""Fixtures of reports: folders as run, compare, density and claims leave them, made by hand or with stand-ins."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOSTILE = '"><script>alert(1)</script>&<b>\u202e\x00 $\\frac{'
CLAIM = {
    "key": "E10", "who": "Anthony Liguori, 10 Jul 2009", "mail": "4A566414", "says": "V pages are never swapped",
    "setup": "all schemes", "criterion": "supported if 0, refuted if more", "figure": "0 of 35,875 were volatile",
    "verdict": "supported", "why": "", "command": "memcommons claims E10", "studies": ["sweep"]}
CURVES = {"title": "time against overcommit", "x": "overcommit", "y": "seconds",
          "lines": [{"name": "cmm2", "points": [[1, 2.0, 0.1], [2, 3.0, None], [3, 4.5]]},
                    {"name": "swap", "points": [[1, 2.0], [2, 5.0], [3, 9.0]]}]}


def claims_document(**changed: Any) -> dict[str, Any]:
    claims = [CLAIM | {"key": f"E{n}", "verdict": verdict, "why": "on n"} for n, verdict in
              enumerate(("supported", "refuted", "depends", "not tested here"))]
    return {"version": 1, "quick": True, "began": "2026-11-25T12:00:00", "took_s": 99.5,
            "machine": {"cpus": 2, "kernel": "6.1", "python": "3.11"}, "command": "memcommons claims --quick",
            "claims": claims, "studies": {"sweep": {"does": "Runs all schemes.", "seconds": 12.3, "figures": {
                "runs": 7, "sound": True, "by_scheme": {"swap": [1, 2]}, "curves": [CURVES]}}}} | changed


@pytest.fixture
def claims_in(tmp_path: Path) -> Callable[..., Path]:
    """Return a folder of claims; keys of the document may be changed."""
    def folder(**changed: Any) -> Path:
        path = tmp_path / "claims"
        path.mkdir(exist_ok=True)
        (path / "claims.json").write_text(json.dumps(claims_document(**changed)))
        return path
    return folder


@pytest.fixture
def hostile() -> str:
    return HOSTILE
