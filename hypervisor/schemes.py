"""How a cluster overcommits: one row a scheme, and nothing but the row.

`ram` is the RAM that a guest of the scheme gets of its configured size: "full", or "budget" (cut to the guest's share
of the budget), or "pool" (cut to a share that leaves the tmem pool its part).  A guest may hold as many pages, RAM and
persistent tmem together, as its configured size in every scheme (max_mem).
"""

from dataclasses import dataclass
from typing import Literal

from shm.abi import PAGE_SIZE

POOL_SHARE = 0.3             # of the budget, left to the tmem pool by scheme `tmem`; self-ballooning will move it


@dataclass(frozen=True, slots=True)
class Scheme:
    ram: Literal["full", "budget", "pool"]
    swap: bool = False       # the hypervisor may preserve stable pages on its swap disk
    hint_unused: bool = False
    hint_volatile: bool = False
    cleancache: bool = False
    frontswap: bool = False
    host_cache: bool = False # guests' disks, swap disks too, are cached by the host, in the tmem pool's place

    @property
    def features(self) -> frozenset[str]:
        """What a guest of this scheme is told to use, in the words of the attach reply."""
        flags = {"hint-unused": self.hint_unused, "hint-volatile": self.hint_volatile,
                 "cleancache": self.cleancache, "frontswap": self.frontswap, "host-cache": self.host_cache}
        return frozenset(name for name, on in flags.items() if on)

    @property
    def tmem(self) -> bool:
        return self.cleancache or self.frontswap or self.host_cache

    def guest_ram(self, ram: int, budget: int, total: int) -> int:
        """Return the bytes of RAM for a guest configured with `ram` of `total` bytes; whole pages."""
        share = {"full": 1.0, "budget": budget / total, "pool": (1 - POOL_SHARE) * budget / total}[self.ram]
        return int(ram * min(1.0, share)) // PAGE_SIZE * PAGE_SIZE


SCHEMES: dict[str, Scheme] = {
    "baseline": Scheme(ram="full"),
    "none": Scheme(ram="budget"),
    "swap": Scheme(ram="full", swap=True),
    "tmem": Scheme(ram="pool", cleancache=True, frontswap=True),
    "swapcache": Scheme(ram="pool", host_cache=True),
    "cmm2": Scheme(ram="full", swap=True, hint_unused=True, hint_volatile=True),
    "cmm2+tmem": Scheme(ram="full", swap=True, hint_unused=True, hint_volatile=True, cleancache=True, frontswap=True),
}
