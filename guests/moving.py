"""Following: how a guest goes on with its tmem when the operator has moved that to another cluster.

A call answered EMOVED has not been carried out.  The guest then asks the cluster that said so where to go, and attaches
there as a second guest of one page of RAM, with the token it was given: it takes over the number that waits there, and
so the pools.  Its memory stays where it is.

Rule 1: the home connection is never used to ask: whoever waits for the hypervisor's end there (`GuestEnd` does) would
        take an answer for it.
Rule 2: one away attachment at most.  When tmem moves on, the one before is left.
"""

from collections.abc import Callable
from typing import Protocol

from shm import door
from shm.channel import GuestEnd
from shm.errors import HypervisorGone, MemcommonsError, TmemRefused, UsageProblem
from shm.transfer import Transfer


class Attachment(Protocol):
    """A guest as it is attached to one cluster."""

    cluster: str
    stem: str
    channel: GuestEnd

    def close(self) -> None: ...


class Moving:
    """Where one guest's tmem is.  `attach(cluster, token)` attaches it there."""

    def __init__(self, home: Attachment, attach: Callable[[str, str], Attachment]) -> None:
        self._home, self._attach = home, attach
        self._away: Attachment | None = None

    def __call__(self) -> tuple[GuestEnd, Transfer]:
        """Follow the tmem one step; return how to call it there.  TmemRefused when it cannot be reached now."""
        left = self._away or self._home
        try:
            cluster, token = self._ask(left)
            there = self._attach(cluster, token)
        except MemcommonsError as error:
            raise TmemRefused(f"this guest's tmem was moved, and cannot be reached there: {error}") from error
        if self._away is not None:
            self._away.close()
        self._away = there
        return there.channel, there.channel.transfer

    @staticmethod
    def _ask(left: Attachment) -> tuple[str, str]:
        with door.connect(left.cluster) as link:
            try:
                door.send(link, {"call": "moved", "stem": left.stem})
            except OSError as error:
                raise HypervisorGone(f"the hypervisor hung up: {error}") from error
            reply, _ = door.receive(link)
        if "error" in reply:
            raise UsageProblem(reply["error"])
        return reply["cluster"], reply["token"]

    def close(self) -> None:
        """Leave the cluster where the tmem is, if that is not home."""
        if self._away is not None:
            self._away.close()
            self._away = None
