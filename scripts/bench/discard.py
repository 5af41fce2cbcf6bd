"""Discarding 10,000 volatile pages, beside the bare punching of the same ranges."""

import os
import secrets
import socket

import numpy as np
from measure import Result, compare

from hypervisor.domains import make_domain
from hypervisor.machine import Machine, Settings
from shm.arena import SharedObject, runs
from shm.pagestate import Essa

PAGES = 10_000


def results() -> list[Result]:
    name = f"bench-{os.getpid()}-{secrets.token_hex(2)}"
    machine = Machine(Settings(name, budget=64 << 10))
    ends = socket.socketpair()
    domain = make_domain(0, "bench", os.getpid(), ends[0], 2 * PAGES, 2 * PAGES, 1, machine.stem)
    machine.admit(domain)
    bare = SharedObject.create(f"{machine.stem}.bench", 2 * PAGES)
    try:
        return [_compare(machine, bare, kind, gfns) for kind, gfns in
                (("one run", np.arange(PAGES)), ("runs of 8", _scattered(8)), ("single pages", _scattered(1)))]
    finally:
        machine.close()
        bare.close()
        bare.unlink()


def _scattered(length: int) -> np.ndarray:
    return np.flatnonzero(np.arange(2 * PAGES) // length % 2 == 0)[:PAGES]


def _compare(machine: Machine, bare: SharedObject, kind: str, gfns: np.ndarray) -> Result:
    domain, pieces = machine.domains[0], runs(gfns)

    def grant() -> None:
        """Give both the same frames; the pages of the guest are volatile and resident."""
        bare.allocate(pieces)
        for at in range(0, PAGES, 256):
            domain.map.essa(Essa.SET_STABLE, gfns[at:at + 256])
            wanting = machine.cmm2.wanting(domain, gfns[at:at + 256])
            assert wanting is not None
            if machine.ledger.reserve(0, len(wanting.gfns)):
                machine.cmm2.grant(domain, wanting)
        domain.map.essa(Essa.SET_VOLATILE, gfns)

    def discard() -> None:
        if machine.cmm2.evict(domain, gfns) != PAGES:
            raise SystemExit("not all pages were discarded")

    return compare(f"discard 10,000 pages, {kind}", discard, "bare hole punching of the same",
                   lambda: bare.punch(pieces), 1, goal=2.0, before=grant)
