"""The balloon: pages that the guest does without, and whose frames the host has.

    Balloon       inflates and deflates to a target
    SelfBalloon   sets the target every few seconds, by what programs were promised (`guests.selfballoon` decides)
    Driver        follows the target that the host sets, a step at a time

Rule 1: a page of the balloon is allocated, belongs to nobody, is on no list, is unused, and is RESERVED; `gfns`,
        written here alone as RESERVED is, is all that knows it.
Rule 2: inflating goes through the allocator, so the guest's own reclaim makes room, and what the allocator keeps back
        stays.  A balloon that finds no more pages is smaller than it was told to be; one for which the host gives no
        frames back is larger.
Rule 3: a frame that the host does not take at once it may take later: the page stays unused until it is deflated.
"""

from collections.abc import Callable

from guests.kernel.core import Core
from guests.kernel.swapper import Swapper
from guests.selfballoon import LINUX, Quiet, Rules, floor_of, goal_of, shrink, target_of
from guests.volatility import RESERVED
from shm.abi import MULTICALL_LIMIT
from shm.counters import Count
from shm.errors import OutOfMemory

LOOK_EVERY = 8               # ticks: the clock is read on one in so many
RETRY_S = 0.2                # after a step that did not get all it wanted (virtio_balloon)
USABLE = 256                 # pages beside the allocator's reserve that no target takes: enough to page by


class Balloon:
    """The balloon of one guest."""

    def __init__(self, core: Core) -> None:
        self.gfns: list[int] = []
        self._core = core
        self.set_target(core.pages.count)

    @property
    def current(self) -> int:
        """Pages that the guest has: all but those of the balloon."""
        return self._core.pages.count - len(self.gfns)

    def set_target(self, pages: int) -> int:
        """Make the guest have `pages` pages, or as few as reclaim can bring about; return how many it has."""
        if not 0 <= pages <= self._core.pages.count:
            raise ValueError(f"a target of {pages} pages: use 0 to {self._core.pages.count}, what the guest was given")
        self._inflate(self.current - pages)
        self._deflate(pages - self.current)
        self._core.counters[Count.BALLOON_TARGET] = pages
        self._core.counters[Count.BALLOON_PAGES] = len(self.gfns)
        return self.current

    def approach(self, pages: int, most: int = MULTICALL_LIMIT) -> bool:
        """Go towards a target, at most `most` pages; say whether it was had so far."""
        aim = max(self.current - most, min(self.current + most, pages))
        reached = self.set_target(aim)
        self._core.counters[Count.BALLOON_TARGET] = pages
        return reached == aim

    def _inflate(self, wanted: int) -> None:
        most = MULTICALL_LIMIT
        while (count := min(wanted, most)) > 0:
            if self._take(count):
                wanted -= count
            else:
                most = count // 2

    def _take(self, count: int) -> bool:
        """Let `count` pages enter the balloon; say whether there were so many."""
        try:
            gfns = self._core.allocator.alloc(count)
        except OutOfMemory:
            return False
        self._core.pages.forget(gfns)
        self._core.pages.set(gfns, RESERVED)
        self.gfns += gfns
        self._core.memory.balloon(gfns)
        return True

    def _deflate(self, wanted: int) -> None:
        most = MULTICALL_LIMIT
        while (count := min(wanted, most)) > 0:
            gfns = self.gfns[-count:]
            if self._core.memory.deflate(gfns):
                del self.gfns[-count:]
                self._core.allocator.free(gfns)
                wanted -= count
            else:
                most = count // 2


class SelfBalloon:
    """Sets the target of a balloon, and shrinks frontswap, once an interval of `clock` (seconds)."""

    def __init__(self, core: Core, balloon: Balloon, swapper: Swapper, committed: Callable[[], int],
                 clock: Callable[[], float], rules: Rules = LINUX) -> None:
        self._counters, self._rules = core.counters, rules
        self._total, self._reserve = core.pages.count, core.allocator.marks.high
        self._floor = floor_of(self._total, self._reserve, rules.min_usable)
        self._balloon, self._swapper = balloon, swapper
        self._committed, self._clock = committed, clock
        self._quiet = Quiet(left=rules.inertia)
        self._ticks = 0
        self._next = clock() + rules.interval_s

    def tick(self) -> None:
        """Do what is due, which mostly is nothing."""
        self._ticks += 1
        if self._ticks % LOOK_EVERY or (now := self._clock()) < self._next:
            return
        self._next = now + self._rules.interval_s
        self._counters[Count.SELFBALLOON_INTERVALS] += 1
        self._resize()
        self._shrink()

    def _resize(self) -> None:
        goal = goal_of(self._committed(), self._reserve, self._swapper.swap.near)
        self._balloon.set_target(target_of(self._balloon.current, goal, self._floor, self._total, self._rules))

    def _shrink(self) -> None:
        near = self._swapper.swap.near
        self._quiet, stay = shrink(self._quiet, near, self._rules)
        if stay < near:
            self._counters[Count.FRONTSWAP_SHRUNK] += self._swapper.shrink_frontswap(stay)


class Driver:
    """Follows the host's target, down to what the guest needs to go on.

    `target` reads it, None while there is none; `clock` gives seconds.
    """

    def __init__(self, core: Core, balloon: Balloon, target: Callable[[], int | None],
                 clock: Callable[[], float]) -> None:
        self._balloon, self._target, self._clock = balloon, target, clock
        self._most = core.pages.count
        self._least = min(self._most, core.allocator.marks.high + USABLE)
        self._not_before = 0.0

    def tick(self) -> None:
        """Move a step towards the target, which mostly is reached."""
        said = self._target()
        if said is None:
            return
        target = max(self._least, min(self._most, said))
        if target != self._balloon.current and self._clock() >= self._not_before:
            self._follow(target)

    def _follow(self, target: int) -> None:
        if not self._balloon.approach(target):
            self._not_before = self._clock() + RETRY_S
