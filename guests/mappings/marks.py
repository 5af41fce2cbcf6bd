"""CMM2's marks on some pages of a guest, as CMM2 has them: the face that `marks_on_tmem` wears too.

Both are driven by the same steps, so what a mark promises can be held against either.  `pages` are the guest's frame
numbers that are marked here; a caller names them, and touches them through `read` and `write`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shm.pagestate import DISCARDED, Essa

if TYPE_CHECKING:
    from guests.guest import Guest

Gfns = Sequence[int] | np.ndarray


class Marks(Protocol):
    """What a guest may say of its pages, and how it touches them.

    DiscardFault for a touch of a discarded page, AddressingException of an unused one; neither changes anything.
    """

    def set_stable(self, gfns: Gfns) -> None: ...

    def set_stable_if_not_discarded(self, gfns: Gfns) -> np.ndarray:
        """Return which were discarded (bool), and still are; the others are stable."""
        ...

    def set_volatile(self, gfns: Gfns) -> None: ...

    def set_unused(self, gfns: Gfns) -> None: ...

    def get_state(self, gfn: int) -> int:
        """Return the state's byte, as ESSA gives it."""
        ...

    def read(self, gfn: int) -> bytes: ...

    def write(self, gfn: int, data: bytes | np.ndarray) -> None: ...


class NativeMarks:
    """The marks of CMM2 itself: one instruction each."""

    def __init__(self, guest: "Guest") -> None:
        self._guest, self._memory = guest, guest.memory

    def set_stable(self, gfns: Gfns) -> None:
        self._guest.essa(Essa.SET_STABLE, gfns)

    def set_stable_if_not_discarded(self, gfns: Gfns) -> np.ndarray:
        discarded: np.ndarray = self._guest.essa(Essa.SET_STABLE_IF_NOT_DISCARDED, gfns) == DISCARDED
        return discarded

    def set_volatile(self, gfns: Gfns) -> None:
        self._guest.essa(Essa.SET_VOLATILE, gfns)

    def set_unused(self, gfns: Gfns) -> None:
        self._guest.essa(Essa.SET_UNUSED, gfns)

    def get_state(self, gfn: int) -> int:
        return self._guest.essa_one(Essa.GET_STATE, gfn)

    def read(self, gfn: int) -> bytes:
        return self._memory.read(gfn)

    def write(self, gfn: int, data: bytes | np.ndarray) -> None:
        self._memory.write(gfn, data)
