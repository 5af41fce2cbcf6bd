"""Trials: guest programs that drive a cluster step by step and count what happened, for the claims of the threads.

    python -m guests.trials       one order on standard input: {"trial", "cluster", "options"}; one event on standard
                                  output: {"event": "figures", "figures"} or {"event": "failed", "error": line}

A trial is a module with `run(cluster, options)`, which returns its figures as JSON has them.  It connects as many
guests as it likes, and gives orders through the door as an operator does (`guests.mappings.operator`).
"""

from importlib import import_module
from typing import Any

from shm.errors import UsageProblem

TRIALS = ("mappings", "base_images", "cached_disk", "capacity", "copying", "dead_blocks", "dropping", "duplicates",
          "growth", "handling", "hintpaths", "ledger", "mapper", "newcomer", "pressure", "probing", "shrinking",
          "slabs", "steady", "steps", "swap_calls", "tworates")


def load(name: str) -> Any:
    """Return the module of a trial; UsageProblem for what is none."""
    if name not in TRIALS:
        raise UsageProblem(f"{name!r} is not a trial; allowed: {', '.join(TRIALS)}")
    return import_module(f"guests.trials.{name}")
