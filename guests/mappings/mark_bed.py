"""Performs the steps of rules on marks, CMM2's own or those by tmem, with a guest of its own.

    volatile p    stable p    keep p (stable if not discarded)    unused p    state p
    write p D1    read p      through the marks
    plain p       a load that asks nobody, as any program makes it
    swap-in, swap-out, faults    of the guest, since the bed was made

And those of every bed.  Pages go by a letter, p to s.
"""

from guests.mappings.bed import Bed
from guests.mappings.marks import Marks, NativeMarks
from guests.mappings.marks_on_tmem import MarksOnTmem
from guests.mappings.operator import Operator
from guests.mappings.steps import name_of, page
from shm.counters import Count
from shm.pagestate import BYTE

PAGES = "pqrs"
_STATES = {byte: state.name for state, byte in BYTE.items()}


class MarkBed(Bed):
    """One kind of marks under test.  A context manager."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator, len(PAGES))

    def set_up(self) -> None:
        self.marks = self.new_marks()

    def new_marks(self) -> Marks:
        raise NotImplementedError

    # marks and touches

    def _volatile(self, name: str) -> None:
        self.marks.set_volatile([PAGES.index(name)])

    def _stable(self, name: str) -> None:
        self.marks.set_stable([PAGES.index(name)])

    def _keep(self, name: str) -> str:
        return "discarded" if self.marks.set_stable_if_not_discarded([PAGES.index(name)])[0] else "kept"

    def _unused(self, name: str) -> None:
        self.marks.set_unused([PAGES.index(name)])

    def _state(self, name: str) -> str:
        return _STATES[self.marks.get_state(PAGES.index(name))]

    def _write(self, name: str, content: str) -> None:
        self.marks.write(PAGES.index(name), page(content))

    def _read(self, name: str) -> str:
        return name_of(self.marks.read(PAGES.index(name)))

    def _plain(self, name: str) -> str:
        return name_of(self.guest.memory.read(PAGES.index(name)))

    # accounts

    def _swap_in(self) -> str:
        return f"{self._operator.row(self.guest)['host_counters']['swap_in']} pages"

    def _swap_out(self) -> str:
        return f"{self._operator.row(self.guest)['host_counters']['swap_out']} pages"

    def _faults(self) -> str:
        return f"{int(self.guest.counters[Count.DISCARD_FAULTS])} discard faults"


class NativeBed(MarkBed):
    """CMM2's own marks."""

    def new_marks(self) -> Marks:
        return NativeMarks(self.guest)


class OnTmemBed(MarkBed):
    """Marks by put, get and the balloon."""

    def new_marks(self) -> Marks:
        return MarksOnTmem(self.guest, self.guest.tmem.new_pool(persistent=False))
