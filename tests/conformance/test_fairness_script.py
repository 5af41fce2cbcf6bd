"""scripts/bench/fairness.py says what weights are worth, to people and to programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "scripts/bench/fairness.py", "--frames", "2048", *arguments], check=False,
                          cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                          timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_rows_are_fair_and_those_of_xen_are_not():
    rows = json.loads(run("--json", "--weights", "1,3"))
    assert [row["weight"] for row in rows] == [1, 3]
    assert [row["documented"] for row in rows] == pytest.approx([row["wanted"] for row in rows], rel=0.05)
    assert rows[0]["xen-4.2"] > 1.2 * rows[0]["wanted"]


def test_people_get_a_line_a_guest():
    lines = run("--weights", "1,1").splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["weight", "share", "wanted", "documented", "rule", "Xen", "4.2"]
    assert "50.0%" in lines[1]
