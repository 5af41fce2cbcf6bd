"""How many persistent tmem pages guests may put: nobody can take them back, so it is asked before each.

    of one guest    RAM that it holds and these stay within its max_mem (T67), and these within its target, if any
    of all          they leave the frames that guests' memory must always find (T70)
"""

from typing import TYPE_CHECKING

from shm.abi import MULTICALL_LIMIT, Refusal

if TYPE_CHECKING:
    from hypervisor.machine import Machine

WRITE_BACK_PAGES = 1024      # persistent pages written to the swap disk together, at most, for a put
SURE_PAGES = 512             # frames that persistent pages leave to each guest's memory, where there is a swap disk


class Allowance:
    """Answers for one machine."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine

    def __call__(self, owner: int) -> tuple[int, Refusal]:
        """Return how many persistent pages a guest may still put, and what keeps it from more."""
        own, whose = self._own(owner)
        room = self._room() if own > 0 else 0
        return (own, whose) if own <= room else (room, Refusal.RESERVED)

    @property
    def pool(self) -> int:
        """How many raw persistent pages all guests may hold together, in memory alone."""
        return self.machine.ledger.budget - self._sure - self.machine.reclaim.low

    def _own(self, owner: int) -> tuple[int, Refusal]:
        machine, domain = self.machine, self.machine.domains.get(owner)
        held = machine.ledger.held.get(owner, 0) + machine.store.pages_of(owner, persistent=True)
        most = domain.max_pages if domain is not None else machine.migration.max_pages(owner)
        target = machine.targets.left(owner) if domain is not None else None
        if target is not None and target < most - held:
            return target, Refusal.TARGET
        return most - held, Refusal.MAX_MEM

    @property
    def _sure(self) -> int:
        """Frames that guests' memory must always find: all of it where it cannot be swapped out."""
        pages = [domain.pages for domain in self.machine.domains.values()]
        return sum(pages) if self.machine.cmm2.swap is None else sum(min(each, SURE_PAGES) for each in pages)

    def _room(self) -> int:
        """Return how many persistent pages more memory holds beside what guests' memory must always find.

        Where persistent pages may be written back, the oldest are, as far as they leave the slots that the rest of the
        guests' memory may need, and some for a guest that is yet to come (T70): else disk and memory would both be full
        of them, and the next fault would find nothing.
        """
        machine, room = self.machine, self.pool - self.machine.store.lasting_frames
        if machine.swap is not None and machine.settings.write_back and room < MULTICALL_LIMIT:
            rest = sum(domain.pages for domain in machine.domains.values()) - self._sure
            kept = rest + min(SURE_PAGES, machine.swap.slots // 2)
            slots = machine.swap.slots - machine.store.storage.swapped - kept
            room += machine.store.write_pages_back(min(slots, MULTICALL_LIMIT - room, WRITE_BACK_PAGES))
        return room
