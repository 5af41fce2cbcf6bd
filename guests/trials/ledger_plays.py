"""The scenes of the I/O ledger: each plays one row with exactly N pages, and returns what crossed meanwhile.

`take` is who takes the pages away: the host (it evicts them by name), the guest's balloon, or the guest's reclaim where
its memory is small, as under tmem.  Each scene checks every byte that it reads.
"""

from collections.abc import Callable

import numpy as np

from guests.trials.vm import Transfers, Vm, blocks

Take = Callable[[Vm, list[int]], None]
Scene = Callable[[Vm, int, Take], Transfers]
ALL_KIB = 1 << 30


# who takes

def host_evicts(vm: Vm, gfns: list[int]) -> None:
    vm.evict(gfns)


def balloon_inflates(vm: Vm, _gfns: list[int]) -> None:
    vm.squeeze()


def guest_reclaims(vm: Vm, _gfns: list[int]) -> None:
    vm.reclaim()


def guest_reclaims_and_tmem_forgets(vm: Vm, _gfns: list[int]) -> None:
    vm.reclaim()
    vm.operator.order("tmem-flush", kib=ALL_KIB)


def guest_reclaims_and_tmem_refuses(vm: Vm, _gfns: list[int]) -> None:
    vm.operator.about("tmem-freeze", vm.guest)
    vm.reclaim()
    vm.operator.about("tmem-thaw", vm.guest)


# what happens

def clean_file_page_used(vm: Vm, pages: int, take: Take) -> Transfers:
    return _clean_file_page(vm, pages, take, used=True)


def clean_file_page_never_used(vm: Vm, pages: int, take: Take) -> Transfers:
    return _clean_file_page(vm, pages, take, used=False)


def _clean_file_page(vm: Vm, pages: int, take: Take, used: bool) -> Transfers:
    vm.file.map(0, pages)
    before = vm.transfers()
    take(vm, vm.cached())
    if used:
        vm.expect(vm.file.map(0, pages).tobytes(), blocks(range(pages)))
    return vm.transfers().since(before)


def free_page_written_whole(vm: Vm, pages: int, take: Take) -> Transfers:
    """The allocator hands out again what was freed last."""
    old = vm.kernel.anon(pages)
    old.write_many(range(pages), blocks(range(pages)))
    gfns = old.gfns.tolist()
    old.free()
    before = vm.transfers()
    take(vm, gfns)
    new = vm.kernel.anon(pages)
    new.write_many(range(pages), blocks(range(pages), 1))
    crossed = vm.transfers().since(before)
    vm.expect(new.read_many(range(pages)).tobytes(), blocks(range(pages), 1))
    return crossed


def anonymous_page_swapped(vm: Vm, pages: int, take: Take) -> Transfers:
    """The page is stable: not yet in the swap cache.  Whoever takes it, the guest then wants it out."""
    anon = vm.kernel.anon(pages)
    anon.write_many(range(pages), blocks(range(pages)))
    before = vm.transfers()
    take(vm, anon.gfns.tolist())
    vm.reclaim()
    crossed = vm.transfers().since(before)
    vm.expect(anon.read_many(range(pages)).tobytes(), blocks(range(pages)))
    return crossed


def swap_cache_page_dropped(vm: Vm, pages: int, take: Take) -> Transfers:
    return _swap_cache_page(vm, pages, take, used=False)


def swap_cache_page_used(vm: Vm, pages: int, take: Take) -> Transfers:
    return _swap_cache_page(vm, pages, take, used=True)


def _swap_cache_page(vm: Vm, pages: int, take: Take, used: bool) -> Transfers:
    """The page is clean: its slot holds the same bytes.  The guest drops it without a touch."""
    anon = vm.kernel.anon(pages)
    anon.write_many(range(pages), blocks(range(pages)))
    vm.reclaim()
    anon.read_many(range(pages))
    before = vm.transfers()
    take(vm, anon.gfns.tolist())
    vm.reclaim()
    if used:
        vm.expect(anon.read_many(range(pages)).tobytes(), blocks(range(pages)))
    return vm.transfers().since(before)


def dirty_p_page_used(vm: Vm, pages: int, take: Take) -> Transfers:
    with vm.file.mmap(0, pages, writable=True) as mapping:
        for page, content in enumerate(blocks(range(pages), 1)):
            mapping.store(page, 0, content.tobytes())
        before = vm.transfers()
        take(vm, vm.cached())
        vm.expect(np.concatenate([np.frombuffer(mapping.load(page), np.uint8) for page in range(pages)]),
                  blocks(range(pages), 1))
        return vm.transfers().since(before)
