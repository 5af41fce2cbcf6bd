"""Random hints on pages of one's own, held against what CMM2 promises of them (reference 1.5 to 1.7).

The kernel's allocator gives the pages away until the end: no list, no reclaim, no hint of the kernel touches them.
For each page we keep what the guest can know: the usage it gave, the bytes that must be there if the page is, whether
it surely was discarded.  The old state that each ESSA returns, and each access, must agree.

    S   must hold its bytes            U   every access is an addressing exception
    V   its bytes, or a discard fault  P   as V while clean; once stored to, it must hold its bytes

In hardware mode no access tells of a fault: a page that is U is left alone, for a touch would end the guest; the pager
restores what was discarded, with zeros; and a clean P is made stable first, for it might come back as V unnoticed.
A page may count as changed there that was not: then a P that we take for clean is preserved.
"""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from guests.workloads.content import Content
from guests.workloads.proof import Proof
from shm.abi import PAGE_SIZE
from shm.errors import AddressingException, DiscardFault
from shm.pagestate import BYTE, CONTENT_MASK, DISCARDED, PRESERVED, RESIDENT, STABLE, USAGE_MASK, Essa, State

if TYPE_CHECKING:
    from guests.kernel import Kernel
    from guests.sources import Sources

ZEROS = bytes(PAGE_SIZE)
S, U, V, P = "SUVP"
# The states that ESSA may report of a page to which we gave this usage, by (usage, change bit).
MAY_BE: dict[tuple[str, bool], tuple[State, ...]] = {
    (S, False): (State.Sr, State.Sp, State.Sz), (S, True): (State.Sr, State.Sp, State.Sz),
    (U, False): (State.Ur, State.Uz), (U, True): (State.Ur, State.Uz),
    (V, False): (State.Vr, State.Vz), (V, True): (State.Vr, State.Vz),
    (P, False): (State.Pr, State.Vz), (P, True): (State.Pr, State.Sr, State.Sp),
}
TOO_DIRTY = (State.Pr, State.Vz, State.Sr, State.Sp)         # of a clean P in hardware mode
STATE_BITS = USAGE_MASK | CONTENT_MASK
STABLE_ORDERS = (Essa.SET_STABLE, Essa.SET_STABLE_RESIDENT, Essa.SET_STABLE_NODAT)


@dataclass(slots=True)
class Known:
    """What can be known of one page."""

    usage: str = S
    data: bytes | None = None    # None: it holds anything (it was unused, or nobody wrote to it yet)
    changed: bool = False        # the guest's change bit: stored to since it was last cleared
    lost: bool = False           # it surely is Vz


