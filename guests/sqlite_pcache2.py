"""SQLite's door for page caches (SQLITE_CONFIG_PCACHE2), through ctypes: its pages are then pages of a guest.

The SQLite meant is the one that Python's `sqlite3` uses.  Its functions are looked up from that module, so whatever
library it is linked with is found, under whatever name.

Rule 1: the door is the process's: one guest at a time, set while no connection is open and taken back when the last
        one is closed.
Rule 2: an exception cannot pass through SQLite.  The first is kept, SQLite is told that there is no memory, and `check`
        raises it; whoever uses SQLite calls `check` after each use.
Rule 3: SQLite touches a page between `fetch` and `unpin` alone.  Its memory must be plain: hardware mode.

What SQLite keeps beside a page (pExtra) is ordinary memory, in a slot of its own for each page of the guest.
"""

import ctypes
import mmap
from collections.abc import Callable
from ctypes import c_int, c_int64, c_uint, c_void_p
from typing import TYPE_CHECKING, Any

import numpy as np

from guests.sqlite_cache import CacheMemory
from shm.abi import PAGE_SIZE
from shm.errors import OutOfMemory, UsageProblem

if TYPE_CHECKING:
    from guests.guest import Guest

CONFIG_PCACHE2, CONFIG_GETPCACHE2, OK = 18, 19, 0
SLOT_BYTES, HEAD_BYTES = 512, 16             # struct sqlite3_pcache_page is the head; what SQLite keeps follows
EXTRA_BYTES = SLOT_BYTES - HEAD_BYTES
MUST = 2                                     # xFetch's `create`: 0 look, 1 if it is easy, 2 SQLite must have it
_VERSION = 1
_ZEROS = bytes(EXTRA_BYTES)

_CALLS: dict[str, Any] = {                   # of struct sqlite3_pcache_methods2, in its order
    "init": ctypes.CFUNCTYPE(c_int, c_void_p),
    "shutdown": ctypes.CFUNCTYPE(None, c_void_p),
    "create": ctypes.CFUNCTYPE(c_void_p, c_int, c_int, c_int),
    "cachesize": ctypes.CFUNCTYPE(None, c_void_p, c_int),
    "pagecount": ctypes.CFUNCTYPE(c_int, c_void_p),
    "fetch": ctypes.CFUNCTYPE(c_void_p, c_void_p, c_uint, c_int),
    "unpin": ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int),
    "rekey": ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_uint, c_uint),
    "truncate": ctypes.CFUNCTYPE(None, c_void_p, c_uint),
    "destroy": ctypes.CFUNCTYPE(None, c_void_p),
    "shrink": ctypes.CFUNCTYPE(None, c_void_p),
}


class _Methods(ctypes.Structure):
    _fields_ = [("version", c_int), ("argument", c_void_p), *_CALLS.items()]


def linked_sqlite() -> ctypes.CDLL:
    """Return the library that Python's `sqlite3` is linked with; UsageProblem where it cannot be reached."""
    import _sqlite3
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    try:
        library.sqlite3_memory_used.restype = c_int64
        for name in ("sqlite3_config", "sqlite3_initialize", "sqlite3_shutdown"):
            getattr(library, name).restype = c_int
    except AttributeError:
        raise UsageProblem("this Python's sqlite3 is linked statically and hides SQLite's functions, so its page cache "
                           "cannot be replaced; use a Python whose sqlite3 uses the machine's libsqlite3") from None
    return library


