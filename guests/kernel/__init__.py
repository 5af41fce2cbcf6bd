"""A small guest kernel.  What a program uses is `Kernel`, and what it hands out.

    kernel        builds the parts, opens files and regions
    file          byte ranges and pages over the page cache
    mapping       files mapped into programs: loads, stores, mlock
    anon          anonymous memory, which swaps
    rebuildable   memory that is volatile while idle

    cache         the page cache: copied, mapped, evicted
    inode         a file's window of its disk, and what of it is cached, dirty or a hole
    readahead     how far (pure)
    writeback     dirty pages and their way to the disk
    buffers       what of a page is newer than the disk, by the sector
    swapper       anonymous pages between memory, swap cache and swap
    swap          slots: frontswap first, then the disk

    allocator     free list and watermarks
    balloon       pages that the guest does without
    reclaim       carries out what `balance` (pure) plans
    lists         active and inactive, or exact LRU
    discards      discard faults, and taking discarded pages out
    discardlist   where they wait until their grace is over (pure)
    cpus          threads of control, one at a time in the kernel
    hints         the only part that executes ESSA
    pages         what is known of each page; `guests.volatility` says what the bits mean
    sources       where pages can be had again, told to whoever restores them outside
    core          what all of these stand on, in one bundle
    audit         recounts everything
"""

from guests.kernel.anon import Anon
from guests.kernel.file import File
from guests.kernel.kernel import Kernel
from guests.kernel.rebuildable import Rebuildable

__all__ = ["Anon", "File", "Kernel", "Rebuildable"]
