"""Who holds which frames, in which states: what the hypervisor's list says of it, in a few numbers.  Pure.

    guests   of each its resident pages by usage, S, P, V and U, as far as it has any; `other`: frames granted that
             are in no state yet, because they are being filled
    tmem     `ephemeral` and `persistent`: frames of stored pages, shared out by the number of pages where several lie
             in one frame; `spare`: frames that the heap keeps
    free     frames of the budget that nobody has

Frames throughout; together they are the budget.
"""

from collections.abc import Mapping
from typing import Any

USAGES = "SPVU"


def holdings(listed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the holdings from the hypervisor's answer to `list`."""
    guests = {guest["name"]: _by_usage(guest) for guest in listed.get("guests", ())}
    return {"guests": guests, "tmem": _tmem(listed), "free": listed.get("frames_free", 0)}


def _by_usage(guest: Mapping[str, Any]) -> dict[str, int]:
    states = guest.get("states", {})
    held = {usage: count for usage in USAGES if (count := states.get(f"{usage}r", 0))}
    other = guest.get("frames", 0) - sum(held.values())
    return held | ({"other": other} if other > 0 else {})


def _tmem(listed: Mapping[str, Any]) -> dict[str, int]:
    tmem = listed.get("tmem", {})
    frames, ephemeral = tmem.get("frames", 0), tmem.get("ephemeral", 0)
    pages = ephemeral + tmem.get("persistent", 0)
    share = round(frames * ephemeral / pages) if pages else 0
    found = {"ephemeral": share, "persistent": frames - share, "spare": listed.get("heap_frames", 0) - frames}
    return {name: count for name, count in found.items() if count > 0}
