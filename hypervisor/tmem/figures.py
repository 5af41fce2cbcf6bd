"""What a store holds, as plain maps for people and for JSON: the whole, and each guest's part.

    of_store     pages, forms, refusals, counters; cheap, it reads counters only
    of_client    a guest's settings, counters, refusals and pools
    tallies      which pool has how many pages of each kind, by one pass over all pages

Nothing is changed here.  Counters go by Xen's letters.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from hypervisor.tmem.clients import Client, ClientCount
from hypervisor.tmem.counts import StoreCount
from hypervisor.tmem.forms import Form, Kind, ats_of, kinds_of
from hypervisor.tmem.heap import RUN
from hypervisor.tmem.pools import Pool, PoolCount
from hypervisor.tmem.slabs import SLAB_BYTES
from hypervisor.tmem.store import Store
from shm.abi import PAGE_SIZE, Refusal

Figures = dict[str, Any]


def letters(values: np.ndarray, names: type[IntEnum]) -> dict[str, int]:
    """Return counters by Xen's letters: of pools in lower case, of clients and the store with a capital."""
    case = str.lower if names is PoolCount else str.capitalize
    return {case(name.name): int(values[name]) for name in names}


def refusals(counts: np.ndarray) -> dict[str, int]:
    """Return how many puts were refused, by reason: those that occurred."""
    return {reason.name.lower(): int(counts[reason]) for reason in Refusal if counts[reason]}


def of_store(store: Store) -> Figures:
    """Return the figures of a whole store."""
    found = store.storage.figures()
    return {
        "pages": len(store.catalogue), "ephemeral": store.ephemeral, "persistent": store.persistent,
        "frames": store.heap.in_use, "spare_frames": store.heap.spare, "frozen": store.clients.frozen,
        "form": store.rules.form.name.lower(), "forms": forms(store, found), "refusals": refusals(store.shelf.refusals),
        "fragmentation": found["fragmentation"], "counters": letters(store.counts, StoreCount),
    }


def forms(store: Store, figures: Mapping[str, int | float]) -> dict[str, Figures]:
    """Return of each kind of stored page: pages, frames, bytes of data in memory, and pages a frame.

    `figures` are the storage's.  Slabs hold lz4 and tze pages side by side: their frames are shared out by the bytes
    of data.
    """
    pages = {"raw": figures["raw_pages"], "lz4": figures["cp"], "tze": figures["tze_pages"],
             "dedup": figures["shared_pages"], "swapped": figures["swapped_pages"]}
    pages["zero"] = len(store.catalogue) - sum(pages.values())
    lz4, tze = _shares(int(figures["slab_frames"]), int(figures["cb"]), int(figures["Zt"]))
    frames = {"raw": figures["raw_pages"], "lz4": lz4, "tze": tze, "dedup": figures["Sc"]}
    data = {"lz4": figures["cb"], "tze": figures["Zt"]}
    return {kind: _form(int(count), int(frames.get(kind, 0)), data.get(kind)) for kind, count in pages.items() if count}


def _shares(frames: int, first: int, second: int) -> tuple[int, int]:
    """Share frames out by bytes of data; whoever has data has a frame."""
    share = round(frames * first / (first + second or 1))
    share = min(max(share, int(first > 0)), frames - (second > 0))
    return share, frames - share


def _form(pages: int, frames: int, data: int | float | None) -> Figures:
    """Return one kind's figures; without slots, its data fills its frames."""
    return {"pages": pages, "frames": frames, "data_bytes": frames * PAGE_SIZE if data is None else int(data),
            "pages_a_frame": pages / frames if frames else None}


def ephemeral_frames(store: Store) -> int:
    """Return how many frames would be free without ephemeral pages, by one pass over all pages.

    A slab is free only when no persistent page is in it; a shared frame has ephemeral pages alone.
    """
    stored = store.catalogue.stored()
    places, lasts = store.catalogue.places[stored], store.catalogue.ages.stamps[stored] == 0
    kinds = kinds_of(places)
    raw = np.count_nonzero((kinds == Kind.RAW) & ~lasts)
    packed = places[lasts & ((kinds == Kind.LZ4) | (kinds == Kind.TZE))]
    kept = len(np.unique(ats_of(packed) // SLAB_BYTES)) * RUN
    return int(raw) + len(store.storage.shared) + store.storage.slabs.frames - kept


def of_client(store: Store, client: Client) -> Figures:
    """Return a guest's standing with the store."""
    numbered = store.pools.numbered(client.number)
    return {
        "weight": client.weight, "cap": client.cap, "form": Form(client.form).name.lower(),
        "frozen": store.clients.is_frozen(client),
        "ephemeral": store.pages_of(client.number, persistent=False),
        "persistent": store.pages_of(client.number, persistent=True),
        "counters": letters(client.counts, ClientCount), "refusals": refusals(client.refusals),
        "pools": [of_pool(pool) | {"number": number} for number, pool in numbered],
    }


def of_pool(pool: Pool) -> Figures:
    """Return the figures of one pool; the name of a shared one is a secret, and is not among them."""
    return {
        "type": "persistent" if pool.persistent else "ephemeral", "shared": pool.shared, "owner": pool.owner,
        "members": list(pool.members), "pages": pool.pages, "most_pages": pool.most_pages, "objects": pool.objects,
        "evicted": pool.evicted, "flushed": pool.flushed, "withdrawn": pool.withdrawn,
        "counters": letters(pool.counts, PoolCount),
    }


def tallies(store: Store) -> dict[int, np.ndarray]:
    """Return, by pool serial, `Storage.tally` of its pages."""
    stored = store.catalogue.stored()
    serials = store.catalogue.serials_of(stored)
    order = np.argsort(serials, kind="stable")
    found, starts = np.unique(serials[order], return_index=True)
    parts = np.split(store.catalogue.places[stored[order]], starts[1:]) if len(found) else []
    return {serial: store.storage.tally(places) for serial, places in zip(found.tolist(), parts, strict=True)}


def compressed(store: Store, client: Client, by_pool: dict[int, np.ndarray]) -> tuple[int, int]:
    """Return how many of a guest's pages are compressed (cp), and their bytes (cb)."""
    own = [by_pool[pool.serial][Kind.LZ4] for pool in store.pools.owned(client.number) if pool.serial in by_pool]
    pages, data = np.sum(own, axis=0).tolist() if own else (0, 0)
    return pages, data
