"""KVM's release list (CBRL): pages without a frame that the guest has released, until the host frees their copies.

One page of shared memory a guest: 511 slots of eight bytes for the guest's processor, and one that counts them.

Rule 1: both sides touch it under the state lock alone.  The guest's processor appends; the hypervisor empties it.
Rule 2: a name on the list is a wish.  The hypervisor frees the copy of a page that still reads as zero, and of no
        other: a page that was made stable since keeps its copy (R46).
Rule 3: the hypervisor believes nothing in it: numbers are copied out first, and those outside the guest are ignored.
"""

from collections.abc import Sequence

import numpy as np

RELEASES = 511               # of 512: the last one is the host's
_USED = RELEASES


class ReleaseList:
    """The list in `slots`, 512 numbers (int64) in shared memory."""

    def __init__(self, slots: np.ndarray) -> None:
        self.slots = slots

    def __len__(self) -> int:
        return min(RELEASES, max(0, int(self.slots[_USED])))

    @property
    def room(self) -> int:
        """How many pages more it takes.  The lock is held."""
        return RELEASES - len(self)

    def append(self, gfns: Sequence[int] | np.ndarray) -> None:
        """Put pages on the list, at most `room`.  The lock is held."""
        used = len(self)
        self.slots[used:used + len(gfns)] = gfns
        self.slots[_USED] = used + len(gfns)

    def listed(self, pages: int) -> np.ndarray:
        """Return the pages on the list, of a guest of `pages` pages: sorted, each once, a copy.  The lock is held."""
        gfns = np.unique(self.slots[:len(self)])
        return gfns[(gfns >= 0) & (gfns < pages)]

    def clear(self) -> None:
        """Empty the list.  The lock is held."""
        self.slots[_USED] = 0
