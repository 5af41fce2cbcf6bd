"""The kernel of one guest: builds its parts over the guest's memory, and hands out files and memory.

Rule 1: one thread of control at a time is in a kernel, so nothing comes between make_stable and make_volatile (R35).
        With one processor a discarded page can be reused at once; with several, each use of the kernel stands in
        `running`, and what was discarded waits until no fault can be pending for it (R31).
Rule 2: the kernel takes all of the guest's memory: nobody else may touch it.
Rule 3: what the scheme does not offer is not used: no hint is sent, no pool is made.  A pool that is refused is done
        without; pages then go to the disk alone.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from guests.cleancache import Cleancache, SharedCleancache
from guests.disk import Disk
from guests.frontswap import KEPT, Frontswap, Mode
from guests.kernel.anon import Anon
from guests.kernel.audit import check_hints, check_lists, check_pages
from guests.kernel.balloon import Balloon, Driver, SelfBalloon
from guests.kernel.buffers import Buffers
from guests.kernel.cache import PageCache
from guests.kernel.core import build_core
from guests.kernel.file import File
from guests.kernel.inode import Inode
from guests.kernel.lists import ActiveInactive, ExactLru
from guests.kernel.readahead import largest_window
from guests.kernel.rebuildable import Rebuild, Rebuildable
from guests.kernel.reclaim import Reclaim
from guests.kernel.swap import SwapSpace
from guests.kernel.swapper import Places, Swapper
from guests.kernel.writeback import Writeback
from guests.selfballoon import LINUX, Rules
from shm.abi import PAGE_SIZE
from shm.errors import TmemRefused, UsageProblem

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.pool import Pool
    from guests.tmem import Secret


class Kernel:
    """A guest's kernel.

    cache_pages      a textbook LRU page cache of just so many pages, without read-ahead
    frontswap        how its frontswap works
    selfballooning   it sizes itself by what was promised, whenever `tick` finds by `clock` that it is time
    selfballoon      the rules by which it does that
    dirty_bits       "page": a clean page that a mapping may store to is potentially volatile; "pte": stable (R37)
    minor_faults     "optimised": a mapped touch costs no ESSA; "stable": stable before, volatile after it (R41)
    buffers          writes of parts of pages are tracked by the sector, and keep their pages stable meanwhile
    cpus             threads of control
    spare_evicted    reclaim leaves anonymous pages alone that the host has swapped, while there are others: to swap
                     such a page, the guest has it read back first (Dave Hansen, 2009)
    """

    def __init__(self, guest: "Guest", swap: Disk | None = None, cache_pages: int | None = None,
                 frontswap: Mode = KEPT, selfballooning: bool = False,
                 clock: Callable[[], float] = monotonic, *, selfballoon: Rules = LINUX,
                 dirty_bits: Literal["page", "pte"] = "page",
                 minor_faults: Literal["optimised", "stable"] = "optimised", buffers: bool = False,
                 cpus: int = 1, spare_evicted: bool = False) -> None:
        _check_choice("dirty_bits", dirty_bits, ("page", "pte"))
        _check_choice("minor_faults", minor_faults, ("optimised", "stable"))
        self.guest = guest
        self.core = build_core(guest, cpus, dirty_bits == "page")
        self._check_cache_pages(cache_pages)
        self._inodes: list[Inode] = []
        self._regions: list[Rebuildable] = []
        self._shared: dict[str, Places] = {}
        self._cleancaches: dict[Disk, Cleancache] = {}
        lists = ActiveInactive(self.core.pages) if cache_pages is None else ExactLru(self.core.pages)
        self._window = largest_window(guest.pages) if cache_pages is None else 1
        self.buffers = Buffers(self.core.pages) if buffers else None
        self._writeback = Writeback(self.core, self.buffers)
        self._cache = PageCache(self.core, lists, self._writeback, cache_pages, minor_faults == "stable")
        self._swapper = Swapper(self.core, SwapSpace(swap, self._new_frontswap(swap, frontswap)),
                                spare_evicted)
        self.core.discards.take_out = {Inode: self._cache.drop, Places: self._swapper.drop}
        self.core.allocator.reclaim = Reclaim(self.core, self._cache, self._swapper, self._regions).free_pages
        self.balloon = Balloon(self.core)
        self._selfballoon = self._new_selfballoon(clock, selfballoon) if selfballooning else None
        follows = "balloon" in guest.features and not selfballooning
        self._driver = Driver(self.core, self.balloon, lambda: guest.target, clock) if follows else None

    def mount(self, disk: Disk, shared: "Secret") -> None:
        """Share the cleancache of a disk with the other guests that do so under the same secret; before any `open`.

        The disk must hold the same for all of them.  TmemRefused when this guest may not join; without cleancache in
        the scheme it is a disk like any other.
        """
        if disk in self._cleancaches:
            raise ValueError("the disk is in use already: mount it before its first file is opened")
        pool = None
        if "cleancache" in self.guest.features:
            pool = self.guest.tmem.new_pool(persistent=False, shared=shared)
        self._cleancaches[disk] = SharedCleancache(pool, self.core.counters)

    def open(self, disk: Disk, start: int = 0, pages: int | None = None, size: int | None = None) -> File:
        """Make a file of `pages` blocks of a disk from `start` on (all that follow), `size` bytes long (or all)."""
        limit = disk.pages - start if pages is None else pages
        length = limit * PAGE_SIZE if size is None else size
        if not (0 <= start <= start + limit <= disk.pages and 0 <= length <= limit * PAGE_SIZE):
            raise ValueError(f"a file of {length} bytes in {limit} blocks from {start} on does not fit a disk of "
                             f"{disk.pages} blocks")
        inode = Inode(len(self._inodes) + 1, disk, start, limit, length, self._cleancache(disk))
        inode.cleancache.opened(inode.number, (start, limit, length))
        self._inodes.append(inode)
        return File(self.core, self._cache, self._writeback, inode, self._window)

    def anon(self, pages: int) -> Anon:
        """Make an anonymous region of `pages` pages that read zero."""
        return Anon(self.core, self._swapper, Places(pages))

    def shared_anon(self, name: str, pages: int) -> Anon:
        """Make an anonymous region under a name, or share the one that has it; each user frees its own hold."""
        places = self._shared.get(name)
        if places is None or not places.users:
            places = self._shared[name] = Places(pages, shared=True)
        if len(places.gfn) != pages:
            raise ValueError(f"the shared region {name!r} has {len(places.gfn)} pages, not {pages}")
        return Anon(self.core, self._swapper, places)

    def rebuildable(self, pages: int, rebuild: Rebuild, hinted: bool = True) -> Rebuildable:
        """Make a region whose pages `rebuild(indexes)` computes, (n, 4096) uint8, the same each time.

        Not `hinted`, it is never volatile: a slab, of which this kernel's reclaim alone knows that it can be purged.
        """
        region = Rebuildable(self.core, pages, rebuild, hinted)
        self._regions.append(region)
        return region

    def running(self, cpu: int) -> AbstractContextManager[None]:
        """Be processor `cpu`, in the calling thread, until the block ends; waits for others that are in the kernel."""
        return self.core.cpus.running(cpu)

    def quiescent(self, cpu: int) -> None:
        """Note that processor `cpu` has no discard fault pending; so does the end of `running`, and an allocation."""
        self.core.allocator.quiescent(cpu)

    def page_discard(self, gfn: int) -> None:
        """Take a page out that the host has discarded, unless somebody has begun to (R30)."""
        self.core.discards.page_discard([gfn])

    @property
    def free_pages(self) -> int:
        return self.core.allocator.free_pages

    @property
    def looks(self) -> int:
        """How often reclaim looked whether the host has a page; never without `spare_evicted`."""
        return self._swapper.lists.looks

    @property
    def committed_pages(self) -> int:
        """Committed_AS: what programs were promised, used or not: anonymous and rebuildable regions in full."""
        anonymous = sum(len(region.gfn) for region in self._swapper.regions)
        return anonymous + sum(region.pages for region in self._regions)

    def tick(self) -> None:
        """Give the kernel a moment for itself, between two operations of a program."""
        if self._selfballoon is not None:
            self._selfballoon.tick()
        if self._driver is not None:
            self._driver.tick()

    @property
    def ticks(self) -> bool:
        """Whether `tick` ever has anything to do."""
        return self._selfballoon is not None or self._driver is not None

    def shrink_frontswap(self, pages: int) -> int:
        """Take `pages` pages out of frontswap, or all there are, to memory or to the swap disk; return how many."""
        return self._swapper.shrink_frontswap(max(0, self._swapper.swap.near - pages))

    def sync(self) -> None:
        """Write back every dirty page of every file."""
        for inode in self._inodes:
            self._writeback.sync(inode)

    def check(self) -> None:
        """Raise BrokenInvariant unless the kernel's structures agree with one another and with the page states."""
        self.core.allocator.check()
        self._writeback.check()
        self._swapper.check()
        balloon = self.balloon.gfns
        check_pages(self.core, balloon, self._inodes, self._swapper, self._regions)
        check_lists(self.core, balloon, self._cache, self._swapper, self._regions)
        check_hints(self.core, balloon, self.guest)

    def close(self) -> None:
        """Write back what is dirty and destroy the pools.  Disks are their maker's to close."""
        self.sync()
        ends = [cleancache.close for cleancache in self._cleancaches.values()]
        for end in [*ends, self._swapper.swap.close]:
            with suppress(TmemRefused):              # the guest is being migrated: its pools go with it
                end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def _cleancache(self, disk: Disk) -> Cleancache:
        """Return the disk's cleancache: one pool a file system."""
        if disk not in self._cleancaches:
            self._cleancaches[disk] = Cleancache(self._new_pool("cleancache", persistent=False), self.core.counters)
        return self._cleancaches[disk]

    def _new_frontswap(self, swap: Disk | None, mode: Mode) -> Frontswap | None:
        pool = self._new_pool("frontswap", persistent=True) if swap else None
        return Frontswap(pool, swap.pages, self.core.counters, mode=mode) if swap and pool else None

    def _new_selfballoon(self, clock: Callable[[], float], rules: Rules) -> SelfBalloon:
        if not self._swapper.swap.slots:
            raise UsageProblem("a guest that balloons itself needs a swap disk: it may take too much from itself")
        return SelfBalloon(self.core, self.balloon, self._swapper, lambda: self.committed_pages, clock, rules)

    def _new_pool(self, feature: str, persistent: bool) -> "Pool | None":
        if feature not in self.guest.features:
            return None
        try:
            return self.guest.tmem.new_pool(persistent=persistent)
        except TmemRefused:
            return None

    def _check_cache_pages(self, cache_pages: int | None) -> None:
        most = self.guest.pages - self.core.allocator.marks.high
        if cache_pages is not None and not 1 <= cache_pages <= most:
            raise UsageProblem(f"a page cache of {cache_pages} pages does not fit a guest of {self.guest.pages}: "
                               f"use 1 to {most}, or give the guest more ram")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageProblem(f"{name} = {value!r} is unknown: use {' or '.join(allowed)}")
