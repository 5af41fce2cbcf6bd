"""Rules as data: steps in words, the answers that they must get, and pages that go by a name.

    Rule.of("T14", "a second get misses", "put a D1 -> stored; get a -> D1; get a -> miss")

An answer without "->" is free: such a rule promises nothing, it asks.  `D1|miss` allows both.

D1 to D9 are pages of noise, so that no form of storage makes them shorter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, Self

import numpy as np

from shm.abi import PAGE_SIZE
from shm.errors import AddressingException, DiscardFault, MemcommonsError, OutOfMemory, TmemRefused, UsageProblem

WINDOW = slice(100, 200)     # the part of a page that `read` and `write` are about
ANSWERS: dict[type[MemcommonsError], str] = {
    DiscardFault: "discard fault", AddressingException: "addressing exception",
    OutOfMemory: "out of memory", TmemRefused: "no such pool", UsageProblem: "not allowed",
}
_FREE = ""


@dataclass(frozen=True)
class Rule:
    """One rule, by its number in the references (T, R), or by E2 and a letter for what the thread asked beyond them."""

    number: str
    text: str
    steps: tuple[str, ...]
    must: tuple[str, ...]        # for each step the answers allowed, "|" between them; empty: free
    region: int = 0              # pages of the guest that the imitation has for its pool; 0: `pool_bed.REGION`
    bounded: bool = False        # the original's pool holds no more than that either: it has a cap

    @classmethod
    def of(cls, number: str, text: str, steps: str, region: int = 0, bounded: bool = False) -> Self:
        parts = [(step.strip(), must.strip()) for step, _, must in (part.partition("->") for part in steps.split(";"))]
        return cls(number, text, tuple(step for step, _ in parts), tuple(must for _, must in parts), region, bounded)

    def broken(self, answers: Sequence[str]) -> list[str]:
        """Return the steps whose answer is none of those allowed, one line each."""
        return [f"{step}: {answer}, not {must}"
                for step, must, answer in zip(self.steps, self.must, answers, strict=True)
                if must != _FREE and answer not in must.split("|")]


class Bed(Protocol):
    """Where steps are performed: one side of a mapping, with a guest of its own."""

    def perform(self, step: str) -> str:
        """Carry one step out and return the answer, in words."""
        ...


def answer_to(bed: Bed, step: str) -> str:
    """Return the answer to a step; what it raised is an answer too."""
    try:
        return bed.perform(step)
    except tuple(ANSWERS) as error:
        return ANSWERS[type(error)]


# pages by name

@cache
def page(name: str) -> bytes:
    """Return the page of a name: `zeros`, `D1` to `D9`, `N0` and on (for fills), `D1+D9` (D9 in the window)."""
    below, _, above = name.partition("+")
    if above:
        return page(below)[:WINDOW.start] + page(above)[WINDOW] + page(below)[WINDOW.stop:]
    if name == "zeros":
        return bytes(PAGE_SIZE)
    seed = int(name[1:]) + (1000 if name[0] == "N" else 0)
    return np.random.default_rng(seed).bytes(PAGE_SIZE)


@cache
def _names() -> dict[bytes, str]:
    plain = ["zeros", *(f"D{number}" for number in range(1, 10)), *(f"N{number}" for number in range(4))]
    return {page(name): name for name in [*plain, *(f"{name}+D9" for name in plain if name != "D9")]}


@cache
def _part_names() -> dict[bytes, str]:
    return {page_[WINDOW]: f"part of {name}" for page_, name in _names().items() if "+" not in name}


def name_of(data: bytes | None) -> str:
    """Return the name of a page, or of a window of one; `miss` for None."""
    if data is None:
        return "miss"
    return (_names() if len(data) == PAGE_SIZE else _part_names()).get(bytes(data), "other bytes")
