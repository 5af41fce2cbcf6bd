"""SQLite's door to the guest kernel: one database file, whose every page is checked when SQLite reads it.

Rule 1: a checksum of the latest content written to each page is kept here, in ordinary memory.  A page that comes back
        different is a wrong page at once, before SQLite sees it.
Rule 2: SQLite writes whole pages of 4096 bytes, and reads within one page; anything else is refused.
Rule 3: there is one file, opened once at a time.  Journal and temporary tables stay in SQLite's memory.

Where pages are kept is a Store: the image while the database is built, the guest kernel's page cache afterwards.
The checksums are made by the writes alone, so what the image or the cache does to a page cannot fool them.
"""

import zlib
from array import array
from typing import TYPE_CHECKING, Any, Protocol

import apsw

from guests.workloads.image import Image
from guests.workloads.proof import Proof
from shm.abi import PAGE_SIZE
from shm.errors import BrokenInvariant

if TYPE_CHECKING:
    from guests.kernel import File

ZERO_SUM = zlib.crc32(bytes(PAGE_SIZE))


class Store(Protocol):
    """Where the pages of the database are."""

    def read(self, index: int) -> bytes: ...
    def write(self, index: int, page: bytes) -> None: ...
    def truncate(self, pages: int) -> None: ...
    def sync(self) -> None: ...


class ImageStore:
    """The image, before a guest kernel has opened it."""

    def __init__(self, image: Image) -> None:
        self._image = image

    def read(self, index: int) -> bytes:
        return self._image.read(index * PAGE_SIZE, PAGE_SIZE)

    def write(self, index: int, page: bytes) -> None:
        self._image.write(index * PAGE_SIZE, page)

    def truncate(self, pages: int) -> None:
        """Leave the image as it is: it is longer than the database at any time."""

    def sync(self) -> None:
        """Leave it to the host: nothing of the image outlives this process."""


class FileStore:
    """A file of the guest kernel, in its page cache."""

    def __init__(self, file: "File") -> None:
        self._file = file
        self.read = file.page

    def write(self, index: int, page: bytes) -> None:
        self._file.write(index * PAGE_SIZE, page)

    def truncate(self, pages: int) -> None:
        self._file.truncate(pages * PAGE_SIZE)

    def sync(self) -> None:
        self._file.sync()


class DatabaseFile:
    """The database as SQLite sees it.  Writer of the checksums; counts what it checks once it has a proof."""

    def __init__(self, store: Store, most_pages: int) -> None:
        self.store, self._most = store, most_pages
        self.proof: Proof | None = None
        self.is_open = False                 # written by the file system that opens it, and by xClose
        self._sums = array("L")              # one a page of the database: crc32 of its latest content

    @property
    def pages(self) -> int:
        return len(self._sums)

    def _checked(self, index: int) -> bytes:
        page = self.store.read(index)
        right = zlib.crc32(page) == self._sums[index]
        if self.proof is not None:
            self.proof.verified(1, None if right else f"wrong page: database, page {index}: its checksum is not that "
                                                      "of what SQLite last wrote there")
        return page

    def xRead(self, amount: int, offset: int) -> bytes:
        index, inside = divmod(offset, PAGE_SIZE)
        if inside + amount > PAGE_SIZE:
            raise BrokenInvariant(f"SQLite read {amount} bytes at {offset}: beyond one page")
        if index >= len(self._sums):
            return b""                       # beyond the end: SQLite fills with zeros
        page = self._checked(index)
        return page if amount == PAGE_SIZE else page[inside:inside + amount]

    def xWrite(self, data: bytes, offset: int) -> None:
        index, inside = divmod(offset, PAGE_SIZE)
        if inside or len(data) != PAGE_SIZE:
            raise BrokenInvariant(f"SQLite wrote {len(data)} bytes at {offset}: no whole page")
        if index >= self._most:
            raise apsw.FullError(f"the database has grown beyond its disk of {self._most} pages")
        self.store.write(index, data)
        if index >= len(self._sums):         # pages may come in any order: those between read zero until they come
            self._sums.extend([ZERO_SUM] * (index + 1 - len(self._sums)))
        self._sums[index] = zlib.crc32(data)

    def xTruncate(self, size: int) -> None:
        del self._sums[-(-size // PAGE_SIZE):]
        self.store.truncate(self.pages)

    def xSync(self, flags: int) -> None:  # noqa: ARG002
        self.store.sync()

    def xFileSize(self) -> int:
        return self.pages * PAGE_SIZE

    def xSectorSize(self) -> int:
        return PAGE_SIZE

    def xDeviceCharacteristics(self) -> int:
        return 0

    def xFileControl(self, operation: int, pointer: int) -> bool:  # noqa: ARG002
        return False

    def xLock(self, level: int) -> None:
        """Grant it: one connection, in one process."""

    def xUnlock(self, level: int) -> None:
        """As xLock."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        """Keep all: the next connection goes on with the same file."""
        self.is_open = False


class DatabaseVFS(apsw.VFS):
    """A file system that holds one file."""

    def __init__(self, name: str, file: DatabaseFile) -> None:
        self.name, self._file = name, file
        super().__init__(name, "")           # clock, randomness and sleep: those of the default

    # apsw takes any object that has VFSFile's methods; its own class would need a file of the machine behind it.
    def xOpen(self, name: Any, flags: list[int]) -> DatabaseFile:  # type: ignore[override]  # noqa: ARG002
        if self._file.is_open or not flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            raise apsw.CantOpenError("there is one file, the database, and one connection")
        self._file.is_open = True
        return self._file

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: ARG002
        return False                         # no journal lies about

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Nothing to delete: see xAccess."""

    def xFullPathname(self, name: str) -> str:
        return name
