"""How a cluster overcommits: one row a scheme, and nothing but the row.

`ram` is the RAM that a guest of the scheme gets of its configured size:

    full      all of it
    budget    cut to the guest's share of the budget, pro rata of configured size
    pool      the same, of what the tmem pool leaves
    weight    dealt by weight: simply giving it, instead of a pool, as frontswap's critics asked (2009)

A guest may hold as many pages, RAM and persistent tmem together, as its configured size in every scheme (max_mem).
`light` is what mainline Linux kept of CMM2: unused and stable alone (commit 45e576b1c3d0, 2008).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shm.abi import PAGE_SIZE

LEAST_PAGES = 64             # that a guest is dealt, or all of its configured size, however little it weighs
POOL_SHARE = 0.3             # of the budget, left to the tmem pool by scheme `tmem`; self-ballooning will move it


@dataclass(frozen=True, slots=True)
class Scheme:
    ram: Literal["full", "budget", "pool", "weight"]
    swap: bool = False       # the hypervisor may preserve stable pages on its swap disk
    hint_unused: bool = False
    hint_volatile: bool = False
    cleancache: bool = False
    frontswap: bool = False
    balloon: bool = False    # guests are told how many pages to have; reclaim is the fall-back (Waldspurger 2002)
    host_cache: bool = False # guests' disks, swap disks too, are cached by the host, in the tmem pool's place

    @property
    def features(self) -> frozenset[str]:
        """What a guest of this scheme is told to use, in the words of the attach reply."""
        flags = {"hint-unused": self.hint_unused, "hint-volatile": self.hint_volatile,
                 "cleancache": self.cleancache, "frontswap": self.frontswap, "balloon": self.balloon,
                 "host-cache": self.host_cache}
        return frozenset(name for name, on in flags.items() if on)

    @property
    def tmem(self) -> bool:
        return self.cleancache or self.frontswap or self.host_cache

    def rams(self, sizes: Sequence[int], weights: Sequence[int], budget: int) -> list[int]:
        """Return the RAM of each guest, whole pages of it, by configured sizes and weights; all in bytes."""
        if self.ram == "weight":
            pages = dealt(budget // PAGE_SIZE, [size // PAGE_SIZE for size in sizes], weights)
            return [count * PAGE_SIZE for count in pages]
        share = {"full": 1.0, "budget": 1.0, "pool": 1 - POOL_SHARE}[self.ram]
        if self.ram != "full":
            share *= budget / sum(sizes)
        return [int(size * min(1.0, share)) // PAGE_SIZE * PAGE_SIZE for size in sizes]


def dealt(pages: int, sizes: Sequence[int], weights: Sequence[int], least: int = LEAST_PAGES) -> list[int]:
    """Deal `pages` by weight, no guest more than its size nor, if that can be, less than `least`.

    What one cannot take goes to the others, by weight again.  All in pages; weights are above 0.  Each round settles
    those at their bound, on the side that would otherwise be dealt too much or too little in sum.
    """
    given = [min(size, least) for size in sizes]
    open_ = [n for n, size in enumerate(sizes) if size > least]
    left = pages - sum(given[n] for n in range(len(sizes)) if n not in open_)
    while open_:
        total = sum(weights[n] for n in open_)
        share = {n: max(0, left) * weights[n] // total for n in open_}
        bound = {n: min(max(share[n], least), sizes[n]) for n in open_}
        given = [bound.get(n, held) for n, held in enumerate(given)]
        excess = sum(bound[n] - share[n] for n in open_)
        settled = [n for n in open_ if (bound[n] - share[n]) * (excess or 1) > 0 or not excess]
        left -= sum(bound[n] for n in settled)
        open_ = [n for n in open_ if n not in settled]
    return given


SCHEMES: dict[str, Scheme] = {
    "baseline": Scheme(ram="full"),
    "none": Scheme(ram="budget"),
    "more-ram": Scheme(ram="weight"),
    "swap": Scheme(ram="full", swap=True),
    "balloon": Scheme(ram="full", swap=True, balloon=True),
    "light": Scheme(ram="full", swap=True, hint_unused=True),
    "tmem": Scheme(ram="pool", cleancache=True, frontswap=True),
    "swapcache": Scheme(ram="pool", host_cache=True),
    "cmm2": Scheme(ram="full", swap=True, hint_unused=True, hint_volatile=True),
    "cmm2+balloon": Scheme(ram="full", swap=True, hint_unused=True, hint_volatile=True, balloon=True),
    "cmm2+tmem": Scheme(ram="full", swap=True, hint_unused=True, hint_volatile=True, cleancache=True, frontswap=True),
}

BASELINE = "baseline"        # the run to compare with; nobody asks for it by name


def offered() -> list[str]:
    """Return the schemes that a person may ask for."""
    return [name for name in SCHEMES if name != BASELINE]
