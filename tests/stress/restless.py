"""A guest process that does random things and checks every one of them against a model of its own.

    python tests/stress/restless.py CLUSTER NAME SEED SECONDS

Says `begun`, then `again` now and then, and at the end `done OPERATIONS`; exits 1 with one line at the first page, or
state, or answer that the rules do not allow.  Every page that it writes names its guest, its place and its version in
every word, so a page that is stale, torn, or another's is recognised.
"""

import random
import sys
from collections.abc import Callable
from time import monotonic
from zlib import crc32

import numpy as np

from guests import AddressingException, DiscardFault, Essa, Guest, Pool
from shm.abi import PAGE_SIZE
from shm.pagestate import CONTENT_MASK, PRESERVED, USAGE_MASK, ZERO

PAGES = 256
STABLE, UNUSED, POT_VOLATILE, VOLATILE = 0x00, 0x04, 0x08, 0x0C
USAGES = {STABLE: "stable", UNUSED: "unused", POT_VOLATILE: "potentially volatile", VOLATILE: "volatile"}
WORDS = PAGE_SIZE // 8
SAY_EVERY = 200


class WrongError(Exception):
    """What happened is not what the rules allow."""


def check(right: object, *what: object) -> None:
    if not right:
        raise WrongError(" ".join(map(str, what)))


def pages_of(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64).reshape(-1, 1).repeat(WORDS, axis=1).view(np.uint8)


def values_of(pages: np.ndarray) -> list[int]:
    words = pages.view(np.uint64)
    check((words == words[:, :1]).all(), "a torn page")
    return words[:, 0].tolist()


class Model:
    """What the guest knows of its pages: its own word, and what each holds where it is not gone."""

    def __init__(self) -> None:
        self.usage = [STABLE] * PAGES
        self.value = [0] * PAGES                             # 0: a fresh page
        self.dirty = [False] * PAGES
        self.gone = [False] * PAGES                          # known to be discarded
        self.kept = [False] * PAGES                          # P that was dirty: the host may have made it S (R16)

    def may_vanish(self, gfn: int) -> bool:
        return self.usage[gfn] == VOLATILE or (self.usage[gfn] == POT_VOLATILE and not self.dirty[gfn])

    def written(self, gfn: int, value: int, clean: bool) -> None:
        self.value[gfn], self.dirty[gfn] = value, not clean
        self.kept[gfn] |= not clean

    def hinted(self, order: Essa, gfn: int, old: int) -> None:
        """Take note of an ESSA that found `old`; the rows of the reference (1.5), told from the guest's side."""
        self._plausible(gfn, old)
        content = old & CONTENT_MASK
        if self.usage[gfn] == POT_VOLATILE and old & USAGE_MASK == STABLE:
            self.usage[gfn] = STABLE
        if content == ZERO:
            self.value[gfn], self.gone[gfn] = 0, old & USAGE_MASK == VOLATILE
        match order:
            case Essa.GET_STATE:
                return
            case Essa.SET_STABLE | Essa.SET_STABLE_RESIDENT | Essa.SET_STABLE_NODAT:
                self.usage[gfn], self.gone[gfn] = STABLE, False
            case Essa.SET_STABLE_IF_NOT_DISCARDED:
                self.usage[gfn] = VOLATILE if self.gone[gfn] else STABLE
            case Essa.SET_UNUSED:
                self.usage[gfn], self.gone[gfn] = UNUSED, False
            case Essa.SET_VOLATILE:
                self.usage[gfn], self.gone[gfn] = VOLATILE, content in (ZERO, PRESERVED)
            case Essa.SET_POT_VOLATILE:
                kept = content == PRESERVED and self.dirty[gfn]
                self.usage[gfn] = STABLE if kept else VOLATILE if content in (ZERO, PRESERVED) else POT_VOLATILE
                self.gone[gfn] = content in (ZERO, PRESERVED) and not kept
                self.kept[gfn] = self.dirty[gfn]

    def _plausible(self, gfn: int, old: int) -> None:
        usage, content, expected = old & USAGE_MASK, old & CONTENT_MASK, self.usage[gfn]
        discarded = usage == VOLATILE and content == ZERO
        if expected == POT_VOLATILE:                         # preserved as stable while dirty, discarded while clean
            right = usage == POT_VOLATILE or (usage == STABLE and self.kept[gfn]) or (discarded and not self.dirty[gfn])
        else:
            right = usage == expected
        check(right, f"page {gfn}: {USAGES[expected]}, the state says {old:#04x}")
        check(discarded or not self.gone[gfn], f"page {gfn}: was discarded, the state says {old:#04x}")
        check(not discarded or self.gone[gfn] or self.may_vanish(gfn), f"page {gfn}: discarded against its will")
        lost = usage == STABLE and content == ZERO and self.value[gfn]
        check(not lost, f"page {gfn}: a stable page was lost")


