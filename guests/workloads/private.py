"""Random hints on pages of one's own, held against what CMM2 promises of them (reference 1.5 to 1.7).

The kernel's allocator gives the pages away for good: no list, no reclaim and no hint of the kernel's touches them.  For
each page we keep what the guest can know: the usage it gave, the bytes that must be there if the page is, whether it may
have been discarded, and whether it surely was.  The old state that each ESSA returns, and each access, must agree.

    S   must hold its bytes            U   every access is an addressing exception
    V   its bytes, or a discard fault  P   as V while clean; once stored to, it must hold its bytes
"""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from guests.workloads.content import Content
from guests.workloads.proof import Proof
from shm.abi import PAGE_SIZE
from shm.errors import AddressingException, DiscardFault
from shm.pagestate import BYTE, CONTENT_MASK, DISCARDED, RESIDENT, USAGE_MASK, Essa, State

if TYPE_CHECKING:
    from guests.kernel import Kernel

ZEROS = bytes(PAGE_SIZE)
S, U, V, P = "SUVP"
# The states that ESSA may report of a page whose usage we gave as ..., by (usage, dirty).
MAY_BE: dict[tuple[str, bool], frozenset[int]] = {
    key: frozenset(BYTE[state] for state in states) for key, states in {
        (S, False): (State.Sr, State.Sp, State.Sz), (S, True): (State.Sr, State.Sp),
        (U, False): (State.Ur, State.Uz), (U, True): (State.Ur, State.Uz),
        (V, False): (State.Vr, State.Vz), (V, True): (State.Vr, State.Vz),
        (P, False): (State.Pr, State.Vz), (P, True): (State.Pr, State.Sr, State.Sp),
    }.items()}
STATE_BITS = USAGE_MASK | CONTENT_MASK
STABLE_ORDERS = (Essa.SET_STABLE, Essa.SET_STABLE_RESIDENT, Essa.SET_STABLE_NODAT)


@dataclass(slots=True)
class Known:
    """What can be known of one page."""

    usage: str = S
    data: bytes | None = None    # None: it holds anything (it was unused, or nobody wrote to it yet)
    dirty: bool = False          # stored to since it last was unused, lost or new
    lost: bool = False           # it surely is Vz


class PrivatePages:
    """An actor of the stress workload: one page and one deed at a time."""

    def __init__(self, kernel: "Kernel", proof: Proof, random: Random, pages: int) -> None:
        self._guest, self._memory, self._allocator = kernel.guest, kernel.guest.memory, kernel.core.allocator
        self._proof, self._random, self._content = proof, random, Content(random.getrandbits(32))
        self.gfns = self._allocator.alloc(pages)
        self._known = [Known() for _ in self.gfns]
        self._written = 0
        for at in range(pages):
            self._store(at)

    def act(self) -> None:
        at, deed = self._random.randrange(len(self.gfns)), self._random.random()
        if deed < 0.4:
            self._hint(at, Essa(self._random.randrange(len(Essa))))
        elif deed < 0.75:
            self._load(at)
        else:
            self._store(at)

    def finish(self) -> None:
        """Look at every page once more, and give all back."""
        for at in range(len(self.gfns)):
            self._load(at)
            self._hint(at, Essa.SET_STABLE)
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
            known.usage, known.data, known.dirty, known.lost = V, None, False, True
        elif known.usage == P and old & USAGE_MASK == 0:
            known.usage = S                                  # the host preserved a dirty P: the one such case (R16)
        self._note(known, order, old)

    def _check_old(self, at: int, known: Known, old: int) -> None:
        allowed = {DISCARDED} if known.lost else MAY_BE[known.usage, known.dirty]
        self._proof.holds(old in allowed, f"private page {at}: ESSA says {old:#04x} of a page in {known}; "
                                          f"allowed: {sorted(map(hex, allowed))}")

    def _note(self, known: Known, order: Essa, old: int) -> None:
        resident = old & CONTENT_MASK == RESIDENT
        if order == Essa.SET_UNUSED:
            known.usage, known.data, known.dirty, known.lost = U, None, False, False
        elif order == Essa.SET_VOLATILE:
            known.usage, known.lost = V, not resident
        elif order == Essa.SET_POT_VOLATILE:
            self._note_potential(known, old, resident)
        elif order in STABLE_ORDERS or (order == Essa.SET_STABLE_IF_NOT_DISCARDED and old != DISCARDED):
            if known.usage == U or known.lost:               # Ur keeps anything, Uz and Vz read zero
                known.data = None if resident else ZEROS
            known.usage, known.lost = S, False
        if known.lost:
            known.data, known.dirty = None, False

    def _note_potential(self, known: Known, old: int, resident: bool) -> None:
        """Pr while it has a frame; else Vz, unless the guest's change bit kept a preserved page as it is."""
        if not resident and known.dirty:
            known.usage = S
        else:
            known.usage, known.lost = (P, False) if resident else (V, True)
            # The change bit of a page that was unused is not ours to know: look.
            known.dirty = known.dirty or (resident and bool(old & USAGE_MASK) and known.data is None and False)

    # -- accesses

    def _load(self, at: int) -> None:
        known, gfn = self._known[at], self.gfns[at]
        try:
            found = self._allocator.with_room((gfn,), self._memory.read, gfn)
        except (AddressingException, DiscardFault) as fault:
            self._faulted(at, known, fault)
            return
        self._may_access(at, known)
        if known.data is not None:
            self._proof.page(found, known.data, "private", at)
        known.data = found

    def _store(self, at: int) -> None:
        known, gfn = self._known[at], self.gfns[at]
        self._written += 1
        data = self._content.page(at, self._written)
        try:
            self._allocator.with_room((gfn,), self._memory.write, gfn, data)
        except (AddressingException, DiscardFault) as fault:
            self._faulted(at, known, fault)
            return
        self._may_access(at, known)
        known.data, known.dirty = data, True

    def _may_access(self, at: int, known: Known) -> None:
        self._proof.holds(known.usage != U and not known.lost,
                          f"private page {at}: an access succeeded on a page in {known}")

    def _faulted(self, at: int, known: Known, fault: AddressingException | DiscardFault) -> None:
        """See that this fault may come of this page."""
        if isinstance(fault, AddressingException):
            self._proof.holds(known.usage == U, f"private page {at}: {fault}, and it is in {known}")
            return
        allowed = known.usage == V or (known.usage == P and not known.dirty)
        self._proof.holds(allowed, f"private page {at}: {fault}, and it is in {known}")
        known.usage, known.data, known.dirty, known.lost = V, None, False, True
