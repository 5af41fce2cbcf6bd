"""The frame ledger: who holds how many frames, and the budget.

Rule 1: frames are reserved here before they are allocated, and released here after they were given back to the kernel;
        so at any moment between two events of the loop the ledger equals what is resident.
Rule 2: the sum never exceeds the budget.  `reserve` says no; finding frames by reclaim is the caller's affair.

One writer: the hypervisor's event loop.
"""

from shm.errors import BrokenInvariant

HEAP = -1                    # the owner's number of the tmem heap; guests are numbered from 0


class Ledger:
    """Frames of the arena, by owner."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held: dict[int, int] = {}
        self.used = 0
        self.peak = 0

    @property
    def free(self) -> int:
        """Frames that may still be reserved; negative while a lowered budget is being met."""
        return self.budget - self.used

    def reserve(self, owner: int, frames: int) -> bool:
        """Take `frames` for `owner`, all or none; say whether they were had."""
        if frames > self.free:
            return False
        self.held[owner] = self.held.get(owner, 0) + frames
        self.used += frames
        self.peak = max(self.peak, self.used)
        return True

    def release(self, owner: int, frames: int) -> None:
        """Return `frames` of `owner`; they are no longer resident."""
        held = self.held.get(owner, 0)
        if not 0 <= frames <= held:
            raise BrokenInvariant(f"owner {owner} releases {frames} frames of {held}")
        self.held[owner] = held - frames
        self.used -= frames

    def forget(self, owner: int) -> int:
        """Release all that `owner` holds and return how many frames that was."""
        frames = self.held.pop(owner, 0)
        self.used -= frames
        return frames

    def audit(self) -> list[str]:
        """Recount; return what does not add up."""
        total = sum(self.held.values())
        problems = [f"ledger: {self.used} frames used, owners hold {total}"] if total != self.used else []
        return problems + [f"ledger: owner {owner} holds {n}" for owner, n in self.held.items() if n < 0]
