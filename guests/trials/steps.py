"""Loads that change in steps (E5, E9, E24, E32): tenants side by side, window after window of their virtual clocks.

    options    tenants    `Needs` of each
               phases     {"loads": a (file, anon) for each tenant, "windows": how many windows it lasts,
                          "renew": whether the programs of before end and others begin,
                          "deals": [window, pages for each tenant]: what balloons are told before that window}
               window_ns  of the clocks; where the host steers balloons it decides once after every window, unless
                          phases have deals
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
        told = any(phase.get("deals") for phase in options["phases"])
        stage = Stage(operator, tenants, options["window_ns"], told)
        for number, phase in enumerate(options["phases"]):
            stage.take_up([Load(*load) for load in phase["loads"]], phase["renew"])
            stage.play(number, phase["windows"], dict(phase.get("deals", ())))
        return {"windows": stage.windows, "stalls": stage.stalls}


class Stage:
    """The tenants, and what was seen of them.  `_end`: the end of the last window on every clock.

    `told`: balloons are told by the phases, and the host's controller decides nothing.
    """

    def __init__(self, operator: Operator, tenants: Sequence[Tenant], window_ns: int, told: bool = False) -> None:
        self.windows: list[dict[str, Any]] = []
        self.stalls: list[list[list[int]]] = []
        self._operator, self._tenants, self._window_ns = operator, tenants, window_ns
        self._decides = not told and any("balloon" in tenant.guest.features for tenant in tenants)
        self._end = 0

    def take_up(self, loads: Sequence[Load], renew: bool) -> None:
        for tenant, load in zip(self._tenants, loads, strict=True):
            tenant.take_up(load, renew)
            tenant.stalls = empty()

    def play(self, phase: int, windows: int, deals: Mapping[int, Sequence[int]]) -> None:
        """Play a phase; `deals`: pages for each tenant, by window."""
        if not phase:
            self._fill()
        seen = self._looked()
        for number in range(windows):
            self._deal(deals.get(number, ()))
            self._end += self._window_ns
            turns(self._tenants, self._end)
            before, seen = seen, self._looked()
            self.windows.append({"phase": phase, "tenants": [
                self._now(tenant) | grown(after, earlier)
                for tenant, after, earlier in zip(self._tenants, seen, before, strict=True)]})
            if self._decides:
                self._operator.order(DECIDE)
        self.stalls.append([trimmed(tenant.stalls) for tenant in self._tenants])

    def _deal(self, pages: Sequence[int]) -> None:
        """Tell balloons how many pages their guests are to have: those that give come first."""
        for tenant, count in sorted(zip(self._tenants, pages, strict=bool(pages)),
                                    key=lambda pair: pair[1] - pair[0].pages):
            tenant.deal(count)

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
