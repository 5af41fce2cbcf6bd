"""A block trace replayed through the page cache: each reference reads one page, or stores one.

The trace says which page, and whether it is read or written, never what is in it: the content of a page is computed
from its number and its version (`content`), version 0 before its first write.  Version 0 is really on the disk: before
the work begins the image is filled, one page a distinct page of the trace (oltp: 730 MiB), so every disk read is one.

The work ends with the trace, unless `repeat`.  With `cache_pages` the kernel's page cache is a plain demand-filled LRU
of that size, and each reference is one lookup: a trace of reads has then exactly LRU's misses.
"""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from guests.workloads.base import GoingOn, Options, Workload
from guests.workloads.content import Content
from guests.workloads.image import Image
from guests.workloads.traces import read_trace

Format = Literal["arc", "vscsi", "csv", "pages", "u32", "spc", "msr", "oraclegeneral", "libcachesim"]

CHECKED_HEAD = 1000              # references that `check` looks at
FILL_PAGES = 2048                # of the image, at a time


class TraceOptions(Options):
    file: str
    format: Format | None = None                                # None: as the file's name says
    start: Annotated[int, Field(ge=0)] = 0                      # references passed over
    limit: Annotated[int, Field(ge=1)] | None = None            # references used, counted from start
    cache_pages: Annotated[int, Field(ge=1)] | None = None      # plain LRU of that size
    access: Literal["read", "map"] = "read"                     # read(2) or mmap: how a page is looked up
    repeat: bool = False                                        # from the start again, for ever

    @model_validator(mode="after")
    def _exact(self) -> "TraceOptions":
        if self.cache_pages is not None and self.access != "read":
            raise ValueError("cache_pages counts read lookups; allowed with it: access = \"read\"")
        return self


class Replay(Workload):
    """The replay.  `_versions`: how often each page was written."""

    Options: ClassVar[type[Options]] = TraceOptions

    def __init__(self, options: TraceOptions, seed: int) -> None:
        super().__init__(options, seed)
        self.cache_pages = options.cache_pages
        self._content = Content(seed)

    @classmethod
    def check(cls, options: TraceOptions) -> None:
        """Decode the head of what will be used."""
        head = CHECKED_HEAD if options.limit is None else min(options.limit, CHECKED_HEAD)
        read_trace(options.file, options.format, options.start, head)

    def set_up(self, going_on: GoingOn) -> None:
        options = self.options
        trace = read_trace(options.file, options.format, options.start, options.limit)
        self._pages, self._is_write, self._next = trace.pages.data, trace.is_write.data, 0
        self._versions = np.zeros(trace.distinct, np.uint32).data
        with Image(trace.distinct, "use fewer references of the trace (option limit)") as image:
            image.fill(((first, self._content.pages(np.arange(first, min(first + FILL_PAGES, trace.distinct))))
                        for first in range(0, trace.distinct, FILL_PAGES)), going_on)
            disk = self.owns(image.disk(self.guest.counters))
        self._file = self.kernel.open(disk)
        self._look_up = self._file.page if options.access == "read" else self._map

    def _map(self, page: int) -> bytes:
        return self._file.map(page, 1).tobytes()

    def operate(self) -> bool:
        if self._next == len(self._pages):
            if not self.options.repeat:
                return False
            self._next = 0
        page, is_write = self._pages[self._next], self._is_write[self._next]
        self._next += 1
        if is_write:
            self._versions[page] += 1
            self._file.overwrite(page, self._content.page(page, self._versions[page]))
        else:
            self.proof.page(self._look_up(page), self._content.page(page, self._versions[page]), "trace", page)
        return True
