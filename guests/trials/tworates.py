"""Two guests of equal working sets on one clock, one used so many times as often as the other (E23).

    pages, working_set     of each guest, in pages: its memory, and its file, which is read as it is mapped
    rates, seed            how often the busy guest's page is touched for one of the idle one's
    operations             of both together, counted; as many before them only bring about what is counted

Pages are chosen evenly, so the best division is known: each frame is worth as much as its guest's rate, and the busy
one should have its whole working set before the other has anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from guests.mappings.operator import Operator
from guests.trials.vm import Vm, block
from shm.counters import Count

SAMPLES = 20                     # of the frames that each guest holds


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return, for each rate, frames and reads of both guests, and what there was to divide."""
    with Operator(cluster) as operator:
        return {"rows": [_pair(operator, rate, options) for rate in options["rates"]],
                "working_set": options["working_set"]}


def _pair(operator: Operator, rate: int, options: Mapping[str, Any]) -> dict[str, Any]:
    working_set, operations = options["working_set"], options["operations"]
    with Vm(operator, options["pages"], working_set, 64, name="busy") as busy, \
            Vm(operator, options["pages"], working_set, 64, name="idle") as idle:
        pair, rng = (busy, idle), np.random.default_rng(options["seed"])
        _touch(pair, rng, rate, operations, working_set)
        before = [vm.count(Count.GUEST_DISK_READS) for vm in pair]
        held = []
        for _ in range(SAMPLES):
            _touch(pair, rng, rate, operations // SAMPLES, working_set)
            held.append([int(operator.row(vm.guest)["frames"]) for vm in pair])
        frames = np.array(held).mean(axis=0).tolist()
        reads = [vm.count(Count.GUEST_DISK_READS) - then for vm, then in zip(pair, before, strict=True)]
        return {"rate": rate, "frames": frames, "reads": reads, "touches": operations // SAMPLES * SAMPLES}


def _touch(pair: Sequence[Vm], rng: np.random.Generator, rate: int, operations: int, working_set: int) -> None:
    """Touch pages of both, as often as the rate says, one at a time."""
    who = (rng.random(operations) >= rate / (rate + 1)).astype(int)
    for number, index in zip(who.tolist(), rng.integers(0, working_set, operations).tolist(), strict=True):
        pair[number].expect(pair[number].file.map(index, 1).tobytes(), block(index))
