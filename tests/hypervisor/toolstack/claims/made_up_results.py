"""Figures of trials made by hand, for judges."""

from collections.abc import Iterable, Mapping
from typing import Any

COUNTED = ("waited_ns", "file_reads", "file_writes", "guest_in", "guest_out", "host_in", "host_out", "cleancache_hits",
           "frontswap_loads", "frontswap_stores", "discards", "discard_faults")


def counted(**figures: int) -> dict[str, int]:
    """What was counted of a tenant in a window; what is not named is 0."""
    return {"operations": 1000, "frames": 500, "pages": 2048, "clock_ns": 1000, **dict.fromkeys(COUNTED, 0)} | figures


def played(*phases: Iterable[tuple[Mapping[str, int], Mapping[str, int]]],
           stalls: list[list[list[int]]] | None = None) -> dict[str, Any]:
    """Figures of a trial of steps: for each phase the windows of two tenants."""
    windows = [{"phase": number, "tenants": [counted(**one), counted(**other)]}
               for number, phase in enumerate(phases) for one, other in phase]
    return {"windows": windows, "stalls": stalls or [[[1], [1]] for _ in phases]}
