"""How many frames hold what another frame holds too, in the guest or in the pool (E20).

    default         what is got leaves a private cleancache, and stays in frontswap
    exclusive       what is got leaves the pool: frontswap with exclusive gets
    kept            what is got stays: a shared cleancache (of one guest), and frontswap as it is

Programs read pages of a file that is larger than memory, and of anonymous memory that is, with skew.  The work is done
`points` times from the beginning, each time longer, and looked at in the end alone: to ask a pool whether it has a page
makes the page younger.
"""

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from guests.frontswap import Mode
from guests.guest import Guest
from guests.kernel import Kernel
from guests.mappings.operator import Operator
from guests.trials.known import Pools, Reader, Since, disk_of, filled, holds, page_of, swap_disk
from guests.workloads.choice import Skewed
from shm.abi import PAGE_SIZE
from shm.counters import Count

if TYPE_CHECKING:
    from guests.tmem import Oid

RAM, FILE, REGION = 320, 384, 384            # pages
SECRET = 0x5EC2E7
THETA = 0.6
# whether cleancache keeps what was got, and how frontswap works
ARMS = {"default": (False, Mode()), "exclusive": (False, Mode(exclusive=True)), "kept": (True, Mode())}


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    with Operator(cluster) as operator:
        return {arm: [looked_at(operator, arm, options["operations"] * point, options["cap"])
                      for point in range(1, options["points"] + 1)] for arm in ARMS}


def looked_at(operator: Operator, arm: str, operations: int, cap: int) -> dict[str, int]:
    """Do the work; return the frames in use in the end, and how many of them are doubles."""
    kept, mode = ARMS[arm]
    with Guest.connect(operator.cluster, f"{arm}-{operations}", RAM * PAGE_SIZE, 8 * RAM * PAGE_SIZE) as guest, \
            disk_of(guest, FILE) as disk, swap_disk(guest, 2 * REGION) as swap:
        guest.tmem = pools = Pools(guest.tmem)       # type: ignore[assignment]
        operator.about("tmem-set", guest, cap=cap)
        operator.about("tmem-shared-auth", guest, secret=f"{SECRET:032x}", allow=True)
        with Kernel(guest, swap, frontswap=mode) as kernel:
            if kept:
                kernel.mount(disk, SECRET)
            program = Program(kernel, Reader(kernel.open(disk)))
            since = Since(guest)
            program.work(operations)
            row = operator.row(guest)
            frames = int(row["frames"]) + operator.tmem_frames()
            return {"operations": operations, "frames": frames, "file_doubles": program.file_doubles(pools, kept),
                    "anonymous_doubles": program.anonymous_doubles(), "wrong": program.wrong,
                    **since.counts(disk_reads=Count.GUEST_DISK_READS, swap_reads=Count.GUEST_SWAP_READS,
                                   swap_writes=Count.GUEST_SWAP_WRITES)}


class Program:
    """Reads a file and anonymous memory, and writes a little of the latter."""

    def __init__(self, kernel: Kernel, reader: Reader) -> None:
        self._reader, self._region = reader, filled(kernel.anon(REGION))
        self._wrong = 0

    def work(self, operations: int) -> None:
        random = Random(1)
        file, memory = Skewed(FILE, THETA, random).choose, Skewed(REGION, THETA, random).choose
        for _ in range(operations):
            self._reader.read([file()])
            index = memory()
            self._wrong += self._region.read(index) != page_of(index)
            if random.random() < 0.2:
                self._region.write(index, page_of(index))

    @property
    def wrong(self) -> int:
        return self._wrong + self._reader.wrong

    def file_doubles(self, pools: Pools, kept: bool) -> int:
        inode = self._reader.file.inode
        oid: Oid = (inode.start, inode.limit, inode.size) if kept else inode.number
        return sum(holds(pool, oid, self._reader.cached) for pool in pools.made if not pool.persistent)

    def anonymous_doubles(self) -> int:
        """Return how many pages are in memory and in frontswap: none of them can be lost there."""
        return self._region.doubles
