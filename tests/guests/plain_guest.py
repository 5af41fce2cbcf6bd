"""A guest without a hypervisor whose memory is plain, as in hardware mode: see `fakes` for the host that it has."""

from fakes import FakeGuest

from shm.pagestate import Essa, Sr, Sz


class PlainGuest(FakeGuest):
    """The fake, with an address: whoever touches a page of it finds what the fake left there."""

    name = "plain"

    def __init__(self, pages: int = 64, *arguments, **options) -> None:
        super().__init__(pages, *arguments, **options)
        self.memory.view = self.memory.rows
        self.memory.base = int(self.memory.rows.ctypes.data)

    def _hint(self, order: Essa, gfn: int) -> int:
        """Give up a page as what a touch, of which nobody has told us, has made of it."""
        if order in (Essa.SET_VOLATILE, Essa.SET_UNUSED) and self.states[gfn] == Sz:
            self.states[gfn] = Sr
        return super()._hint(order, gfn)
