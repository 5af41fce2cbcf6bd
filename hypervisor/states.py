"""Orders about page states, given through the door.

    discard                    evict pages now, as their states allow: v7's debug order "steal block", for tests
    reset-states               all pages of a guest are stable again (R22)
    states-get, states-set     usage and no-DAT of a guest's pages, to move them to another host (R23)

States move as KVM moves them: a byte a page, usage and no-DAT; where the content is, the other side knows by itself.
The target sets them after it has filled the memory: a page that the source had discarded was never filled there, so
its V makes it Vz.  With `peek` a look is a look; without, it is one pass of a copy beside a running guest: pages that
are as they were told last are left out at both ends, and `rest` says where the next look begins.
"""

from collections.abc import Callable
from reprlib import repr as brief  # of what others sent: neither long nor deep
from typing import TYPE_CHECKING, Any

import numpy as np

from hypervisor import usage
from hypervisor.domains import Domain
from shm.errors import UsageProblem

if TYPE_CHECKING:
    from hypervisor.machine import Machine

Message = dict[str, Any]
Answer = dict[str, Any]
PAGES_A_MESSAGE = 1 << 16    # bytes too: half the door's message limit


class States:
    """Answers to orders about page states of one machine's guests."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self._told: dict[int, np.ndarray] = {}       # what each guest's pages were when last told, by its number
        self.table: dict[str, Callable[[Message], Answer]] = {
            "discard": self.discard, "reset-states": self.reset, "states-get": self.get, "states-set": self.set,
        }

    def discard(self, message: Message) -> Answer:
        """Evict `count` pages from `first` on; `frames` is how many frames went."""
        domain = self._domain(message)
        first, count = _range(message, "first", domain, domain.pages)
        gfns = np.arange(first, first + count)
        return {"frames": self.machine.cmm2.evict(domain, gfns), "pages": count}

    def reset(self, message: Message) -> Answer:
        """Make all pages of a guest stable."""
        domain = self._domain(message)
        if not usage.reset(self.machine.cmm2, domain):
            raise _lock_is_held(domain)
        return {"pages": domain.pages}

    def get(self, message: Message) -> Answer:
        """Return `states`, bytes of the pages from `first` on, and `rest`: the page to ask for next, if any."""
        domain = self._domain(message)
        start, count = _range(message, "from", domain, PAGES_A_MESSAGE)
        peek = message.get("peek", True)
        if type(peek) is not bool:
            raise UsageProblem(f"peek {brief(peek)} is not true or false")
        states = usage.carried(domain, start, count)
        rest = start + count if start + count < domain.pages else None
        first, last = (0, count) if peek else self._changed(domain, start, states)
        return {"first": start + first, "states": states[first:last].tobytes(), "rest": rest, "pages": domain.pages}

    def _changed(self, domain: Domain, start: int, states: np.ndarray) -> tuple[int, int]:
        """Return the range of `states` outside of which all is as it was told last; it is told now."""
        for number in self._told.keys() - self.machine.domains.keys():
            del self._told[number]
        told = self._told.setdefault(domain.number, np.full(domain.pages, 0xFF, np.uint8))[start:start + len(states)]
        changed = np.flatnonzero(told != states)
        told[:] = states
        return (int(changed[0]), int(changed[-1]) + 1) if len(changed) else (0, 0)

    def set(self, message: Message) -> Answer:
        """Set `states` to the pages from `from` on; all of it is checked before any is set."""
        domain, states = self._domain(message), message.get("states")
        if not isinstance(states, bytes) or not 0 < len(states) <= PAGES_A_MESSAGE:
            raise UsageProblem(f"states-set: send 1 to {PAGES_A_MESSAGE} bytes of states, one a page")
        start, count = _range(message | {"count": len(states)}, "from", domain, PAGES_A_MESSAGE)
        values = np.frombuffer(states, np.uint8)
        bad = np.flatnonzero(values & ~np.uint8(usage.CARRIED))
        if len(bad):
            raise UsageProblem(f"states-set: page {start + int(bad[0])}: 0x{int(values[bad[0]]):02x} is no usage; its "
                               f"bits are among 0x{usage.CARRIED:02x}")
        if not usage.put(self.machine.cmm2, domain, start, values):
            raise _lock_is_held(domain)
        return {"pages": count}

    def _domain(self, message: Message) -> Domain:
        name = message.get("name")
        domain = next((domain for domain in self.machine.domains.values() if domain.name == name), None)
        if domain is None:
            raise UsageProblem(f"no guest {brief(name)} is attached; `memcommons ctl "
                               f"{self.machine.settings.cluster} list` shows who is")
        return domain


def _range(message: Message, what: str, domain: Domain, most: int) -> tuple[int, int]:
    """Return (first page, count) of what is meant; a count that is not given is as many as there are, up to `most`."""
    first = message.get(what, 0)
    if type(first) is not int or not 0 <= first < domain.pages:
        raise UsageProblem(f"{what} {brief(first)} is not a page of guest {domain.name!r}: use 0 to {domain.pages - 1}")
    most = min(most, domain.pages - first)
    count = message.get("count", most)
    if type(count) is not int or not 1 <= count <= most:
        raise UsageProblem(f"count {brief(count)}: from page {first} on use 1 to {most}")
    return first, count


def _lock_is_held(domain: Domain) -> UsageProblem:
    return UsageProblem(f"guest {domain.name!r} holds its state lock: nothing was changed, or not all; try again")
