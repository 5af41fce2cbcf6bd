"""Column arithmetic with numpy: a table in anonymous memory, and derived columns that can be computed again.

    scan      a block of the table: every byte is compared, the numbers are summed, the sum is known
    update    a block is read, verified, and written anew with the next version
    query     a block of a derived column: pinned, read, compared with its recomputation, let go

The last quarter of the table is the dimension: never updated, and the derived columns are computed from it, page d from
two of its pages.  A column that nobody reads is volatile: the host may drop it, and the next query computes it again.
Many small columns: all but one are idle at any time, and what is lost of the one that is read is little.
"""

from functools import partial
from random import Random
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator

from guests.workloads.base import GoingOn, Options, Workload, pages_of, sized
from guests.workloads.choice import Skewed
from guests.workloads.content import Content

DIMENSION_SHARE = 4             # one page of that many is dimension
Fraction = Annotated[float, Field(ge=0, le=1)]


class AnalyticsOptions(Options):
    table: sized(256 << 10, 64 << 30) = 42 << 20      # type: ignore[valid-type]
    derived: sized(64 << 10, 64 << 30) = 20 << 20     # type: ignore[valid-type]  # all derived columns together
    columns: Annotated[int, Field(ge=1, le=256)] = 32 # derived columns
    block: Annotated[int, Field(ge=1, le=256)] = 32   # pages of one operation
    updates: Fraction = 0.15                          # of all operations
    queries: Fraction = 0.35                          # of all operations; the rest are scans
    theta: Annotated[float, Field(ge=0, le=2)] = 0.4  # skew of the choice of blocks and columns

    @model_validator(mode="after")
    def _shares(self) -> "AnalyticsOptions":
        if self.updates + self.queries > 1:
            raise ValueError(f"updates and queries are {self.updates + self.queries:g} of all operations together; "
                             "at most 1")
        return self


def words(pages: np.ndarray) -> np.ndarray:
    """Return pages (n, 4096) uint8 as numbers (n, 512) uint64."""
    return np.ascontiguousarray(pages).view(np.uint64)


def derive(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the derived pages of two dimension pages each: arithmetic modulo 2**64, so that it is exact."""
    return (words(left) * np.uint64(3) + (words(right) >> np.uint64(7))).view(np.uint8)


class Analytics(Workload):
    """The table, its versions and sums, and the columns."""

    Options: ClassVar[type[Options]] = AnalyticsOptions

    def __init__(self, options: AnalyticsOptions, seed: int) -> None:
        super().__init__(options, seed)
        self.table_pages, derived = pages_of(options.table), pages_of(options.derived)
        self.column_pages = max(1, derived // options.columns)
        self.dimension = self.table_pages - max(1, self.table_pages // DIMENSION_SHARE)    # its first page
        self._content = Content(seed)
        self._versions = np.zeros(self.table_pages, np.uint32)
        self._sums = np.zeros(self.table_pages, np.uint64)
        self._random = random = Random(seed)
        self._block = Skewed(-(-self.table_pages // options.block), options.theta, random).choose
        self._column = Skewed(options.columns, options.theta, random).choose

    @property
    def anonymous_pages(self) -> int:
        return self.table_pages + self.column_pages * self.options.columns

    def set_up(self, going_on: GoingOn) -> None:
        self._table = self.kernel.anon(self.table_pages)
        for first in range(0, self.table_pages, self.options.block):
            going_on()
            self._store(self._pages_from(first))
        self._columns = [self.kernel.rebuildable(self.column_pages, partial(self._recompute, column))
                         for column in range(self.options.columns)]
        for column in range(self.options.columns):
            for first in range(0, self.column_pages, self.options.block):
                going_on()
                self._query(column, first)

    def operate(self) -> bool:
        choice = self._random.random()
        if choice < self.options.queries:
            blocks = -(-self.column_pages // self.options.block)
            self._query(self._column(), self._random.randrange(blocks) * self.options.block)
        elif choice < self.options.queries + self.options.updates:
            self._update(self._pages_from(self._block() * self.options.block))
        else:
            self._scan(self._pages_from(self._block() * self.options.block))
        return True

    def finish(self) -> None:
        """Sum the whole table up, block by block."""
        for first in range(0, self.table_pages, self.options.block):
            self._scan(self._pages_from(first))

    # -- the table

    def _pages_from(self, first: int) -> np.ndarray:
        return np.arange(first, min(first + self.options.block, self.table_pages))

    def _expected(self, pages: np.ndarray) -> np.ndarray:
        return self._content.pages(pages, self._versions[pages])

    def _store(self, pages: np.ndarray) -> None:
        """Write blocks in their present version, and remember what they sum up to."""
        content = self._expected(pages)
        self._sums[pages] = words(content).sum(axis=1)
        self._table.write_many(pages, content)

    def _scan(self, pages: np.ndarray) -> None:
        found = np.ascontiguousarray(self._table.read_many(pages))
        self.proof.pages(found, self._expected(pages), "table", pages)
        total, expected = words(found).sum(), self._sums[pages].sum()
        self.proof.holds(total == expected,
                         f"pages {pages[0]} to {pages[-1]} of the table sum to {total}, "
                         f"not {expected}")

    def _update(self, pages: np.ndarray) -> None:
        """Read, verify, write anew.  The dimension stays as it is: there it is a scan."""
        self._scan(pages)
        facts = pages[pages < self.dimension]
        if len(facts):
            self._versions[facts] += np.uint32(1)
            self._store(facts)

    # -- the derived columns

    def _sources(self, column: int, indexes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the two dimension pages that each derived page comes from."""
        number = column * self.column_pages + np.asarray(indexes, np.int64)
        count = self.table_pages - self.dimension
        return self.dimension + number % count, self.dimension + (number * 7 + number // count + 1) % count

    def _recompute(self, column: int, indexes: np.ndarray) -> np.ndarray:
        """Compute derived pages from the table again: the kernel asks, because they were purged."""
        left, right = self._sources(column, indexes)
        return derive(self._table.read_many(left), self._table.read_many(right))

    def _query(self, column: int, first: int) -> None:
        """Read and verify a block; what it should be comes from what was written, not from memory."""
        indexes = np.arange(first, min(first + self.options.block, self.column_pages))
        left, right = self._sources(column, indexes)
        expected = derive(self._content.pages(left), self._content.pages(right))
        derived = self._columns[column]
        with derived.pinned():
            found = np.ascontiguousarray(derived.read_many(indexes))
        self.proof.pages(found, expected, f"derived column {column}", indexes)