class PrivatePages:
    """An actor of the stress workload: one page and one deed at a time."""

    def __init__(self, kernel: "Kernel", proof: Proof, random: Random, pages: int) -> None:
        self._guest, self._memory, self._allocator = kernel.guest, kernel.guest.memory, kernel.core.allocator
        self._proof, self._random, self._content = proof, random, Content(random.getrandbits(32))
        self.gfns = self._allocator.alloc(pages)
        self._known = [Known() for _ in self.gfns]
        self._written = 0
        self._sources: Sources | None = getattr(self._memory, "sources", None)       # None in software mode
        if self._sources is not None:
            self._sources.zero(self.gfns)
        for at in range(pages):
            self._store(at)

    def act(self) -> None:
        at, deed = self._random.randrange(len(self.gfns)), self._random.random()
        if deed < 0.4:
            self._hint(at, Essa(self._random.randrange(len(Essa))))
        elif deed < 0.45:
            self._launder(at)
        elif deed < 0.75:
            self._load(at)
        else:
            self._store(at)

    def finish(self) -> None:
        """Look at every page once more, and give all back."""
        for at in range(len(self.gfns)):
            self._load(at)
            self._hint(at, Essa.SET_STABLE)
        if self._sources is not None:
            self._sources.clear(self.gfns)
        self._allocator.free(self.gfns)
        self.gfns = []

    # -- hints

    def _hint(self, at: int, order: Essa) -> None:
        """Send one hint; check the old state, and note the new one."""
        if order == Essa.SET_STABLE_RESIDENT:                # in two steps: it may find no frame half-way
            self._hint(at, Essa.SET_STABLE)
            self._allocator.with_room((self.gfns[at],), self._guest.essa_one, order, self.gfns[at])
            return
        known = self._known[at]
        old = self._guest.essa_one(order, self.gfns[at]) & STATE_BITS
        self._check_old(at, known, old)
        if old == DISCARDED:
            known.usage, known.data, known.lost = V, None, True
        elif known.usage == P and old & USAGE_MASK == STABLE:
            known.usage = S                                  # the host preserved a dirty P: the one such case (R16)
        self._note(at, known, order, old)

    def _check_old(self, at: int, known: Known, old: int) -> None:
        allowed = (State.Vz,) if known.lost else MAY_BE[known.usage, known.changed]
        if self._sources is not None and known.usage == P and not known.changed:
            allowed = TOO_DIRTY
        self._proof.holds(old in [BYTE[state] for state in allowed],
                          f"private page {at}: ESSA says {old:#04x} of a page that is {known.usage}, changed: "
                          f"{known.changed}; allowed: {', '.join(state.name for state in allowed)}")
        self._proof.holds(old != BYTE[State.Sz] or known.data in (None, ZEROS),
                          f"private page {at}: it is Sz, and was not all zeros")

    def _note(self, at: int, known: Known, order: Essa, old: int) -> None:
        resident = old & CONTENT_MASK == RESIDENT
        if order == Essa.SET_UNUSED:
            known.usage, known.data, known.lost = U, None, False
        elif order == Essa.SET_VOLATILE:
            known.usage, known.lost = V, not resident
        elif order == Essa.SET_POT_VOLATILE:
            self._note_potential(known, old)
            if self._sources is not None and old & CONTENT_MASK == PRESERVED and not known.changed:
                self._find_out(at, known)
        elif order in STABLE_ORDERS or (order == Essa.SET_STABLE_IF_NOT_DISCARDED and old != DISCARDED):
            if known.usage == U or known.lost:               # Ur keeps anything, Uz and Vz read zero
                known.data = None if resident else ZEROS
            known.usage, known.lost = S, False
        if known.lost:
            known.data = None

    def _note_potential(self, known: Known, old: int) -> None:
        """Pr while it has a frame; a preserved page stays as it is if the change bit is set; anything else is Vz."""
        if old & CONTENT_MASK == RESIDENT:
            known.usage, known.lost = P, False
        elif old & CONTENT_MASK == PRESERVED and known.changed:
            known.usage, known.lost = S, False
        else:
            known.usage, known.lost = V, True

    def _find_out(self, at: int, known: Known) -> None:
        """Make a page stable that was either kept, because it counts as changed, or discarded; see which."""
        old = self._guest.essa_one(Essa.SET_STABLE, self.gfns[at]) & STATE_BITS
        known.usage, known.lost = S, False
        if old == DISCARDED:
            known.data = ZEROS

    def _launder(self, at: int) -> None:
        """Clear the change bit, as after writeback: made stable before (R36)."""
        self._hint(at, Essa.SET_STABLE)
        self._memory.clear_dirty([self.gfns[at]])
        self._known[at].changed = False

    # -- accesses

    def _load(self, at: int) -> None:
        known, gfn = self._known[at], self.gfns[at]
        if self._sources is not None and not self._touchable(at, known):
            return
        try:
            found = self._allocator.with_room((gfn,), self._memory.read, gfn)
        except (AddressingException, DiscardFault) as fault:
            self._faulted(at, known, fault)
            return
        self._may_access(at, known)
        if self._sources is not None and known.usage == V and found == ZEROS:
            known.data = ZEROS                               # it was discarded, and restored
        if known.data is not None:
            self._proof.page(found, known.data, "private", at)
        known.data = found

    def _store(self, at: int) -> None:
        known, gfn = self._known[at], self.gfns[at]
        if self._sources is not None and not self._touchable(at, known):
            return
        self._written += 1
        data = self._content.page(at, self._written)
        try:
            self._allocator.with_room((gfn,), self._memory.write, gfn, data)
        except (AddressingException, DiscardFault) as fault:
            self._faulted(at, known, fault)
            return
        self._may_access(at, known)
        known.data, known.changed = data, True

    def _touchable(self, at: int, known: Known) -> bool:
        """Say whether a page may be touched in hardware mode.  One that surely was discarded is, and then made stable.

        For it comes back as what it was, V or P, and ESSA has said V of both.
        """
        if known.usage == P and not known.changed:
            self._hint(at, Essa.SET_STABLE)
        if known.lost:
            self._proof.page(self._allocator.with_room((self.gfns[at],), self._memory.read, self.gfns[at]), ZEROS,
                             "private", at)
            self._guest.essa_one(Essa.SET_STABLE, self.gfns[at])
            known.usage, known.lost, known.data = S, False, ZEROS
        return known.usage != U

    def _may_access(self, at: int, known: Known) -> None:
        self._proof.holds(known.usage != U and not known.lost,
                          f"private page {at}: an access succeeded, and it is {known.usage}, lost: {known.lost}")

    def _faulted(self, at: int, known: Known, fault: AddressingException | DiscardFault) -> None:
        """See that this fault may come of this page."""
        if isinstance(fault, AddressingException):
            self._proof.holds(known.usage == U, f"private page {at}: {fault}, and it is {known.usage}")
            return
        allowed = known.usage == V or (known.usage == P and not known.changed)
        self._proof.holds(allowed, f"private page {at}: {fault}, and it is {known.usage}, changed: {known.changed}")
        known.usage, known.data, known.lost = V, None, True
