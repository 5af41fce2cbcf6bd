"""The discard list: pages that were discarded and freed, until no processor can have a fault pending for them.

    per-CPU list -> gather list -> sign-off list -> free

Rule 1: a page leaves the sign-off list when every processor that was active as it came there has passed a quiescent
        point: one with no discard fault of its own delivered and not yet handled (R31).
Rule 2: pages that come meanwhile gather, and are signed off together next.

Why: a fault names a page by its address.  While one processor has it pending, another may handle the same fault and
free the page; used again at once, the page would be taken from its new, innocent owner.  Source: reference 2.2.
Pure: it holds numbers, and knows neither pages nor threads.
"""

from collections.abc import Iterator, Sequence, Set


class DiscardList:
    """The lists of `cpus` processors, numbered from 0."""

    def __init__(self, cpus: int) -> None:
        self.own: list[list[int]] = [[] for _ in range(cpus)]
        self.gathered: list[int] = []
        self.signing: list[int] = []
        self.missing: set[int] = set()               # processors whose sign-off is missing

    def __len__(self) -> int:
        return sum(map(len, self.own)) + len(self.gathered) + len(self.signing)

    def __iter__(self) -> Iterator[int]:
        for part in (*self.own, self.gathered, self.signing):
            yield from part

    def add(self, cpu: int, gfns: Sequence[int]) -> None:
        """List pages that processor `cpu` has freed."""
        self.own[cpu] += gfns

    def quiescent(self, cpu: int, active: Set[int]) -> list[int]:
        """Note that `cpu` stands at a quiescent point, as every processor not in `active` does; return what is free."""
        for number, own in enumerate(self.own):
            if number == cpu or number not in active:
                self.gathered += own
                self.own[number] = []
        self.missing = (self.missing & active) - {cpu}
        free: list[int] = []
        while not self.missing and (self.signing or self.gathered):
            free += self.signing
            self.signing, self.gathered = self.gathered, []
            self.missing = set(active) - {cpu} if self.signing else set()
        return free
