"""Xen's list of a store: lines of keys and values, from a store to text (tmem.md 3.6; T54).

    G=   the store            S=   a shared pool, each; long, it has what `P=` has
    C=   a client, each       P=   the pools of that client, each

In the order G, S*, (C, P*)*.  The long form adds keys at the ends of lines, and a reader ignores keys it does not know.
Xen's `T=`, cycles of each kind of call, comes from a build for measuring only; its parsers do without it, and so do we.

Lm is 0: nothing here has a threshold of low memory.  Nc and Nm are 0: pages are found by hash and not by tree.  Tc is
in nanoseconds, where Xen counted cycles.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from hypervisor.tmem import figures
from hypervisor.tmem.clients import Client, ClientCount
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.forms import Form
from hypervisor.tmem.pools import Pool, PoolCount
from hypervisor.tmem.storage import GroupCounts
from hypervisor.tmem.store import Store

_POOL_COUNTS = ("ps", "pt", "pd", "pr", "px", "gs", "gt", "fs", "ft", "os", "ot")
Keys = dict[str, object]


def line(head: str, keys: Keys) -> str:
    """Return one line: "C=CI:3,ww:0"."""
    return f"{head}=" + ",".join(f"{key}:{value}" for key, value in keys.items())


def cut(lines: Iterable[str], limit: int) -> str:
    """Return the lines, each with its end, as far as whole ones fit into `limit` bytes."""
    text = ""
    for each in lines:
        if len(text) + len(each) + 1 > limit:
            break
        text += each + "\n"
    return text


def lines_of_store(store: Store, is_long: bool) -> list[str]:
    """Return the lines of the store and of the pools that are shared."""
    shared = [shared_line(slot, pool, is_long) for slot, pool in enumerate(store.pools.shared.values())]
    return [store_line(store, is_long), *shared]


def lines_of_clients(store: Store, clients: Iterable[Client], is_long: bool) -> list[str]:
    """Return the lines of clients and their pools."""
    by_pool = figures.tallies(store) if is_long else {}
    lines = []
    for client in clients:
        lines.append(client_line(store, client, is_long, by_pool))
        lines += [pool_line(client, number, pool, is_long) for number, pool in store.pools.numbered(client.number)]
    return lines


def listed(store: Store, is_long: bool, limit: int) -> str:
    """Return the whole list as Xen's LIST fills a buffer of `limit` bytes: whole lines only (T54)."""
    return cut([*lines_of_store(store, is_long), *lines_of_clients(store, store.clients.all(), is_long)], limit)


def store_line(store: Store, is_long: bool) -> str:
    counts = figures.letters(store.counts, StoreCount)
    keys: Keys = {key: counts[key] for key in ("Tt", "Te", "Cf", "Af", "Pf")}
    keys |= {"Ta": store.heap.spare, "Lm": 0} | {key: counts[key] for key in ("Et", "Ea", "Rt", "Ra", "Rx", "Fp")}
    return line("G", keys | _store_long(store, counts["Ep"]) if is_long else keys)


def _store_long(store: Store, stored: int) -> Keys:
    most, found = store.shelf.most, store.storage.figures()
    objects, shared = len(store.catalogue.objects), len(store.storage.shared)
    pages, frames = len(store.catalogue), store.heap.in_use
    return {
        "Ec": store.ephemeral, "Em": most.ephemeral, "Oc": objects, "Om": most.objects, "Nc": 0, "Nm": 0,
        "Pc": pages, "Pm": most.pages, "Fc": frames, "Fm": max(frames, most.frames), "Sc": shared,
        "Sm": max(shared, most.shared), "Ep": stored, "Gd": found["Gd"], "Zt": found["Zt"], "Gz": found["Gz"],
    }


def shared_line(slot: int, pool: Pool, is_long: bool) -> str:
    keys = ",".join([f"SI:{slot},{_type(pool)}", *(f"SC:{member}" for member in pool.members)])
    return f"S={keys}" + ("," + line("", _pool_long(pool))[1:] if is_long else "")


def client_line(store: Store, client: Client, is_long: bool, by_pool: Mapping[int, np.ndarray]) -> str:
    counts = figures.letters(client.counts, ClientCount)
    keys: Keys = {
        "CI": client.number, "ww": client.weight, "ca": client.cap, "co": int(client.form == Form.LZ4),
        "fr": int(store.clients.is_frozen(client)), **{key: counts[key] for key in ("Tc", "Ge", "Pp", "Gp")}}
    if is_long:
        poor = store.storage.groups.get(client.number, GroupCounts())
        pages, data = figures.compressed(store, client, dict(by_pool))
        ephemeral = store.pages_of(client.number, persistent=False)
        keys |= {"Ec": ephemeral, "Em": counts["Em"], "cp": pages, "cb": data, "cn": poor.cn,
                 "cm": poor.cm}
    return line("C", keys)


def pool_line(client: Client, number: int, pool: Pool, is_long: bool) -> str:
    head = f"P=CI:{client.number},PI:{number},{_type(pool)}"
    return head + ("," + line("", _pool_long(pool))[1:] if is_long else "")


def _type(pool: Pool) -> str:
    """Return the keys for what a pool is; the words of a uuid are in hexadecimal."""
    letters = ("P" if pool.persistent else "E") + ("S" if pool.shared else "P")
    return f"PT:{letters},U0:{pool.uuid[0]:x},U1:{pool.uuid[1]:x}"


def _pool_long(pool: Pool) -> Keys:
    counts = figures.letters(pool.counts, PoolCount)
    return {"Pc": pool.pages, "Pm": pool.most_pages, "Oc": pool.objects, "Om": pool.most_objects, "Nc": 0, "Nm": 0,
            **{key: counts[key] for key in _POOL_COUNTS}}
