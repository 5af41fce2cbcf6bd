"""A file as a program of this guest uses it: byte ranges and pages over the page cache.

    page, read, write, overwrite   read(2) and write(2): the caller gets or gives a copy
    map                            many pages at once, touched where they lie
    mmap                           a mapping that lasts: loads, stores, mlock (`guests.kernel.mapping`)

Rule 1: offsets become pages here, and nowhere below.  A read stops at the end of the file; a write beyond it makes the
        file grow, up to its window of the disk, and what lies between reads zero (T104).
Rule 2: `Inode.size` is written here alone, and holes are made here alone.
"""

import errno
from collections.abc import Sequence

import numpy as np

from guests.kernel.cache import PageCache
from guests.kernel.core import Core
from guests.kernel.inode import Area, Inode, pages_of
from guests.kernel.mapping import Mapping
from guests.kernel.readahead import next_window
from guests.kernel.writeback import Writeback
from shm.abi import PAGE_SIZE

Content = bytes | bytearray | memoryview | np.ndarray
CHUNK = 64                   # pages that one request holds at a time


class File:
    """An open file.  Made by `Kernel.open`; `window` is the largest read-ahead in pages, 1 for none."""

    def __init__(self, core: Core, cache: PageCache, writeback: Writeback, inode: Inode, window: int) -> None:
        self.inode = inode
        self._core = core
        self._cache = cache
        self._writeback = writeback
        self._read_part = core.memory.read_part
        self._with_room = core.allocator.with_room
        self._chunk = CHUNK if cache.limit is None else 1    # page by page where the order of each use counts
        self._limit = window
        self._window = 0                             # pages of the last sequential read
        self._ahead_end = 0                          # the page behind them
        self._last = -1                              # the page used last

    @property
    def size(self) -> int:
        """Bytes."""
        return self.inode.size

    # read(2)

    def page(self, index: int) -> bytes:
        """Return one page; IndexError beyond the end.  The bytes of the last page beyond the end are zero."""
        return self._within(index, 0, PAGE_SIZE)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on; fewer, or none, at the end of the file."""
        if offset < 0 or length < 0:
            raise ValueError(f"no bytes can be read at offset {offset}, length {length}")
        length = min(length, self.inode.size - offset)
        if length <= 0:
            return b""
        index, start = divmod(offset, PAGE_SIZE)
        if start + length <= PAGE_SIZE:
            return self._within(index, start, length)
        pages = self._pages(index, pages_of(start + length), mapped=False)
        return pages.reshape(-1)[start:start + length].tobytes()

    def _within(self, index: int, start: int, length: int) -> bytes:
        gfn = self._cache.find(self.inode, index)
        if gfn is None:
            self._check(index, 1)
            page = self._cache.fill(self.inode, [index], self._ahead(index, [index]))
            content: bytes = page[0, start:start + length].tobytes()
        else:
            content = self._with_room((gfn,), self._read_part, gfn, start, length)
            self._cache.release(gfn, again=index == self._last)
        self._last = index
        return content

    # mmap

    def map(self, index: int, count: int) -> np.ndarray:
        """Return `count` pages from `index` on, (count, 4096) uint8, a copy; IndexError beyond the end."""
        return self._pages(index, count, mapped=True)

    def mmap(self, index: int, count: int, writable: bool = False) -> Mapping:
        """Map `count` pages from `index` on; IndexError beyond the end, OSError EROFS where nothing can be written."""
        self._check(index, count)
        if writable:
            self._check_writable()
        return Mapping(self._core, self._cache, self._writeback, self.inode, Area(index, index + count, writable))

    def _pages(self, first: int, count: int, mapped: bool) -> np.ndarray:
        self._check(first, count)
        if count <= self._chunk:
            return self._chunk_of_pages(first, count, mapped)
        out = np.empty((count, PAGE_SIZE), np.uint8)
        for at in range(0, count, self._chunk):
            size = min(self._chunk, count - at)
            out[at:at + size] = self._chunk_of_pages(first + at, size, mapped)
        return out

    def _chunk_of_pages(self, first: int, count: int, mapped: bool) -> np.ndarray:
        pages = self._cache.read(self.inode, range(first, first + count), lambda missing: self._ahead(first, missing),
                                 mapped)
        self._last = first + count - 1
        return pages

    def _check(self, first: int, count: int) -> None:
        if first < 0 or count < 0 or first + count > self.inode.pages:
            raise IndexError(f"pages {first} to {first + count - 1} are not in a file of {self.inode.pages} pages")

    def _ahead(self, first: int, missing: Sequence[int]) -> list[int]:
        """Return the pages to read along with the missing ones of a request that began at `first`."""
        sequential = first in (0, self._last + 1) or missing[0] == self._ahead_end
        self._window = next_window(self._window, len(missing), sequential, self._limit)
        behind = missing[-1] + 1
        self._ahead_end = behind + self._window - len(missing)
        if self._ahead_end == behind:
            return []
        end, cached = min(self._ahead_end, self.inode.pages), self.inode.cached
        self._ahead_end = next((index for index in range(behind, end) if index in cached), end)
        return list(range(behind, self._ahead_end))

    # write(2)

    def overwrite(self, index: int, page: Content) -> None:
        """Store one whole page."""
        if len(page) != PAGE_SIZE:
            raise ValueError(f"a page is {PAGE_SIZE} bytes, not {len(page)}")
        self.write(index * PAGE_SIZE, page)

    def write(self, offset: int, data: Content) -> None:
        """Store `data` from `offset` on; OSError ENOSPC beyond the file's window, EROFS on a read-only disk."""
        source = np.frombuffer(data, np.uint8)
        if offset < 0:
            raise ValueError(f"nothing can be written at offset {offset}")
        if not len(source):
            return
        self._grow(offset + len(source))
        index, start = divmod(offset, PAGE_SIZE)
        if start or len(source) <= PAGE_SIZE:
            head, source = source[:PAGE_SIZE - start], source[PAGE_SIZE - start:]
            self._write_part(index, start, head)
            index += 1
        whole = len(source) // PAGE_SIZE
        self._write_pages(index, source[:whole * PAGE_SIZE].reshape(-1, PAGE_SIZE))
        self._write_part(index + whole, 0, source[whole * PAGE_SIZE:])

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes, or make it grow with zeros; OSError EBUSY where pages must keep their place."""
        if any(area.kept and area.end > pages_of(size) for area in self.inode.areas):
            raise OSError(errno.EBUSY, f"pages behind byte {size} are locked or in use by address: unmap them first")
        self._grow(size)
        if size >= self.inode.size:
            return
        inode, pages = self.inode, pages_of(size)
        self._cache.truncate(inode, pages)
        inode.disk.trim(np.arange(inode.start + pages, inode.start + inode.pages))
        inode.holes = {index for index in inode.holes if index < pages}
        inode.size = size
        inode.raw_tail = False
        self._clear_tail()

    def sync(self) -> None:
        """Write back what is dirty of this file."""
        self._writeback.sync(self.inode)

    def _write_part(self, index: int, start: int, source: np.ndarray) -> None:
        if len(source):
            self._cache.write_part(self.inode, index, start, source)
            self._last = index

    def _write_pages(self, first: int, pages: np.ndarray) -> None:
        for at in range(0, len(pages), self._chunk):
            part = pages[at:at + self._chunk]
            self._cache.write(self.inode, range(first + at, first + at + len(part)), part)
            self._last = first + at + len(part) - 1

    def _grow(self, size: int) -> None:
        """Make the file at least `size` bytes long; what is new reads zero, whatever its blocks hold."""
        inode = self.inode
        self._check_writable()
        if pages_of(size) > inode.limit:
            raise OSError(errno.ENOSPC, f"the file may grow to {inode.limit} pages, not to {pages_of(size)}")
        if size <= inode.size:
            return
        if inode.raw_tail:
            inode.raw_tail = False
            self._clear_tail()
        inode.holes.update(range(inode.pages, pages_of(size)))
        inode.size = size

    def _check_writable(self) -> None:
        if not self.inode.disk.writable:
            raise OSError(errno.EROFS, "the file lies on a disk that was opened for reading only")

    def _clear_tail(self) -> None:
        """Store zeros behind the end of the file in its last page (rule 1 of `guests.kernel.inode`)."""
        inode, last = self.inode, self.inode.pages - 1
        used = inode.size % PAGE_SIZE
        if used and (last not in inode.holes or last in inode.cached):
            self._cache.write_part(inode, last, used, np.zeros(PAGE_SIZE - used, np.uint8))
