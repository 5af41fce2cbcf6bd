"""A guest that asks in plain numbers, through the real hypercalls, and pages that name their content.

A `Caller` makes every page operation either as a single call or as a multicall of one entry (`way`): the rules are the
same, the code below is not.  Its answers are statuses; `get` answers the number of the page that came.

Rule: a miss leaves the destination as it was (T20), and what comes was put by somebody (no torn and no foreign page).
Both are asserted at every get, in all tests.
"""

from functools import cache
from itertools import count

import numpy as np

from hypervisor.tmem.clients import Client
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.pools import Pool, PoolCount
from shm.abi import MULTICALL_LIMIT, PAGE_SIZE, TMEM_VERSION, VERSION_SHIFT, Op, PoolFlag, Refusal, Reply, Status

EP = TMEM_VERSION << VERSION_SHIFT
PP = EP | PoolFlag.PERSIST
ES, PS = EP | PoolFlag.SHARED, PP | PoolFlag.SHARED
KINDS = {"EP": EP, "PP": PP, "ES": ES}
FORMS = ("raw", "lz4", "dedup", "tze")
TIGHT = 8                                # ephemeral pages that a tight machine holds (`conftest`)
UUID = (5, 6)
OID = (1, 2, 3)
BAD_SLOT = MULTICALL_LIMIT               # no page of the transfer buffer
NOISE = 1 << 20                          # contents from here on are noise: one frame each, in every form
UNTOUCHED = (1 << 20) - 1                # what lies in the slot before a get
MISSES = (Status.NO, Status.EEMPTY)
_WORDS = PAGE_SIZE // 8
_known: dict[bytes, int] = {bytes(PAGE_SIZE): 0}         # zeros come of new pages too, which no test has made


@cache
def page(content: int) -> np.ndarray:
    """Return the page of one content: 0 is all zero, the others shrink well, a little, at their end, or not at all."""
    words = np.full(_WORDS, content, np.uint64)
    if content >= NOISE or (content and content % 4 == 1):
        words = np.random.default_rng(content).integers(1, 1 << 63, _WORDS, np.uint64)
    elif content % 4 == 2:
        words[content % 500 + 1:] = 0
    elif content % 4 == 3:
        words[:_WORDS // 2] = np.random.default_rng(content).integers(1, 1 << 63, _WORDS // 2, np.uint64)
    made = words.view(np.uint8)
    made.flags.writeable = False
    _known[made.tobytes()] = content
    return made


def noise(number: int) -> int:
    """Return a content that no form makes shorter."""
    return NOISE + number


def content(data: np.ndarray | bytes) -> int:
    """Return which page this is; AssertionError for one that nobody put."""
    found = _known.get(bytes(data))
    assert found is not None, "a torn page, or one that nobody put"
    return found


class Caller:
    """One guest of a machine that stands still (`harness.machines.DirectGuest`)."""

    names = count()

    def __init__(self, still, way: str = "single", pages: int = 16, max_pages: int = 16) -> None:
        self.guest = still.guest(f"caller{next(self.names)}", pages, max_pages)
        self.machine, self.store, self.control = still.machine, still.machine.store, still.machine.control
        self.number, self.way = self.guest.domain.number, way
        self.transfer = self.guest.transfer

    # calls

    def call(self, op: Op, *arguments: int) -> Reply:
        return self.guest.channel.call(op, *arguments)

    def one(self, op: Op, pool: int, oid=OID, index: int = 0, slot: int = 0, window=(0, 0, 0)) -> int:
        """Make one page operation in this caller's way and return its status."""
        if self.way == "multicall" or slot:
            self.enter(0, op, pool, oid, index, slot, window)
            assert self.call(Op.MULTICALL, 1).status == Status.OK
            return int(self.transfer.entries["status"][0])
        handle = (pool, *oid) if op == Op.FLUSH_OBJECT else (pool, *oid, index)
        return self.call(op, *handle, *(window if op in (Op.READ, Op.WRITE) else ())).status

    def enter(self, row: int, op: int, pool: int, oid=OID, index: int = 0, slot: int = 0, window=(0, 0, 0)) -> None:
        """Write one entry of a multicall."""
        self.transfer.entries[row] = (op, pool, oid, index, slot, 0, 0, *window, 0)

    # pools

    def ask_pool(self, flags: int = EP, uuid=(0, 0)) -> Reply:
        return self.call(Op.NEW_POOL, int(flags), *uuid)

    def new_pool(self, flags: int = EP, uuid=UUID) -> int:
        """Make a pool, or join the shared one of UUID, being allowed to."""
        if flags & PoolFlag.SHARED:
            self.client.authorised.add(uuid)
        reply = self.ask_pool(flags, uuid if flags & PoolFlag.SHARED else (0, 0))
        assert reply.status == Status.OK
        return reply.value

    def destroy(self, pool: int) -> int:
        return self.call(Op.DESTROY_POOL, pool).status

    # pages

    def put(self, pool: int, data: int, oid=OID, index: int = 0) -> int:
        self.transfer.first[:] = page(data).data
        return self.one(Op.PUT_PAGE, pool, oid, index)

    def put_bad(self, pool: int, oid=OID, index: int = 0) -> int:
        """Put from a slot that is none."""
        return self.one(Op.PUT_PAGE, pool, oid, index, BAD_SLOT)

    def get(self, pool: int, oid=OID, index: int = 0) -> int:
        """Get a page: its content (0 or more), or the status that says why not: MISS, or a negative one."""
        self.transfer.first[:] = page(UNTOUCHED).data
        status = self.one(Op.GET_PAGE, pool, oid, index)
        found = content(self.transfer.pages[0])
        if status == Status.OK:
            return found
        assert found == UNTOUCHED, "a miss touched the destination (T20)"
        return MISS if status in MISSES else status

    def get_status(self, pool: int, oid=OID, index: int = 0) -> int:
        """Get a page and say only how that went."""
        return self.one(Op.GET_PAGE, pool, oid, index)

    def flush(self, pool: int, oid=OID, index: int = 0) -> int:
        return self.one(Op.FLUSH_PAGE, pool, oid, index)

    def flush_object(self, pool: int, oid=OID) -> int:
        return self.one(Op.FLUSH_OBJECT, pool, oid)

    # what the hypervisor knows

    @property
    def client(self) -> Client:
        return self.store.clients.get(self.number)

    def pool(self, number: int) -> Pool:
        found = self.store.pools.get(self.number, number)
        assert found is not None
        return found

    def counts(self, number: int) -> dict[str, int]:
        """Return the counters of a pool that are not 0, by Xen's letters."""
        counted = self.pool(number).counts
        return {name.name.lower(): int(counted[name]) for name in PoolCount if counted[name]}

    def count(self, name: str) -> int:
        """Return a counter of the whole store."""
        return int(self.store.counts[StoreCount[name]])

    @property
    def refusal(self) -> Refusal:
        return self.store.refusal

    def held(self, number: int, handles) -> list[int]:
        """Return which indexes of OID a pool holds, without touching them."""
        serial = self.pool(number).serial
        return [index for index in handles if self.store.catalogue.find(serial, OID, index) >= 0]


MISS = -1_000_000                        # no status of the ABI
