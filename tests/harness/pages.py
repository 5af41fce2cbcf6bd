"""Pages brought into any of the eight states, by what guest and host really do; and a swap disk that can be watched."""

import numpy as np

from hypervisor.domains import NO_SLOT
from hypervisor.swap import SwapDisk
from shm.abi import PAGE_SIZE
from shm.pagestate import Essa, State

SET = {"S": Essa.SET_STABLE, "U": Essa.SET_UNUSED, "V": Essa.SET_VOLATILE, "P": Essa.SET_POT_VOLATILE}


class WatchedDisk(SwapDisk):
    """A swap disk that notes what crosses it; `during_write` is called when a batch has been copied out."""

    def __init__(self, slots, folder=None, cost=None, direct=False):
        super().__init__(slots, folder, cost, direct)
        self.written, self.read_back = [], 0
        self.during_write = lambda: None

    def write(self, slots, pages):
        self.during_write()
        super().write(slots, pages)
        self.written += [bytes(page) for page in pages]

    def read(self, slots):
        self.read_back += len(slots)
        return super().read(slots)


def page(number):
    return bytes([number % 251 + 1]) * PAGE_SIZE


def same(found, wanted):
    """Say whether two pages are equal, for an assert that is expected to fail, or fails in each of many examples.

    Where CI is set, or with -vv, `assert found == wanted` has pytest tell the difference line by line.  Of a page of
    zeros and one of words that takes many minutes: difflib is cubic in the lines, and a page has 256.
    """
    return found == wanted


def evict(guest, *gfns):
    return guest.machine.cmm2.evict(guest.domain, np.array(gfns, np.int64))


def states(guest, *gfns):
    return [State(state).name for state in guest.map.states(np.array(gfns))]


def bring(guest, gfn, state):
    """Bring a page into a state, by what guest and host really do; a resident one holds `page(gfn)`."""
    word, deed, dirty = state[0], state[1], "clean" not in state
    if deed in "rp" or word in "VP":
        guest.memory.write(gfn, page(gfn), clean=not dirty)
    if word != "S":
        guest.essa(SET[word], [gfn])
    if deed == "p" or (deed == "z" and word == "V"):
        assert evict(guest, gfn) == 1
    assert states(guest, gfn) == [state[:2]]


def assert_sound(guest):
    """Slots belong to preserved pages, frames to resident ones, and the kernel says the same."""
    content, machine = guest.map.content & 0x03, guest.machine
    assert ((guest.domain.slots != NO_SLOT) == (content == 0x02)).all()
    assert machine.swap.used == sum(int(np.count_nonzero(d.slots != NO_SLOT)) for d in machine.domains.values())
    resident = guest.domain.ram.resident()
    assert machine.ledger.held.get(guest.domain.number, 0) == np.count_nonzero(content == 0) == resident


def while_wanting(guest, gfns, deed):
    """Serve a fault for `gfns`, the guest acting between the look and the grant; return the frames granted."""
    cmm2, domain = guest.machine.cmm2, guest.domain
    wanting = cmm2.wanting(domain, np.array(gfns))
    deed()
    assert guest.machine.ledger.reserve(domain.number, len(wanting.gfns))
    return cmm2.grant(domain, wanting)
