"""What holds between counters after every trace, whatever the trace was (T98-T101).

`broken(machine)` may be called on any machine between two events; it changes nothing.
"""

from collections.abc import Iterator

from hypervisor.machine import Machine
from hypervisor.tmem.clients import ClientCount
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.pools import Pool, PoolCount
from hypervisor.tmem.store import Store
from shm.counters import HostCount


def broken(machine: Machine) -> list[str]:
    """Return the identities that do not hold, one line each."""
    checks = [*t98_what_was_done_was_asked(machine.store), *t99_pages_add_up(machine.store), *t100_calls(machine),
              *t100_maxima(machine.store), *t101_nothing_is_left(machine.store)]
    return [what for what, holds in checks if not holds]


Check = tuple[str, bool]


def _named(pool: Pool) -> dict[str, int]:
    return {name.name.lower(): int(pool.counts[name]) for name in PoolCount}


def t98_what_was_done_was_asked(store: Store) -> Iterator[Check]:
    for pool in store.pools.all():
        c = _named(pool)
        for done, asked in (("ps", "pt"), ("gs", "gt"), ("fs", "ft"), ("os", "ot"), ("pr", "ps")):
            yield f"T98: pool {pool.serial}: {done} {c[done]} > {asked} {c[asked]}", c[done] <= c[asked]
        yield (f"T98: pool {pool.serial}: ps {c['ps']} + pd {c['pd']} + px {c['px']} is not pt {c['pt']}",
               c["ps"] + c["pd"] + c["px"] == c["pt"])


def removed(pool: Pool) -> int:
    """Return how many pages were ever taken out of a pool, by its counters."""
    c = _named(pool)
    taken = c["gs"] if pool.exclusive else 0
    return taken + c["pd"] + c["fs"] + pool.flushed + pool.evicted + pool.withdrawn


def t99_pages_add_up(store: Store) -> Iterator[Check]:
    pools = store.pools.all()
    for pool in pools:
        c = _named(pool)
        yield (f"T99: pool {pool.serial}: Pc {pool.pages} is not ps {c['ps']} - pr {c['pr']} - {removed(pool)} removed",
               pool.pages == c["ps"] - c["pr"] - removed(pool))
    stored, objects = sum(pool.pages for pool in pools), sum(pool.objects for pool in pools)
    yield f"T99: {stored} pages in pools, {len(store.catalogue)} stored", stored == len(store.catalogue)
    yield f"T99: {objects} objects in pools", objects == len(store.catalogue.objects)
    ephemeral = sum(pool.pages for pool in pools if not pool.persistent)
    yield f"T99: Ec {store.ephemeral}, {ephemeral} in ephemeral pools", ephemeral == store.ephemeral
    if not store.rules.quirks:                       # Xen's leaked pools are no client's (T88)
        counted = sum(store.pages_of(client.number, persistent=False) for client in store.clients.all())
        yield f"T99: Ec {store.ephemeral}, clients have {counted}", counted == store.ephemeral


def t100_calls(machine: Machine) -> Iterator[Check]:
    operations, errors = (int(machine.store.counts[name]) for name in (StoreCount.TT, StoreCount.TE))
    counts = machine.counts()
    asked = int(counts[[HostCount.TMEM_PUTS, HostCount.TMEM_GETS, HostCount.TMEM_FLUSHES]].sum())
    yield f"T100: Te {errors} > Tt {operations}", 0 <= errors <= operations
    yield f"T100: Tt {operations} < {asked} puts, gets and flushes", asked <= operations


def t100_maxima(store: Store) -> Iterator[Check]:
    most = store.shelf.most
    pairs = [("Pm", most.pages, len(store.catalogue)), ("Em", most.ephemeral, store.ephemeral),
             ("Om", most.objects, len(store.catalogue.objects))]
    for pool in store.pools.all():
        pairs += [("Pm of a pool", pool.most_pages, pool.pages), ("Om of a pool", pool.most_objects, pool.objects)]
    pairs += [("Em of a client", int(client.counts[ClientCount.EM]), store.pages_of(client.number, persistent=False))
              for client in store.clients.all()]
    for name, maximum, now in pairs:
        yield f"T100: {name} {maximum} < {now}", now <= maximum


def t101_nothing_is_left(store: Store) -> Iterator[Check]:
    if store.clients.all():
        return
    left = {"Pc": len(store.catalogue), "Oc": len(store.catalogue.objects), "Fc": store.heap.in_use,
            "Sc": len(store.storage.shared), "Ec": store.ephemeral, "slabs": store.storage.slabs.frames,
            "pools": len(store.pools.all()), "swapped": store.storage.swapped}
    for what, count in left.items():
        yield f"T101: all guests have left, {what} is {count}", count == 0
