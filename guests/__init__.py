"""Guests: the library by which a program joins a cluster, a small guest kernel, and workloads that run on it.

    guest        attach, and the object that an application holds
    memory       guest RAM in software mode: the access protocol
    hardware     guest RAM in hardware mode: plain loads and stores on a mapping registered with userfaultfd
    pager        the process that restores discarded pages in hardware mode; `pager_process` starts it and speaks to it,
                 `pager_sources` is where it finds their bytes
    arrays       numpy arrays on guest memory that heal; `pageranges` finds them pages, without a guest kernel
    sources      where each page's bytes can be had again
    processor    ESSA as the guest's processor executes it, on either hint path; diag 10, reset
    tmem         the tmem calls; `pool` one pool: put, get, many; `handles` what names a page there; `moving` follows
                 tmem to another cluster
    mappings/    tmem's pool on volatile pages, CMM2's marks on tmem, and where the two differ
    kernel/      allocator, page cache, lists, swap, hints: a small guest kernel
    volatility   what forbids make_volatile, as a table
    disk         a virtual disk over a file; `device` what its requests cost, by a stated model
    cleancache, frontswap        tmem's two users
    hostcache    a disk behind a cache of the host's, which was proposed in their place
    selfballoon  how large a guest should be (pure)
    debugfs      counters under the names that Linux gave them
    workloads/   what guests do, one file each

It never imports the hypervisor.  An application needs `Guest`, `Essa` and the errors named here.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guests.guest import Guest
    from guests.pool import Pool
    from shm.errors import AddressingException, DiscardFault, HypervisorGone, MemcommonsError, OutOfMemory, TmemRefused
    from shm.pagestate import Essa, was_discarded

_ERRORS, _STATES = "shm.errors", "shm.pagestate"
_HOMES = {
    "Guest": "guests.guest", "Pool": "guests.pool", "Essa": _STATES, "was_discarded": _STATES,
    "AddressingException": _ERRORS, "DiscardFault": _ERRORS, "HypervisorGone": _ERRORS, "MemcommonsError": _ERRORS,
    "OutOfMemory": _ERRORS, "TmemRefused": _ERRORS,
}

__all__ = ["AddressingException", "DiscardFault", "Essa", "Guest", "HypervisorGone", "MemcommonsError", "OutOfMemory",
           "Pool", "TmemRefused", "was_discarded"]


def __getattr__(name: str) -> Any:
    """Import on first use: the pager is of this package, and must stay small."""
    from importlib import import_module
    if name not in _HOMES:
        raise AttributeError(f"module 'guests' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
