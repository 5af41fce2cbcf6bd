"""Fixtures of reports: folders as run, compare, density and claims leave them, made by hand or with stand-ins."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypervisor.schemes import BASELINE
from hypervisor.toolstack.compare.keep import Keep, write_whole
from hypervisor.toolstack.compare.outcome import document, outcome, ran
from hypervisor.toolstack.compare.points import planned
from hypervisor.toolstack.journal import Journal
from hypervisor.toolstack.origin import origin
from hypervisor.toolstack.reading import load
from hypervisor.toolstack.results import PhaseResult
from hypervisor.toolstack.summary import summarise

HOSTILE = '"><script>alert(1)</script>&<b>\u202e\x00 $\\frac{'
CLAIM = {
    "key": "E10", "who": "Anthony Liguori, 10 Jul 2009", "mail": "4A566414", "says": "V pages are never swapped",
    "setup": "all schemes", "criterion": "supported if 0, refuted if more", "figure": "0 of 35,875 were volatile",
    "verdict": "supported", "why": "", "command": "memcommons claims E10", "jobs": ["cmm2-12ab"],
    "curves": []}
CURVES = {"title": "time against overcommit", "x": "overcommit", "y": "seconds",
          "lines": [{"name": "cmm2", "points": [[1, 2.0, 0.1], [2, 3.0, None], [3, 4.5]]},
                    {"name": "swap", "points": [[1, 2.0], [2, 5.0], [3, 9.0]]}]}


def claims_document(**changed: Any) -> dict[str, Any]:
    claims = [CLAIM | {"key": f"E{n}", "verdict": verdict, "why": "on n"} for n, verdict in
              enumerate(("supported", "refuted", "depends", "not tested here"))]
    return {"version": 1, "quick": True, "began": "2026-11-25T12:00:00", "took_s": 99.5,
            "machine": {"cpus": 2, "kernel": "6.1", "python": "3.11"}, "command": "memcommons claims --quick",
            "claims": [claims[0] | {"curves": [CURVES]}, *claims[1:]],
            "jobs": {"cmm2-12ab": {"said": "common, cmm2, seed 1", "seconds": 12.3, "failed": None}}} | changed


@pytest.fixture
def claims_in(tmp_path: Path) -> Callable[..., Path]:
    """Return a folder of claims; keys of the document may be changed."""
    def folder(**changed: Any) -> Path:
        path = tmp_path / "claims"
        path.mkdir(exist_ok=True)
        (path / "claims.json").write_text(json.dumps(claims_document(**changed)))
        return path
    return folder


SCENARIO = """
name = "two"
budget = "64MiB"
operations = 1000
[[guest]]
name = "bank"
count = 2
ram = "64MiB"
workload = "sqlite"
"""
HELD = {"guests": {"bank-1": {"S": 100}, "bank-2": {"V": 50, "S": 20}}, "tmem": {"ephemeral": 10}, "free": 76}
FACTS = {"guests": 2, "ram_bytes": 128 << 20, "seconds": None, "operations": 1000, "disk": {"latency": "none"},
         "command": "compare", "machine": {"cpus": 2}, "faults": "software", "name": "two"}


@pytest.fixture
def summary_of(tmp_path: Path, results: Callable[..., PhaseResult]) -> Callable[[str], dict[str, Any]]:
    """Return the summary of a scheme's run, made by hand."""
    path = tmp_path / "two.toml"
    path.write_text(SCENARIO)
    scenario = load(path)
    baseline = results("baseline", [100.0, 120.0], [100.0, 120.0])
    return lambda scheme: summarise(scenario, baseline, results(scheme, [50.0, 60.0], [60.0, 62.0]), {"cpus": 2})


@pytest.fixture
def run_folder(tmp_path: Path, summary_of: Callable[[str], dict[str, Any]]) -> Callable[..., Path]:
    """Return a folder as `memcommons run` leaves it, of one scheme or several."""
    def folder(*schemes: str) -> Path:
        journal = Journal(tmp_path / "run", origin(tmp_path / "two.toml", ["run", "two.toml", "--seed", "3"]))
        journal.open()
        for phase in ("baseline", *schemes):
            for at in (0.0, 1.0):
                journal.sample(phase, "maps", at, kernel_bytes=60 << 20, hypervisor=None, pagers={}, frames=HELD,
                               guests={"bank-1": {"rss": 9, "pss": 8, "arena_rss": 7, "arena_pss": 6}})
                journal.sample(phase, "shared", at, shared_bytes=5)
        summaries = [summary_of(scheme) for scheme in schemes]
        journal.summary(summaries[0] if len(summaries) == 1 else {"version": 1, "runs": summaries})
        journal.close()
        return tmp_path / "run"
    return folder


@pytest.fixture
def compare_folder(tmp_path: Path, summary_of: Callable[[str], dict[str, Any]]) -> Path:
    """Return a folder as `memcommons compare` leaves it: two schemes, two overcommits, two seeds."""
    keep = Keep(tmp_path / "compare", {"command": "compare"})
    keep.open(False)
    runs = []
    for point in planned(["none", "swap"], [1.0, 2.0], [1, 2]):
        if point.scheme != BASELINE:
            rows = [{"at": at, "frames": {"bank-1": 100}, "held": HELD} for at in (0.0, 1.0)]
            body = {"failed": None, "wrong": False, "summary": summary_of(point.scheme), "frames": rows}
            runs.append(ran(point, keep.put(point.key, body).body))
    found = outcome(["none", "swap"], [1.0, 2.0], [1, 2], runs, [])
    write_whole(keep.folder / "summary.json", document(found, FACTS))
    write_whole(keep.folder / "origin.json", origin(tmp_path / "two.toml", ["compare", "two.toml"]))
    keep.close()
    return keep.folder


@pytest.fixture
def hostile() -> str:
    return HOSTILE
