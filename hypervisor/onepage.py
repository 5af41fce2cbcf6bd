"""The usual hardware fault: one page, room for it, nothing in the way.  Served in few steps, without numpy.

Numpy costs a microsecond a step, whatever the number of pages; a fault of one page is fifteen such steps, and a thread
stands meanwhile.  Whatever is not usual is left, with nothing changed, to `Faults`, which can do everything; the
arguments about races stand at `Giving`, whose steps these are.
"""

from contextlib import suppress
from socket import MSG_DONTWAIT
from struct import Struct

import numpy as np

from hypervisor.domains import COLLECT_FROM, NO_SLOT, RESTORING, Domain, Hardware
from hypervisor.granting import Granting
from hypervisor.tmem.store import Store
from shm import paging
from shm.abi import PAGE_SIZE
from shm.counters import HostCount
from shm.pagestate import GUEST_CHANGE, HOST_CHANGE, PRESERVED, REFERENCED, RESIDENT, State, lookup
from shm.userfault import EVENT_PAGEFAULT, FLAG_PROTECTED

_EVENT = Struct("<B7xQQ8x")                  # event, flags, address
_SP, _SZ, _VZ = int(State.Sp), int(State.Sz), int(State.Vz)
_KEPT = 0xFF ^ (REFERENCED | HOST_CHANGE)
_CHANGED = REFERENCED | HOST_CHANGE | GUEST_CHANGE
_FAULTS, _WRITES, _ZEROS = map(int, (HostCount.HARDWARE_FAULTS, HostCount.WRITE_FAULTS, HostCount.ZERO_FILLS))
_SWAP_IN, _DISCARDED = int(HostCount.SWAP_IN), int(HostCount.DISCARD_FAULTS)


class OnePage:
    """Serves single faults."""

    def __init__(self, granting: Granting) -> None:
        self.giving, self.ledger = granting.cmm2, granting.cmm2.ledger
        self.store: Store = granting.store
        self._states = bytes(lookup().state)
        self._stage = np.zeros(PAGE_SIZE, np.uint8)
        self._source = self._stage.ctypes.data

    def touched(self, domain: Domain, hardware: Hardware, event: bytes) -> bool:
        """Serve a fault; False: it is not the usual one, and nothing was done."""
        kind, flags, address = _EVENT.unpack(event)
        gfn = (address - hardware.mapping.base) >> 12
        if kind != EVENT_PAGEFAULT or not 0 <= gfn < domain.pages or gfn == hardware.ahead:
            return False
        start = address & ~(PAGE_SIZE - 1)
        if flags & FLAG_PROTECTED:
            return self._stored(domain, hardware, gfn, start)
        if not self._room(domain):
            return False
        if not self._resolve(domain, hardware, gfn, start):
            self.ledger.release(domain.number, 1)
            return False
        hardware.ahead, hardware.window = gfn + 1, 1
        domain.counts.data[_FAULTS] += 1
        return True

    def _room(self, domain: Domain) -> bool:
        held = self.ledger.held.get(domain.number, 0)
        if held >= domain.max_pages or held + self.store.pages_of(domain.number, persistent=True) >= domain.max_pages:
            return False
        return self.ledger.reserve(domain.number, 1)

    def _resolve(self, domain: Domain, hardware: Hardware, gfn: int, start: int) -> bool:
        slot = int(domain.slots.data[gfn])
        if slot != NO_SLOT and not self._staged(slot):
            return False
        if not domain.lock():
            return False
        try:
            pair = domain.map.pair_one(gfn)
            state = self._states[pair]
            fill = self._FILLS.get(state)
            if fill is None or (pair >> 8 == PRESERVED) != (state == _SP):   # a void copy is to be freed first
                return False
            return fill(self, domain, hardware, gfn, start, pair)
        except OSError:                      # of whatever kind: who can do everything finds out
            return False
        finally:
            domain.unlock()

    def _staged(self, slot: int) -> bool:
        """Read the page of a swap slot."""
        swap = self.giving.swap
        with suppress(OSError):
            return swap is not None and swap.read_one(slot, self._stage.data)
        return False

    # one for each state, called under the lock

    def _zero(self, domain: Domain, hardware: Hardware, gfn: int, start: int, pair: int) -> bool:
        if hardware.mapping.uffd.zero(start, PAGE_SIZE) != PAGE_SIZE:
            return False
        domain.map.put_one(gfn, pair & _KEPT | GUEST_CHANGE, RESIDENT)
        domain.grace.begin_one(gfn)
        domain.counts.data[_ZEROS] += 1
        return True

    def _bring_back(self, domain: Domain, hardware: Hardware, gfn: int, start: int, pair: int) -> bool:
        clean = not pair & GUEST_CHANGE
        if hardware.mapping.uffd.copy(start, self._source, PAGE_SIZE, clean) != PAGE_SIZE:
            return False
        domain.map.put_one(gfn, pair & _KEPT, RESIDENT)
        domain.grace.begin_one(gfn)
        domain.counts.data[_SWAP_IN] += 1
        self.giving.free_slot(domain, gfn)
        return True

    def _deliver(self, domain: Domain, hardware: Hardware, gfn: int, start: int, pair: int) -> bool:
        """Deliver a discard fault (R26): ask the pager."""
        if domain.holds.data[gfn] & RESTORING:
            return False
        word = start if pair & GUEST_CHANGE else start | paging.CLEAN
        hardware.pager.send(paging.restore_one(word), MSG_DONTWAIT)      # the guest may have made it block
        domain.map.put_one(gfn, pair & _KEPT, RESIDENT)
        domain.holds.data[gfn] |= RESTORING
        hardware.restore(gfn)
        domain.counts.data[_DISCARDED] += 1
        if len(hardware.restoring) >= COLLECT_FROM:
            hardware.collect(domain)
        return True

    _FILLS = {_SZ: _zero, _SP: _bring_back, _VZ: _deliver}

    def _stored(self, domain: Domain, hardware: Hardware, gfn: int, start: int) -> bool:
        """Set the change bits of a protected page, and let the store go on."""
        if not domain.lock():
            return False
        try:
            domain.map.mark_one(gfn, _CHANGED)
            hardware.mapping.uffd.unprotect(start, PAGE_SIZE)
        except OSError:
            return False
        finally:
            domain.unlock()
        domain.counts.data[_WRITES] += 1
        return True
