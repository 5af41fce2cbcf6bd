"""ESSA as the guest's processor executes it: order code and frame number in, old state out.

    shared    the instruction is carried out here, on the guest's own array, under its state lock (van Riel's variant)
    trap      it is a hypercall, and the hypervisor carries it out (the architected variant)

Both ways change the same bytes by the same tables.  A batch is one instruction a page: those before an exception that
only the hypervisor can find stay done, and every other exception is found before any state is changed (R12).

As KVM has it, an instruction that releases a page without a frame appends it to the release list; one that finds the
list full is intercepted: the hypervisor carries it out, and frees what the list names (R46).
"""

from collections.abc import Callable, Sequence
from time import monotonic, monotonic_ns

import numpy as np

from guests.memory import Memory
from shm.abi import MULTICALL_LIMIT, Op, Reply, Status
from shm.channel import GuestEnd
from shm.counters import Count
from shm.errors import AddressingException, BrokenInvariant, HypervisorGone, UsageProblem
from shm.facilities import Facilities
from shm.pagestate import Essa
from shm.releaselist import ReleaseList
from shm.statemap import StateMap, checked_gfns
from shm.transfer import Transfer

HINT_PATHS = ("shared", "trap")
TRAP_DEADLINE_S = 30.0       # a state lock that the hypervisor never gets in this time: something is broken
# An attribute of an enum costs half a microsecond: every hint looks at these.
_RESIDENT, _ESSA = int(Essa.SET_STABLE_RESIDENT), int(Count.ESSA)


class Processor:
    """One guest's processor.  One thread at a time makes hypercalls.

    Any may execute ESSA on the shared path of an architected processor, which makes none.
    """

    def __init__(self, map_: StateMap, memory: Memory, channel: GuestEnd, transfer: Transfer, counters: np.ndarray,
                 facilities: Facilities) -> None:
        self.map, self.memory, self.channel, self.transfer = map_, memory, channel, transfer
        self.counters = counters
        self.facilities = facilities
        self._orders = frozenset(facilities.orders)
        self.problem_state = False                   # of the program status word: ESSA is privileged
        self.releases = ReleaseList(transfer.releases)
        self.hint_path = "shared"

    @property
    def hint_path(self) -> str:
        """How hints reach the state: "shared" or "trap"."""
        return self._hint_path

    @hint_path.setter
    def hint_path(self, path: str) -> None:
        if path not in HINT_PATHS:
            raise UsageProblem(f"hint path {path!r}: use one of {', '.join(HINT_PATHS)}")
        self._hint_path = path
        self._plain = path == "shared" and not self.facilities.kvm       # then one page needs no more than the map
        self._carry_out: Callable[[Essa, Sequence[int] | np.ndarray], np.ndarray] = (
            self._trapped if path == "trap" else self._listing if self.facilities.kvm else self.map.essa)

    def essa(self, order: Essa, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Hint pages; return their old states (uint8, 1.2).

        OperationException, PrivilegedOperation, SpecificationException, AddressingException, in this order (R12), and
        ValueError for a page named twice: no state is changed then.  SET_STABLE_RESIDENT also brings frames in (R11).
        """
        if self.problem_state or order not in self._orders:
            self.facilities.check(order, self.problem_state)
        old = self._carry_out(order, gfns)
        self.counters[_ESSA] += len(old)
        if order == _RESIDENT and not self.facilities.kvm:
            self.memory.make_resident(gfns)
        return old

    def essa_one(self, order: Essa, gfn: int) -> int:
        """Hint one page; return its old state byte."""
        if not self._plain or order == _RESIDENT or self.problem_state or order not in self._orders:
            return int(self.essa(order, [gfn])[0])
        old = self.map.essa_one(order, gfn)
        self.counters[_ESSA] += 1
        return old

    # as KVM has it

    def _listing(self, order: Essa, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        if len(gfns) == 1:
            return np.array([self._list_one(order, int(gfns[0]))], np.uint8)
        numbers = checked_gfns(gfns, self.map.pages)
        old, at = np.empty(len(numbers), np.uint8), 0
        while at < len(numbers):
            done = self._list_some(order, numbers[at:], old[at:])
            if not done:                             # the next one finds the list full: it is intercepted
                old[at:at + 1] = self._trap(order, numbers[at:at + 1])
            at += max(1, done)
        return old

    def _list_one(self, order: Essa, gfn: int) -> int:
        map_ = self.map
        if not 0 <= gfn < map_.pages:
            raise AddressingException([gfn])
        with map_.lock:
            pair = int(map_.usage[gfn]) | int(map_.content[gfn]) << 8
            listed = map_.tables.lists[order][pair]
            if not listed or self.releases.room:
                map_.usage[gfn] = map_.tables.hint[order][pair]
                if listed:
                    self.releases.append([gfn])
                return int(map_.tables.essa[pair])
        return int(self._trap(order, np.array([gfn]))[0])

    def _list_some(self, order: Essa, gfns: np.ndarray, old: np.ndarray) -> int:
        """Execute the order on the first of `gfns`, as long as the release list has room; return on how many."""
        map_ = self.map
        with map_.lock:
            pairs = map_.pairs(gfns)
            listed = map_.tables.lists[order].take(pairs) != 0
            done = int(np.count_nonzero(np.cumsum(listed) <= self.releases.room))
            gfns, pairs, listed = gfns[:done], pairs[:done], listed[:done]
            map_.usage[gfns] = map_.tables.hint[order].take(pairs)
            self.releases.append(gfns[listed])
        old[:done] = map_.tables.essa.take(pairs)
        return done

    # by hypercall

    def _trapped(self, order: Essa, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        numbers = checked_gfns(gfns, self.map.pages)
        parts = [self._trap(order, part) for part in _parts(numbers)]
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)

    def _trap(self, order: Essa, gfns: np.ndarray) -> np.ndarray:
        self._ask(Op.ESSA, gfns, int(order), len(gfns))
        return self.transfer.states[:len(gfns)].copy()

    def release(self, gfns: Sequence[int] | np.ndarray) -> int:
        """Give pages up, as CMM1 does by diag 10; return how many had a frame or a copy that went.

        Stable ones are zero pages from then on, without any fault (R48); volatile ones stay as they are.
        """
        numbers = checked_gfns(gfns, self.map.pages)
        return sum(self._ask(Op.RELEASE, part, len(part)).value for part in _parts(numbers))

    def reset(self) -> None:
        """Reset the processor: all pages are stable then, and no-DAT is off (R22)."""
        self._ask(Op.RESET, np.empty(0, np.int64))

    def _ask(self, op: Op, gfns: np.ndarray, *arguments: int) -> Reply:
        """Make a hypercall about pages, again as long as the hypervisor did not get the state lock (NO)."""
        start = monotonic_ns()
        deadline = monotonic() + TRAP_DEADLINE_S
        while True:
            self.transfer.gfns[:len(gfns)] = gfns
            reply = self.channel.call(op, *arguments)
            self.counters[Count.HYPERCALLS] += 1
            if reply.status == Status.OK:
                self.counters[Count.WAIT_OTHER_NS] += monotonic_ns() - start
                return reply
            if reply.status != Status.NO:
                raise BrokenInvariant(f"{op.name} of pages {gfns[:4]} is refused with status {reply.status}")
            if monotonic() > deadline:
                raise HypervisorGone(f"the hypervisor did not get this guest's state lock for {TRAP_DEADLINE_S:g} s")


def _parts(gfns: np.ndarray) -> list[np.ndarray]:
    return [gfns[at:at + MULTICALL_LIMIT] for at in range(0, len(gfns), MULTICALL_LIMIT)]
