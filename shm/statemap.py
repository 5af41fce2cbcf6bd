"""A guest's page states in shared memory: two arrays, one byte a page each, and the one lock over both.

    usage     written by the guest; the hypervisor clears three bits of it (see `shm.pagestate`)
    content   written by the hypervisor alone; the guest maps it read-only

Both sides look a pair up and store its successor under the lock: that is what makes an ESSA, an access, a discard one
atomic step against the others.  The lock is one posix_ipc semaphore and has no owner word (a holder that is killed may
not have written it yet): who outlives whom is decided by pidfds, and only the hypervisor inherits and mends.

The lock orders well-meaning parties.  A hostile guest can post it twice or scribble on `usage`; it then confuses its
own pages' states, each of which still decodes to one of the eight, and the hypervisor's accounts never rest on it.
"""

from collections.abc import Sequence
from time import monotonic_ns

import numpy as np
import posix_ipc

from shm.errors import AddressingException, HypervisorGone, SpecificationException
from shm.pagestate import Essa, Lookup, lookup, pair_of

SCALAR_BELOW = 16            # pages: below this a Python loop beats numpy's fixed cost
PATIENCE_S = 4.0             # a guest waits so long for the lock, then holds the other side for dead: told within 5 s


class StateLock:
    """The per-guest lock.  As a context manager it waits at most `patience` seconds, then raises HypervisorGone."""

    def __init__(self, semaphore: posix_ipc.Semaphore, patience: float = PATIENCE_S) -> None:
        self.semaphore = semaphore
        self.patience = patience
        self.waited_ns = 0       # total time that this side waited for a contended lock

    def acquire(self, timeout: float) -> bool:
        """Take the lock within `timeout` seconds (0: at once or not at all); say whether it was had."""
        try:
            self.semaphore.acquire(0)
            return True
        except posix_ipc.BusyError:
            return timeout > 0 and self._wait(timeout)

    def _wait(self, timeout: float) -> bool:
        start = monotonic_ns()
        try:
            return self._acquire_until(start + int(timeout * 1e9))
        except posix_ipc.BusyError:
            return False
        finally:
            self.waited_ns += monotonic_ns() - start

    def _acquire_until(self, deadline: int) -> bool:
        while True:
            try:
                self.semaphore.acquire(max(0, deadline - monotonic_ns()) / 1e9)
                return True
            except posix_ipc.SignalError:        # a signal came, and its handler let us go on
                continue

    def release(self) -> None:
        self.semaphore.release()

    def __enter__(self) -> None:
        try:
            self.semaphore.acquire(0)
        except posix_ipc.BusyError:
            self._enter_patiently()

    def _enter_patiently(self) -> None:
        if not self._wait(self.patience):
            raise HypervisorGone(f"the state lock was not free for {self.patience:g} s: its holder does not answer")

    def __exit__(self, *_: object) -> None:
        self.semaphore.release()


