"""What every part of the kernel stands on, in one bundle, built once by `Kernel` and never changed."""

from typing import TYPE_CHECKING, NamedTuple

from guests.kernel.allocator import Allocator
from guests.kernel.cpus import Cpus
from guests.kernel.discards import Discards
from guests.kernel.hints import Hints
from guests.kernel.pages import Pages
from guests.kernel.sources import Restorable
from guests.volatility import terms

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.memory import Memory


class Core(NamedTuple):
    memory: "Memory"
    counters: memoryview
    pages: Pages
    hints: Hints
    allocator: Allocator
    cpus: Cpus
    discards: Discards
    restorable: Restorable


def build_core(guest: "Guest", cpus: int = 1, page_dirty_bits: bool = True) -> Core:
    """Take over all memory of a guest: every page is free, and hinted so where the scheme has the hint."""
    pages, processors = Pages(guest.pages), Cpus(cpus)
    restorable = Restorable(guest.memory, pages)
    usable = page_dirty_bits and (restorable.restores_p or not restorable.on)
    hints = Hints(guest, pages, terms(usable, restorable.on))
    allocator = Allocator(pages, hints, processors, restorable)
    return Core(guest.memory, guest.counters.data, pages, hints, allocator, processors, Discards(pages, processors),
                restorable)
