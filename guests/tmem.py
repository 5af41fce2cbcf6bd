"""The tmem client of one guest: makes pools, and carries every call to the hypervisor that holds them.

Rule 1: the hypervisor that holds them may change.  A call answered EMOVED was not carried out, no entry of it, and its
        entries and pages still lie in the old transfer buffer.  They are taken out of it; `moved`, which may give that
        buffer up, says where to go on, once for each such answer; there they are put in, and the call is made again.
Rule 2: so nobody keeps `channel`, `transfer` or an array of the buffer across a call.  Pools keep their numbers.
Rule 3: a shared pool is joined by a secret of 128 bits, and is shared or refused: never silently private.
"""

from collections.abc import Callable
from time import monotonic_ns
from uuid import UUID

import numpy as np

from guests.pool import Oid, Pool
from shm.abi import MAX_POOLS, TMEM_VERSION, U64, VERSION_SHIFT, Op, PoolFlag, Reply, Status
from shm.channel import GuestEnd
from shm.counters import Count
from shm.errors import BrokenInvariant, TmemRefused
from shm.transfer import Transfer

__all__ = ["Oid", "Pool", "Secret", "TmemClient", "secret_words"]

Secret = int | UUID | bytes
Moved = Callable[[], tuple[GuestEnd, Transfer]]
MOST_MOVES = 4               # of one call: whoever is sent on more often runs in a circle
ADVICE = {
    Status.ENODEV: "the scheme has no tmem",
    Status.EPERM: f"{MAX_POOLS} pools at most, and a shared one is joined once",
    Status.EACCES: "this guest may not join that shared pool; allow it first: "
                   "memcommons ctl CLUSTER tmem-shared-auth GUEST SECRET",
}
# An attribute of an enum costs half a microsecond: every call looks at these.
_EMOVED, _OK, _MULTICALL = int(Status.EMOVED), int(Status.OK), Op.MULTICALL
_HYPERCALLS, _MULTICALLS, _WAIT_TMEM_NS = int(Count.HYPERCALLS), int(Count.MULTICALLS), int(Count.WAIT_TMEM_NS)


def secret_words(secret: Secret) -> tuple[int, int]:
    """Return the two numbers that a secret travels as, its low 64 bits first, as Xen's tools send a uuid's."""
    if isinstance(secret, bytes) and len(secret) != 16:
        raise ValueError(f"a secret is 16 bytes, not {len(secret)}")
    number = int.from_bytes(secret, "big") if isinstance(secret, bytes) else int(secret)
    if not 0 <= number < 1 << 128:
        raise ValueError("a secret is a number of 128 bits")
    if number in (0, (1 << 128) - 1):
        raise ValueError("a secret of nothing but zeros or ones stands for a private pool; choose another")
    return number & U64, number >> 64


class TmemClient:
    """The tmem calls of one guest."""

    def __init__(self, channel: GuestEnd, transfer: Transfer, counters: np.ndarray) -> None:
        self.channel = channel
        self.transfer = transfer
        self.counters = counters
        self._counts = counters.data
        self.moved: Moved | None = None              # set by whoever can reach the other cluster

    def new_pool(self, persistent: bool, shared: Secret | None = None) -> Pool:
        """Make a pool (16 at most), or join the one that is `shared` under a secret.

        TmemRefused when there are no more, when the cluster's scheme has no tmem, or when the operator has not allowed
        this guest to join.
        """
        flags = TMEM_VERSION << VERSION_SHIFT | (PoolFlag.PERSIST if persistent else 0)
        words = (0, 0)
        if shared is not None:
            flags, words = flags | PoolFlag.SHARED | PoolFlag.MUST_SHARE, secret_words(shared)
        reply = self.call(Op.NEW_POOL, int(flags), *words)
        if reply.status != Status.OK:
            status = Status(reply.status)
            raise TmemRefused(f"no pool: {status.name} ({ADVICE.get(status, 'the hypervisor gives no more advice')})")
        return Pool(self, reply.value, persistent, shared is not None)

    def call(self, op: Op, *arguments: int) -> Reply:
        """Make one call and return its reply, from wherever this guest's tmem lives by then."""
        reply = self._send(op, arguments)
        return reply if reply.status != _EMOVED else self._after_moving(op, arguments)

    def multicall(self, count: int) -> np.ndarray | None:
        """Have the first `count` entries carried out; return them answered, as they lie in the buffer; None: all OK."""
        reply = self.call(_MULTICALL, count)
        if reply.status != _OK:
            raise TmemRefused(f"a multicall was refused as a whole: {Status(reply.status).name}")
        return None if reply.value == count else self.transfer.entries[:count]

    def _send(self, op: Op, arguments: tuple[int, ...]) -> Reply:
        start = monotonic_ns()
        reply = self.channel.call(op, *arguments)
        counts = self._counts
        counts[_HYPERCALLS] += 1
        counts[_WAIT_TMEM_NS] += monotonic_ns() - start
        if op is not _MULTICALL:
            return reply
        counts[_MULTICALLS] += 1
        return reply if reply.value == arguments[0] else self._told_by_entries(reply, arguments[0])

    def _told_by_entries(self, reply: Reply, count: int) -> Reply:
        """Return the reply to a multicall; EMOVED when its entries say so, which they do all or none."""
        moved = np.count_nonzero(self.transfer.entries["status"][:count] == _EMOVED)
        if reply.status != Status.OK or not moved:
            return reply
        if moved < count:
            raise BrokenInvariant(f"{moved} of {count} entries of a multicall have moved to another cluster")
        return reply._replace(status=_EMOVED)

    def _after_moving(self, op: Op, arguments: tuple[int, ...]) -> Reply:
        """Make a call where this guest's tmem has moved to."""
        for _ in range(MOST_MOVES):
            self._follow(op, arguments)
            reply = self._send(op, arguments)
            if reply.status != _EMOVED:
                return reply
        raise TmemRefused(f"this guest's tmem was not found: {MOST_MOVES} clusters sent it on, each to the next")

    def _follow(self, op: Op, arguments: tuple[int, ...]) -> None:
        """Go to where this guest's tmem has moved, and take along what the call had in the transfer buffer."""
        if self.moved is None:
            raise TmemRefused("this guest's tmem was moved to another cluster, and nothing here can follow it")
        entries = self.transfer.entries[:arguments[0] if op is _MULTICALL else 0].copy()
        slots = entries["slot"] if op is _MULTICALL else np.zeros(1, np.uint32)
        pages = self.transfer.pages[slots]           # a copy: who moves on may give the old buffer up
        self.channel, self.transfer = self.moved()
        self.transfer.entries[:len(entries)] = entries
        self.transfer.pages[slots] = pages
