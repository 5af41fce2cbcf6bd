"""The guest's word, where the hypervisor writes it down: trapped ESSA, diag 10, reset, states that were moved here.

    essa             an instruction on behalf of the guest's processor
    recognise_zero   diag 10: drop the content of stable and unused pages (table row RECOGNISE_ZERO)
    reset            of the processor: every page stable, no-DAT off (table row RESET, R22)
    put              usage and no-DAT as they were on another host, after the memory was filled (R23)

Rule 1: all of it is done under the guest's state lock, looked up in `shm.pagestate`'s tables; who cannot have the lock
        says so, and has changed nothing (`reset` and `put`: of the part that it was at).
Rule 2: frames and copies are given up by `Cmm2`, the one writer of `content`.
"""

import numpy as np

from hypervisor.cmm2 import Cmm2
from hypervisor.domains import Domain
from shm.pagestate import (
    CONTENT_MASK,
    HOST,
    NO_DAT,
    POT_VOLATILE,
    PRESERVED,
    RELEASED,
    STABLE,
    UNUSED,
    USAGE_MASK,
    VOLATILE,
    ZERO,
    Essa,
    Event,
    State,
    content_of,
)

CARRIED = USAGE_MASK | NO_DAT    # what of a usage byte moves with a guest (R23)
PAGES_A_HOLD = 1 << 16       # pages changed under one hold of the lock: a few milliseconds
_SETS = {STABLE: Essa.SET_STABLE, UNUSED: Essa.SET_UNUSED, VOLATILE: Essa.SET_VOLATILE,
         POT_VOLATILE: Essa.SET_POT_VOLATILE}
# Whether a state has neither frame nor copy; and whether it has none any more once it was recognised as zero.
_IS_ZERO = np.array([content_of(state) == ZERO for state in State])
_BECOMES_ZERO = np.array([content_of(state) == ZERO for state in HOST[Event.RECOGNISE_ZERO].clean]) & ~_IS_ZERO


def essa(cmm2: Cmm2, domain: Domain, order: Essa, gfns: np.ndarray) -> np.ndarray | None:
    """Execute an order on `gfns` (each once); return their old state bytes (uint8), None without the lock.

    Copies that are void by it go at once: it is a hypercall, and the release list has no say in it (1.8).
    """
    if not domain.lock():
        return None
    try:
        return _execute(cmm2, domain, order, gfns)
    finally:
        domain.unlock()


def _execute(cmm2: Cmm2, domain: Domain, order: Essa, gfns: np.ndarray) -> np.ndarray:
    map_ = domain.map
    pairs = map_.pairs(gfns)
    map_.usage[gfns] = map_.tables.hint[order].take(pairs)
    void_zero(cmm2, domain, np.sort(gfns))
    return map_.tables.essa.take(pairs)


def void_zero(cmm2: Cmm2, domain: Domain, gfns: np.ndarray) -> int:
    """Free the copies of those of `gfns` (sorted) that read as zero, though a copy is there.  The lock is held."""
    has_copy = domain.map.content[gfns] & CONTENT_MASK == PRESERVED
    return cmm2.give_up(domain, gfns[has_copy & _IS_ZERO[domain.map.states(gfns)]])


def recognise_zero(cmm2: Cmm2, domain: Domain, gfns: np.ndarray) -> int | None:
    """Drop frames and copies of `gfns` (sorted) as the table says; return how many went, None without the lock."""
    if not domain.lock():
        return None
    try:
        return cmm2.give_up(domain, gfns[_BECOMES_ZERO[domain.map.states(gfns)]])
    finally:
        domain.unlock()


def reset(cmm2: Cmm2, domain: Domain) -> bool:
    """Make all pages stable and switch no-DAT off; False when the lock could not be had all along."""
    return all(_reset_part(cmm2, domain, slice(at, at + PAGES_A_HOLD)) for at in range(0, domain.pages, PAGES_A_HOLD))


def _reset_part(cmm2: Cmm2, domain: Domain, part: slice) -> bool:
    if not domain.lock():
        return False
    try:
        void_zero(cmm2, domain, np.arange(domain.pages)[part])       # first: what reads as zero shall not come back
        domain.map.usage[part] &= 0xFF ^ (CARRIED | RELEASED)
        return True
    finally:
        domain.unlock()


def carried(domain: Domain, first: int, count: int) -> np.ndarray:
    """Return what moves of the usage bytes of `count` pages from `first` on (uint8); a look without the lock."""
    states = domain.map.tables.essa.take(domain.map.pairs(slice(first, first + count)))
    return states & CARRIED


def put(cmm2: Cmm2, domain: Domain, first: int, values: np.ndarray) -> bool:
    """Set what `carried` has told of `values` (uint8) to the pages from `first` on; False without the lock.

    By the guest's own orders: V over a page that was never filled is Vz, and not zeros in S.
    """
    if not domain.lock():
        return False
    try:
        gfns = np.arange(first, first + len(values))
        for usage, order in _SETS.items():
            _execute(cmm2, domain, order, gfns[values & USAGE_MASK == usage])
        domain.map.usage[gfns] &= 0xFF ^ NO_DAT
        domain.map.usage[gfns[values & NO_DAT != 0]] |= NO_DAT
        return True
    finally:
        domain.unlock()
