"""What the operator's side of a cluster is asked for while a mapping is tried: orders through the door.

`take` is the pressure of both schemes at once: the host takes every frame of the guest that the pages' states let it
have, and the hypervisor gives all ephemeral pages of tmem back to the machine.  Each state lets it have them all, so a
frame that is left says that the host could not: both sides then keep what they had, and seem alike.
"""

from typing import TYPE_CHECKING, Any, Self

from shm import door
from shm.abi import PAGE_SIZE
from shm.errors import MemcommonsError, UsageProblem

if TYPE_CHECKING:
    from guests.guest import Guest

SCHEME = "cmm2+tmem"
ALL_KIB = 1 << 30
WHY_NOT_TAKEN = ("swap_full", "lock_passed_by", "swap_retries")      # counters that tell of an eviction given up
LEAST_BUDGET = 1024          # pages: persistent tmem leaves guests' memory 512 frames


class NotTaken(MemcommonsError):
    """The host could not take what it was to take: whatever is answered after that is no answer to a rule."""


class Operator:
    """Orders to one cluster.  A context manager; each refusal is a UsageProblem."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self._link = door.connect(cluster)

    def order(self, call: str, **what: Any) -> dict[str, Any]:
        """Give an order and return the answer."""
        door.send(self._link, {"call": call, **what})
        answer, _ = door.receive(self._link)
        if "error" in answer:
            raise UsageProblem(answer["error"])
        return answer

    def check(self) -> None:
        """UsageProblem where the cluster is none on which both mappings can be tried."""
        listed = self.order("list")
        if listed["scheme"] != SCHEME or listed["budget"] < LEAST_BUDGET * PAGE_SIZE or listed["guests"]:
            raise UsageProblem(f"cluster {self.cluster!r} has scheme {listed['scheme']!r}, a budget of "
                               f"{listed['budget'] >> 20} MiB and {len(listed['guests'])} guests; the mappings need "
                               f"scheme {SCHEME!r}, {LEAST_BUDGET * PAGE_SIZE >> 20} MiB at least, a swap disk, and "
                               f"no other guest: all ephemeral pages are flushed again and again")

    def take(self, guest: "Guest") -> None:
        """Take all that a guest has, and all of the ephemeral pages that there are; NotTaken when frames are left."""
        self.order("discard", name=guest.name, first=0, count=guest.pages)
        self.order("tmem-flush", kib=ALL_KIB)
        row = self.row(guest)
        if row["frames"]:
            whys = ", ".join(f"{why} {row['host_counters'][why]}" for why in WHY_NOT_TAKEN)
            raise NotTaken(f"cluster {self.cluster!r} could not take {row['frames']} pages of a guest ({whys}): it has "
                           f"no swap disk, or a full one; serve one with --budget 32MiB --swap 16MiB")

    def squeeze(self, guest: "Guest", frames: int) -> None:
        """Let the machine be short of so many frames for a moment: its own policy chooses which pages lose them."""
        budget = self.order("list")["budget"]
        self.order("set-budget", bytes=(self.frames_of(guest) - frames) * PAGE_SIZE)
        self.order("set-budget", bytes=budget)

    def frames_of(self, guest: "Guest") -> int:
        """Return the frames with pages of a guest, its memory's and tmem's."""
        return int(self.row(guest)["frames"]) + self.tmem_frames()

    def row(self, guest: "Guest") -> dict[str, Any]:
        """Return what the hypervisor says of a guest."""
        rows: list[dict[str, Any]] = self.order("list")["guests"]
        return next(row for row in rows if row["name"] == guest.name)

    def tmem_frames(self) -> int:
        """Return the frames that hold pages of tmem, whoever's: what the heap has in reserve is not among them."""
        return int(self.order("tmem-list")["store"]["frames"])

    def about(self, call: str, guest: "Guest", **what: Any) -> None:
        """Give an order about one guest's tmem."""
        self.order(call, guest=guest.name, **what)

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
