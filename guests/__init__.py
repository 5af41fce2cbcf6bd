"""Guests: the library by which a program joins a cluster, a small guest kernel, and workloads that run on it.

    guest        attach, and the object that an application holds
    memory       guest RAM in software mode: the access protocol
    tmem         the tmem calls; `pool` one pool: put, get, many; `moving` follows tmem to another cluster
    kernel/      allocator, page cache, lists, swap, hints: a small guest kernel
    volatility   what forbids make_volatile, as a table
    disk         a virtual disk over a file
    cleancache, frontswap        tmem's two users
    selfballoon  how large a guest should be (pure)
    debugfs      counters under the names that Linux gave them
    workloads/   what guests do, one file each

It never imports the hypervisor.  An application needs `Guest`, `Essa` and the errors named here.
"""

from guests.guest import Guest
from guests.pool import Pool
from shm.errors import AddressingException, DiscardFault, HypervisorGone, MemcommonsError, OutOfMemory, TmemRefused
from shm.pagestate import Essa, was_discarded

__all__ = ["AddressingException", "DiscardFault", "Essa", "Guest", "HypervisorGone", "MemcommonsError", "OutOfMemory",
           "Pool", "TmemRefused", "was_discarded"]
