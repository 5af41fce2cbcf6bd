"""Loads that change in steps (E5, E9, E24, E32): tenants side by side, window after window of their virtual clocks.

    options    tenants    `Needs` of each
               phases     {"loads": a (file, anon) for each tenant, "windows": how many windows it lasts,
                          "renew": whether the programs of before end and others begin}
               window_ns  of the clocks; where the host steers balloons it decides once after every window
               seed

Figures: {"windows": rows, "stalls": [phase][tenant] -> histogram of waits for disks by operation (`shm.latency`)}; a
row is {"phase", "tenants": [{"frames", "pages" that it has beside its balloon, and what was counted in the window}]}.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from guests.mappings.operator import Operator
from guests.trials.tenant import Load, Needs, Tenant, grown, turns
from shm.latency import empty, trimmed

DECIDE = "balloon-decide"


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Play all phases."""
    with Operator(cluster) as operator, ExitStack() as stack:
        tenants = [stack.enter_context(Tenant(cluster, number, Needs(**needs), options["seed"]))
                   for number, needs in enumerate(options["tenants"])]
        stage = Stage(operator, tenants, options["window_ns"])
        for number, phase in enumerate(options["phases"]):
            stage.play(number, [Load(*load) for load in phase["loads"]], phase["windows"], phase["renew"])
        return {"windows": stage.windows, "stalls": stage.stalls}


class Stage:
    """The tenants, and what was seen of them.  `_end`: the end of the last window on every clock."""

    def __init__(self, operator: Operator, tenants: Sequence[Tenant], window_ns: int) -> None:
        self.windows: list[dict[str, Any]] = []
        self.stalls: list[list[list[int]]] = []
        self._operator, self._tenants, self._window_ns = operator, tenants, window_ns
        self._decides = any("balloon" in tenant.guest.features for tenant in tenants)
        self._end = 0

    def play(self, phase: int, loads: Sequence[Load], windows: int, renew: bool) -> None:
        for tenant, load in zip(self._tenants, loads, strict=True):
            tenant.take_up(load, renew)
            tenant.stalls = empty()
        if not phase:
            self._fill()
        seen = self._looked()
        for _ in range(windows):
            self._end += self._window_ns
            turns(self._tenants, self._end)
            before, seen = seen, self._looked()
            self.windows.append({"phase": phase, "tenants": [
                self._now(tenant) | grown(after, earlier)
                for tenant, after, earlier in zip(self._tenants, seen, before, strict=True)]})
            if self._decides:
                self._operator.order(DECIDE)
        self.stalls.append([trimmed(tenant.stalls) for tenant in self._tenants])

    def _fill(self) -> None:
        """Fill the first working sets, then let all clocks say the same."""
        for tenant in self._tenants:
            tenant.fill()
        self._end = max(tenant.now_ns for tenant in self._tenants)
        for tenant in self._tenants:
            tenant.sleep_until(self._end)

    def _looked(self) -> list[dict[str, int]]:
        return [tenant.counted(self._operator) for tenant in self._tenants]

    def _now(self, tenant: Tenant) -> dict[str, int]:
        return {"frames": int(self._operator.row(tenant.guest)["frames"]), "pages": tenant.pages}
