"""A guest whose memory is mostly slabs, which only its own kernel can drop, beside one that grows (E13, E21).

    options    maker, eater   `Needs` of the two guests
               slab      pages of the maker's slabs: dentries, inodes; each is read from its disk when it is made
               file      pages of the maker's file cache
               loads     (file, anon) of the eater, one after the other, each for one window
               work      operations of the eater in a window
               busy      (file, anon) on which the maker itself works in the end, `busy_work` operations; without: idle
               seed

Figures: {"filled", "grown", "walked": what was counted of the maker until it was filled, while the eater grew, and
while the maker looked at all its slabs again; "slab": pages of slabs that the maker has, window after window; "frames":
the host's, of the maker; "busy": {"slab": before and after its own work, "worked", "walked": as above}}.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from guests.mappings.operator import Operator
from guests.trials.steps import DECIDE
from guests.trials.tenant import SLICE_NS, Load, Needs, Tenant, grown

CHUNK = 64                       # pages
MOMENTS = 20                     # that the idle guest's kernel has in a window, to follow its balloon's target


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill, let the other grow, and look at the slabs again."""
    with (Operator(cluster) as operator,
          Maker(cluster, 0, Needs(**options["maker"]), options["seed"], options["slab"]) as maker,
          Tenant(cluster, 1, Needs(**options["eater"]), options["seed"]) as eater):
        maker.take_up(Load(file=options["file"]))
        maker.fill()
        maker.walk()
        start = maker.counted(operator)
        slab, frames = [maker.slab.resident], [frames_of(operator, maker)]
        for load in options["loads"]:
            eater.take_up(Load(*load))
            eater.work(options["work"])
            if "balloon" in eater.guest.features:
                operator.order(DECIDE)
            for _ in range(MOMENTS):
                maker.sleep_until(maker.now_ns + SLICE_NS)
            slab.append(maker.slab.resident)
            frames.append(frames_of(operator, maker))
        pressed = maker.counted(operator)
        maker.walk()
        walked = maker.counted(operator)
        busy = busied(operator, maker, Load(*options.get("busy", ())), options.get("busy_work", 0))
        return {"filled": start, "grown": grown(pressed, start), "walked": grown(walked, pressed), "slab": slab,
                "frames": frames, "busy": busy}


def busied(operator: Operator, maker: "Maker", load: Load, work: int) -> dict[str, Any]:
    """Let the maker itself need memory, so that its own reclaim drops slabs, and look at the slabs again."""
    start, slab = maker.counted(operator), [maker.slab.resident]
    maker.take_up(load)
    maker.work(work)
    slab.append(maker.slab.resident)
    worked = maker.counted(operator)
    maker.walk()
    return {"slab": slab, "worked": grown(worked, start), "walked": grown(maker.counted(operator), worked)}


def frames_of(operator: Operator, tenant: Tenant) -> int:
    return int(operator.row(tenant.guest)["frames"])


class Maker(Tenant):
    """A tenant with slabs."""

    def __init__(self, cluster: str, number: int, needs: Needs, seed: int, slab: int) -> None:
        super().__init__(cluster, number, needs, seed)
        self._blocks = self.owns(self.file_disk(slab))
        self.slab = self.kernel.rebuildable(slab, self._blocks.read_many, hinted=False)

    def walk(self) -> None:
        """Look at every object: what was dropped is read from the disk again."""
        with self.slab.pinned():
            for first in range(0, self.slab.pages, CHUNK):
                indexes = np.arange(first, min(first + CHUNK, self.slab.pages))
                self.proof.pages(self.slab.read_many(indexes), self.content.pages(indexes), "slab", indexes)
