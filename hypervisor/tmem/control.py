"""What the operator may ask of the store: Xen's control sub-operations, with Xen's answers (tmem.md 1.3; T39-T54).

    freeze, thaw      no growth for one guest, or for all: those that come later too (Xen 4.2 forgot these, T46)
    flush             evict ephemeral pages until so many KiB could go back to the machine
    destroy           drop all pools of a guest (Xen 4.2 only thawed it, T51)
    set_weight, set_cap, set_form      of one guest, or of all that there are
    freeable          MiB that could be had: free heap frames and ephemeral ones

A guest is named by its number; EVERYBODY is all of them.  -1: no such guest, or what cannot be asked.
"""

from hypervisor.tmem.clients import Client
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.figures import ephemeral_frames
from hypervisor.tmem.forms import Form
from hypervisor.tmem.pools import Uuid
from hypervisor.tmem.store import Store
from shm.abi import PAGE_SIZE, Status

EVERYBODY = 0xFFFF           # CLI_ID_NULL
DONE, REFUSED = 0, -1
_KIB_A_PAGE = PAGE_SIZE >> 10
_PAGES_A_MIB = (1 << 20) // PAGE_SIZE


class Control:
    """The operator's side of one store."""

    def __init__(self, store: Store) -> None:
        self.store, self.clients = store, store.clients

    def _named(self, guest: int) -> list[Client] | None:
        """Return the clients meant, or None where there is none of that number."""
        if guest == EVERYBODY:
            return self.clients.all()
        client = self.clients.known(guest)
        return None if client is None else [client]

    def freeze(self, guest: int, frozen: bool = True) -> int:
        """Freeze or thaw; 0, or -1 for an unknown guest (T45)."""
        meant = self._named(guest)
        if meant is None:
            return REFUSED
        for client in meant:
            client.frozen = frozen
        if guest == EVERYBODY and not self.store.rules.quirks:
            self.clients.frozen = frozen
        return DONE

    def thaw(self, guest: int) -> int:
        """Undo `freeze`.  Thawing one guest while everybody is frozen leaves it frozen."""
        return self.freeze(guest, frozen=False)

    def flush(self, guest: int, kib: int) -> int:
        """Evict until `kib` KiB (rounded up to pages) are spare; return how many KiB went back, or -1 for one guest."""
        if guest != EVERYBODY:
            return REFUSED
        store, wanted = self.store, -(-kib // _KIB_A_PAGE)
        store.shelf.pressure.requester = None                         # nobody's put asks: the oldest of all go
        store.counts[StoreCount.RA] += 1
        before, free = store.evictions, store.heap.ledger.free
        store.evict_frames(wanted - store.heap.spare, insist=True)
        store.heap.trim(max(0, wanted - (store.heap.ledger.free - free)))
        freed = store.heap.ledger.free - free                # evicting emptied slabs, which go back at once
        store.counts[StoreCount.RT] += freed
        store.counts[StoreCount.RX] = max(int(store.counts[StoreCount.RX]), store.evictions - before)
        return freed * _KIB_A_PAGE

    def destroy(self, guest: int) -> int:
        """Drop all pools of a guest, which may make new ones."""
        meant = self._named(guest)
        if meant is None:
            return REFUSED
        if self.store.rules.quirks:
            return self.thaw(guest)
        for client in meant:
            self.store.membership.empty(client.number)
        return DONE

    def set_weight(self, guest: int, weight: int) -> int:
        return self._set(guest, "weight", weight)

    def set_cap(self, guest: int, pages: int) -> int:
        """Bound a guest's pages from its next put on; 0: no cap."""
        return self._set(guest, "cap", pages)

    def set_form(self, guest: int, form: Form) -> int:
        """Choose the form of what a guest puts from now on; what it has stored keeps its form (T53)."""
        return self._set(guest, "form", form)

    def set_compress(self, guest: int, compress: int) -> int:
        """Xen's switch between raw and compressed; -1 where the guest's pages are deduplicated (T53)."""
        meant = self._named(guest)
        if meant is None or any(client.form == Form.DEDUP for client in meant):
            return REFUSED
        return self.set_form(guest, Form.LZ4 if compress else Form.RAW)

    def _set(self, guest: int, what: str, value: int) -> int:
        meant = self._named(guest)
        if meant is None:
            return REFUSED
        for client in meant:
            setattr(client, what, value)
        return DONE

    def freeable_mib(self) -> int:
        """Return MiB of free heap frames and of frames with ephemeral pages, rounded down (T48)."""
        return (self.store.heap.spare + ephemeral_frames(self.store)) // _PAGES_A_MIB

    def authorise(self, guest: int, uuid: Uuid, allow: bool) -> Status:
        """Let a guest share the pools of a uuid, or not any more; EINVAL for an unknown guest (T77)."""
        if guest == EVERYBODY:
            for client in self.clients.all():
                client.authorised_all = allow
            return Status.OK
        if self.clients.known(guest) is None:
            return Status.EINVAL
        return self.store.membership.authorise(guest, uuid, allow)

    def hypercall(self, subop: int, guest: int, argument: int, _: int) -> int:
        """Xen's numbers for the above; -1 for an unknown one (T52)."""
        calls = {
            0: lambda: self.thaw(guest), 1: lambda: self.freeze(guest), 2: lambda: self.flush(guest, argument),
            3: lambda: self.destroy(guest), 5: lambda: self.set_weight(guest, argument),
            6: lambda: self.set_cap(guest, argument), 7: lambda: self.set_compress(guest, argument),
            8: self.freeable_mib,
        }
        return calls[subop]() if subop in calls else REFUSED
