"""How large a guest that balloons itself wants to be, and when its frontswap shrinks.  Decides; touches nothing.

The rules and the figures are those of Linux (drivers/xen/xen-selfballoon.c), all sizes in pages:

    goal     what programs were promised (Committed_AS), what the kernel keeps back, and what lies in frontswap
    target   an eighth of the way down to the goal in one interval, all of the way up
    floor    never below this, however little was promised; a guest below 16 MiB is left alone
    shrink   after 3 intervals in which frontswap did not grow, a twentieth of it leaves in each (T111)
"""

from typing import NamedTuple

from shm.abi import PAGE_SIZE

INTERVAL_S = 5.0
DOWN, UP = 8, 1              # hysteresis: one part in so many of the way, in an interval
INERTIA = 3                  # intervals without growth before frontswap shrinks
SHRINK = 20                  # one page in so many leaves it; all of them when there are no more than this
MIB = (1 << 20) // PAGE_SIZE


class Rules(NamedTuple):
    """What a person may set (Linux: the attributes of xen_memory0 in sysfs, and frontswap_inertia, _hysteresis)."""

    interval_s: float = INTERVAL_S
    down: int = DOWN
    up: int = UP
    min_usable: int | None = None                    # pages beside the reserve, in the place of the table of the floor
    inertia: int = INERTIA
    shrink: int = SHRINK


LINUX = Rules()


class Step(NamedTuple):
    """One row of the floor: up to `below` useful pages, `base` of them are the floor and one in `share` of the rest."""

    below: float
    base: int
    share: int


FLOOR = (Step(64 * MIB, 16 * MIB, 2), Step(512 * MIB, 40 * MIB, 8), Step(float("inf"), 99 * MIB, 32))
TOO_SMALL = 16 * MIB


def goal_of(committed: int, reserve: int, frontswap: int) -> int:
    """Return how many pages the guest would need to have everything in memory."""
    return committed + reserve + frontswap


def floor_of(total: int, reserve: int, min_usable: int | None = None) -> int:
    """Return the least that a guest of `total` pages is left with; `min_usable` overrides the table."""
    if min_usable is not None:
        return min(total, reserve + min_usable)
    useful = total - reserve
    if useful < TOO_SMALL:
        return total
    row = next(row for row in FLOOR if useful < row.below)
    return reserve + row.base + (useful - row.base) // row.share


def target_of(current: int, goal: int, floor: int, total: int, rules: Rules = LINUX) -> int:
    """Return how many pages the guest should have by the next interval."""
    wanted = current - (current - goal) // rules.down if current > goal else current + (goal - current) // rules.up
    return min(total, max(floor, wanted))


class Quiet(NamedTuple):
    """What the shrinking of frontswap remembers from one interval to the next."""

    pages: int = 0                                   # that were in frontswap
    left: int = INERTIA                              # intervals without growth still to wait for


def shrink(before: Quiet, pages: int, rules: Rules = LINUX) -> tuple[Quiet, int]:
    """Return what to remember, and how many of `pages` may stay in frontswap."""
    if not pages or pages > before.pages:
        return Quiet(pages, rules.inertia), pages
    left = max(0, before.left - 1)
    if left:
        return Quiet(pages, left), pages
    return Quiet(pages, 0), pages - pages // rules.shrink if pages > rules.shrink else 0
