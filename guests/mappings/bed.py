"""What both kinds of beds have: a guest of their own, steps by name, the host's orders, accounts.

    take    the host takes all that it can have        freeze, thaw    the operator's orders about tmem
    frames    of the guest's memory      calls-from-here, calls-made    hypercalls since
"""

from typing import Self

from guests.guest import Guest
from guests.mappings.operator import Operator
from shm.abi import PAGE_SIZE
from shm.counters import Count

NAME = "mapping"


class Bed:
    """A thing under test, with a guest of `pages` pages.  A context manager."""

    def __init__(self, operator: Operator, pages: int) -> None:
        self._operator, self._pages = operator, pages
        self._attach()

    def _attach(self) -> None:
        """Connect the guest, and make the thing that is tested."""
        self.guest = Guest.connect(self._operator.cluster, NAME, self._pages * PAGE_SIZE, faults="software")
        self.set_up()
        self._calls_from_here()

    def set_up(self) -> None:
        """Make the thing that is tested."""
        raise NotImplementedError

    def perform(self, step: str) -> str:
        """Carry one step out and return the answer, in words."""
        verb, *words = step.split()
        answer = getattr(self, "_" + verb.replace("-", "_"))(*words)
        return "done" if answer is None else str(answer)

    def _take(self) -> None:
        self._operator.take(self.guest)

    def _freeze(self) -> None:
        self._operator.about("tmem-freeze", self.guest)

    def _thaw(self) -> None:
        self._operator.about("tmem-thaw", self.guest)

    def _frames(self) -> str:
        return f"{self._operator.row(self.guest)['frames']} frames"

    def _calls_from_here(self) -> None:
        self._calls = int(self.guest.counters[Count.HYPERCALLS])

    def _calls_made(self) -> str:
        return f"{int(self.guest.counters[Count.HYPERCALLS]) - self._calls} hypercalls"

    def close(self) -> None:
        self.guest.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
