"""What a workload is.

    made from   checked options and a seed; nothing is opened and no page is touched
    prepare     opens disks, writes first contents, fills the guest's memory
    step        one operation; every byte it reads is compared with what was written there
    finish      the checks that need the whole

Rule 1: the same options and seed are exactly the same operations, whatever the timing and whatever the scheme: a step
        looks at no clock, no counter, no feature and no state of the host.
Rule 2: the first wrong byte raises WrongContent.  A workload never goes on with content that it knows to be wrong.
Rule 3: a long prepare calls `going_on` between pieces; it raises when the guest is told to leave.

The OPERATIONS counter is written here, PAGES_VERIFIED and MISMATCHES by `Proof`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from guests.device import Device
from guests.disk import Disk
from guests.hostcache import HostCaches
from guests.workloads.proof import Proof
from shm.abi import PAGE_SIZE
from shm.counters import Count
from shm.units import format_size, parse_size

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.kernel import Kernel

GoingOn = Callable[[], None]


class Options(BaseModel):
    """Options of a workload: unknown keys and wrong kinds are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def sized(least: int, most: int) -> Any:
    """Return the type of a size option between `least` and `most` bytes, written as "64MiB"."""
    def within(size: int) -> int:
        if not least <= size <= most:
            raise ValueError(f"{format_size(size)} is out of range; allowed: {format_size(least)} to "
                             f"{format_size(most)}")
        return size
    return Annotated[int, BeforeValidator(parse_size), AfterValidator(within)]


def pages_of(size: int) -> int:
    """Return the pages that `size` bytes take."""
    return -(-size // PAGE_SIZE)


class Workload(ABC):
    """One guest's work.  Used by one thread."""

    Options: ClassVar[type[Options]]
    cache_pages: int | None = None       # a plain LRU page cache of that size instead of the kernel's own policy
    has_kernel: ClassVar[bool] = True    # False: it uses the guest's pages itself, and no guest kernel takes them

    def __init__(self, options: Any, seed: int) -> None:
        self.options, self.seed = options, seed
        self._disks: list[Disk] = []
        self.device: Device | None = None    # behind its disks, ...
        self.caches: HostCaches | None = None    # ... and before them; both are set before `prepare`

    @classmethod  # noqa: B027
    def check(cls, options: Any) -> None:
        """Raise UsageProblem for what the options' own types cannot see: a missing file, a damaged trace."""

    @property
    def anonymous_pages(self) -> int:
        """Anonymous pages that it will have at most: what the guest's swap disk must be able to hold."""
        return 0

    def prepare(self, kernel: "Kernel | None", guest: "Guest", going_on: GoingOn) -> None:
        """Open disks and fill memory.  The guest's counters are at hand from here on.

        `kernel` is None where `has_kernel` says so.
        """
        if kernel is not None:
            self.kernel = kernel
        self.guest = guest
        self.proof = Proof(guest.counters)
        self._counters = guest.counters.data
        self.set_up(going_on)

    def step(self) -> bool:
        """Do one operation; False when there is none left, and nothing was done."""
        if not self.operate():
            return False
        self._counters[Count.OPERATIONS] += 1
        return True

    @abstractmethod
    def set_up(self, going_on: GoingOn) -> None:
        """Do what `prepare` says; `kernel` (if it has one), `guest` and `proof` are there."""

    @abstractmethod
    def operate(self) -> bool:
        """Do one operation and verify what it read; False when there is none left."""

    def finish(self) -> None:  # noqa: B027
        """Check what only the whole can show."""

    def owns(self, disk: Disk) -> Disk:
        """Take a disk over, and return it as it is to be used: `close` closes it.

        It costs what the guest's device says, and the host's cache is before it, where the scheme has one.
        """
        self._disks.append(disk)
        if self.device is not None:
            disk.behind(self.device)
        return disk if self.caches is None else self.caches.front(disk)

    def close(self) -> None:
        """Let go of disks.  After the kernel, which may still write to them."""
        while self._disks:
            self._disks.pop().close()
