"""What one guest finds out about another, a question at a time (E33).

A secret is drawn, a bit for each of `probes` questions.  Where the bit is 1 the victim does what is asked for, where it
is 0 the same to another page, so that calls are made either way.  The prober asks once, and what it saw is written down
beside the bit: an answer, how long it took, and how long without what the disk's model adds.

    shared pool       the victim reads a file's page over a shared cleancache; the prober reads it too: the answer is
                      whether the pool had it, the time that of the read, with an hdd by its model where it had not
    private pools     the same, each guest with a pool of its own
    dedup             the victim puts a page; the prober puts the same bytes, where equal pages of guests share a frame
    own pages         the victim takes frames; the prober looks whether a volatile page of its own was discarded

What is told is computed by who judges.  The door is tried too: a guest that knows a shared pool's name and was not let
in asks for it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic_ns
from typing import Any, NamedTuple

import numpy as np

from guests.device import Device
from guests.guest import Guest
from guests.mappings.operator import Operator
from guests.trials.known import disk_of, page_of, pages_of
from shm.abi import PAGE_SIZE
from shm.diskcost import model_named
from shm.errors import TmemRefused
from shm.pagestate import CONTENT_MASK, DISCARDED, RESIDENT, Essa

SECRET = 0x5EC2E7
RAM, OID, OTHER = 256, 1, 2
TAKEN = 48                   # frames that a victim takes in one go
SHARED = "shared pool"


class Ways(NamedTuple):
    """What is done in each round, by its number."""

    act: Callable[[int], object]                         # of the victim, where the bit is 1
    other: Callable[[int], object]                       # of the victim, where it is 0
    probe: Callable[[int], bool]                         # of the prober: its question, and the answer
    ready: Callable[[int], object] = lambda _: None      # before either
    waited: Callable[[], int] = lambda: 0                # of the prober by its disk's model so far, ns


def run(cluster: str, options: Mapping[str, Any]) -> dict[str, Any]:
    bits = np.random.default_rng(7).integers(0, 2, options["probes"]).tolist()
    with Operator(cluster) as operator, CHANNELS[options["channel"]](operator, len(bits)) as ways:
        rows = [asked(number, bit, ways) for number, bit in enumerate(bits)]
        return {"bits": bits, "answers": [int(answer) for answer, _, _ in rows],
                "ns": [own + waited for _, own, waited in rows], "own_ns": [own for _, own, _ in rows],
                "intruders": intruders(operator) if options["channel"] == SHARED else None}


def asked(number: int, bit: int, ways: Ways) -> tuple[bool, int, int]:
    """Let the victim act or not, and ask; return the answer, how long it took, and its wait for the disk."""
    ways.ready(number)
    (ways.act if bit else ways.other)(number)
    waited, began = ways.waited(), monotonic_ns()
    answer = ways.probe(number)
    return answer, monotonic_ns() - began, ways.waited() - waited


def intruders(operator: Operator) -> int:
    """Return how many of some guests that were not let in got into the shared pool, whose name they know."""
    entered = 0
    with Guest.connect(operator.cluster, "intruder", RAM * PAGE_SIZE) as guest, suppress(TmemRefused):
        guest.tmem.new_pool(persistent=False, shared=SECRET)
        entered += 1
    return entered


@contextmanager
def two(operator: Operator) -> Iterator[tuple[Guest, Guest]]:
    with Guest.connect(operator.cluster, "victim", RAM * PAGE_SIZE) as victim, \
            Guest.connect(operator.cluster, "prober", RAM * PAGE_SIZE) as prober:
        yield victim, prober


@contextmanager
def pools(operator: Operator, probes: int, shared: bool) -> Iterator[Ways]:
    """Read a page that the victim's kernel has put, or has not: from the pool, or else from the disk."""
    with two(operator) as guests:
        for guest in guests if shared else ():
            operator.about("tmem-shared-auth", guest, secret=f"{SECRET:032x}", allow=True)
        mine, theirs = (guest.tmem.new_pool(persistent=False, shared=SECRET if shared else None) for guest in guests)
        device = Device.of(guests[1].counters, model_named("hdd"), "virtual")
        with disk_of(guests[1], probes) as disk:
            disk.behind(device)

            def probe(number: int) -> bool:
                there = theirs.get(OID, number) is not None
                if not there:
                    disk.read(number)
                return there

            yield Ways(lambda number: mine.put(OID, number, page_of(number)),
                       lambda number: mine.put(OTHER, number, page_of(number)), probe,
                       waited=device.virtual_ns)


@contextmanager
def dedup(operator: Operator, probes: int) -> Iterator[Ways]:
    """Put a page that the victim has put, or has not; the answer tells nothing, it is stored."""
    with two(operator) as guests:
        for guest in guests:
            operator.about("tmem-set", guest, form="dedup")
        mine, theirs = (guest.tmem.new_pool(persistent=False) for guest in guests)
        content = pages_of(range(probes))
        yield Ways(lambda number: mine.put(OID, number, content[number]),
                   lambda number: mine.put(OID, number, pages_of([number + probes])[0]),
                   lambda number: theirs.put(OID, number, content[number]))


@contextmanager
def own_pages(operator: Operator, _probes: int) -> Iterator[Ways]:
    """Look whether pages of one's own, volatile, were discarded: the victim took more frames than there are free."""
    with two(operator) as (victim, prober):
        mine, taken = np.arange(prober.pages), np.arange(min(TAKEN, victim.pages))

        def ready(_: int) -> None:
            victim.essa(Essa.SET_UNUSED, taken)
            victim.memory.balloon(taken)
            gone = mine[prober.essa(Essa.SET_STABLE, mine) & CONTENT_MASK != RESIDENT]
            prober.memory.write_many(gone, pages_of(gone))
            prober.essa(Essa.SET_VOLATILE, mine)

        def act(_: int) -> None:
            victim.essa(Essa.SET_STABLE, taken)
            victim.memory.write_many(taken, pages_of(taken))

        def probe(_: int) -> bool:
            return bool((prober.essa(Essa.GET_STATE, mine) == DISCARDED).any())

        yield Ways(act, lambda _: victim.ping(), probe, ready)


CHANNELS: dict[str, Callable[[Operator, int], Any]] = {
    SHARED: lambda operator, probes: pools(operator, probes, shared=True),
    "private pools": lambda operator, probes: pools(operator, probes, shared=False),
    "dedup": dedup, "own pages": own_pages}
