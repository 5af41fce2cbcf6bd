"""How many blocks that nobody will read lie in the host's cache, or in the pool (E16).

Temporary files are written and cut, and processes with more memory than there is room for come and end, `rounds` times.
Then every dead block is asked for: a hit is a frame that holds one.  At last a file that was read in the beginning is
read again: what it finds is what the dead have left it.

Of tmem's pools the handles are asked for, of the host's cache the blocks.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guests.guest import Guest
from guests.hostcache import AT_ONCE, FEATURE, HostCaches
from guests.kernel import Kernel
from guests.mappings.operator import Operator
from guests.trials.known import CHUNK, Pools, Reader, Since, disk_of, filled, holds, pages_of, swap_disk
from shm.abi import PAGE_SIZE
from shm.counters import Count

if TYPE_CHECKING:
    from guests.kernel.file import File

RAM, LIVE, TEMPORARY, REGION = 256, 256, 192, 320    # pages
FILES_DISK, SWAP_DISK = 1, 2                         # their numbers in the host's cache


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    rounds = options["rounds"]
    with Operator(cluster) as operator, Guest.connect(cluster, "one", RAM * PAGE_SIZE, 8 * RAM * PAGE_SIZE) as guest, \
            disk_of(guest, LIVE + rounds * TEMPORARY + AT_ONCE) as disk, swap_disk(guest, 4 * REGION) as swap:
        guest.tmem = pools = Pools(guest.tmem)       # type: ignore[assignment]
        caches = HostCaches(guest.tmem, guest.counters, options["trim"]) if FEATURE in guest.features else None
        files, slots = (caches.front(each) if caches else each for each in (disk, swap))
        with Kernel(guest, slots) as kernel:
            live = Reader(kernel.open(files, 0, LIVE))
            live.read(range(LIVE))
            cut = [temporary(kernel.open(files, LIVE + at * TEMPORARY, TEMPORARY, 0)) for at in range(rounds)]
            process(kernel)
            settle(kernel.open(files, LIVE + rounds * TEMPORARY, AT_ONCE))
            frames = operator.tmem_frames()
            dead = in_cache(pools, rounds) if caches else in_pools(pools, cut)
            since = Since(guest)
            live.read(range(LIVE))
            return {"frames": frames, "dead": dead, "live_pages": LIVE, "live_reads": since[Count.GUEST_DISK_READS],
                    "wrong": live.wrong}


def temporary(file: "File") -> "File":
    """Write a file, sync it, read it, and cut it."""
    for at in range(0, TEMPORARY, CHUNK):
        file.write(at * PAGE_SIZE, pages_of(range(at, min(at + CHUNK, TEMPORARY))).reshape(-1))
    file.sync()
    file.read(0, TEMPORARY * PAGE_SIZE)
    file.truncate(0)
    return file


def process(kernel: Kernel) -> None:
    """Let a process use more memory than there is, and end."""
    region = filled(kernel.anon(REGION))
    region.read_many(range(REGION))
    region.free()


def settle(file: "File") -> None:
    """Read as many blocks as the cache takes together, so that none waits to be entered."""
    file.read(0, AT_ONCE * PAGE_SIZE)


def in_cache(pools: Pools, rounds: int) -> int:
    """Return how many dead blocks lie in the host's cache: of cut files, and of swap slots, all of which are free."""
    cut = range(LIVE, LIVE + rounds * TEMPORARY)
    return holds(pools.made[0], FILES_DISK, cut) + holds(pools.made[0], SWAP_DISK, range(4 * REGION))


def in_pools(pools: Pools, files: "list[File]") -> int:
    """Return how many pages lie in tmem that no file and no slot has any more."""
    dead = 0
    for pool in pools.made:
        if pool.persistent:                          # frontswap's objects, by the slot's low bits
            dead += sum(holds(pool, low, range(4 * REGION // 16)) for low in range(16))
        else:
            dead += sum(holds(pool, file.inode.number, range(TEMPORARY)) for file in files)
    return dead