class StateMap:
    """Both arrays and their lock, as either side holds them."""

    def __init__(self, usage: np.ndarray, content: np.ndarray, lock: StateLock, kvm: bool = False) -> None:
        if usage.shape != content.shape:
            raise ValueError(f"usage and content differ in length: {usage.shape} and {content.shape}")
        self.usage = usage
        self.content = content
        self.lock = lock
        self.pages = len(usage)
        self.tables: Lookup = lookup(kvm)
        # The same bytes for the scalar path: an item of a memoryview costs a third of numpy's.
        self._usage, self._content = usage.data, content.data
        self._hint = [bytes(row) for row in self.tables.hint]
        self._essa, self._access = bytes(self.tables.essa), bytes(self.tables.access)

    def pairs(self, gfns: np.ndarray | slice) -> np.ndarray:
        """Return the pairs of some pages: one snapshot, under the lock if it is to mean anything later."""
        if isinstance(gfns, slice):
            return pair_of(self.usage[gfns], self.content[gfns])
        return pair_of(self.usage.take(gfns), self.content.take(gfns))

    def states(self, gfns: np.ndarray | slice) -> np.ndarray:
        """Return the states of some pages (uint8, `State`)."""
        return self.tables.state[self.pairs(gfns)]

    def access_one(self, gfn: int) -> int:
        """Return what an access to one page finds (`Access`).  The lock is held."""
        return self._access[self._usage[gfn] | self._content[gfn] << 8]

    def pair_one(self, gfn: int) -> int:
        """Return the pair of one page, usage | content << 8.  The lock is held."""
        return self._usage[gfn] | self._content[gfn] << 8

    def put_one(self, gfn: int, usage: int, content: int) -> None:
        """Store both bytes of one page: for who may write `content`.  The lock is held."""
        self._usage[gfn] = usage
        self._content[gfn] = content

    def mark_one(self, gfn: int, bits: int) -> None:
        """Set bits of one page's usage byte.  The lock is held."""
        self._usage[gfn] |= bits

    def hint_one(self, order: int, gfn: int) -> None:
        """Hint one page.  The lock is held."""
        self._usage[gfn] = self._hint[order][self._usage[gfn] | self._content[gfn] << 8]

    # ESSA runs in the guest's own context, as on the real machine: no hypercall, one look and one store under the lock.

    def essa_one(self, order: int, gfn: int) -> int:
        """Hint one page; return its old state byte (1.2).  AddressingException outside the guest (R12)."""
        if not 0 <= order < len(self._hint):
            raise SpecificationException(f"{order} is not an order; use 0 to {len(self._hint) - 1}")
        if not 0 <= gfn < self.pages:
            raise AddressingException([gfn])
        with self.lock:
            pair = self._usage[gfn] | self._content[gfn] << 8
            self._usage[gfn] = self._hint[order][pair]
        return self._essa[pair]

    def essa(self, order: Essa, gfns: Sequence[int] | np.ndarray) -> np.ndarray:
        """Hint many pages in one step; return their old state bytes (uint8).

        Refuse duplicates (ValueError: the old state of the second would be a lie), numbers outside the guest
        (AddressingException) and unknown orders (SpecificationException); none changes any state.
        """
        if not 0 <= order < len(self._hint):
            raise SpecificationException(f"{order} is not an order; use 0 to {len(self._hint) - 1}")
        if len(gfns) == 1:
            return np.array([self.essa_one(order, int(gfns[0]))], np.uint8)
        numbers = checked_gfns(gfns, self.pages)
        if len(numbers) < SCALAR_BELOW:
            return self._essa_few(order, numbers.tolist())
        with self.lock:
            pairs = self.pairs(numbers)
            self.usage[numbers] = self.tables.hint[order].take(pairs)
        return self.tables.essa.take(pairs)

    def _essa_few(self, order: int, gfns: list[int]) -> np.ndarray:
        usage, content, hint, pairs = self._usage, self._content, self._hint[order], []
        with self.lock:
            for gfn in gfns:
                pair = usage[gfn] | content[gfn] << 8
                usage[gfn] = hint[pair]
                pairs.append(pair)
        return np.array([self._essa[pair] for pair in pairs], np.uint8)


def checked_gfns(gfns: Sequence[int] | np.ndarray, pages: int) -> np.ndarray:
    """Return `gfns` as int64, all different and all in the guest."""
    numbers = np.asarray(gfns, dtype=np.int64).reshape(-1)
    if not len(numbers):
        return numbers
    ordered = numbers if (numbers[1:] > numbers[:-1]).all() else np.sort(numbers)
    if ordered[0] < 0 or ordered[-1] >= pages:
        raise AddressingException(numbers[(numbers < 0) | (numbers >= pages)])
    if ordered is not numbers and (ordered[1:] == ordered[:-1]).any():
        raise ValueError("the same page stands twice in one batch; name each page once")
    return numbers