class Restless:
    """One guest, its model, and the things it does."""

    def __init__(self, cluster: str, name: str, seed: int) -> None:
        self.cluster, self.name, self.seed = cluster, name, seed
        self.random = random.Random(f"{name} {seed}")
        self.version = 0
        self.begin()
        self.deeds: list[tuple[Callable[[], None], int]] = [
            (self.read, 30), (self.write, 30), (self.hint, 30), (self.give_back, 6), (self.read_part, 6),
            (self.clean, 4), (self.look, 4),
        ]
        if self.pools:
            self.deeds += [(self.put, 14), (self.get, 14), (self.flush, 5), (self.flush_object, 1),
                           (self.renew_pool, 1)]

    def begin(self) -> None:
        self.guest = Guest.connect(self.cluster, self.name, PAGES * PAGE_SIZE, 2 * PAGES * PAGE_SIZE)
        self.model = Model()
        kinds = [False, True] if "cleancache" in self.guest.features else []
        self.pools: list[Pool] = [self.guest.tmem.new_pool(persistent) for persistent in kinds]
        self.stored: list[dict[tuple[int, int], int]] = [{} for _ in self.pools]

    def fresh(self, place: int) -> int:
        self.version += 1
        return self.seed << 56 | crc32(self.name.encode()) % 0xFFFF << 40 | place % 256 << 32 | self.version

    def some(self, most: int = 40) -> list[int]:
        """Some pages: often one, sometimes neighbours, sometimes scattered."""
        count = self.random.choice([1, 1, 1, 5, most])
        if self.random.random() < 0.5:
            first = self.random.randrange(PAGES - count)
            return list(range(first, first + count))
        return self.random.sample(range(PAGES), count)

    def touch(self, gfns: list[int], access: Callable[[list[int]], None]) -> None:
        """Access pages; a fault must be one that the model allows, and is noted there."""
        unused = [gfn for gfn in gfns if self.model.usage[gfn] == UNUSED]
        try:
            access(gfns)
        except AddressingException as fault:
            check(set(fault.gfns.tolist()) == set(unused), f"addressing exception for {fault.gfns}, unused {unused}")
            return
        except DiscardFault as fault:
            for gfn in fault.gfns.tolist():
                check(self.model.may_vanish(gfn) or self.model.gone[gfn], f"page {gfn}: discarded against its will")
                self.model.gone[gfn], self.model.value[gfn] = True, 0
            return
        check(not unused, f"unused pages {unused} could be touched")
        gone = [gfn for gfn in gfns if self.model.gone[gfn]]
        check(not gone, f"discarded pages {gone} could be touched")

    # memory

    def read(self) -> None:
        gfns = self.some()
        self.touch(gfns, self._read_one if len(gfns) == 1 else self._read_many)

    def _read_one(self, gfns: list[int]) -> None:
        self._agree(gfns, np.frombuffer(self.guest.memory.read(gfns[0]), np.uint8).reshape(1, -1))

    def _read_many(self, gfns: list[int]) -> None:
        self._agree(gfns, self.guest.memory.read_many(gfns))

    def _agree(self, gfns: list[int], pages: np.ndarray) -> None:
        for gfn, value in zip(gfns, values_of(pages), strict=True):
            known = self.model.value[gfn]
            check(value == known, f"page {gfn} ({USAGES[self.model.usage[gfn]]}): {value:#x} where {known:#x} was put")

    def read_part(self) -> None:
        [gfn] = self.random.sample(range(PAGES), 1)
        at, length = 8 * self.random.randrange(WORDS - 1), 8

        def access(gfns: list[int]) -> None:
            value = int.from_bytes(self.guest.memory.read_part(gfn, at, length), sys.byteorder)
            check(value == self.model.value[gfn], f"page {gfn} from byte {at}: {value:#x}")

        self.touch([gfn], access)

    def write(self) -> None:
        gfns, clean = self.some(), self.random.random() < 0.4
        values = [self.fresh(gfn) for gfn in gfns]

        def access(_: list[int]) -> None:
            if len(gfns) == 1:
                self.guest.memory.write(gfns[0], pages_of(values)[0], clean)
            else:
                self.guest.memory.write_many(gfns, pages_of(values), clean)
            for gfn, value in zip(gfns, values, strict=True):
                self.model.written(gfn, value, clean)

        self.touch(gfns, access)

    def clean(self) -> None:
        """Test, make stable, clear (R36)."""
        gfns = self.some()
        self.essa(Essa.SET_STABLE, gfns)
        check(self.guest.memory.dirty(gfns).tolist() == [self.model.dirty[gfn] for gfn in gfns], "dirty bits")
        self.guest.memory.clear_dirty(gfns)
        for gfn in gfns:
            self.model.dirty[gfn] = False

    # hints

    def essa(self, order: Essa, gfns: list[int]) -> None:
        for gfn, old in zip(gfns, self.guest.essa(order, gfns).tolist(), strict=True):
            self.model.hinted(order, gfn, old)

    def hint(self) -> None:
        orders = [*Essa, Essa.SET_STABLE, Essa.SET_VOLATILE, Essa.SET_VOLATILE, Essa.SET_STABLE_IF_NOT_DISCARDED]
        self.essa(self.random.choice(orders), self.some())

    def give_back(self) -> None:
        """Most of the pages become stable again: else there would soon be none to lose."""
        self.essa(Essa.SET_STABLE, self.random.sample(range(PAGES), PAGES // 2))

    def look(self) -> None:
        self.essa(Essa.GET_STATE, self.some())

    # tmem

    def handles(self) -> tuple[int, int, list[int]]:
        """A pool, an object, and some indexes: few, so that they meet often."""
        count = self.random.choice([1, 1, 4, 24])
        return self.random.randrange(2), self.random.randrange(3), self.random.sample(range(40), count)

    def put(self) -> None:
        kind, oid, indexes = self.handles()
        values = [self.fresh(index) for index in indexes]
        if len(indexes) == 1:
            stored = [self.pools[kind].put(oid, indexes[0], pages_of(values)[0])]
        else:
            stored = self.pools[kind].put_many(oid, indexes, pages_of(values)).tolist()
        for index, value, there in zip(indexes, values, stored, strict=True):
            self.stored[kind].pop((oid, index), None)
            if there:
                self.stored[kind][oid, index] = value

    def get(self) -> None:
        kind, oid, indexes = self.handles()
        if len(indexes) == 1:
            page = self.pools[kind].get(oid, indexes[0])
            found = [None if page is None else values_of(np.frombuffer(page, np.uint8).reshape(1, -1))[0]]
        else:
            hits, pages = self.pools[kind].get_many(oid, indexes)
            found = [value if hit else None for hit, value in zip(hits, values_of(pages), strict=True)]
        for index, value in zip(indexes, found, strict=True):
            self._got(kind, oid, index, value)

    def _got(self, kind: int, oid: int, index: int, value: int | None) -> None:
        known = self.stored[kind].get((oid, index))
        if value is None:
            check(kind == 0 or known is None, f"persistent page {oid}.{index} is gone")
        else:
            check(value == known, f"tmem page {oid}.{index}: {value:#x} where {known} was put")
        if kind == 0:
            self.stored[kind].pop((oid, index), None)

    def flush(self) -> None:
        kind, oid, indexes = self.handles()
        if len(indexes) == 1:
            self.pools[kind].flush(oid, indexes[0])
        else:
            self.pools[kind].flush_many(oid, indexes)
        for index in indexes:
            self.stored[kind].pop((oid, index), None)

    def flush_object(self) -> None:
        kind, oid, _ = self.handles()
        self.pools[kind].flush_object(oid)
        self.stored[kind] = {handle: value for handle, value in self.stored[kind].items() if handle[0] != oid}

    def renew_pool(self) -> None:
        kind = self.random.randrange(2)
        self.pools[kind].destroy()
        self.pools[kind] = self.guest.tmem.new_pool(persistent=kind == 1)
        self.stored[kind] = {}

    # its life

    def leave_and_come_back(self) -> None:
        """All is forgotten, and fresh pages are zero, whoever had their frames before."""
        self.guest.close()
        self.begin()

    def check_all(self) -> None:
        """Look at every page and every handle once more."""
        for gfn in range(PAGES):
            self.touch([gfn], self._read_one)
        for kind in range(len(self.pools)):
            for oid, index in list(self.stored[kind]):
                page = self.pools[kind].get(oid, index)
                value = None if page is None else values_of(np.frombuffer(page, np.uint8).reshape(1, -1))[0]
                self._got(kind, oid, index, value)

    def live(self, seconds: float) -> int:
        until, operations = monotonic() + seconds, 0
        deeds, weights = zip(*self.deeds, strict=True)
        while monotonic() < until:
            for deed in self.random.choices(deeds, weights, k=SAY_EVERY):
                deed()
            operations += SAY_EVERY
            print("again", flush=True)
            if self.random.random() < 0.02:
                self.check_all()
                self.leave_and_come_back()
        self.check_all()
        return operations


def main() -> int:
    cluster, name, seed, seconds = sys.argv[1:]
    restless = Restless(cluster, name, int(seed))
    print("begun", flush=True)
    try:
        print("done", restless.live(float(seconds)), flush=True)
    except WrongError as error:
        print(f"{name}, seed {seed}: {error}", flush=True)
        return 1
    restless.guest.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
