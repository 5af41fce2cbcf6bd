"""Storage under any sequence of calls, short of frames: what was stored comes back, and the kernel agrees."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from storages import GROUP, a_storage, cut, folded, prove_empty, prove_sound, random_bytes, read
from stores import page

from hypervisor.ledger import HEAP
from hypervisor.tmem.forms import Form
from hypervisor.tmem.storage import Storage
from shm.abi import PAGE_SIZE

BUDGET, SWAP_SLOTS = 40, 24
PAGES = {
    "zero": lambda seed: cut(0),
    "cut": lambda seed: cut(seed % (PAGE_SIZE // 8 + 1) * 8, seed),
    "folded": lambda seed: folded(1 + seed % PAGE_SIZE, seed),
    "noise": lambda seed: random_bytes(PAGE_SIZE, seed),
    "twin": lambda seed: page(seed % 3 + 1),
}


class Model:
    """Pages by key, oldest first, beside the storage that holds them; short of frames, it evicts ephemeral ones."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.places: dict[int, int] = {}
        self.contents: dict[int, np.ndarray] = {}
        self.persistent: set[int] = set()
        self.next = 0
        storage.heap.room = self.room

    def room(self, frames: int) -> bool:
        heap, ledger = self.storage.heap, self.storage.heap.ledger
        while frames > ledger.free and self.evict(3):
            heap.trim(frames - ledger.free)
        heap.trim(frames - ledger.free)
        return ledger.reserve(HEAP, frames)

    def evict(self, count: int) -> int:
        victims = [key for key in self.places if key not in self.persistent][:count]
        self.drop(victims)
        return len(victims)

    def drop(self, keys: list[int]) -> None:
        places = np.array([self.places.pop(key) for key in keys], np.uint64)
        for key in keys:
            del self.contents[key]
            self.persistent.discard(key)
        self.storage.free_many(places)

    def enter(self, places: list[int], contents: np.ndarray, persistent: bool) -> None:
        for place, content in zip(places, contents, strict=False):
            self.places[self.next], self.contents[self.next] = place, content
            self.persistent |= {self.next} if persistent else set()
            self.next += 1

    def pick(self, seed: int) -> int | None:
        keys = list(self.places)
        return keys[seed % len(keys)] if keys else None

    def write(self, form: Form, contents: np.ndarray, persistent: bool) -> None:
        got = self.storage.write(form, GROUP, contents[0], persistent)
        self.enter([] if got is None else [got], contents, persistent)

    def write_many(self, form: Form, contents: np.ndarray, persistent: bool) -> None:
        self.enter(self.storage.write_many(form, GROUP, contents, persistent).tolist(), contents, persistent)

    def rewrite(self, form: Form, content: np.ndarray, seed: int) -> None:
        key = self.pick(seed)
        if key is None:
            return
        old, self.places[key] = self.places[key], Storage.zero
        fresh = self.storage.rewrite(old, form, GROUP, content, key in self.persistent)
        if key not in self.places:                           # evicted meanwhile: it had no data then
            self.storage.free(Storage.zero if fresh is None else fresh)
        elif fresh is None:
            self.drop([key])
        else:
            self.places[key], self.contents[key] = fresh, content

    def write_back(self, seed: int) -> None:
        keys = sorted(self.persistent)[:seed % 40]
        moved = self.storage.write_back(np.array([self.places[key] for key in keys], np.uint64))
        self.places.update(zip(keys, moved.tolist(), strict=True))

    def compact(self, limit: int) -> None:
        moves = dict(self.storage.compact(limit).tolist())
        assert len(moves) <= limit
        assert set(moves) <= set(self.places.values())
        self.places = {key: moves.get(place, place) for key, place in self.places.items()}

    def prove(self) -> None:
        places = np.array(list(self.places.values()), np.uint64)
        out = np.full((len(places) + 1, PAGE_SIZE), 0xDB, np.uint8)
        slots = np.arange(len(places))[::-1].copy()
        self.storage.read_many(places, out, slots)
        for slot, content, place in zip(slots.tolist(), self.contents.values(), places.tolist(), strict=True):
            assert (out[slot] == content).all()
            assert (read(self.storage, place) == content).all()
        assert (out[-1] == 0xDB).all()
        prove_sound(self.storage, places)


STEPS = st.lists(st.tuples(
    st.sampled_from(["write", "write_many", "write_many", "rewrite", "free", "free_many", "write_back", "compact"]),
    st.sampled_from(Form), st.sampled_from(sorted(PAGES)), st.integers(0, 1 << 16), st.integers(1, 30), st.booleans(),
), max_size=40)


@given(STEPS)
@example([("write_many", Form.LZ4, "folded", seed, 30, False) for seed in range(1, 400, 20)])
@example([("write_many", Form.LZ4, "noise", 5, 30, True), ("write_many", Form.LZ4, "folded", 30, 30, True)])
def test_pages_come_back_whatever_is_done(steps):
    with a_storage(BUDGET, SWAP_SLOTS) as storage:
        model = Model(storage)
        for what, form, kind, seed, count, persistent in steps:
            contents = np.array([PAGES[kind](seed + i) for i in range(count)])
            keys = list(model.places)
            if what in ("write", "write_many"):
                getattr(model, what)(form, contents, persistent)
            elif what == "rewrite":
                model.rewrite(form, contents[0], seed)
            elif what == "free" and keys:
                key = model.pick(seed)
                storage.free(model.places.pop(key))
                del model.contents[key]
                model.persistent.discard(key)
            elif what == "free_many":
                model.drop(keys[seed % 3::1 + seed % 4][:count])
            elif what == "write_back":
                model.write_back(seed)
            elif what == "compact":
                model.compact(count)
            model.prove()
        model.drop(list(model.places))
        prove_empty(storage)
