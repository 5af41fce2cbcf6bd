"""A guest whose instruction goes either hint path, and pages put into a state with the dirty bit they shall have."""

from harness.pages import bring
from shm.pagestate import GUEST_CHANGE, Essa

PATHS = ("shared", "trap")
MODES = ("architected", "kvm")


def guest_of(still_machine, path="shared", cmma="architected", pages=32, budget=256, swap=64):
    """Return a guest of a machine that stands still, with room for everything."""
    guest = still_machine(budget, swap=swap, cmma=cmma).guest(pages=pages)
    guest.processor.hint_path = path
    return guest


def put(guest, gfn, state, dirty):
    """Bring a page into a state by what guest and host really do, then set its dirty bit: the guest's own."""
    bring(guest, gfn, f"{state} clean" if state == "Pr" and not dirty else state)
    guest.map.usage[gfn] = int(guest.map.usage[gfn]) & ~GUEST_CHANGE | (GUEST_CHANGE if dirty else 0)


def byte_of(guest, gfn):
    return guest.processor.essa_one(Essa.GET_STATE, gfn)
