"""What every part of the kernel stands on, in one bundle, built once by `Kernel` and never changed."""

from typing import TYPE_CHECKING, NamedTuple

from guests.kernel.allocator import Allocator
from guests.kernel.hints import Hints
from guests.kernel.pages import Pages

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.memory import Memory


class Core(NamedTuple):
    memory: "Memory"
    counters: memoryview
    pages: Pages
    hints: Hints
    allocator: Allocator


def build_core(guest: "Guest") -> Core:
    """Take over all memory of a guest: every page is free, and hinted so where the scheme has the hint."""
    pages = Pages(guest.pages)
    hints = Hints(guest, pages)
    return Core(guest.memory, guest.counters.data, pages, hints, Allocator(pages, hints))
