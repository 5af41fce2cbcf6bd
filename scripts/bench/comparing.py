"""What `memcommons compare` adds to the bare runs: the same work by `memcommons run` and by `compare`, in turn.

    .venv/bin/python scripts/bench/comparing.py [OPERATIONS of each guest; 8000]

Both do a baseline and the same schemes with the same operations in the same budget.  `compare` looks at its scenario,
keeps each run (written, synced, renamed), computes its statistics and says what differs.  Goal: 1.02.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from hypervisor.toolstack.reading import default_path, load

ROUNDS = 7
SCHEMES = "swap,tmem,cmm2"
CLI = (sys.executable, "-m", "hypervisor.toolstack.cli")
GOAL = 1.02
DEADLINE_S = 1800.0


def seconds(*words: str) -> float:
    """Return how long a command takes."""
    began = perf_counter()
    subprocess.run([*CLI, *words, "--json", "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   check=True, timeout=DEADLINE_S)
    return perf_counter() - began


def bare(operations: str) -> float:
    return seconds("run", str(default_path()), "--scheme", SCHEMES, "--ops", operations)


def compared(operations: str) -> float:
    scenario = load(default_path(), {}, None)
    overcommit = scenario.total_ram / scenario.table.budget
    with tempfile.TemporaryDirectory() as folder:
        return seconds("compare", str(default_path()), "--schemes", SCHEMES, "--overcommit", f"{overcommit:.6f}",
                       "--seeds", "1", "--ops", operations, "--out", str(Path(folder) / "out"))


def main(operations: str = "8000") -> None:
    pairs = []
    for number in range(ROUNDS):
        first, second = (bare, compared) if number % 2 else (compared, bare)     # neither is always the first
        times = {act: act(operations) for act in (first, second)}
        pairs.append((times[compared], times[bare]))
        print(f"round {number + 1}: compare {pairs[-1][0]:.2f} s, bare {pairs[-1][1]:.2f} s", flush=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    print(f"compare {statistics.median(ours for ours, _ in pairs):.2f} s   the same runs, bare "
          f"{statistics.median(theirs for _, theirs in pairs):.2f} s   {statistics.median(ratios):.3f}x  "
          f"({min(ratios):.3f} to {max(ratios):.3f})   goal {GOAL:g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
