"""Performs the steps of rules on an ephemeral pool, tmem's own or one on volatile pages, with a guest of its own.

    put a D1    alter-after-put a D1 (the source is overwritten when put returns)    new a    write a (D9 in the window)
    get a    read a (the window)    flush a    flush-object a
    fill 96, hits 96    puts many pages, gets them and counts those that are right; `fill-equal 8` puts D1 so often
    squeeze 5    the host is short of so many frames for a moment
    cap 4, form dedup, drop-pools      the operator's orders
    renew    destroys the pool and makes another     destroy      leave    the guest goes and comes again
    pools 17    makes more pools, at most so many
    cost, allowance    frames of the guest's memory and tmem's; persistent pages that it may still store
    scribble    stores D9 to each page of the guest's memory that it can       touch    loads each of them

And those of every bed.  A handle is a letter, `a@2` the same in a second pool, `n5` what a fill puts as number 5.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from guests.mappings.bed import Bed
from guests.mappings.operator import Operator
from guests.mappings.steps import WINDOW, name_of, page
from guests.mappings.volatile_pool import VolatilePool
from shm.abi import PAGE_SIZE
from shm.errors import AddressingException, DiscardFault, TmemRefused

if TYPE_CHECKING:
    from guests.pool import Pool

REGION, SECOND, MORE = 96, 8, 56             # pages of the first pool, the second, and of all others together
RAM = REGION + SECOND + MORE
FILL_OID = 77
HANDLES: dict[str, tuple[Any, int]] = {
    "a": (1, 0), "b": (1, 1), "c": (2, 0), "d": (2, 1), "e": (2, 2), "f": (2, 3),
    "word0": ((5, 0, 0), 0), "word1": ((0, 5, 0), 0), "word2": ((0, 0, 5), 0),
    "first": (3, 0), "last": (3, (1 << 32) - 1),
}


class PoolBed(Bed):
    """One kind of pool under test.  A context manager."""

    def __init__(self, operator: Operator, region: int = 0, bounded: bool = False) -> None:
        self._region, self._bounded = region or REGION, bounded
        super().__init__(operator, RAM)

    def set_up(self) -> None:
        self.pools: dict[str, Pool | VolatilePool] = {"1": self.new_pool(0, self._region)}

    def new_pool(self, first: int, pages: int) -> "Pool | VolatilePool":
        """Make a pool; a region of the guest's memory for it, where it needs one."""
        raise NotImplementedError

    def _at(self, handle: str) -> tuple[Any, Any, int]:
        name, _, pool = handle.partition("@")
        if pool and pool not in self.pools:
            self.pools[pool] = self.new_pool(REGION, SECOND)
        return self.pools[pool or "1"], *(HANDLES.get(name) or (FILL_OID, int(name[1:])))

    # pages

    def _put(self, handle: str, content: str) -> str:
        pool, oid, index = self._at(handle)
        return "stored" if pool.put(oid, index, page(content)) else "refused"

    def _alter_after_put(self, handle: str, content: str) -> str:
        pool, oid, index = self._at(handle)
        source = np.frombuffer(page(content), np.uint8).copy()
        stored = pool.put(oid, index, source)
        source[:] = 0
        return "stored" if stored else "refused"

    def _new(self, handle: str) -> str:
        pool, oid, index = self._at(handle)
        return "stored" if pool.new_page(oid, index) else "refused"

    def _write(self, handle: str) -> str:
        pool, oid, index = self._at(handle)
        return "stored" if pool.write(oid, index, WINDOW.start, page("D9")[WINDOW]) else "refused"

    def _get(self, handle: str) -> str:
        pool, oid, index = self._at(handle)
        return name_of(pool.get(oid, index))

    def _read(self, handle: str) -> str:
        pool, oid, index = self._at(handle)
        return name_of(pool.read(oid, index, WINDOW.start, WINDOW.stop - WINDOW.start))

    def _flush(self, handle: str) -> None:
        pool, oid, index = self._at(handle)
        pool.flush(oid, index)

    def _flush_object(self, handle: str) -> None:
        pool, oid, _ = self._at(handle)
        pool.flush_object(oid)

    def _fill(self, count: str, equal: bool = False) -> str:
        names = ["D1" if equal else f"N{number}" for number in range(int(count))]
        pages = np.frombuffer(b"".join(map(page, names)), np.uint8).reshape(-1, PAGE_SIZE)
        return f"{self.pools['1'].put_many(FILL_OID, range(int(count)), pages).sum()} stored"

    def _fill_equal(self, count: str) -> str:
        return self._fill(count, equal=True)

    def _hits(self, count: str) -> str:
        hits, pages = self.pools["1"].get_many(FILL_OID, range(int(count)))
        wrong = sum(bytes(pages[row]) != page(f"N{row}") for row in np.flatnonzero(hits))
        return f"{hits.sum()} hits" + (f", {wrong} of them wrong" if wrong else "")

    # pools

    def _destroy(self) -> None:
        self.pools["1"].destroy()

    def _renew(self) -> None:
        self.pools["1"].destroy()
        self.pools["1"] = self.new_pool(0, self._region)

    def _leave(self) -> None:
        self.guest.close()
        self._attach()

    def _pools(self, most: str) -> str:
        made: list[Pool | VolatilePool] = []
        try:
            while len(made) < int(most):
                made.append(self.new_pool(REGION + SECOND + len(made), 1))
        except TmemRefused:
            pass                                     # as many as can be had
        for pool in made:
            pool.destroy()
        return f"{len(made)} more"

    # the host

    def _squeeze(self, frames: str) -> None:
        self._operator.squeeze(self.guest, int(frames))

    def _cap(self, pages: str) -> None:
        self._operator.about("tmem-set", self.guest, cap=int(pages))

    def _form(self, form: str) -> None:
        self._operator.about("tmem-set", self.guest, form=form)

    def _drop_pools(self) -> None:
        self._operator.about("tmem-destroy", self.guest)

    # accounts

    def _cost(self) -> str:
        return f"{self._operator.frames_of(self.guest)} frames"

    def _allowance(self) -> str:
        pool, content, stored = self.guest.tmem.new_pool(persistent=True), page("D1"), 0
        while stored <= RAM and pool.put(0, stored, content):
            stored += 1
        pool.destroy()
        return f"{stored} pages"

    # the guest's own memory

    def _scribble(self) -> None:
        for gfn in range(self.guest.pages):
            try:
                self.guest.memory.write(gfn, page("D9"))
            except (AddressingException, DiscardFault):
                continue                             # a page that a program cannot store to

    def _touch(self) -> str:
        faults = 0
        for gfn in range(self.guest.pages):
            try:
                self.guest.memory.read_part(gfn, 0, 1)
            except AddressingException:
                continue                             # unused: nothing of the pool's is there
            except DiscardFault:
                faults += 1
        return f"{faults} discard faults"


class TmemBed(PoolBed):
    """A pool of tmem."""

    def set_up(self) -> None:
        super().set_up()
        if self._bounded:
            self._cap(str(self._region))

    def new_pool(self, first: int, pages: int) -> "Pool | VolatilePool":     # noqa: ARG002  # no region is needed
        return self.guest.tmem.new_pool(persistent=False)


class VolatileBed(PoolBed):
    """A pool on volatile pages."""

    def new_pool(self, first: int, pages: int) -> "Pool | VolatilePool":
        return VolatilePool(self.guest, range(first, first + pages))