class PageCacheDoor:
    """SQLite's page caches in `memory`, which are pages of `guest`.  A context manager: set, and taken back."""

    def __init__(self, guest: "Guest", memory: CacheMemory, library: ctypes.CDLL | None = None) -> None:
        self._memory, self._caches = memory, memory.caches
        self._library = library or linked_sqlite()
        self._problem: BaseException | None = None
        self.refused = 0                     # pages that SQLite would have liked to have and did not get
        self._extra = dict[int, bytes]()     # of each cache: as many zeros as it keeps beside a page
        self._slots = mmap.mmap(-1, guest.pages * SLOT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._first = self._fill_heads(guest)
        self._own = _Methods(_VERSION, None, *(kind(getattr(self, "_" + name)) for name, kind in _CALLS.items()))
        self._usual = _Methods()
        self._set = False

    def _fill_heads(self, guest: "Guest") -> int:
        """Write where each page and what is kept beside it lie; return the address of the first slot."""
        base = getattr(guest.memory, "base", None)
        if base is None:
            raise UsageProblem(f"guest {guest.name!r}: SQLite's page cache needs plain memory, which a guest has in "
                               'hardware mode alone: use faults = "hardware"')
        slots = np.frombuffer(self._slots, np.uint64).reshape(guest.pages, -1)
        first = int(slots.ctypes.data)
        slots[:, 0] = base + np.arange(guest.pages, dtype=np.uint64) * PAGE_SIZE
        slots[:, 1] = first + HEAD_BYTES + np.arange(guest.pages, dtype=np.uint64) * SLOT_BYTES
        return first

    # set and taken back

    def set(self) -> None:
        """Have SQLite use our pages from now on; UsageProblem while connections are open."""
        self._configure(CONFIG_GETPCACHE2, self._usual, "before its page cache can be replaced")
        self._configure(CONFIG_PCACHE2, self._own, "before its page cache can be replaced")
        self._set = True

    def take_back(self) -> None:
        """Have SQLite use its own cache again; UsageProblem while connections are open.  Twice is harmless."""
        if self._set:
            self._configure(CONFIG_PCACHE2, self._usual, "before its own page cache can come back")
        self._set = False

    def _configure(self, what: int, methods: _Methods, when: str) -> None:
        if self._library.sqlite3_memory_used():
            raise UsageProblem(f"a connection of this process to SQLite is open; close all of them {when}")
        self._library.sqlite3_shutdown()
        status = self._library.sqlite3_config(what, ctypes.byref(methods))
        self._library.sqlite3_initialize()
        if status != OK:
            raise UsageProblem(f"SQLite refuses to have its page cache replaced (status {status})")

    def __enter__(self) -> "PageCacheDoor":
        self.set()
        return self

    def __exit__(self, *_: object) -> None:
        self.take_back()

    def check(self) -> None:
        """Raise what was raised first while SQLite was calling us, once."""
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def perform(self, work: Callable[[], Any]) -> Any:
        """Return `work()`, which uses SQLite; what was raised in our calls comes before what SQLite made of it."""
        try:
            result = work()
        except Exception:
            self.check()
            raise
        if self._problem is not None:
            self.check()
        return result

    def _note(self, problem: BaseException) -> None:
        self._problem = self._problem or problem

    # what SQLite calls.  A page is named by the address of its slot

    def _init(self, _: int | None) -> int:
        return OK

    def _shutdown(self, _: int | None) -> None:
        """Keep everything: there are no caches any more."""

    def _create(self, page_bytes: int, extra_bytes: int, purgeable: int) -> int | None:
        if page_bytes != PAGE_SIZE or extra_bytes > EXTRA_BYTES:
            self._note(UsageProblem(f"SQLite wants pages of {page_bytes} bytes with {extra_bytes} beside; pages of "
                                    f"{PAGE_SIZE} with at most {EXTRA_BYTES} can be had: use PRAGMA page_size = "
                                    f"{PAGE_SIZE}"))
            return None
        number = self._memory.new_cache(bool(purgeable))
        self._extra[number] = _ZEROS[:extra_bytes]
        return number

    def _cachesize(self, number: int, pages: int) -> None:
        self._caches[number].limit = pages

    def _pagecount(self, number: int) -> int:
        return len(self._caches[number].gfns)

    def _fetch(self, number: int, key: int, create: int) -> int | None:
        try:
            gfn = self._caches[number].find(key)
            if gfn is None:
                if not create:
                    return None
                gfn = self._caches[number].add(key, create == MUST)
                if gfn is None:
                    self._refuse(create)
                    return None
                self._clear(gfn, self._extra[number])
            return self._first + gfn * SLOT_BYTES
        except BaseException as problem:
            self._note(problem)
            return None

    def _refuse(self, create: int) -> None:
        self.refused += 1
        if create == MUST:
            raise OutOfMemory(f"SQLite must have one more page, and all {self._memory.pages} are in use; give the "
                              "guest more RAM")

    def _clear(self, gfn: int, zeros: bytes) -> None:
        start = gfn * SLOT_BYTES + HEAD_BYTES
        self._slots[start:start + len(zeros)] = zeros

    def _unpin(self, number: int, page: int, discard: int) -> None:
        try:
            gfn, cache = (page - self._first) // SLOT_BYTES, self._caches[number]
            if discard:
                cache.drop(gfn)
            else:
                cache.let_go(gfn)
        except BaseException as problem:
            self._note(problem)

    def _rekey(self, number: int, page: int, old: int, new: int) -> None:
        try:
            self._caches[number].rekey((page - self._first) // SLOT_BYTES, old, new)
        except BaseException as problem:
            self._note(problem)

    def _truncate(self, number: int, key: int) -> None:
        try:
            self._caches[number].truncate(key)
        except BaseException as problem:
            self._note(problem)

    def _destroy(self, number: int) -> None:
        try:
            self._memory.end_cache(number)
            del self._extra[number]
        except BaseException as problem:
            self._note(problem)

    def _shrink(self, number: int) -> None:
        try:
            self._caches[number].shrink()
        except BaseException as problem:
            self._note(problem)
